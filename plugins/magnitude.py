"""Magnitude: keeps the largest weights."""

import pxframe


class Magnitude(pxframe.Scorer):
    """s = |theta|."""

    name = "magnitude"
    needs = "nothing"

    def score(self, net, batches):
        return {name: weight.abs() for name, weight in net.weights.items()}


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(Magnitude)
