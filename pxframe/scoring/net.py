"""The model as a function of its weights, which is all a scorer sees."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pxframe.base.errors import PxframeError, some, within
from pxframe.base.inputs import arguments, divisible, first, is_cut, mapped, signature
from pxframe.base.measuring import measuring
from pxframe.base.threads import repeatable
from pxframe.base.undisturbed import evaluating, seeded, undisturbed
from pxframe.engine.graph import Trace
from pxframe.engine.reading import kept, widest
from pxframe.engine.sharing import sharing
from pxframe.engine.trace import trace_model
from pxframe.scoring.batches import Batches
from pxframe.scoring.model import Loss, explained_loss, explaining_forward, refuse_wrapped
from pxframe.scoring.products import Product
from pxframe.scoring.samples import sample_gradients
from pxframe.scoring.sweep import layer_inputs
from pxframe.ticket.ticket import Ticket

#: Whether a factor (an attention weight, a gate) only multiplies the paths, or shares their score.
Factors = Literal["shared", "recorded"]
FACTORS = get_args(Factors)
#: ``train(model, ticket, start=0, stop=None)`` trains ``model`` in place with what the ticket prunes kept at zero, from
#: optimizer step ``start`` up to step ``stop`` of its schedule (None: to its end), the same way every time.
Train = Callable[..., None]


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
        held: bool tensors of the weights' shapes, true where weights of a layer are neither pruned nor ranked although
            others of it are; layers without such weights are left out.
        quotas: how many entries (weights) each layer keeps after this round, those held not counted, by name; None with
            one threshold over all layers, and where only scores are wanted. A scorer that reads it is scored anew for
            every sparsity.
        pattern: N and M, where N of every M consecutive inputs are kept; else None.
        memory: for the scorer alone: whatever it carries from one round to the next.
        cache: for :mod:`pxframe.scoring.paths` alone: what the path networks carry from one round to the next.
        together: for :mod:`pxframe.scoring.samples` alone: by kind of batch and loss, whether gradients of many samples
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
        self._traces: dict[Any, Trace] = {}
        self.masks = masks
        self.loss: Loss = explained_loss(loss)
        self.generator = generator or torch.Generator().manual_seed(0)
        self.held: Mapping[str, Tensor] = MappingProxyType({})
        self.memory: dict[Any, Any] = {}
        self.cache: dict[Any, Any] = {}
        self.together: dict[Any, bool] = {}
        self._train = train
        self._required: list[tuple[Tensor, str]] = []
        self._density: float | None = None
        self._quotas: Mapping[str, int] | None = None
        self.pattern: tuple[int, int] | None = None
        self._read: set[str] = set()  # one set for the copies that with_() makes, too

    def _hold(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], weights: Iterable[str]) -> None:
        self._parameters, self._buffers = parameters, buffers
        self._versions = [t._version for t in (*parameters.values(), *buffers.values())]
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
        self._mask_versions = [mask._version for mask in self._masks.values()]

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

    def check_untouched(self, where: str, exact: bool = False) -> None:
        """Raise if a weight, buffer or mask of this net was written into.

        Args:
            where: what the message begins with: the scorer, and the round.
            exact: compare the values with the model's own, too. Writing through ``.data`` or NumPy leaves no other
                sign; the comparison waits for the device.

        Raises:
            PxframeError: names the tensor.
        """
        tensors = {**self._parameters, **self._buffers}
        touched = [name for (name, t), v in zip(tensors.items(), self._versions, strict=True) if t._version != v]
        for (name, mask), version in zip(self._masks.items(), self._mask_versions, strict=True):
            if mask._version != version:
                touched.append(f"the mask of {name}")
        if exact and not touched:
            own = {**dict(self._model.named_parameters()), **dict(self._model.named_buffers())}
            left = tensors.keys() - self._changed
            touched = [name for name, tensor in tensors.items() if name in left and not _same(tensor, own[name])]
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
        base = self.masked() if weights is None else weights
        leaves = {n: w.detach().requires_grad_() for n, w in base.items()}
        total = {n: torch.zeros_like(w) for n, w in leaves.items()}
        with torch.enable_grad():
            for number, (inputs, targets) in enumerate(batches):
                # A scorer that hands over single batches numbers them itself.
                with within(f"batch {number}") if isinstance(batches, Batches) else nullcontext():
                    loss = self.loss(self(inputs, leaves), targets)
                if loss.ndim:
                    raise PxframeError(f"the loss gave a tensor of shape {tuple(loss.shape)}; it must be a scalar")
                with repeatable(divisible(inputs) or 1):
                    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
                for name, gradient in zip(leaves, found, strict=True):
                    if gradient is not None:
                        total[name] += gradient
        return total

    def layer_inputs(self, batches: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Product, Tensor]]:
        """The inputs of each layer of the masked network in eval mode, for one part of the data after the other.

        Yields:
            the product ``W X`` of a layer, in the order of the computation, and ``X [groups, columns, positions]``: the
            tokens of a linear layer, the unfolded maps of a convolution. ``product.name`` is the weight's name, and
            ``weight.flatten()[product.index]`` is ``W [groups, rows, columns]``. A fused weight that is used in parts
            gives a product for each. Layers of :func:`pxframe.scoring.products.find_products` alone are given.
        """
        return layer_inputs(self, batches)

    def sample_gradients(
        self, batches: Iterable[tuple[Any, Any]], names: Iterable[str] | None = None, chunk: int | None = None
    ) -> Iterator[dict[str, Tensor]]:
        """dL_n/d(theta m) of every single sample n, in eval mode, chunk by chunk: ``[samples, *shape]`` by name.

        L_n is the loss of a batch in which the sample is alone. In eval mode the samples of a batch do not meet in a
        batch norm. Gradients of an output y in place of a loss are those of ``with_(loss=lambda y, v: (y * v).sum())``,
        v standing for the target.

        Args:
            names: of the weights wanted; default: all prunable ones.
            chunk: samples at most in a chunk; default: 8, or fewer if their gradients would take more than 128 MB in
                float32.

        Raises:
            PxframeError: model or loss fail on a batch, or a batch cannot be divided into samples; names the batch.
        """
        return sample_gradients(self, batches, names, chunk)

    def hessian_product(
        self, batch: tuple[Any, Any], weights: Mapping[str, Tensor], vector: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """H v of one batch's loss at ``weights``: d<dL/dw, v>/dw with v constant, by name; zero where unused."""
        inputs, targets = batch
        leaves = {n: w.detach().requires_grad_() for n, w in weights.items()}
        ends = list(leaves.values())
        with torch.enable_grad():
            loss = self.loss(self(inputs, leaves), targets)
            first = torch.autograd.grad(loss, ends, create_graph=True, materialize_grads=True)
            bent = {n: g for n, g in zip(leaves, first, strict=True) if g.requires_grad}
            along = [vector[n] for n in bent]
            found = torch.autograd.grad(list(bent.values()), ends, along, materialize_grads=True)
        return dict(zip(leaves, found, strict=True))

    def require(self, condition: Tensor, message: str) -> None:
        """Raise ``message`` after this round of scoring unless ``condition`` (a bool on the device) holds.

        Asking at once would make the host wait for the device in the middle of a round.
        """
        self._required.append((condition, message))

    def settle(self) -> None:
        """Raise the first message whose condition did not hold; asks the device once."""
        required, self._required = self._required, []
        if required:
            held = torch.stack([condition for condition, _ in required]).tolist()
            for (_, message), holds in zip(required, held, strict=True):
                if not holds:
                    raise PxframeError(message)

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
        with torch.no_grad(), undisturbed(self._model):  # a tensor with a gradient history could not be copied
            model = copy.deepcopy(self._model)
        model.load_state_dict({**model.state_dict(), **(state or {})})
        ticket = Ticket(self.masks)
        ticket.apply(model)
        with seeded(self.generator.initial_seed(), self.device):
            self._train(model, ticket, start=start, stop=stop)
        found = {n: t.detach().to(self.device, copy=True) for n, t in model.state_dict().items()}
        gone = [n for n in self.masks if n not in found]
        if gone:
            raise PxframeError(f"the model that 'train' leaves has no {some(gone)} any more; exclude it")
        # One question to the device for all layers; NaN differs from zero too.
        grown = torch.stack([((found[n] != 0) & ~mask).any() for n, mask in self.masks.items()]).tolist()
        moved = [n for n, has_grown in zip(self.masks, grown, strict=True) if has_grown]
        if moved:
            raise PxframeError(
                f"'train' let pruned weights of {some(moved)} grow back; call ticket.guard(optimizer, model)"
            )
        return found

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
            factors: ``"shared"``: what only makes a factor has path values too (see :mod:`pxframe.engine.sharing`).
        """
        key = (signature(inputs), factors)
        if key not in self._traces:
            if factors == "shared":
                self._traces[key] = sharing(self.trace(inputs))
            else:
                self._traces[key] = trace_model(self._model, inputs)
        return self._traces[key]


def _same(held: Tensor, own: Tensor) -> bool:
    return torch.equal(held, own) or (held.is_floating_point() and torch.allclose(held, own, 0, 0, equal_nan=True))
