"""SparseGPT against Optimal Brain Surgeon with an explicit inverse for the columns that are left."""

import pytest
import torch
from torch import nn

import pxframe
from pxframe.base.errors import PxframeError

DAMPING = 0.01


def by_hand(weight, x, mask, damping=DAMPING):
    """Column after column: its pruned weights go to zero, and the columns behind it take the exact OBS update."""
    weight, hessian = weight.clone(), x.T @ x
    hessian = hessian + damping * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=hessian.dtype)
    saliency = torch.zeros_like(weight)
    for column in range(weight.shape[1]):
        inverse = torch.linalg.inv(hessian[column:, column:])
        saliency[:, column] = weight[:, column].square() / inverse[0, 0]
        error = torch.where(mask[:, column], 0, weight[:, column]) / inverse[0, 0]
        weight[:, column:] -= error[:, None] * inverse[0]
    return weight * mask, saliency


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6, bias=False)).double(), torch.randn(50, 8).double() @ torch.randn(8, 8).double()


def ticket_of(model, x, **options):
    return pxframe.prune(model, [(x[: len(x) // 2], None), (x[len(x) // 2 :], None)], "sparsegpt", **options)


@pytest.mark.parametrize("options", [{"sparsity": 0.5}, {"sparsity": 0.4, "block": 3}, {"granularity": "2:4"}])
def test_weights_are_those_of_exact_updates(linear, options):
    model, x = linear
    ticket = ticket_of(model, x, **options)
    expected, _ = by_hand(model[0].weight.detach(), x, ticket.masks["0.weight"])
    torch.testing.assert_close(ticket.start["0.weight"], expected)
    if "granularity" in options:
        mask = ticket.masks["0.weight"].view(6, 2, 4)
        assert (mask.sum(-1) == 2).all()


def test_one_column_at_a_time_takes_the_lowest_of_each(linear):
    model, x = linear
    ticket = ticket_of(model, x, sparsity=0.5, block=1)
    mask = ticket.masks["0.weight"]
    _, saliency = by_hand(model[0].weight.detach(), x, mask)
    for column in range(8):
        assert int(mask[:, column].sum()) == 3
        assert saliency[mask[:, column], column].min() > saliency[~mask[:, column], column].max()


def test_with_inputs_that_have_nothing_in_common_it_is_wanda(linear):
    """H is a diagonal, so no weight can make up for another; without rows of several blocks the masks are the same."""
    model, _ = linear
    x = torch.diag(torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 8])).double()
    ticket = ticket_of(model, x, sparsity=0.5, damping=1e-9)
    wanda = pxframe.prune(model, [(x, None)], "wanda", sparsity=0.5)
    assert torch.equal(ticket.masks["0.weight"], wanda.masks["0.weight"])
    torch.testing.assert_close(ticket.start["0.weight"], model[0].weight.detach() * wanda.masks["0.weight"])


class Layers(nn.Sequential):
    def __init__(self):
        super().__init__(
            *(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2, stride=2), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(32, 8)),
        )


@pytest.mark.parametrize(
    "options", [{"sparsity": 0.6}, {"granularity": "2:4"}, {"sparsity": 0.7, "distribution": "erk"}]
)
def test_outputs_are_nearer_to_the_dense_network_than_by_the_masks_alone(options):
    torch.manual_seed(0)
    model, x = Layers().double(), nn.functional.avg_pool2d(torch.randn(60, 4, 8, 8).double(), 3, stride=1)
    target, errors = model(x).detach(), {}
    ticket = ticket_of(model, x, **options)
    for what in ("apply", "rewind"):
        sparse = Layers().double()
        sparse.load_state_dict(model.state_dict())
        getattr(ticket, what)(sparse)
        errors[what] = float((sparse(x) - target).detach().square().sum())
    assert errors["rewind"] < 0.9 * errors["apply"]
    if "sparsity" in options:
        assert ticket.kept == round((1 - options["sparsity"]) * ticket.total)


def test_rows_that_are_left_out_keep_their_weights():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x, need_weights=False)[0]

    torch.manual_seed(0)
    model, x = Attention().double(), torch.randn(20, 5, 4).double()
    ticket = ticket_of(model, x, sparsity=0.5, exclude="*.in_proj_weight[q]")
    start, mask = ticket.start["attention.in_proj_weight"], ticket.masks["attention.in_proj_weight"]
    assert mask[:4].all()
    assert torch.equal(start[:4], model.attention.in_proj_weight[:4])
    assert not mask[4:].all()


def test_a_weight_in_two_places_is_refused():
    layer = nn.Linear(4, 4)
    with pytest.raises(PxframeError, match=r"0.weight has inputs that cannot be read, or is used twice; exclude it"):
        ticket_of(nn.Sequential(layer, nn.ReLU(), layer), torch.randn(10, 4), sparsity=0.5)


def test_a_global_threshold_is_refused(linear):
    with pytest.raises(PxframeError, match="no global threshold"):
        ticket_of(*linear, sparsity=0.5, scope="global")


def test_what_cannot_be_given_costs_one_line(linear):
    model, x = linear
    with pytest.raises(PxframeError, match="sparsegpt chooses single weights; take another scorer for channels"):
        ticket_of(model, x, sparsity=0.5, granularity="channel")
    with pytest.raises(PxframeError, match=r"it gives no scores without one; take pxframe\.prune"):
        pxframe.score(model, [(x, None)], "sparsegpt")


SETTINGS = [
    dict(sparsity=0.55, scope="row"),
    dict(sparsity=0.7, scope="row", rounds=3),
    dict(granularity="2:4", rounds=3),
    dict(sparsity=0.6, scorer=dict(type="shuffled", of="sparsegpt")),
    dict(sparsity=0.6, rounds=2, scorer=dict(type="shuffled", of="sparsegpt")),
]


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_weights_fit_masks_that_others_have_chosen(linear, options):
    """The core keeps as many of each row; the control moves the masks."""
    model, x = linear
    ticket = pxframe.prune(model, [(x, None)], **{"scorer": "sparsegpt", **options})
    mask, start = ticket.masks["0.weight"], ticket.start["0.weight"]
    assert torch.equal(start != 0, mask)
    if "granularity" not in options:
        expected, _ = by_hand(model[0].weight.detach(), x, mask)
        torch.testing.assert_close(start, expected)


class Fused(nn.Module):
    """A weight that is used in three parts."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, 2 * x, x * x, need_weights=False)[0]


@pytest.mark.parametrize("options", [dict(sparsity=0.5), dict(sparsity=0.37), dict(granularity="2:4")], ids=str)
def test_rows_that_are_held_are_left_as_they_are_and_take_no_quota(options):
    torch.manual_seed(0)
    model, x = Fused().double(), torch.randn(20, 5, 8).double()
    ticket = pxframe.prune(model, [(x, None)], "sparsegpt", exclude="*.in_proj_weight[q]", **options)
    mask, start = ticket.masks["attention.in_proj_weight"], ticket.start["attention.in_proj_weight"]
    assert torch.equal(start[:8], model.attention.in_proj_weight[:8])
    assert torch.equal(start != 0, mask)
    assert mask[:8].all()
    assert abs(int(mask[8:16].sum()) - int(mask[16:].sum())) <= 1


def test_a_layer_without_weights_is_no_obstacle():
    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.empty, self.layer = nn.Linear(0, 4), nn.Linear(6, 4)

        def forward(self, x):
            return self.layer(x)

    torch.manual_seed(0)
    batches = [(torch.randn(4, 6), torch.arange(4))]
    for scorer in ("sparsegpt", "lamp", "fisher", "cap"):
        assert pxframe.prune(Beside(), batches, scorer, sparsity=0.5).kept == 12
