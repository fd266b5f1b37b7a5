"""Uniform scores: the baseline every method must beat."""

import torch

import pxframe


class Random(pxframe.Scorer):
    """s ~ U(0, 1), drawn on the CPU, so that a seed gives the same ticket on every device."""

    name = "random"
    needs = "nothing"

    def score(self, net, batches):
        return _drawn(net, {name: weight.shape for name, weight in net.weights.items()})

    def score_channels(self, net, batches):
        """One draw a channel: a sum over its weights would favour the large ones."""
        return _drawn(net, {name: weight.shape[:1] for name, weight in net.weights.items()})


def _drawn(net, shapes):
    return {name: torch.rand(shape, generator=net.generator).to(net.device) for name, shape in shapes.items()}


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(Random, control=True)
