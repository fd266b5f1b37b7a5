"""The model as a function of its weights, which is all a scorer sees."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pxframe.base.errors import PxframeError, some
from pxframe.engine.graph import Trace
from pxframe.engine.reading import kept, widest
from pxframe.network.requirements import Requirements
from pxframe.network.ties import Ties
from pxframe.network.traces import Factors, Traces
from pxframe.network.trained import Train, trained
from pxframe.network.written import Written, changed
from pxframe.passes.gradients import gradients, hessian_product
from pxframe.passes.products import Product
from pxframe.passes.samples import sample_gradients
from pxframe.passes.sweep import layer_inputs
from pxframe.running.calls import Loss, explained_loss, explaining_forward, refuse_wrapped
from pxframe.running.inputs import arguments, first, is_cut, mapped
from pxframe.running.measuring import measuring
from pxframe.running.undisturbed import copied, evaluating, undisturbed


class Net:
    """A model, the weights to be scored, and their masks. Nothing here changes the model.

    All tensors are copies of the model's: a scorer that writes into one of them does not reach the model, and
    :meth:`check_untouched` tells.

    Attributes:
        weights: the prunable weights theta, by parameter name, detached; pruned weights keep their value.
        masks: bool tensors of the same names and shapes, true where kept.
        loss: ``loss(output, target) -> scalar``.
        generator: seeded CPU generator, for scorers that draw numbers.
        density: the share of weights to be kept after this round; None where only scores are wanted. A scorer that
            reads it is scored anew for every sparsity.
        held: for layers of which only a part can be pruned: bool tensors of the weights' shapes, true where a weight is
            neither pruned nor ranked. Other layers are not in it.
        quotas: how many weights each layer keeps after this round, by name, those of ``held`` not counted; None with
            one threshold over all layers, and where only scores are wanted. A scorer that reads it is scored anew for
            every sparsity.
        pattern: N and M, where N of every M consecutive inputs are kept; else None.
        ties: which channels of which layers are kept or pruned together, where they are
            (:data:`pxframe.network.ties.Ties`); else empty.
        memory: for the scorer alone: whatever it carries from one round to the next.
        cache: for :mod:`pxframe.scoring.paths` alone: what the path networks carry from one round to the next.
        together: for :mod:`pxframe.passes.samples` alone: by kind of batch and loss, whether gradients of many samples
            can be computed together.
    """

    def __init__(
        self,
        model: nn.Module,
        masks: Mapping[str, Tensor],
        loss: Loss | None = None,
        generator: torch.Generator | None = None,
        train: Train | None = None,
    ) -> None:
        refuse_wrapped(model)
        self._model = model
        self._changed: frozenset[str] = frozenset()
        self._hold(
            {n: p.detach().clone() for n, p in model.named_parameters()},
            {n: b.detach().clone() for n, b in model.named_buffers()},
            masks,
        )
        self._traces = Traces(model)
        self.masks = masks
        self.loss: Loss = explained_loss(loss)
        self.generator = generator or torch.Generator().manual_seed(0)
        self.held: Mapping[str, Tensor] = MappingProxyType({})
        self.memory: dict[Any, Any] = {}
        self.cache: dict[Any, Any] = {}
        self.together: dict[Any, bool] = {}
        self._train = train
        self._requirements = Requirements()
        self._density: float | None = None
        self._quotas: Mapping[str, int] | None = None
        self.pattern: tuple[int, int] | None = None
        self.ties: Ties = MappingProxyType({})
        self._read: set[str] = set()  # one set for the copies that with_() makes, too

    def _hold(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], weights: Iterable[str]) -> None:
        self._parameters, self._buffers = parameters, buffers
        self._written = Written({**parameters, **buffers})
        self.weights: Mapping[str, Tensor] = MappingProxyType({name: parameters[name] for name in weights})

    @property
    def density(self) -> float | None:
        self._read.add("density")
        return self._density

    @density.setter
    def density(self, density: float | None) -> None:
        self._density = density

    @property
    def quotas(self) -> Mapping[str, int] | None:
        self._read.add("density")
        return self._quotas

    @quotas.setter
    def quotas(self, quotas: Mapping[str, int] | None) -> None:
        self._quotas = quotas

    @property
    def density_was_read(self) -> bool:
        return "density" in self._read

    @property
    def masks(self) -> Mapping[str, Tensor]:
        return self._masks

    @masks.setter
    def masks(self, masks: Mapping[str, Tensor]) -> None:
        self._masks = MappingProxyType({name: mask.clone() for name, mask in masks.items()})
        self._masks_written = Written({f"the mask of {name}": mask for name, mask in self._masks.items()})

    def with_(self, *, loss: Loss | None = None, masks: Mapping[str, Tensor] | None = None) -> Net:
        """The same network with another loss or other masks.

        The new net shares traces, memory, cache and unsettled requirements with this one, on purpose: none of them
        depends on loss or masks.
        """
        other = copy.copy(self)
        if loss is not None:
            other.loss = loss
        if masks is not None:
            other.masks = masks
        return other

    def at(self, values: Mapping[str, Tensor]) -> Net:
        """The same network at other values of some parameters and buffers.

        Traces are shared with this net. Memory and cache are new, as they may depend on the values.
        """
        other = copy.copy(self)
        new = {name: value.clone() for name, value in values.items()}
        parameters, buffers = (
            {name: new.get(name, held) for name, held in group.items()} for group in (self._parameters, self._buffers)
        )
        other._hold(parameters, buffers, self.weights)
        other._changed = self._changed | new.keys()
        other.memory, other.cache = {}, {}
        return other

    @property
    def device(self) -> torch.device:
        return next(iter(self._parameters.values())).device

    @property
    def path_dtype(self) -> torch.dtype:
        """The dtype that paths are computed in."""
        return widest(self._parameters.values())

    @property
    def parameters(self) -> dict[str, Tensor]:
        """All parameters, detached, the prunable ones included; to be read only."""
        return dict(self._parameters)

    @property
    def buffers(self) -> dict[str, Tensor]:
        """The model's buffers (BN statistics among them); to be read only."""
        return dict(self._buffers)

    def masked(self) -> dict[str, Tensor]:
        """theta * m: the prunable weights with the pruned ones at zero."""
        return {name: weight * kept(self.masks[name], weight.dtype) for name, weight in self.weights.items()}

    def copied(self) -> nn.Module:
        """A copy of the model in the mode it was handed over in, with the masked weights, for libraries that take one.

        All of its parameters ask for gradients, and hold none.
        """
        model, values = copied(self._model), {**self._parameters, **self._buffers, **self.masked()}
        with torch.no_grad():
            for name, tensor in (*model.named_parameters(), *model.named_buffers()):
                tensor.copy_(values[name])
        return model.requires_grad_()

    def check_untouched(self, where: str, exact: bool = False) -> None:
        """Raise if a weight, buffer or mask of this net was written into.

        Args:
            where: what the message begins with: the scorer, and the round.
            exact: compare the values with the model's own, too. Writing through ``.data`` or NumPy leaves no other
                sign; the comparison waits for the device.

        Raises:
            PxframeError: names the tensor.
        """
        touched = self._written.names() + self._masks_written.names()
        if exact and not touched:
            own = {**dict(self._model.named_parameters()), **dict(self._model.named_buffers())}
            held = {**self._parameters, **self._buffers}
            touched = changed({name: tensor for name, tensor in held.items() if name not in self._changed}, own)
        if touched:
            raise PxframeError(
                f"{where} wrote into {some(touched)} in place; a scorer must work on copies (tensor.clone()). "
                f"The model itself is unchanged"
            )

    def __call__(self, inputs: Any, weights: Mapping[str, Tensor] | None = None) -> Any:
        """The model's output with ``weights`` in place of its own (default: the masked ones).

        Of a tuple or list of ``inputs`` it is that of ``model(*inputs)``, of a dict that of ``model(**inputs)``.

        The model runs in the mode it was handed over in. Whatever ``forward`` changes on the way (BN statistics,
        counters, cached tensors, its input, parameters that are not in ``weights``) are copies.

        Raises:
            PxframeError: the model fails on these inputs; names their shape and dtype.
        """
        weights = self.masked() if weights is None else weights
        # Buffers of the model itself are kept by undisturbed().
        own = {**self._parameters, **{n: b for n, b in self._buffers.items() if n in self._changed}}
        others = {name: value.clone() for name, value in own.items() if name not in weights}
        with undisturbed(self._model), explaining_forward(inputs):
            args, kwargs = arguments(mapped(torch.clone, inputs))
            return functional_call(self._model, {**others, **weights}, args, kwargs)

    def evaluating(self) -> AbstractContextManager[None]:
        """Eval mode inside the block."""
        return evaluating(self._model)

    def measuring(self, reached: dict[str, int]) -> AbstractContextManager[None]:
        """Eval mode inside the block, but batch norms write statistics of their inputs into the buffers given."""
        return measuring(self._model, reached)

    def gradients(
        self, batches: Iterable[tuple[Any, Any]], weights: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Sum over ``batches`` of dL/dw, at ``weights`` (default: the masked ones), by name; zero where unused.

        Raises:
            PxframeError: model or loss fail on a batch; names the batch.
        """
        return gradients(self, batches, weights)

    def layer_inputs(self, batches: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Product, Tensor]]:
        """The inputs of each layer of the masked network in eval mode, for one part of the data after the other.

        Yields:
            the product ``W X`` of a layer, in the order of the computation, and ``X [groups, columns, positions]``: the
            tokens of a linear layer, the unfolded maps of a convolution. ``product.name`` is the weight's name, and
            ``weight.flatten()[product.index]`` is ``W [groups, rows, columns]``. A fused weight that is used in parts
            gives a product for each. Layers of :func:`pxframe.passes.products.find_products` alone are given.
        """
        return layer_inputs(self, batches)

    def sample_gradients(
        self,
        batches: Iterable[tuple[Any, Any]],
        names: Iterable[str] | None = None,
        chunk: int | None = None,
        rows: int | None = None,
    ) -> Iterator[dict[str, Tensor]]:
        """dL_n/d(theta m) of every single sample n, in eval mode, chunk by chunk: ``[samples, *shape]`` by name.

        L_n is the loss of a batch in which the sample is alone. In eval mode the samples of a batch do not meet in a
        batch norm. Gradients of an output y in place of a loss are those of ``with_(loss=lambda y, v: (y * v).sum())``,
        v standing for the target.

        Args:
            names: of the parameters wanted; default: all prunable weights.
            chunk: samples at most in a chunk; default: 8, or fewer if their gradients would take more than 128 MB in
                float32.
            rows: the loss gives a vector of so many numbers for a sample. The gradient of each is taken, from one
                forward pass: ``[samples, rows, *shape]``.

        Raises:
            PxframeError: model or loss fail on a batch, or a batch cannot be divided into samples; names the batch.
        """
        return sample_gradients(self, batches, names, chunk, rows)

    def hessian_product(
        self, batch: tuple[Any, Any], weights: Mapping[str, Tensor], vector: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """H v of one batch's loss at ``weights``: d<dL/dw, v>/dw with v constant, by name; zero where unused."""
        return hessian_product(self, batch, weights, vector)

    def require(self, condition: Tensor, message: str) -> None:
        """Raise ``message`` after this round of scoring unless ``condition`` (a bool on the device) holds.

        Asking at once would make the host wait for the device in the middle of a round.
        """
        self._requirements.add(condition, message)

    def settle(self) -> None:
        """Raise the first message whose condition did not hold; asks the device once."""
        self._requirements.settle()

    def trained(
        self, state: Mapping[str, Tensor] | None = None, start: int = 0, stop: int | None = None
    ) -> dict[str, Tensor]:
        """The state (parameters and buffers) of a copy of the model, trained at the current masks.

        Args:
            state: what the copy starts from; default: the model's own.
            start, stop: optimizer steps to train between.

        Raises:
            PxframeError: training let pruned weights move away from zero.
        """
        assert self._train is not None  # the core asks for it where a scorer needs training
        return trained(self._model, self._train, self.masks, state, start, stop, self.generator.initial_seed())

    def one(self, inputs: Any) -> Any:
        """The first sample of a batch, for methods that trace the model.

        Raises:
            PxframeError: the batch cannot be divided into samples, or a model that takes lists cannot be traced.
        """
        if not is_cut(inputs):
            self.trace(inputs)  # a model that cannot be traced at all says why
        return first(inputs)

    def trace(self, inputs: Any, *, factors: Factors = "recorded") -> Trace:
        """The model's aten graph in eval mode for inputs of this shape, made once and kept.

        Args:
            factors: ``"shared"``: what only makes a factor has path values too (see
                :mod:`pxframe.engine.factors.sharing`).
        """
        return self._traces.of(inputs, factors)
