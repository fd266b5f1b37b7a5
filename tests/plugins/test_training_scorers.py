"""Methods that train: nested masks, rewinding bit for bit, and the same result each time."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pxframe
from pxframe.plugin import host

STEPS = 12


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))


class Trainer:
    """SGD with momentum and a falling rate on a toy task; remembers what each training started from."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(STEPS, 16, 1, 8, 8, generator=generator)
        self.y = (self.x.mean((2, 3, 4)) * 8).round().clamp(-1, 1).long() + 1
        self.calls = []

    def __call__(self, model, ticket, start=0, stop=None):
        state = {n: t.clone() for n, t in model.state_dict().items()}
        self.calls.append((start, stop, state, ticket.masks))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        ticket.guard(optimizer, model)
        for step in range(start, STEPS if stop is None else stop):
            optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / STEPS)
            loss = F.cross_entropy(model(self.x[step]), self.y[step])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def rounds_of(**options):
    class Watch:
        masks = []

        @pxframe.hookimpl
        def pxframe_round_done(self, masks):
            self.masks.append({n: m.clone() for n, m in masks.items()})

    watch = Watch()
    host.host().manager.register(watch)
    try:
        ticket = pxframe.prune(**options)
    finally:
        host.host().manager.unregister(watch)
    return ticket, watch.masks


@pytest.mark.parametrize("scorer", ["imp", dict(type="ltr", step=3)])
def test_masks_are_nested_and_weights_rewound_bit_for_bit(model, scorer):
    before = {n: t.clone() for n, t in model.state_dict().items()}
    train = Trainer()
    ticket, masks = rounds_of(
        model=model, batches=None, scorer=scorer, train=train, sparsity=0.8, rounds=4, exclude=["4.*"]
    )
    sizes = [int(m["0.weight"].sum()) for m in masks]
    assert sizes == [round(0.2 ** (t / 4) * 36) for t in (1, 2, 3, 4)]
    assert all((late["0.weight"] <= early["0.weight"]).all() for early, late in itertools.pairwise(masks))

    # What each round must start from, by a training of the test's own.
    origin, first = before, 0
    if scorer != "imp":
        copy = nn.Sequential(*(type(m)(*a) for m, a in zip(model, ((1, 4, 3), (4,), (), (), (144, 3)), strict=True)))
        copy.load_state_dict(before)
        own = Trainer()
        own(copy, pxframe.Ticket({"0.weight": torch.ones(4, 1, 3, 3, dtype=torch.bool)}), stop=3)
        origin, first = copy.state_dict(), 3
        assert train.calls.pop(0)[:2] == (0, 3)
        assert all(torch.equal(ticket.start[n], origin[n]) for n in origin)
    else:
        assert not ticket.start
    assert len(train.calls) == 4
    for (start, stop, state, _), kept in zip(train.calls, [None, *masks[:3]], strict=True):
        assert (start, stop) == (first, None)
        for name, value in state.items():
            expected = origin[name] * kept[name] if kept and name in kept else origin[name]
            assert torch.equal(value, expected), name
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_imp_keeps_the_largest_trained_weights(model):
    train = Trainer()
    ticket = pxframe.prune(model, None, scorer="imp", train=train, sparsity=0.5, rounds=1, exclude=["4.*"])
    train(model, pxframe.Ticket({"0.weight": torch.ones(4, 1, 3, 3, dtype=torch.bool)}))
    largest = model[0].weight.detach().abs().flatten().topk(18).indices
    assert set(largest.tolist()) == set(ticket.masks["0.weight"].flatten().nonzero().flatten().tolist())


def test_magnitude_after_training_is_one_round_of_imp(model):
    once = pxframe.prune(model, None, scorer="magnitude_after_training", train=Trainer(), sparsity=0.5)
    imp = pxframe.prune(model, None, scorer="imp", train=Trainer(), sparsity=0.5, rounds=1)
    assert once.meta["rounds"] == 1
    assert all(torch.equal(once.masks[n], imp.masks[n]) for n in imp.masks)


@pytest.mark.parametrize("scorer", ["imp", dict(type="ltr", step=3)])
def test_the_same_ticket_each_time(model, scorer, tmp_path):
    files = []
    for name in ("a", "b"):
        torch.rand(3)
        ticket = pxframe.prune(model, None, scorer=scorer, train=Trainer(), sparsity=0.8, rounds=3)
        ticket.save(tmp_path / name)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]


def test_a_rewound_ticket_sets_the_model_to_the_early_step(model, tmp_path):
    scorer = dict(type="ltr", step=3)
    pxframe.prune(model, None, scorer=scorer, train=Trainer(), sparsity=0.5, rounds=2).save(tmp_path / "t")
    ticket = pxframe.Ticket.load(tmp_path / "t")
    assert ticket.start["1.running_mean"].abs().sum() > 0
    ticket.rewind(model)
    for name, value in model.state_dict().items():
        mask = ticket.masks.get(name, torch.tensor(True))
        assert torch.equal(value, ticket.start[name] * mask), name


def test_a_rewound_start_is_rescaled_where_channels_go(model):
    scorer, x = dict(type="ltr", step=3), torch.randn(2, 1, 8, 8)
    options = dict(train=Trainer(), sparsity=0.5, rounds=1, scope="layer", exclude=["4.*"])
    plain = pxframe.prune(model, [(x, None)], scorer=scorer, granularity="channel", **options)
    rescaled = pxframe.prune(model, [(x, None)], scorer=scorer, granularity="channel", refit="rescale", **options)
    assert torch.equal(rescaled.start["0.weight"], plain.start["0.weight"])  # its input is whole
    assert not torch.equal(rescaled.start["0.weight"], model[0].weight)


def test_a_task_that_takes_the_layer_away_is_an_error(model):
    def takes(model, ticket, start=0, stop=None):
        model[4] = nn.Identity()

    with pytest.raises(pxframe.PxframeError, match=r"has no 4\.weight any more; exclude it"):
        pxframe.prune(model, None, scorer="imp", train=takes, sparsity=0.5)


def test_errors(model):
    with pytest.raises(pxframe.PxframeError, match="scorer 'imp' needs training: pass train="):
        pxframe.prune(model, None, scorer="imp")
    with pytest.raises(pxframe.PxframeError, match="ltr: 'step' must be"):
        pxframe.prune(model, None, scorer=dict(type="ltr", step=-1), train=Trainer())

    def careless(model, ticket, start=0, stop=None):
        with torch.no_grad():
            model[0].weight += 1

    with pytest.raises(pxframe.PxframeError, match=r"let pruned weights of 0\.weight grow back"):
        pxframe.prune(model, None, scorer="imp", train=careless, sparsity=0.5, rounds=2, exclude=["4.*"])
