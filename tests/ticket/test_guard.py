"""The guard: pruned weights stay exactly zero whatever the optimizer does."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pxframe.base.errors import PxframeError
from pxframe.ticket.pruned import Pruned
from pxframe.ticket.ticket import Ticket

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "sgd_nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.01),
    "adamw_foreach": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, foreach=True),
    "adamw_fused": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.005, momentum=0.9),
}


def make(seed=0):
    """A small network, and a ticket for its weights that has been applied."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 5))
    masks = {n: torch.rand(p.shape) < 0.4 for n, p in model.named_parameters() if p.ndim > 1}
    ticket = Ticket(masks)
    ticket.apply(model)
    return model, ticket


def loss_of(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(4, 3, 6, 6, generator=generator).to(model[0].weight.dtype)
    return F.cross_entropy(model(inputs), torch.randint(0, 5, (4,), generator=generator))


def train(model, optimizer, steps):
    for step in range(steps):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()


def pruned(model, ticket):
    """All pruned weights of the model, flat."""
    named = dict(model.named_parameters())
    return torch.cat([named[n].detach()[~m].flatten() for n, m in ticket.masks.items()])


def kept(model, ticket):
    named = dict(model.named_parameters())
    return torch.cat([named[n].detach()[m].flatten() for n, m in ticket.masks.items()])


def stays_zero(model, ticket):
    return bool((pruned(model, ticket) == 0).all())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fifty_steps(name):
    model, ticket = make()
    free = copy.deepcopy(model)
    start = kept(model, ticket)
    optimizer = OPTIMIZERS[name](model.parameters())
    ticket.guard(optimizer, model)
    for step in range(50):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()
        assert stays_zero(model, ticket), step
    assert (kept(model, ticket) != start).all(), "what is kept is trained"
    train(free, OPTIMIZERS[name](free.parameters()), 1)
    assert not stays_zero(free, ticket), "without the guard the pruned weights return"


def test_kept_weights_and_other_parameters_are_untouched_by_the_guard():
    model, ticket = make()
    free = copy.deepcopy(model)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    ticket.guard(optimizer, model)
    train(model, optimizer, 1)
    train(free, OPTIMIZERS["sgd"](free.parameters()), 1)
    for (name, ours), theirs in zip(model.named_parameters(), free.parameters(), strict=True):
        mask = ticket.masks.get(name, torch.ones(ours.shape).bool())
        assert ours[mask].equal(theirs[mask]), name


def test_remove_ends_it():
    model, ticket = make()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    handle = ticket.guard(optimizer, model)
    train(model, optimizer, 2)
    assert stays_zero(model, ticket)
    handle.remove()
    train(model, optimizer, 1)
    assert not stays_zero(model, ticket)


def test_as_a_context_it_ends_with_the_block():
    model, ticket = make()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    with ticket.guard(optimizer, model):
        train(model, optimizer, 2)
        assert stays_zero(model, ticket)
    train(model, optimizer, 1)
    assert not stays_zero(model, ticket)


@pytest.mark.parametrize("name", ["sgd", "adamw_fused"])
def test_grad_scaler_with_a_skipped_step(name):
    model, ticket = make()
    optimizer = OPTIMIZERS[name](model.parameters())
    ticket.guard(optimizer, model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(6):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, step)).backward()
        if step == 3:
            model[4].weight.grad.view(-1)[0] = torch.inf
        before, scale = kept(model, ticket), scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        assert kept(model, ticket).equal(before) == (step == 3)
        assert (scaler.get_scale() < scale) == (step == 3)
        assert stays_zero(model, ticket), step


def test_gradient_accumulation_and_a_closure():
    model, ticket = make()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    ticket.guard(optimizer, model)
    for step in range(12):
        loss_of(model, step).backward()
        if step % 4 == 3:
            optimizer.step()
            optimizer.zero_grad()
            assert stays_zero(model, ticket), step

    def closure():
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert stays_zero(model, ticket)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw_foreach"])
def test_bad_gradients_do_not_reach_pruned_weights(name, bad):
    model, ticket = make()
    optimizer = OPTIMIZERS[name](model.parameters())
    ticket.guard(optimizer, model)
    loss_of(model).backward()
    for parameter in model.parameters():
        parameter.grad.fill_(bad)
    optimizer.step()
    assert not kept(model, ticket).isfinite().any(), "the bad values did arrive"
    assert stays_zero(model, ticket)
    assert not pruned(model, ticket).signbit().any(), "zero, not minus zero"


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_cast_or_laid_out_anew_after_guarding(dtype):
    model, ticket = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    ticket.guard(optimizer, model)
    train(model, optimizer, 2)
    for change in (lambda: model.to(dtype), lambda: model.to(memory_format=torch.channels_last), model.float):
        before = model[0].weight.data_ptr()
        change()
        assert model[0].weight.data_ptr() != before, "the storage is another now"
        train(model, optimizer, 2)
        assert stays_zero(model, ticket)
        assert (kept(model, ticket) != 0).all()


def test_the_mask_follows_its_weight():
    mask = torch.rand(2, 3, 4, 4) < 0.5
    pruned = Pruned(torch.ones(2, 3, 4, 4), mask)
    for weight in (
        torch.ones(2, 3, 4, 4),
        torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.ones(2, 3, 4, 4, dtype=torch.double),
        torch.ones(2, 3, 4, 4, dtype=torch.half),
        torch.ones(2, 3, 4, 4, dtype=torch.complex64),
        torch.ones(2, 3, 4, 4, dtype=torch.complex128),
        torch.empty(2, 3, 4, 4, device="meta", dtype=torch.half),
    ):
        pruned.follow(weight)
        pruned.zero(weight)
        assert pruned.keep.device == weight.device
        assert pruned.keep.stride() == weight.stride()
        assert weight.is_meta or weight.equal(mask.to(weight.dtype))


def test_the_mask_of_a_strided_slice_is_made_once():
    mask = torch.rand(8, 6) < 0.5
    weight = torch.ones(8, 12)[:, ::2]
    pruned = Pruned(weight, mask)
    first = pruned.keep
    pruned.follow(weight)
    pruned.zero(weight)
    assert pruned.keep is first
    assert weight.equal(mask.float())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_model_moved_to_the_gpu_after_guarding(name):
    model, ticket = make()
    optimizer = OPTIMIZERS[name](model.parameters())
    ticket.guard(optimizer, model)
    model.cuda()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)
    optimizer.step()
    assert stays_zero(model.cpu(), ticket)
    assert kept(model, ticket).isnan().all()


def test_half_of_the_layers_in_an_optimizer_and_one_fully_kept():
    model, ticket = make()
    ticket.masks["4.weight"] = torch.ones(5, 96).bool()
    optimizer = OPTIMIZERS["sgd"](model[0].parameters())
    ticket.guard(optimizer, model)
    train(model, optimizer, 3)
    assert stays_zero(model, ticket)


def test_a_backbone_inside_a_segmentor_and_a_partial_ticket():
    model, ticket = make()
    whole = nn.ModuleDict({"backbone": model})
    ticket.masks["4.weight"] = torch.zeros(7, 96).bool()
    optimizer = OPTIMIZERS["sgd"](whole.parameters())
    with pytest.raises(PxframeError, match=r"4\.weight ticket \[7, 96\] model \[5, 96\]"):
        ticket.guard(optimizer, whole)
    ticket.guard(optimizer, whole, prefix="backbone.", partial=True)
    train(model, optimizer, 3)
    assert (model[0].weight[~ticket.masks["0.weight"]] == 0).all()
    assert (model[4].weight != 0).any()


@pytest.mark.parametrize("value", [1e-30, torch.nan])
def test_the_ticket_must_be_applied_first(value):
    model, ticket = make()
    with torch.no_grad():
        model[4].weight.view(-1)[int((~ticket.masks["4.weight"]).flatten().int().argmax())] = value
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    with pytest.raises(PxframeError, match=r"not zero in 4\.weight; apply the ticket first"):
        ticket.guard(optimizer, model)
    ticket.apply(model)
    ticket.guard(optimizer, model).remove()


def test_the_optimizer_must_be_one_of_this_model():
    model, ticket = make()
    other, _ = make()
    with pytest.raises(PxframeError, match="holds none of the ticket's weights"):
        ticket.guard(OPTIMIZERS["sgd"](other.parameters()), model)
    with pytest.raises(PxframeError, match=r"needs a torch\.optim\.Optimizer, got list"):
        ticket.guard(list(model.parameters()), model)


# --- gradients ---------------------------------------------------------------------------------------


def pruned_gradients(model, ticket):
    named = dict(model.named_parameters())
    return torch.cat([named[n].grad[~m].flatten() for n, m in ticket.masks.items()])


def test_pruned_gradients_are_zero_after_every_backward():
    model, ticket = make()
    optimizer = OPTIMIZERS["adamw_fused"](model.parameters())
    with ticket.guard(optimizer, model):
        for seed in range(3):  # accumulated
            loss_of(model, seed).backward()
            assert (pruned_gradients(model, ticket) == 0).all()
        optimizer.zero_grad(set_to_none=False)
        (loss_of(model) * torch.nan).backward()
        assert (pruned_gradients(model, ticket) == 0).all(), "NaN too"
        assert model[4].weight.grad[ticket.masks["4.weight"]].isnan().all()
    optimizer.zero_grad()
    loss_of(model).backward()
    assert (pruned_gradients(model, ticket) != 0).any(), "the end of the guard ends this too"


def test_gradients_set_by_hand_are_zeroed_before_the_step():
    model, ticket = make()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    ticket.guard(optimizer, model)
    for change in (lambda p: setattr(p, "grad", torch.ones_like(p)), lambda p: p.grad.add_(1.0)):
        loss_of(model).backward()
        for parameter in model.parameters():
            change(parameter)
        assert (pruned_gradients(model, ticket) != 0).all()
        optimizer.step()
        assert (pruned_gradients(model, ticket) == 0).all()
        assert stays_zero(model, ticket)


def test_a_frozen_weight_stays_frozen_and_is_guarded_when_it_is_trained_later():
    model, ticket = make()
    model[0].weight.requires_grad_(False)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    ticket.guard(optimizer, model)
    assert not model[0].weight.requires_grad
    before = model[0].weight.clone()
    train(model, optimizer, 2)
    assert model[0].weight.equal(before)
    assert model[0].weight.grad is None
    model[0].weight.requires_grad_(True)
    optimizer.zero_grad()
    loss_of(model).backward()
    assert (pruned_gradients(model, ticket) == 0).all()
    optimizer.step()
    assert stays_zero(model, ticket)
    assert not model[0].weight.equal(before)


def test_a_weight_in_two_modules_keeps_what_both_masks_keep():
    model = nn.ModuleDict({"a": nn.Linear(4, 4, bias=False), "b": nn.Linear(4, 4, bias=False)})
    model["b"].weight = model["a"].weight
    ticket = Ticket({"a.weight": torch.eye(4).bool(), "b.weight": torch.ones(4, 4).triu().bool()})
    ticket.apply(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    ticket.guard(optimizer, model)
    for _ in range(3):
        optimizer.zero_grad()
        (model["b"](torch.relu(model["a"](torch.randn(5, 4)))) ** 2).sum().backward()
        assert (model["a"].weight.grad[~torch.eye(4).bool()] == 0).all()
        optimizer.step()
        assert (model["a"].weight[~torch.eye(4).bool()] == 0).all()


# --- steps that could move zeros although their gradient is zero --------------------------------------


def returning(model, ticket, optimizer):
    """Whether pruned weights are alive at the end of a training under guard."""
    with ticket.guard(optimizer, model):
        train(model, optimizer, 3)
    return not stays_zero(model, ticket)


@pytest.mark.parametrize("load", [False, True])
@pytest.mark.parametrize("name", ["sgd", "adam", "rmsprop"])
def test_momentum_from_before_the_guard(name, load):
    model, ticket = make()
    optimizer = OPTIMIZERS[name](model.parameters())
    train(model, optimizer, 3)
    ticket.apply(model)
    if load:
        state = copy.deepcopy(optimizer.state_dict())
        optimizer = OPTIMIZERS[name](model.parameters())
        with ticket.guard(optimizer, model):
            optimizer.load_state_dict(state)
            train(model, optimizer, 3)
        assert stays_zero(model, ticket)
    else:
        assert not returning(model, ticket, optimizer)


def test_optimizers_that_divide_zero_by_zero():
    for options in (
        {"eps": 0.0},
        {"eps": 1e-8, "dtype": torch.float16},
        {"eps": 1e-8, "foreach": True, "amsgrad": True},
    ):
        model, ticket = make()
        model.to(options.pop("dtype", torch.float32))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.0, **options)
        ticket.guard(optimizer, model)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        assert stays_zero(model, ticket), options


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_capturable_optimizer_at_a_learning_rate_of_zero():
    model, ticket = make()
    model.cuda()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0, capturable=True)
    ticket.guard(optimizer, model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert stays_zero(model.cpu(), ticket)


class Noisy(torch.optim.SGD):
    """Moves every weight, as Langevin dynamics do."""

    def step(self, closure=None):
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.data.add_(0.1)


def test_an_optimizer_that_moves_every_weight_through_data():
    model, ticket = make()
    assert not returning(model, ticket, Noisy(model.parameters(), lr=0.1))


def test_weights_written_between_steps_are_zeroed_by_the_next():
    model, ticket = make()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    ticket.guard(optimizer, model)
    train(model, optimizer, 2)
    model.load_state_dict({name: torch.ones_like(value) for name, value in model.state_dict().items()})
    assert not stays_zero(model, ticket)
    train(model, optimizer, 1)
    assert stays_zero(model, ticket)


def test_a_closure_that_writes_to_the_weights():
    model, ticket = make()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    ticket.guard(optimizer, model)

    def closure():
        with torch.no_grad():
            model[0].weight.add_(0.1)
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert stays_zero(model, ticket)


def test_another_parameter_in_the_same_memory():
    model, ticket = make()
    alias = nn.Parameter(model[4].weight.data)
    assert alias.data_ptr() == model[4].weight.data_ptr()
    optimizer = torch.optim.SGD([*model.parameters(), alias], lr=0.1)
    ticket.guard(optimizer, model)
    alias.grad = torch.ones_like(alias)
    optimizer.step()
    assert stays_zero(model, ticket)


# --- wrappers and lifetime -----------------------------------------------------------------------------


class Wrapper(torch.optim.Optimizer):
    """As accelerate's: a subclass that holds the optimizer and never calls Optimizer.__init__."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    @property
    def param_groups(self):
        return self.optimizer.param_groups

    def step(self, closure=None):
        self.optimizer.step(closure)

    def zero_grad(self, set_to_none=True):
        self.optimizer.zero_grad(set_to_none)


def test_a_wrapper_that_holds_the_optimizer():
    model, ticket = make()
    optimizer = Wrapper(OPTIMIZERS["sgd"](model.parameters()))
    ticket.guard(optimizer, model)
    train(model, optimizer, 3)
    assert stays_zero(model, ticket)


def test_a_wrapper_that_never_runs_hooks_is_refused():
    from timm.optim.lookahead import Lookahead

    model, ticket = make()
    base = OPTIMIZERS["sgd"](model.parameters())
    with pytest.raises(PxframeError, match="Lookahead, which runs no step hooks; pass the torch optimizer inside it"):
        ticket.guard(Lookahead(base), model)
    ticket.guard(base, model)
    optimizer = Lookahead(base, k=2)
    train(model, optimizer, 6)
    assert stays_zero(model, ticket)


def test_a_guarded_model_can_be_deleted_copied_and_saved(tmp_path):
    model, ticket = make()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    ticket.guard(optimizer, model)
    train(model, optimizer, 1)
    twin = copy.deepcopy(model)
    torch.save(model, tmp_path / "model.pt")
    train(twin, OPTIMIZERS["sgd"](twin.parameters()), 1)
    assert not stays_zero(twin, ticket), "a copy is free"
    weight = weakref.ref(model[0].weight)
    del model, optimizer
    gc.collect()
    assert weight() is None


def test_a_sharded_weight_is_refused(monkeypatch):
    model, ticket = make()
    monkeypatch.setattr(nn.Parameter, "full_tensor", lambda self: self, raising=False)  # as DTensor has
    with pytest.raises(PxframeError, match=r"sharded weights \(DTensor\): 0\.weight, 4\.weight"):
        ticket.guard(OPTIMIZERS["sgd"](model.parameters()), model)


def test_weights_that_another_optimizer_trains_are_named():
    model, ticket = make()
    optimizer = torch.optim.SGD([next(model.parameters())], lr=0.1)
    with pytest.warns(UserWarning, match="does not hold .* guard that one too"):
        ticket.guard(optimizer, model)
