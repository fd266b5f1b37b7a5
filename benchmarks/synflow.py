"""SynFlow in 100 rounds against the authors' algorithm: whole calls on the same weights, in processor time.

    OMP_NUM_THREADS=1 python benchmarks/synflow.py [--pairs 5]

The other side is written from the paper (Tanaka et al. 2020, Alg. 1) with what the authors use for each step: layers
that multiply their weights by masks, signs taken off all tensors and put back, one input of ones in eval mode, autograd
by all parameters, ``torch.kthvalue`` for the threshold. It works in float32, and checks nothing. Both sides agree after
a round. Over 100 rounds differences of rounding grow: a run in float64 has 76 % in common with one in float32.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pxframe

DENSITY, ROUNDS = 0.02, 100


class MaskedConv(nn.Conv2d):
    mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.mask * self.weight, self.bias)


class MaskedLinear(nn.Linear):
    mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.mask * self.weight, self.bias)


def published(model: nn.Module, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Masks by weight name, as the authors' algorithm gives them."""
    model = copy.deepcopy(model).eval()
    layers = {}
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.__class__ = MaskedConv if isinstance(layer, nn.Conv2d) else MaskedLinear
            layer.register_buffer("mask", torch.ones_like(layer.weight))
            layers[f"{name}.weight"] = layer
    for number in range(1, ROUNDS + 1):
        with torch.no_grad():
            signs = {name: tensor.sign() for name, tensor in model.state_dict().items()}
            for tensor in model.state_dict().values():
                tensor.abs_()
        model(torch.ones(1, *shape)).sum().backward()
        scores = {}
        for name, layer in layers.items():
            assert layer.weight.grad is not None
            scores[name] = (layer.weight.grad * layer.weight).detach().abs_()
            layer.weight.grad.zero_()
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                tensor.mul_(signs[name])
        ranked = torch.cat([score.flatten() for score in scores.values()])
        threshold = torch.kthvalue(ranked, int((1 - DENSITY ** (number / ROUNDS)) * ranked.numel())).values
        for name, layer in layers.items():
            layer.mask.copy_((scores[name] > threshold).float())
    return {name: layer.mask.bool() for name, layer in layers.items()}


def spent(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5)
    pairs = parser.parse_args().pairs
    torch.manual_seed(0)
    model = pxframe.build_backbone(dict(type="cifar_resnet", depth=20)).eval()
    batch = torch.randn(1, 3, 32, 32), None
    sides: dict[str, Callable[[], object]] = {
        "pxframe": lambda: pxframe.prune(model, [batch], "synflow", 1 - DENSITY, rounds=ROUNDS),
        "published": lambda: published(model, (3, 32, 32)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(pairs):
        for name, side in sides.items():
            seconds[name].append(spent(side))
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    print(f"ResNet-20, {ROUNDS} rounds, {torch.get_num_threads()} threads")
    for name, median in medians.items():
        print(f"{name:<12}{median:6.2f} s")
    print(f"{'ratio':<12}{medians['pxframe'] / medians['published']:6.2f}")


if __name__ == "__main__":
    main()
