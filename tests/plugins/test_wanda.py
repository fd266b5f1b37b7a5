"""Wanda and RIA against loops over single weights, and inputs of layers against hooks on them."""

import pytest
import torch
from torch import nn

import pxframe
from pxframe.base.errors import PxframeError
from pxframe.network.net import Net


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, groups=1), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2, groups=2), nn.Flatten(1)
    ).double()


@pytest.fixture
def head(model):
    return nn.Sequential(*model, nn.Linear(24, 5).double())


def inputs_of(model, x):
    """What each layer is given, by hooks."""
    found = {}
    for path, module in model.named_modules():
        if hasattr(module, "weight"):
            module.register_forward_pre_hook(lambda _, args, path=path: found.setdefault(path, args[0].detach()))
    with torch.no_grad():
        model(x)
    return found


def by_loops(model, x, relative, power):
    """The input of every weight, taken one by one from the padded maps."""
    scores, given = {}, inputs_of(model, x)
    for path, module in model.named_modules():
        if not hasattr(module, "weight"):
            continue
        weight, value = module.weight.detach(), given[path]
        norms = torch.zeros_like(weight)
        for position in torch.cartesian_prod(*map(torch.arange, weight.shape)).tolist():
            o, i, *kernel = position
            if kernel:
                p, s, g = module.padding[0], module.stride[0], module.groups
                padded = nn.functional.pad(value, (p, p, p, p))
                size = (padded.shape[-1] - 3) // s + 1
                channel = o // (weight.shape[0] // g) * weight.shape[1] + i
                ends = [k + s * (size - 1) + 1 for k in kernel]
                seen = padded[:, channel, kernel[0] : ends[0] : s, kernel[1] : ends[1] : s]
            else:
                seen = value[:, i]
            norms[tuple(position)] = seen.square().sum().sqrt()
        size = weight.abs()
        if relative:
            groups = getattr(module, "groups", 1)
            parts = size.view(groups, len(size) // groups, *size.shape[1:])
            rows = size.flatten(1).sum(1).view(-1, *[1] * (size.ndim - 1))
            columns = parts.sum(1, keepdim=True).expand_as(parts).reshape(size.shape)
            size = size / rows + size / columns
        scores[f"{path}.weight"] = size * norms**power
    return scores


@pytest.mark.parametrize(
    ("options", "relative", "power"),
    [({}, False, 1), ({"relative": True}, True, 0.5), ({"relative": True, "power": 1.0}, True, 1.0)],
)
def test_scores_are_those_of_loops(head, options, relative, power):
    x = torch.randn(5, 3, 6, 6).double()
    found = pxframe.score(head, [(x[:2], None), (x[2:], None)], "wanda", **options)
    for name, expected in by_loops(head, x, relative, power).items():
        torch.testing.assert_close(found[name], expected)


def test_inputs_of_a_masked_network(head):
    """A layer behind pruned weights is given what those leave."""
    masks = {n: torch.rand_like(p) < 0.5 for n, p in head.named_parameters() if p.ndim > 1}
    x = torch.randn(4, 3, 6, 6).double()
    found = dict((p.name, c) for p, c in Net(head, masks).layer_inputs([(x, None)]))
    with torch.no_grad():
        for name, mask in masks.items():
            head.get_parameter(name).mul_(mask)
    torch.testing.assert_close(found["4.weight"][0], inputs_of(head, x)["4"].T)


def test_each_row_keeps_as_many_up_to_one(head):
    x = torch.randn(4, 3, 6, 6).double()
    ticket = pxframe.prune(head, [(x, None)], "wanda", sparsity=0.45, scope="row", rounds=3)
    scores = pxframe.score(head, [(x, None)], "wanda")
    for name, mask in ticket.masks.items():
        kept = mask.flatten(1).sum(1)
        assert kept.max() - kept.min() <= 1, name
    once = pxframe.prune(head, [(x, None)], "wanda", sparsity=0.45, scope="row")
    for name, mask in once.masks.items():
        for row, found in zip(scores[name].flatten(1), mask.flatten(1), strict=True):
            assert row[found].min() > row[~found].max()
    total = sum(mask.numel() for mask in once.masks.values())
    assert once.kept == round(0.55 * total)


def test_a_global_threshold_is_refused(head):
    with pytest.raises(PxframeError, match=r"another unit in each layer.*scope='layer' or scope='row'"):
        pxframe.prune(head, [(torch.randn(2, 3, 6, 6).double(), None)], "wanda", scope="global")


def test_rows_of_channels_are_refused(head):
    with pytest.raises(PxframeError, match="scope 'row' compares single weights; granularity is 'channel'"):
        pxframe.prune(head, None, "magnitude", scope="row", granularity="channel")


def test_rows_of_a_transposed_convolution_are_refused():
    model = nn.Sequential(nn.ConvTranspose2d(3, 4, 2), nn.Conv2d(4, 2, 1))
    with pytest.raises(PxframeError, match=r"scope 'row': 0\.weight has its inputs, not its outputs"):
        pxframe.prune(model, None, "magnitude", scope="row")


def test_a_layer_whose_inputs_are_not_there_is_named():
    class Computed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 4))

        def forward(self, x):
            return self.layer(x)

    with pytest.raises(PxframeError, match=r"the inputs of layer.parametrizations.weight.original1 cannot be read"):
        pxframe.prune(Computed(), [(torch.randn(2, 3), None)], "wanda", sparsity=0.5)


def norms(model, name, batches):
    """||X_j|| as the scores have it, by weight."""
    return pxframe.score(model, batches, "wanda")[name] / model.get_parameter(name).detach().abs()


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


@pytest.mark.parametrize("relative", [False, True])
def test_one_sample_beside_larger_batches_counts_as_any_other(relative):
    """Alone, a sample has a graph of its own."""
    torch.manual_seed(0)
    model, x = Attention().double(), torch.randn(9, 6, 8).double()
    options = dict(relative=relative)
    whole = pxframe.score(model, [(x, None)], "wanda", **options)
    parts = pxframe.score(model, [(x[:8], None), (x[8:], None)], "wanda", **options)
    for name, score in whole.items():
        torch.testing.assert_close(parts[name], score)


def test_a_layer_used_twice_has_the_inputs_of_both_uses():
    torch.manual_seed(0)
    layer = nn.Linear(4, 4).double()
    model, x = nn.Sequential(layer, nn.ReLU(), layer), torch.randn(10, 4).double()
    inputs = torch.cat([x, torch.relu(layer(x).detach())])
    torch.testing.assert_close(norms(model, "0.weight", [(x, None)]), inputs.norm(dim=0).expand(4, 4))


def test_weights_repeated_for_each_sample_have_the_inputs_of_all():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(2, 4, 3))

        def forward(self, x):  # [batch, heads, positions, 4]
            return torch.matmul(x, self.weight)

    torch.manual_seed(0)
    model, x = Heads().double(), torch.randn(5, 2, 6, 4).double()
    expected = x.square().sum((0, 2)).sqrt()[..., None].expand(2, 4, 3)
    torch.testing.assert_close(norms(model, "weight", [(x[:4], None), (x[4:], None)]), expected)
    ticket = pxframe.prune(model, [(x[:4], None), (x[4:], None)], "sparsegpt", sparsity=0.5)
    assert torch.equal(ticket.start["weight"] != 0, ticket.masks["weight"])
