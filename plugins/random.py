"""Uniform scores: the baseline every method must beat."""

import torch

import pxframe


class Random(pxframe.Scorer):
    """s ~ U(0, 1), drawn on the CPU, so that a seed gives the same ticket on every device."""

    name = "random"
    needs = "nothing"

    def score(self, net, batches):
        return {
            name: torch.rand(weight.shape, generator=net.generator).to(weight.device)
            for name, weight in net.weights.items()
        }


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(Random)
