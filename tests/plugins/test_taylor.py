"""Taylor importance against loops over single samples."""

import pytest
import torch
import torch.nn.functional as F
from residual import GATED, TIES, data, residual

import pxframe
from pxframe.network.net import Net
from pxframe.passes import samples
from pxframe.plugin.registry import build

LAYERS = [layer for layers in GATED.values() for layer in layers]


def masks_of(model):
    """Some weights of every layer are pruned, and no whole channel."""
    torch.manual_seed(2)
    masks = {name: torch.rand(model.get_parameter(name).shape) < 0.7 for name in LAYERS}
    for mask in masks.values():
        mask[:, 0] = True
    return masks


def slopes(model, masks, batches):
    """By layer, dL_n/dc ``[samples, channels]`` of factors that stand on the outputs of the layer, or of its norm."""
    for name, mask in masks.items():
        model.get_parameter(name).data.mul_(mask)
    factors = {}
    for layers in GATED.values():
        for layer, module in layers.items():
            factors[layer] = torch.ones(len(masks[layer]), dtype=torch.float64, requires_grad=True)
            model.get_submodule(module).register_forward_hook(
                lambda _, given, output, factor=factors[layer]: output * factor.view(-1, 1, 1)
            )
    found = {layer: [] for layer in factors}
    for x, y in batches:
        for n in range(len(x)):
            loss = F.cross_entropy(model(x[n : n + 1]), y[n : n + 1])
            for layer, slope in zip(factors, torch.autograd.grad(loss, list(factors.values())), strict=True):
                found[layer].append(slope)
    return {layer: torch.stack(rows) for layer, rows in found.items()}


def net_of(model, masks):
    net = Net(model, masks)
    net.ties = TIES
    return net


def equal(found, expected):
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert tensor.max() > 1e-8
        torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-15)


def test_of_weights_it_is_the_mean_square_of_theta_times_the_sample_s_gradient():
    model, batches = residual().eval(), data((4, 3))
    masks = masks_of(model)
    found = pxframe.score(model.train(), batches, "taylor", masks=masks)
    model.eval()
    theta = {name: model.get_parameter(name).detach().clone() for name in masks}
    expected = {name: torch.zeros_like(t) for name, t in theta.items()}
    for name, mask in masks.items():
        model.get_parameter(name).data.mul_(mask)
    for x, y in batches:
        for n in range(len(x)):
            loss = F.cross_entropy(model(x[n : n + 1]), y[n : n + 1])
            for name, g in zip(masks, torch.autograd.grad(loss, [model.get_parameter(m) for m in masks]), strict=True):
                expected[name] += (theta[name] * g) ** 2 / 7
    equal(found, expected)


@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_of_channels_it_is_the_mean_square_of_the_slope_by_a_factor_on_their_outputs(chunk, monkeypatch):
    """However many samples are taken at once."""
    model, batches = residual().eval(), data((4, 3))
    masks = masks_of(model)
    if chunk is not None:
        monkeypatch.setattr(samples, "_CHUNK", chunk)
    found = build("scorer", "taylor").score_channels(net_of(model.train(), masks), batches)
    expected = slopes(model.eval(), masks, batches)
    equal(found, {layer: s.square().mean(0) for layer, s in expected.items()})


def test_of_a_group_it_is_the_mean_square_of_the_sum_over_its_layers():
    model, batches = residual().eval(), data((4, 3))
    masks = masks_of(model)
    found = build("scorer", "taylor").score_groups(net_of(model, masks), batches)
    alone = slopes(model, masks, batches)
    equal(found, {group: sum(alone[layer] for layer in layers).square().mean(0) for group, layers in GATED.items()})


def test_the_parameters_that_are_no_gates_take_no_memory(monkeypatch):
    """Behind a norm stand its gamma and beta only: their gradients alone are asked for."""
    asked = []
    plain = Net.sample_gradients

    def watched(self, batches, names=None, *rest):
        asked.append(set(names))
        return plain(self, batches, names, *rest)

    monkeypatch.setattr(Net, "sample_gradients", watched)
    model = residual().eval()
    build("scorer", "taylor").score_groups(net_of(model, masks_of(model)), data())
    gates = {
        f"{module}.{kind}" for layers in GATED.values() for module in layers.values() for kind in ("weight", "bias")
    }
    assert asked == [gates]


@pytest.mark.parametrize("groups", [None, "mean", "entry"])
def test_it_prunes_channels_in_rounds(groups):
    granularity = {"type": "channel", "groups": groups}
    ticket = pxframe.prune(
        residual(), data(), "taylor", 0.5, rounds=3, granularity=granularity, exclude="head.*", allow_collapse=True
    )
    counts = {layer: int(ticket.masks[layer].flatten(1).any(1).sum()) for layer in LAYERS}
    if groups is None:
        assert sum(counts.values()) == round(0.5 * 15)
    else:
        assert counts["stem.weight"] + counts["inner.weight"] == round(0.5 * 7)
        assert counts["stem.weight"] == counts["out.weight"] == counts["skip.weight"]


def test_squares_of_half_precision_do_not_vanish():
    model = residual().eval()
    exact = build("scorer", "taylor").score_channels(net_of(model, masks_of(model)), data())
    small = [(x.half() / 4, y) for x, y in data()]
    loss = {"loss": lambda output, target: F.cross_entropy(output.float(), target) / 500}
    net = net_of(model.half(), masks_of(model)).with_(**loss)
    found = build("scorer", "taylor").score_channels(net, small)
    for layer in exact:
        assert found[layer].dtype == torch.float32
        assert (found[layer] > 0).all()
        assert found[layer].min() < 6e-8  # below the least number of float16
