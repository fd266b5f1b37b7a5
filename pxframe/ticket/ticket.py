"""A ticket: which weights of a backbone are kept, and how that was decided."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pxframe.base.errors import PxframeError, some, within
from pxframe.running.wrappers import plain_name
from pxframe.ticket import emptied, guard
from pxframe.ticket import file as ticket_file

T = TypeVar("T")


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
        bad = [str(n) for n, m in masks.items() if not isinstance(m, Tensor) or m.dtype != torch.bool]
        if bad or not masks:
            raise PxframeError(f"a ticket needs bool masks by parameter name; {some(bad) or 'none were given'}")
        odd = [repr(n) for n in (*masks, *(start or {})) if not isinstance(n, str) or not n or not n.isprintable()]
        if odd:
            raise PxframeError(f"a ticket needs the names of parameters; got {some(odd)}")
        self.masks = {name: mask.detach().cpu() for name, mask in masks.items()}
        self.meta = dict(meta or {})
        self.start = {name: value.detach().cpu() for name, value in (start or {}).items()}
        _check_start(self.masks, self.start)

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
        """Share of weights kept, in [0, 1], by layer, in the order of :attr:`masks`; 0 for a layer without weights."""
        return {name: int(mask.count_nonzero()) / max(mask.numel(), 1) for name, mask in self.masks.items()}

    @property
    def emptied(self) -> list[str]:
        """The layers with nothing kept; and queries, keys or values of a fused weight, as ``"qkv.weight[q]"``."""
        return emptied.emptied(self.masks, self.meta.get("fused_rows"))

    @property
    def nearly_emptied(self) -> dict[str, int]:
        """Those with almost nothing kept (:func:`pxframe.ticket.emptied.nearly_emptied`), and how many weights."""
        return emptied.nearly_emptied(self.masks, self.meta.get("fused_rows"))

    def save(self, path: str | Path) -> None:
        """Write the ticket to one safetensors file (:mod:`pxframe.ticket.file`), whole or not at all."""
        ticket_file.save(path, self.masks, self.meta, self.start)

    @classmethod
    def load(cls, path: str | Path) -> Ticket:
        """Read the ticket at ``path``. Nothing is unpickled.

        Raises:
            PxframeError: there is no such file, or it is no ticket, a damaged one, or one of another version.
        """
        masks, meta, start = ticket_file.load(path)
        with within(str(path)):
            return cls(masks, meta, start)

    def check(self, model: nn.Module, prefix: str | None = None, partial: bool = False) -> str:
        """Check that the ticket fits ``model`` and change nothing. Arguments, result and errors as in :meth:`apply`."""
        return _locate(self.masks, model, prefix, partial)[0]

    def check_own(self, model: nn.Module) -> None:
        """Check that the ticket fits ``model`` itself, under its own names, not a part of it.

        Raises:
            PxframeError: as in :meth:`apply`, or the names are another module's.
        """
        prefix = self.check(model)
        other = set(self.masks) - {name for name, _ in model.named_parameters(remove_duplicate=False)}
        if other:
            where = f"its part {prefix[:-1]!r}" if prefix else "a module with other names"
            raise PxframeError(
                f"the ticket fits {where}, and not the model as a whole ({some(sorted(other), 1)} is no name there); "
                f"pass the module that it was made from"
            )

    def apply(self, model: nn.Module, prefix: str | None = None, partial: bool = False) -> str:
        """Zero the pruned weights of ``model`` in place; nothing is changed unless everything fits.

        Args:
            model: the backbone, or a model that holds it, such as a segmentor. Both may be wrapped, whole or in part,
                by ``DataParallel``, ``DistributedDataParallel`` or ``torch.compile``.
            prefix: where in ``model`` the backbone is, as in ``"backbone.model."``; found if left out.
            partial: apply the masks that fit by name and shape, if at least one fits.

        Returns:
            The prefix used, without the names of wrappers; ``""`` for the backbone itself.

        Raises:
            PxframeError: names or shapes differ, or several prefixes fit.
        """
        prefix, weights = _locate(self.masks, model, prefix, partial)
        with torch.no_grad():
            for name, weight in weights.items():
                weight.masked_fill_(~self.masks[name].to(weight.device), 0)
        return prefix

    def rewind(self, model: nn.Module, prefix: str | None = None, partial: bool = False) -> str:
        """Copy the values of :attr:`start` into ``model`` in place, and :meth:`apply` the masks.

        Values of parameters and buffers that ``model`` lacks, or has in another shape, are left out: a task replaces
        the classifier of a backbone. Arguments, result and errors as in :meth:`apply`.

        Raises:
            PxframeError: as in :meth:`apply`, or no value of :attr:`start` fits, or one for a parameter is infinite.
        """
        prefix, _ = _locate(self.masks, model, prefix, partial)
        named: dict[str, Tensor] = {
            **dict(model.named_buffers(remove_duplicate=False)),
            **dict(model.named_parameters(remove_duplicate=False)),
        }
        places = {**_by_plain_name(named), **named}
        fits = {n: places.get(prefix + (n if prefix + n in places else plain_name(n))) for n in self.start}
        found = {n: place for n, place in fits.items() if place is not None and place.shape == self.start[n].shape}
        if self.start and not found:
            raise PxframeError(
                f"none of the ticket's {len(self.start)} values to start from fits the model ({some(self.start)}); "
                f"nothing was changed"
            )
        infinite = [
            n for n, place in found.items() if isinstance(place, nn.Parameter) and not _is_finite(self.start[n])
        ]
        if infinite:
            raise PxframeError(f"the ticket's values to start from are infinite in {some(infinite)}; make it anew")
        with torch.no_grad():
            for name, place in found.items():
                place.copy_(self.start[name])
        return self.apply(model, prefix, partial)

    def guard(self, optimizer: Any, model: nn.Module, prefix: str | None = None, partial: bool = False) -> guard.Guard:
        """Train ``model`` as if its pruned weights did not exist, until ``.remove()`` of the result.

        Apply the ticket first. Which optimizers it holds for, and further errors: :func:`pxframe.ticket.guard.guard`.
        Arguments and errors as in :meth:`apply`.
        """
        _, weights = _locate(self.masks, model, prefix, partial)
        return guard.guard(optimizer, [(name, weight, self.masks[name]) for name, weight in weights.items()])


def holds_network(start: Iterable[str], masks: Container[str], parameters: Iterable[str]) -> bool:
    """Whether starting values are the state of a network, as training leaves it, not an update of kept weights.

    Args:
        start, masks, parameters: names: of the values, of the masks, and of all parameters of the model.
    """
    given = set(start)
    return any(name in given and name not in masks for name in parameters)


def _locate(
    masks: Mapping[str, Tensor], model: nn.Module, prefix: str | None, partial: bool
) -> tuple[str, dict[str, nn.Parameter]]:
    """The prefix in ``model`` and its parameters there, by the ticket's names; only those that fit when ``partial``."""
    # Tied parameters are listed under each of their names: the ticket may know them by any.
    named = {n: p for n, p in model.named_parameters(remove_duplicate=False) if not is_lazy(p)}
    found, plain = _by_plain_name(named), _by_plain_name({m: m for m in masks})
    if len(found) < len(named) or len(plain) < len(masks):  # two names differ by a wrapper alone
        found, plain = named, {m: m for m in masks}
    elif prefix:
        prefix = plain_name(prefix if prefix.endswith(".") else f"{prefix}.")
    if prefix is None:
        prefixes = sorted({n[: -len(m)] for n in found for m in plain if n == m or n.endswith(f".{m}")})
    else:
        prefixes = [prefix if prefix.endswith(".") or not prefix else f"{prefix}."]
    fits = {
        p: {m: found[p + n] for n, m in plain.items() if p + n in found and found[p + n].shape == masks[m].shape}
        for p in prefixes
    }
    most = max((len(fit) for fit in fits.values()), default=0)
    if most < len(masks) and not (partial and most):
        raise PxframeError(_difference({n: masks[m] for n, m in plain.items()}, found, prefixes or [""], most))
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


def _by_plain_name(named: Mapping[str, T]) -> dict[str, T]:
    return {plain_name(name): value for name, value in named.items()}


def _check_start(masks: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> None:
    """Check the values to start from as far as the masks alone allow."""
    reshaped = [
        f"{n} {list(start[n].shape)}, mask {list(m.shape)}"
        for n, m in masks.items()
        if n in start and start[n].shape != m.shape
    ]
    if reshaped:
        raise PxframeError(f"values to start from have another shape than their masks: {some(reshaped)}; make it anew")
    # A buffer may be infinite, as masks of attention are; nothing may be NaN.
    bad = [n for n, value in start.items() if _has_nan(value) or (n in masks and not _is_finite(value))]
    if bad:
        raise PxframeError(f"values to start from are NaN or infinite in {some(bad)}; make the ticket anew")


def _has_nan(value: Tensor) -> bool:
    return bool(_readable(value).isnan().any())


def _is_finite(value: Tensor) -> bool:
    return bool(_readable(value).isfinite().all())


def _readable(value: Tensor) -> Tensor:
    """``value``, or a float32 copy of the eight-bit floats, which have no arithmetic."""
    return value.float() if value.is_floating_point() and value.element_size() == 1 else value


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
