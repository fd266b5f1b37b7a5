"""Layers one after the other: what their inputs and targets are, and which weights are left alone."""

import pytest
import torch
from torch import nn

import pxframe
from pxframe.passes import sweep

#: So little damping that the solution is that of least squares.
EXACT = {"type": "obs", "damping": 1e-11, "steps": 500}


def exact(inputs, targets, mask):
    """min ||targets - v inputs|| over v, zero where the mask is; inputs [columns, positions]."""
    values = torch.zeros(mask.shape, dtype=torch.float64)
    for row, (target, kept) in enumerate(zip(targets, mask, strict=True)):
        values[row, kept] = torch.linalg.lstsq(inputs[kept].T, target.unsqueeze(-1)).solution[:, 0]
    return values


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def refitted(model, batches, **options):
    settings = {"scorer": "random", "sparsity": 0.5, "scope": "layer", "refit": EXACT, **options}
    return pxframe.prune(model, [(x, None) for x in batches], **settings)


@pytest.mark.parametrize("sequential", [True, False])
def test_inputs_of_each_layer(model, sequential):
    """Inputs from the refitted layers before it, or from the dense network; targets from the dense network."""
    batches = [torch.randn(40, 6).double(), torch.randn(30, 6).double()]
    ticket = refitted(model, batches, refit={**EXACT, "sequential": sequential})
    dense = sparse = torch.cat(batches)
    with torch.no_grad():
        for layer, activation in ((0, model[1]), (2, model[3]), (4, nn.Identity())):
            name, given = f"{layer}.weight", sparse if sequential else dense
            target = (dense @ model[layer].weight.T).T
            expected = exact(given.T, target, ticket.masks[name])
            torch.testing.assert_close(ticket.start[name], expected, rtol=1e-5, atol=1e-7)
            dense = activation(model[layer](dense))
            sparse = activation(given @ expected.T + model[layer].bias)


def test_a_later_layer_sees_batch_norms_with_statistics_of_the_refitted_network():
    """The batches have different sizes and means: what counts is the mean and variance over all of their values."""
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(8)
    model = nn.Sequential(nn.Linear(6, 8), norm, nn.Tanh(), nn.Linear(8, 3)).double().eval()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    batches = [torch.randn(40, 6).double(), 2 + torch.randn(25, 6).double()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ticket = refitted(model, batches)
    x = torch.cat(batches)
    with torch.no_grad():
        first = exact(x.T, (x @ model[0].weight.T).T, ticket.masks["0.weight"])
        values = x @ first.T + model[0].bias
        spread, center = torch.var_mean(values, 0)
        hidden = ((values - center) / (spread + norm.eps).sqrt() * norm.weight + norm.bias).tanh()
        target = model[:3](x) @ model[3].weight.T
        expected = exact(hidden.T, target.T, ticket.masks["3.weight"])
    torch.testing.assert_close(ticket.start["3.weight"], expected, rtol=1e-5, atol=1e-7)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_refit_is_nearer_to_the_dense_network_than_the_mask_alone(model):
    x = torch.randn(200, 6).double()
    target, errors = model(x).detach(), {}
    for refit in ("keep", "obs"):
        ticket = refitted(model, [x], refit=refit)
        copy = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 3)).double()
        copy.load_state_dict(model.state_dict())
        ticket.rewind(copy)
        errors[refit] = float((copy(x) - target).detach().square().sum())
    assert errors["obs"] < 0.7 * errors["keep"]


def test_the_order_of_weights_in_memory_does_not_matter():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 1)).double()
    x, found = torch.randn(20, 3, 5, 5).double(), []
    for order in (torch.contiguous_format, torch.channels_last):
        found.append(refitted(model.to(memory_format=order), [x], sparsity=0.3).start)
    for name in ("0.weight", "2.weight"):
        torch.testing.assert_close(found[0][name], found[1][name])


def test_rows_and_layers_that_are_excluded_keep_their_values(model):
    ticket = refitted(model, [torch.randn(40, 6).double()], exclude="2.*")
    assert set(ticket.start) == {"0.weight", "4.weight"}


class CrossAttention(nn.Module):
    """Queries of one input, keys and values of another, all made by one weight."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x, y):
        return self.attention(x, y, y, need_weights=False)[0]


def test_parts_of_a_fused_projection_are_refitted_to_their_own_inputs():
    torch.manual_seed(0)
    model = CrossAttention().double()
    x, y = torch.randn(20, 5, 4).double(), torch.randn(20, 7, 4).double()
    ticket = refitted(model, [(x, y)], refit={**EXACT, "sequential": False})
    mask, weight = ticket.masks["attention.in_proj_weight"], model.attention.in_proj_weight.detach()
    for rows, given in ((slice(0, 4), x), (slice(4, 12), y)):
        inputs = given.flatten(0, 1).T
        expected = exact(inputs, weight[rows] @ inputs, mask[rows])
        found = ticket.start["attention.in_proj_weight"][rows]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_rows_that_are_left_out_keep_their_values():
    torch.manual_seed(0)
    model = CrossAttention().double()
    x = torch.randn(20, 5, 4).double()
    ticket = refitted(model, [(x, x)], exclude="*.in_proj_weight[q]")
    start, own = ticket.start["attention.in_proj_weight"], model.attention.in_proj_weight
    assert torch.equal(start[:4], own[:4])
    assert not torch.equal(start[4:], own[4:] * ticket.masks["attention.in_proj_weight"][4:])


def test_a_weight_in_two_places_stays_as_it_is():
    torch.manual_seed(0)
    layer = nn.Linear(5, 5).double()
    model = nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(5, 2).double())
    ticket = refitted(model, [torch.randn(30, 5).double()])
    assert set(ticket.start) == {"3.weight"}


def test_samples_of_two_sizes_are_refused_if_the_graph_is_another():
    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            for _ in range(x.shape[1]):
                x = self.layer(x)
            return x

    batches = [(torch.randn(4, 2, 3), None), (torch.randn(4, 3, 3), None)]
    with pytest.raises(pxframe.PxframeError, match="give samples of one size"):
        pxframe.prune(Counted(), batches, "random", sparsity=0.5, refit="obs")


class Untried(pxframe.Scorer):
    name, needs = "untried", "nothing"

    def score(self, net, batches):
        raise AssertionError("scored")


@pytest.mark.parametrize(
    ("options", "where"),
    [(dict(scorer=Untried(), refit="obs"), "refit 'obs'"), (dict(scorer="sparsegpt"), "scorer 'sparsegpt', round 1")],
    ids=["obs", "sparsegpt"],
)
def test_a_layer_of_too_many_inputs_is_refused_before_any_work(options, where, monkeypatch):
    monkeypatch.setattr(sweep, "Forward", None)  # which any work on inputs takes
    model, x = nn.Sequential(nn.Linear(3, 16385), nn.Linear(16385, 2)), torch.randn(2, 3)
    text = (
        rf"{where}.*: 1.weight has 16,385 inputs: their Hessian would take 2.1 GB, more than the 2.1 GB allowed; "
        r"exclude it \(exclude='1.weight'; prune.exclude in a config\)"
    )
    with pytest.raises(pxframe.PxframeError, match=text):
        pxframe.prune(model, [(x, None)], sparsity=0.5, **options)
    monkeypatch.undo()
    ticket = pxframe.prune(model, [(x, None)], "random", sparsity=0.5, refit="obs", exclude="1.weight")
    assert set(ticket.start) == {"0.weight"}


def test_groups_count_each_on_its_own(monkeypatch):
    monkeypatch.setattr(sweep, "_MOST_SQUARED", 4 * 9**2)
    model, x = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)), torch.randn(3, 4, 5, 5)
    pxframe.prune(model, [(x, None)], "random", sparsity=0.5, refit="obs")
    monkeypatch.setattr(sweep, "_MOST_SQUARED", 4 * 9**2 - 1)
    with pytest.raises(pxframe.PxframeError, match=r"0\.weight has 9 inputs"):
        pxframe.prune(model, [(x, None)], "random", sparsity=0.5, refit="obs")
