"""A ticket: which weights of a backbone are kept, and how that was decided."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from pxframe.base.errors import PxframeError, some
from pxframe.ticket import file as ticket_file
from pxframe.ticket import guard


class Ticket:
    """The masks of a backbone's prunable weights.

    Attributes:
        masks: bool CPU tensors by the backbone's parameter names, true where kept.
        meta: how it was made; JSON-able. A file gives tuples back as lists and keys as strings.
        start: CPU tensors by names of parameters and buffers: what training is to start from, where that is not the
            backbone's own values (rewound, drawn anew or rescaled). Mostly empty.
    """

    def __init__(
        self,
        masks: Mapping[str, Tensor],
        meta: Mapping[str, Any] | None = None,
        start: Mapping[str, Tensor] | None = None,
    ) -> None:
        bad = [n for n, m in masks.items() if not isinstance(m, Tensor) or m.dtype != torch.bool]
        if bad or not masks:
            raise PxframeError(f"a ticket needs bool masks by parameter name; {some(bad) or 'none were given'}")
        self.masks = {name: mask.detach().cpu() for name, mask in masks.items()}
        self.meta = dict(meta or {})
        self.start = {name: value.detach().cpu() for name, value in (start or {}).items()}

    def __repr__(self) -> str:
        return f"Ticket({self.sparsity:.2%} sparse, {self.kept} of {self.total} weights in {len(self.masks)} layers)"

    @property
    def total(self) -> int:
        """Number of prunable weights."""
        return sum(mask.numel() for mask in self.masks.values())

    @property
    def kept(self) -> int:
        """Number of weights kept."""
        return sum(int(mask.count_nonzero()) for mask in self.masks.values())

    @property
    def sparsity(self) -> float:
        """Share of the prunable weights that is pruned, in [0, 1], as reached (not as asked for)."""
        return 1 - self.kept / max(self.total, 1)

    def density_per_layer(self) -> dict[str, float]:
        """Share of weights kept, in [0, 1], by layer."""
        return {name: int(mask.count_nonzero()) / max(mask.numel(), 1) for name, mask in self.masks.items()}

    @property
    def emptied(self) -> list[str]:
        """The layers with nothing kept."""
        return [name for name, mask in self.masks.items() if mask.numel() and not mask.any()]

    def save(self, path: str | Path) -> None:
        """Write the ticket to one safetensors file (:mod:`pxframe.ticket.file`), whole or not at all."""
        ticket_file.save(path, self.masks, self.meta, self.start)

    @classmethod
    def load(cls, path: str | Path) -> Ticket:
        """Read a ticket; a file that is none, or damaged, is a :class:`pxframe.PxframeError`. Never unpickles."""
        return cls(*ticket_file.load(path))

    def check(self, model: nn.Module, prefix: str | None = None, partial: bool = False) -> str:
        """Raise what :meth:`apply` would, and change nothing; returns the prefix."""
        return _locate(self.masks, model, prefix, partial)[0]

    def apply(self, model: nn.Module, prefix: str | None = None, partial: bool = False) -> str:
        """Zero the pruned weights of ``model`` in place; nothing is changed unless everything fits.

        Args:
            model: the backbone, or anything that holds it (a segmentor, a DDP or compiled module).
            prefix: where in ``model`` the backbone is, as in ``"backbone.model."``; found when left out.
            partial: apply what fits by name and shape, if that is at least one layer.

        Returns:
            The prefix used, ``""`` for the backbone itself.

        Raises:
            PxframeError: names or shapes differ, or several prefixes fit.
        """
        prefix, weights = _locate(self.masks, model, prefix, partial)
        with torch.no_grad():
            for name, weight in weights.items():
                weight.masked_fill_(~self.masks[name].to(weight.device), 0)
        return prefix

    def rewind(self, model: nn.Module, prefix: str | None = None, partial: bool = False) -> str:
        """Set ``model`` to :attr:`start` in place, where the ticket has such values, and :meth:`apply` the masks.

        What ``start`` holds beyond the ticket's layers and ``model`` has not (a classifier that a task replaced) is
        left out. Arguments, result and errors as in :meth:`apply`.
        """
        prefix = self.apply(model, prefix, partial)
        state = model.state_dict()
        with torch.no_grad():
            for name, value in self.start.items():
                if prefix + name in state and state[prefix + name].shape == value.shape:
                    state[prefix + name].copy_(value)
        return self.apply(model, prefix, partial)

    def guard(
        self, optimizer: Optimizer, model: nn.Module, prefix: str | None = None, partial: bool = False
    ) -> RemovableHandle:
        """Keep pruned weights exactly zero through every step of ``optimizer``, until ``.remove()`` of the result.

        Apply the ticket first. Arguments and errors as in :meth:`apply`, further errors as in
        :func:`pxframe.ticket.guard.guard`.
        """
        _, weights = _locate(self.masks, model, prefix, partial)
        return guard.guard(optimizer, [(name, weight, self.masks[name]) for name, weight in weights.items()])


def _locate(
    masks: Mapping[str, Tensor], model: nn.Module, prefix: str | None, partial: bool
) -> tuple[str, dict[str, nn.Parameter]]:
    """The prefix in ``model`` and its parameters there, by the ticket's names; only those that fit when ``partial``."""
    # Tied parameters are listed under each of their names: the ticket may know them by any.
    found = {n: p for n, p in model.named_parameters(remove_duplicate=False) if not is_lazy(p)}
    if prefix is None:
        prefixes = sorted({n[: -len(m)] for n in found for m in masks if n == m or n.endswith(f".{m}")})
    else:
        prefixes = [prefix if prefix.endswith(".") or not prefix else f"{prefix}."]
    fits = {
        p: {m: found[p + m] for m in masks if p + m in found and found[p + m].shape == masks[m].shape} for p in prefixes
    }
    most = max((len(fit) for fit in fits.values()), default=0)
    if most < len(masks) and not (partial and most):
        raise PxframeError(_difference(masks, found, prefixes or [""], most))
    best = [p for p in prefixes if len(fits[p]) == most]
    if most == len(masks) and "" in best:
        best = [""]
    # One backbone reached by two paths is no ambiguity.
    if len({tuple(id(w) for w in fits[p].values()) for p in best}) > 1:
        raise PxframeError(
            f"the ticket fits under several prefixes: {some(map(repr, best))}; pass prefix= to choose one"
        )
    weights = fits[best[0]]
    unloaded = [name for name, weight in weights.items() if weight.is_meta]
    if unloaded:
        raise PxframeError(f"{some(unloaded)}: the model is on the meta device; load its weights first")
    return best[0], weights


def _difference(masks: Mapping[str, Tensor], found: Mapping[str, Tensor], prefixes: list[str], most: int) -> str:
    """What keeps the ticket from fitting, under the prefix where it comes closest: most that fit, then most names."""

    def closeness(prefix: str) -> tuple[int, int]:
        here = [m for m in masks if prefix + m in found]
        return sum(found[prefix + m].shape == masks[m].shape for m in here), len(here)

    prefix = max(prefixes, key=closeness)
    missing = [m for m in masks if prefix + m not in found]
    reshaped = [
        f"{m} ticket {list(masks[m].shape)} model {list(found[prefix + m].shape)}"
        for m in masks
        if prefix + m in found and found[prefix + m].shape != masks[m].shape
    ]
    parts = [f"{len(missing)} of {len(masks)} names missing ({some(missing)})"] if missing else []
    parts += [f"{len(reshaped)} of another shape ({some(reshaped)})"] if reshaped else []
    if len(missing) == len(masks):
        parts.append(f"the model has {some(found) or 'no parameters'}")
    return (
        f"the ticket does not fit the model under prefix {prefix!r}: {'; '.join(parts)}; "
        f"nothing was changed; partial=True applies what fits ({most} of {len(masks)})"
    )
