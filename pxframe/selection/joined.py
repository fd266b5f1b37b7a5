"""Channels of several layers that are kept or pruned together, since only together can they be removed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pxframe.base.devices import sent
from pxframe.base.errors import PxframeError
from pxframe.network.ties import Ties, joined, summed
from pxframe.running.undisturbed import copied
from pxframe.selection.granularity import Channel
from pxframe.slimming.groups import Graph, Group

_SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": summed,
    "mean": lambda scores: scores.mean(0),
    "max": lambda scores: scores.amax(0),
}


@dataclass(frozen=True)
class JoinedChannels(Channel):
    """Channels of a model whose groups are known.

    Attributes:
        ties: which rows of which weights they are, on the device of the masks.
    """

    ties: Ties = field(default_factory=dict)

    def fitting(self, weights: Mapping[str, Tensor]) -> list[str]:
        joined = {layer for members in self.ties.values() for layer in members}
        return [name for name in weights if name in joined]

    def of_layers(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        rows = {name: self.entries(mask) for name, mask in masks.items()}
        found = {}
        for group, members in self.ties.items():
            parts = [rows[layer][at] for layer, at in members.items() if layer in rows]
            if parts:
                found[group] = torch.stack(parts).any(0)
        return found

    def to_layers(self, chosen: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        kept = {}
        for group, members in self.ties.items():
            for layer, at in members.items():
                rows = torch.zeros(len(masks[layer]), dtype=torch.bool, device=masks[layer].device)
                rows[at] = chosen[group]
                kept[layer] = self.expand(rows, masks[layer])
        return {name: kept[name] for name in masks}

    def join(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(scores) if self.scores_groups else joined(self.ties, scores, _SCORES[self.groups or "sum"])

    def entry_costs(self, costs: Mapping[str, int], masks: Mapping[str, Tensor]) -> dict[str, float]:
        single = super().entry_costs(costs, masks)
        return {group: sum(single[layer] for layer in members) for group, members in self.ties.items()}


def join_channels(channel: Channel, model: nn.Module, example: Any, names: Collection[str]) -> JoinedChannels:
    """Find the groups of a model's channels; layers whose channels cannot be removed stay dense.

    Args:
        channel: its options are taken over.
        example: inputs of the model.
        names: the prunable weights. A group in which another layer takes part stays dense as a whole.

    Raises:
        PxframeError: there is no example, Torch-Pruning is missing or cannot read the model, or nothing can be removed.
    """
    if example is None:
        raise PxframeError("granularity 'channel' with groups runs the model once: pass batches")
    trial = copied(model).eval().requires_grad_()
    device = next(trial.parameters()).device
    ties = {}
    for group in Graph(trial, example).groups():
        members = {f"{name}.weight" if name else "weight": at for name, at in group.makers.items()}
        if not group.whole and all(name in names for name in members) and _match(group, trial):
            ties[f"{group.root}.weight"] = {n: sent(torch.tensor(at).flatten(), device) for n, at in members.items()}
    if not ties:
        raise PxframeError("granularity 'channel' with groups: no channels of the model can be removed together")
    return JoinedChannels(channel.compute_aware, channel.groups, ties)


def _match(group: Group, model: nn.Module) -> bool:
    """Whether each channel of the group is one row of every layer that makes it, and each row one channel."""
    for name, at in group.makers.items():
        rows = [index for indices in at for index in indices]
        layer: Any = model.get_submodule(name)
        if sorted(rows) != list(range(len(layer.weight))) or any(len(indices) != 1 for indices in at):
            return False
    return True
