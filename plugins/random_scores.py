"""Random scores: the baseline that every method must beat."""

import torch

import pxframe
from pxframe.base.devices import sent


class Random(pxframe.Scorer):
    """s ~ U(0, 1), float32. Scores are drawn on the CPU, so that a seed gives the same ticket on every device."""

    name = "random"
    needs = "nothing"

    def score(self, net, batches):
        return _drawn(net, {name: weight.shape for name, weight in net.weights.items()})

    def score_channels(self, net, batches):
        """Draw one score a channel. A sum of scores over weights would favour channels with many weights."""
        return _drawn(net, {name: weight.shape[:1] for name, weight in net.weights.items()})

    def score_groups(self, net, batches):
        """Draw one score an entry. A sum of scores over layers would favour groups of many layers."""
        return _drawn(net, {group: next(iter(members.values())).shape for group, members in net.ties.items()})


def _drawn(net, shapes):
    return {name: sent(torch.rand(shape, generator=net.generator), net.device) for name, shape in shapes.items()}


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(Random, control=True)
