"""A tiny float64 model beside the enumeration of all its paths (``oracle``), and what must then agree."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pytest
import torch
from oracle import Network, measure, measure_open
from torch import nn

from pxframe.network.net import Net
from pxframe.running.inputs import leaves
from pxframe.scoring.paths import jacobian_norms, open_paths
from pxframe.scoring.saliencies import contract, saliencies
from pxframe_plugins.px.scorer import PX


@dataclass
class Case:
    model: nn.Module
    samples: torch.Tensor
    masks: dict
    network: Network
    outputs: list
    given: Any  # a function: what the model is given of some of the samples

    @cached_property
    def net(self):
        """One for all checks: it keeps its traces."""
        return Net(self.model, self.masks)

    @property
    def batches(self):
        return [(self.given(self.samples[:1]), None), (self.given(self.samples[1:]), None)]

    @property
    def flat(self):
        return [x.flatten().tolist() for x in self.samples]

    def kept(self, key):
        return bool(self.masks[key[0]].flatten()[key[1]])

    @cached_property
    def measured(self):
        return measure(self.network, self.flat, self.outputs, self.kept)


def make_case(model, shape, build, masked, samples=3, given=lambda x: x):
    """``build(network, state)`` writes the model out unit by unit and returns its output units.

    ``given(x)`` is what the model is called with; the input units are the entries of ``x``.
    """
    model.double().eval()
    for key, parameter in model.named_parameters():
        if key.endswith("bias"):
            nn.init.normal_(parameter, std=0.3)
    data = torch.randn(samples, *shape, dtype=torch.float64)
    weights = {n: p for n, p in model.named_parameters() if p.ndim > 1}
    masks = {
        n: torch.rand(p.shape) < 0.7 if masked else torch.ones(p.shape, dtype=torch.bool) for n, p in weights.items()
    }
    table = {
        (n, i): float(v) for n, p in weights.items() for i, v in enumerate((p.detach() * masks[n]).flatten().tolist())
    }
    network = Network(table)
    outputs = build(network, {n: t.detach() for n, t in model.state_dict().items()})
    return Case(model, data, masks, network, outputs, given)


def check_output(case):
    """The network that is enumerated is the model."""
    outputs = leaves(case.net(case.given(case.samples)))
    found = torch.cat([output.detach().flatten(1) for output in outputs], 1)
    for x, output in zip(case.flat, found, strict=True):
        case.network.run(x)
        values = [case.network.units[k].value for k in case.outputs]
        assert values == pytest.approx(output.tolist(), rel=1e-9, abs=1e-12)


def check_norms(case):
    found = tuple(float(norm) for norm in jacobian_norms(case.net, case.batches))
    assert found == pytest.approx(case.measured[:2], rel=1e-9)


def check_px(case):
    _check_scores(PX(factors="recorded").score(case.net, case.batches), case.measured[2])


def check_joint(case):
    _check_scores(PX(variant="joint", factors="recorded").score(case.net, case.batches), case.measured[3])


def check_open_paths(case, power):
    """h for power 2; SynFlow's network for power 1."""
    values, scores = measure_open(case.network, case.outputs, power, case.kept)
    found, weights = open_paths(case.net, case.given(case.samples), power, leaves=True)
    numbers = torch.cat([value.mantissa.detach().flatten() * 2.0 ** int(value.exponent) for value in found])
    assert numbers.tolist() == pytest.approx(values, rel=1e-9)
    _check_scores(saliencies(case.net, contract(found), weights), scores)


CHECKS = {
    "output": check_output,
    "norms": check_norms,
    "px": check_px,
    "joint": check_joint,
    "open_1": lambda case: check_open_paths(case, 1),
    "open_2": lambda case: check_open_paths(case, 2),
}


def _check_scores(found, expected):
    top = max(expected.values())
    assert top > 0
    for name, scores in found.items():
        for index, value in enumerate(scores.flatten().tolist()):
            expectation = pytest.approx(expected.get((name, index), 0.0), rel=1e-9, abs=1e-12 * top)
            assert value == expectation, (name, index)
