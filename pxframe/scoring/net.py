"""The model as a function of its weights, which is all a scorer sees."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from pxframe.base.errors import PxframeError, some
from pxframe.base.undisturbed import evaluating, seeded
from pxframe.engine.trace import Trace, trace_model
from pxframe.ticket.ticket import Ticket

Loss = Callable[[Any, Any], Tensor]
#: ``train(model, ticket, start=0, stop=None)`` trains ``model`` in place with what the ticket prunes kept at zero, from
#: optimizer step ``start`` up to step ``stop`` of its schedule (None: to its end), the same way every time.
Train = Callable[..., None]


class Net:
    """A model, the weights to be scored, and their masks. Nothing here changes the model.

    Attributes:
        weights: the prunable weights theta, by parameter name, detached; pruned ones keep their value.
        masks: bool tensors of the same names and shapes, true where kept.
        loss: ``loss(output, target) -> scalar``.
        generator: seeded CPU generator, for scorers that draw numbers.
        density: the share of weights to be kept after this round; None where scores are all that is asked for.
        memory: whatever a scorer carries from one round to the next.
    """

    density: float | None = None

    def __init__(
        self,
        model: nn.Module,
        masks: Mapping[str, Tensor],
        loss: Loss | None = None,
        generator: torch.Generator | None = None,
        train: Train | None = None,
    ) -> None:
        self._model = model
        self._parameters = {n: p.detach() for n, p in model.named_parameters()}
        self._traces: dict[Any, Trace] = {}
        self.weights = {name: self._parameters[name] for name in masks}
        self.masks = dict(masks)
        self.loss: Loss = _explained(loss or F.cross_entropy)
        self.generator = generator or torch.Generator().manual_seed(0)
        self.memory: dict[Any, Any] = {}
        self._train = train
        self._required: list[tuple[Tensor, str]] = []

    @property
    def device(self) -> torch.device:
        return next(iter(self._parameters.values())).device

    @property
    def parameters(self) -> dict[str, Tensor]:
        """All parameters, detached, the prunable ones included."""
        return dict(self._parameters)

    @property
    def buffers(self) -> dict[str, Tensor]:
        """The model's buffers (BN statistics among them): its own, to be read only."""
        return {n: b.detach() for n, b in self._model.named_buffers()}

    def masked(self) -> dict[str, Tensor]:
        """theta * m: the prunable weights with the pruned ones at zero."""
        return {name: weight * self.masks[name] for name, weight in self.weights.items()}

    def __call__(self, inputs: Tensor, weights: Mapping[str, Tensor] | None = None) -> Any:
        """The model's output with ``weights`` in place of its own (default: the masked ones).

        The model runs in the mode it was handed over in; buffers it updates on the way (BN statistics) are copies, and
        so is the input, which its first operation may work on in place.
        """
        buffers = {n: b.clone() for n, b in self._model.named_buffers()}
        weights = self.masked() if weights is None else weights
        return functional_call(self._model, {**self._parameters, **buffers, **weights}, (inputs.clone(),))

    def evaluating(self) -> AbstractContextManager[None]:
        """Eval mode inside the block."""
        return evaluating(self._model)

    def gradients(
        self, batches: Iterable[tuple[Tensor, Tensor]], weights: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Sum over ``batches`` of dL/dw, at ``weights`` (default: the masked ones), by name; zero where unused."""
        base = self.masked() if weights is None else weights
        leaves = {n: w.detach().requires_grad_() for n, w in base.items()}
        total = {n: torch.zeros_like(w) for n, w in leaves.items()}
        with torch.enable_grad():
            for inputs, targets in batches:
                loss = self.loss(self(inputs, leaves), targets)
                if loss.ndim:
                    raise PxframeError(f"the loss gave a tensor of shape {tuple(loss.shape)}; it must be a scalar")
                found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
                for name, gradient in zip(leaves, found, strict=True):
                    if gradient is not None:
                        total[name] += gradient
        return total

    def hessian_product(
        self, batch: tuple[Tensor, Tensor], weights: Mapping[str, Tensor], vector: Mapping[str, Tensor]
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
        moved = [n for n, mask in self.masks.items() if bool(found[n].masked_select(~mask).any())]
        if moved:
            raise PxframeError(
                f"'train' let pruned weights of {some(moved)} grow back; call ticket.guard(optimizer, model)"
            )
        return found

    def trace(self, inputs: Tensor) -> Trace:
        """The model's aten graph in eval mode for inputs of this shape, made once and kept."""
        key = (tuple(inputs.shape), inputs.dtype, inputs.device)
        if key not in self._traces:
            self._traces[key] = trace_model(self._model, inputs)
        return self._traces[key]


def _explained(loss: Loss) -> Loss:
    """``loss``, whose failure on outputs and targets that do not belong together costs one line."""

    def wrapped(output: Any, target: Any) -> Tensor:
        try:
            return loss(output, target)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            shapes = [list(t.shape) if isinstance(t, Tensor) else type(t).__name__ for t in (output, target)]
            raise PxframeError(
                f"there is no loss of an output {shapes[0]} and targets {shapes[1]} "
                f"({' '.join(str(error).split())[:200]}); score on images with targets of the network's own task, "
                f"or with a scorer that reads none"
            ) from error

    return wrapped
