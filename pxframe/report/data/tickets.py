"""The tickets of a job: density and width by layer, and those with nothing left in places."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pxframe.base.errors import PxframeError
from pxframe.report.data.found import Found
from pxframe.ticket.layers import layers
from pxframe.ticket.ticket import Ticket


@dataclass(frozen=True)
class Profile:
    """What a variant keeps of each layer, means over its seeds.

    Attributes:
        task: whose whole model was pruned; the empty string where the backbone was, for all tasks alike.
        names: of the layers, in their order.
        density: share of the weights kept, in [0, 1], by layer.
        width: share of the output units with at least one weight kept, in [0, 1], by layer.
        seeds: number of tickets that the means are over.
    """

    task: str
    variant: str
    method: str
    sparsity: float
    names: tuple[str, ...]
    density: tuple[float, ...]
    width: tuple[float, ...]
    seeds: int


@dataclass(frozen=True)
class Ill:
    """A ticket that somewhere keeps nothing or next to nothing.

    Attributes:
        emptied: names of layers, or parts of fused ones, with nothing kept.
        nearly: names of those with almost nothing kept, and how many weights.
        collapsed: why the network no longer depends on its input; the empty string where it does.
    """

    task: str
    variant: str
    seed: int
    emptied: tuple[str, ...]
    nearly: Mapping[str, int]
    collapsed: str


@dataclass(frozen=True)
class Tickets:
    """What the ticket files say.

    Attributes:
        notes: on files that could not be read, a sentence each.
        absent: names of variants whose ticket is not in the folder.
    """

    profiles: list[Profile]
    ill: list[Ill]
    notes: list[str]
    absent: list[str]


def read_tickets(found: Found) -> Tickets:
    """Read the ticket of every variant and seed that has a row, but those that keep all weights."""
    kept: dict[tuple[str, str], list[tuple[Mapping[str, Any], list[Any]]]] = {}
    ill, notes, absent = [], [], set()
    seen = set()
    for row in found.rows:
        if not row["sparsity"]:
            continue
        file, task = _place(found.root, row)
        if file is None:
            absent.add(row["variant"])
            continue
        if file in seen:
            continue
        seen.add(file)
        try:
            ticket = Ticket.load(file)
        except PxframeError as error:
            notes.append(f"A ticket is left out: {error}.")
            continue
        kept.setdefault((task, row["variant"]), []).append((row, layers(ticket)))
        state = Ill(
            task,
            row["variant"],
            row["seed"],
            tuple(ticket.emptied),
            ticket.nearly_emptied,
            str(ticket.meta.get("collapsed") or ""),
        )
        if state.emptied or state.nearly or state.collapsed:
            ill.append(state)
    return Tickets([_profile(*key, some) for key, some in kept.items()], ill, notes, sorted(absent))


def _place(root: Path, row: Mapping[str, Any]) -> tuple[Path | None, str]:
    """The ticket's file, and the task whose whole model it is of, if it is."""
    task, name = row["task"], f"{row['variant']}.safetensors"
    if any(Path(part).name != part for part in (task, name)):  # the names are a file's word, and go into a path
        return None, ""
    folder = root / f"seed-{row['seed']}" / "tickets"
    if (folder / task / name).is_file():
        return folder / task / name, task
    return (folder / name, "") if (folder / name).is_file() else (None, "")


def _profile(task: str, variant: str, some: Sequence[tuple[Mapping[str, Any], Sequence[Any]]]) -> Profile:
    names = tuple(layer.name for layer in some[0][1])
    same = [found for _, found in some if tuple(layer.name for layer in found) == names]

    def mean(kept: str, total: str) -> tuple[float, ...]:
        shares = [[getattr(layer, kept) / max(getattr(layer, total), 1) for layer in found] for found in same]
        return tuple(map(statistics.mean, zip(*shares, strict=True)))

    row = some[0][0]
    sparsity = statistics.mean(row["sparsity"] for row, _ in some)
    density, width = mean("kept", "total"), mean("units", "outputs")
    return Profile(task, variant, row["method"], sparsity, names, density, width, len(same))
