"""Statistics of batch norm against means over all values that reach it."""

import copy

import pytest
import torch
from torch import nn

import pxframe


class Normed(nn.Module):
    """Two norms behind each other, dropout between them, and a norm that only training reaches."""

    def __init__(self):
        super().__init__()
        self.conv, self.first = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.drop, self.dense, self.second = nn.Dropout(0.5), nn.Linear(6, 4), nn.BatchNorm1d(4)
        self.aside = nn.BatchNorm1d(4)
        for norm in (self.first, self.second, self.aside):
            norm.running_mean.uniform_(-1, 1)
            norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        x = self.first(self.conv(x)).relu().mean((2, 3))
        x = self.second(self.dense(self.drop(x)))
        return self.aside(x) if self.training else x


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Normed().double()


def refitted(model, batches, **options):
    options = {"scorer": "magnitude", "sparsity": 0.5, "refit": "bn", **options}
    return pxframe.prune(model, [(x, None) for x in batches], **options)


def by_hand(model, ticket, batches):
    """Mean over all values, and the mean of the batches' variances, each batch with its size as its weight."""
    sparse = copy.deepcopy(model).eval()
    ticket.apply(sparse)
    statistics, total = {}, 0
    for x in batches:
        x = sparse.conv(x)
        total += len(x)
        for name, dims in (("first", (0, 2, 3)), ("second", (0,))):
            if name == "second":
                x = sparse.dense(x)
            variance, mean = torch.var_mean(x, dims)
            sums = statistics.setdefault(name, [0, 0])
            sums[0] = sums[0] + mean * x.shape[0]
            sums[1] = sums[1] + variance * x.shape[0]
            shape = (1, -1, 1, 1) if name == "first" else (1, -1)
            norm = getattr(sparse, name)
            spread = (torch.var(x, dims, correction=0) + norm.eps).sqrt()
            x = (x - mean.view(shape)) / spread.view(shape) * norm.weight.view(shape) + norm.bias.view(shape)
            if name == "first":
                x = x.relu().mean((2, 3))
    return {name: (mean / total, variance / total) for name, (mean, variance) in statistics.items()}


def test_the_statistics_are_those_of_the_pruned_network_on_all_samples(model):
    batches = [torch.randn(8, 3, 6, 6).double(), torch.randn(3, 3, 6, 6).double() + 1]
    ticket = refitted(model, batches)
    for name, (mean, variance) in by_hand(model, ticket, batches).items():
        torch.testing.assert_close(ticket.start[f"{name}.running_mean"], mean.detach())
        torch.testing.assert_close(ticket.start[f"{name}.running_var"], variance.detach())
    assert not any(name.startswith("aside") for name in ticket.start)  # no batch reached it


def test_the_model_is_left_as_it_was(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = [(m.training, getattr(m, "momentum", None), len(m._forward_pre_hooks)) for m in model.modules()]
    refitted(model, [torch.randn(4, 3, 6, 6).double()])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert flags == [(m.training, getattr(m, "momentum", None), len(m._forward_pre_hooks)) for m in model.modules()]


def test_rewinding_puts_masks_and_statistics_in_place(model):
    ticket = refitted(model, [torch.randn(8, 3, 6, 6).double()])
    ticket.rewind(model)
    for name, mask in ticket.masks.items():
        assert not model.get_parameter(name)[~mask].any()
    assert torch.equal(model.first.running_mean, ticket.start["first.running_mean"])


@pytest.mark.parametrize("norm", [nn.Identity(), nn.LayerNorm(5)])
def test_a_network_without_statistics_is_told_of_in_one_line(norm, caplog):
    network, x = nn.Sequential(nn.Linear(4, 5), norm, nn.Linear(5, 3)), torch.randn(6, 4)
    ticket = refitted(network, [x])
    assert not ticket.start
    assert [record.getMessage() for record in caplog.records] == [
        "refit 'bn': the network ran no batch norm with running statistics, so nothing was changed; refit='obs' gives "
        "its layers new weights"
    ]
    caplog.clear()
    assert set(refitted(network, [x], refit="obs").start) == set(ticket.masks)
    assert not caplog.records


def test_of_statistics_that_were_measured_nothing_is_said(model, caplog):
    refitted(model, [torch.randn(4, 3, 6, 6).double()])
    assert not caplog.records


def test_a_batch_of_one_value_is_refused(model):
    with pytest.raises(pxframe.PxframeError, match="refit 'bn': batch 0: second gets a single value per channel"):
        refitted(model, [torch.randn(1, 3, 6, 6).double()])


def test_without_data_a_refit_says_what_it_needs(model):
    with pytest.raises(pxframe.PxframeError, match="refit 'obs' reads inputs: pass batches"):
        pxframe.prune(model, None, "magnitude", refit="obs")


@pytest.mark.parametrize(
    ("refit", "text"),
    [
        ("obz", "there is no refit 'obz'; did you mean 'obs'"),
        (dict(type="obs", dampening=1), "takes no option 'dampening'; did you mean 'damping'"),
        (dict(type="obs", damping=0), "'damping' must be a finite number above 0"),
        (dict(type="obs", steps=0), "'steps' must be a whole number"),
        (dict(damping=1), "there is no refit None"),
    ],
)
def test_wrong_settings_cost_a_line(model, refit, text):
    with pytest.raises(pxframe.PxframeError, match=text):
        refitted(model, [torch.randn(4, 3, 6, 6).double()], refit=refit)
