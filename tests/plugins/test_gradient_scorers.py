"""Scorers made of derivatives of the loss, against finite differences, explicit Hessians and hand-written training."""

import copy
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pxframe
from pxframe.network.net import Net
from pxframe.plugin import host
from pxframe.plugin.registry import build

ALL = ["snip", "iter_snip", "force", "grasp", "prospr", {"type": "prospr", "order": "first"}]


def small():
    """Convolution, BN, ReLU, max-pooling, linear; 63 prunable weights."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3, 3)
    ).double()
    nn.init.normal_(model[1].weight)
    nn.init.normal_(model[1].bias)
    nn.init.uniform_(model[1].running_var, 0.5, 2.0)
    return model


@pytest.fixture
def model():
    return small()


@pytest.fixture
def batches():
    torch.manual_seed(1)
    return [(torch.randn(4, 2, 6, 6, dtype=torch.float64), torch.arange(i, i + 4) % 3) for i in range(4)]


def make_masks(model, masked=True, seed=2):
    """By name; every layer loses some weights, and the last a whole channel (a convolution's ties max-pooling)."""
    generator = torch.Generator().manual_seed(seed)
    masks = {
        n: (torch.rand(p.shape, generator=generator) < 0.6) | (not masked)
        for n, p in model.named_parameters()
        if p.ndim > 1
    }
    if masked:
        list(masks.values())[-1][1] = False
    return masks


def differences(function, at, step=1e-6, entries=None):
    """Central differences of ``function(dict of tensors)`` in every entry, or some, of ``at``."""
    found = {}
    for name, tensor in at.items():
        tensor = tensor.double()
        found[name] = torch.full_like(tensor, torch.nan)
        for index in range(tensor.numel()) if entries is None else entries[name]:
            values = []
            for moved in (tensor.clone(), tensor.clone()):
                moved.view(-1)[index] += step if not values else -step
                values.append(function({**at, name: moved}))
            found[name].view(-1)[index] = (values[0] - values[1]) / (2 * step)
    return found


def agree(found, expected, **tolerance):
    """Equal up to rounding wherever ``expected`` is known, on the scale of the largest; and not all zero."""
    assert set(found) == set(expected)
    scale = max(float(e.nan_to_num().abs().max()) for e in expected.values())
    assert scale > 0
    for name, known in expected.items():
        assert found[name].shape == known.shape
        where = ~known.isnan()
        assert torch.allclose(found[name][where], known[where], **{"rtol": 1e-5, "atol": 1e-6 * scale, **tolerance}), (
            name
        )


def with_factors(model, factors):
    """A copy whose weights are multiplied by ``factors``, by name."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, factor in factors.items():
            model.get_parameter(name).mul_(factor)
    return model


def spread(channels, masks):
    """A factor per weight: its channel's times its mask's entry; a whole pruned channel's mask is its factor alone."""
    factors = {}
    for name, mask in masks.items():
        whole = mask.flatten(1).any(1).logical_not()
        inner = mask | whole.view(-1, *[1] * (mask.ndim - 1))
        factors[name] = channels[name].view(-1, *[1] * (mask.ndim - 1)) * inner
    return factors


#: What a mask entry on an output channel multiplies in ``small()``: behind the norm, which would undo it in front.
GATED = {"0.weight": ("1.weight", "1.bias"), "5.weight": ("5.weight", "5.bias")}


def gates(channels, masks):
    """A factor per parameter, from an entry per channel; a whole pruned channel's stands on its weights."""
    factors = {name: mask.double() for name, mask in masks.items()}
    for name, entries in channels.items():
        kept = masks[name].flatten(1).any(1)
        for gated in {*GATED[name], name}:
            like = factors.get(gated, torch.ones(len(kept), dtype=torch.float64))
            shape = (-1, *[1] * (like.ndim - 1))
            factor = torch.where(kept, entries, 1.0) if gated in GATED[name] else torch.ones_like(entries)
            if gated == name:
                like = torch.where(kept.view(shape), like, 1.0)
                factor = torch.where(kept, factor, entries)
            factors[gated] = like * factor.view(shape)
    return factors


def channel_entries(masks):
    """The mask's entry per channel: 1 where anything is left, 0 where nothing."""
    return {name: mask.flatten(1).any(1).double() for name, mask in masks.items()}


def channel_scores(model, batches, masks, scorer):
    return build("scorer", scorer).score_channels(Net(model, masks), batches)


def total_loss(model, batches):
    return sum(float(F.cross_entropy(model(x), y).detach()) for x, y in batches)


# SNIP and its iterated forms


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("scorer", ["snip", "iter_snip", "force"])
def test_snip_iter_snip_and_force_are_differences_of_the_loss_in_the_mask(model, batches, scorer, training, masked):
    """At pruned entries too, where the mask is moved away from 0."""
    model.train(training)
    masks = make_masks(model, masked)
    expected = differences(lambda m: total_loss(with_factors(model, m), batches), masks)
    found = pxframe.score(model, batches, scorer=scorer, masks=masks)
    agree(found, {n: d.abs() for n, d in expected.items()})
    if masked:
        assert all((found[n][~masks[n]] > 0).any() for n in found)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_channel_scores_of_snip_are_differences_in_a_factor_per_channel(model, batches, training, masked):
    model.train(training)
    masks = make_masks(model, masked)
    expected = differences(
        lambda c: total_loss(with_factors(model, gates(c, masks)), batches), channel_entries(masks), step=1e-7
    )
    agree(channel_scores(model, batches, masks, "snip"), {n: d.abs() for n, d in expected.items()}, rtol=1e-4)


def test_snip_takes_another_loss(model, batches):
    model.eval()
    own = pxframe.score(model, batches, scorer="snip", loss=lambda out, y: 3 * F.cross_entropy(out, y))
    plain = pxframe.score(model, batches, scorer="snip")
    assert all(torch.allclose(own[n], 3 * plain[n]) for n in plain)


# GraSP


def flow(model, factors, masks, batches, temperature):
    """Half the squared norm of the gradient of the kept weights, at theta * factors."""
    model = with_factors(model, factors)
    loss = sum(F.cross_entropy(model(x) / temperature, y) for x, y in batches)
    gradients = torch.autograd.grad(loss, [model.get_parameter(n) for n in masks])
    return 0.5 * float(sum((g * masks[n]).square().sum() for n, g in zip(masks, gradients, strict=True)))


@pytest.mark.parametrize(
    ("training", "masked", "temperature", "count"),
    [(True, False, 200.0, 2), (False, False, 1.0, 1), (False, True, 2.0, 3), (True, True, 1.0, 2)],
)
def test_grasp_is_theta_times_the_explicit_hessian_times_the_gradient(
    model, batches, training, masked, temperature, count
):
    model.train(training)
    masks, batches = make_masks(model, masked), batches[:count]
    shape, mean, variance = model[0].weight.shape, model[1].running_mean.clone(), model[1].running_var.clone()

    def plain(flat):
        """The network once more, as a function of its 63 weights."""
        conv, linear = flat[:54].view(shape), flat[54:].view(3, 3)
        loss = 0.0
        for x, y in batches:
            x = F.conv2d(x, conv * masks["0.weight"], model[0].bias, stride=2)
            x = F.batch_norm(x, mean.clone(), variance.clone(), model[1].weight, model[1].bias, training)
            x = F.max_pool2d(x.relu(), 2).flatten(1) @ (linear * masks["5.weight"]).T + model[5].bias
            loss = loss + F.cross_entropy(x / temperature, y)
        return loss

    flat = torch.cat([model[0].weight.flatten(), model[5].weight.flatten()]).detach().requires_grad_()
    gradient = torch.autograd.grad(plain(flat), flat)[0]
    product = flat.detach() * (torch.autograd.functional.hessian(plain, flat) @ gradient)
    expected = {"0.weight": product[:54].view(shape), "5.weight": product[54:].view(3, 3)}
    agree(pxframe.score(model, batches, scorer="grasp", masks=masks, temperature=temperature), expected, rtol=1e-9)


def test_grasp_is_the_change_of_the_gradient_flow_with_the_mask_also_per_channel(model, batches):
    """Which says that the sign is right: where the score is positive, less of the weight is less gradient flow."""
    model.eval()
    masks = make_masks(model)
    scorer = {"type": "grasp", "temperature": 1.0}
    expected = differences(lambda m: flow(model, m, masks, batches, 1.0), masks)
    found = pxframe.score(model, batches, scorer=scorer, masks=masks)
    agree(found, {n: d.where(masks[n], 0.0) for n, d in expected.items()})
    entries = channel_entries(masks)
    expected = differences(lambda c: flow(model, spread(c, masks), masks, batches, 1.0), entries)
    found = channel_scores(model, batches, masks, scorer)
    agree(found, {n: d.where(entries[n] > 0, 0.0) for n, d in expected.items()})


def test_grasp_divides_every_floating_tensor_of_the_output(model, batches):
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = copy.deepcopy(model)

        def forward(self, x):
            out = self.body(x)
            return {"out": out, "aux": [out.square(), out.argmax(1)], "name": "heads"}

    def loss(output, target, by=1.0):
        chosen = (output["out"] / by).gather(1, output["aux"][1].unsqueeze(1))  # by whole numbers, which must stay so
        return chosen.square().sum() + F.cross_entropy(output["aux"][0] / by, target)

    heads = Heads()
    found = pxframe.score(heads, batches, scorer="grasp", temperature=5.0, loss=loss)
    undivided = pxframe.score(heads, batches, scorer="grasp", temperature=1.0, loss=loss)
    expected = pxframe.score(
        heads, batches, scorer="grasp", temperature=1.0, loss=lambda output, target: loss(output, target, 5.0)
    )
    agree(found, expected, rtol=1e-9)
    assert not torch.allclose(found["body.0.weight"], undivided["body.0.weight"])


def test_grasp_refuses_an_output_it_cannot_divide(batches):
    class Odd(nn.Linear):
        def forward(self, x):
            return {"logits": {super().forward(x.flatten(1))}}  # a set is no container that pytree looks into

    with pytest.raises(pxframe.PxframeError, match="grasp: the model's output, a dict, has no tensor"):
        pxframe.score(
            Odd(72, 3).double(),
            batches,
            scorer="grasp",
            loss=lambda output, target: F.cross_entropy(next(iter(output["logits"])), target),
        )


# ProsPr


def trained(model, masks, batches, momentum, lr=0.1):
    """The model after plain SGD on all batches but the last, pruned weights left out of it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    for x, y in batches[:-1]:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        for name, mask in masks.items():
            model.get_parameter(name).grad.mul_(mask)
        optimizer.step()
    return model


PLANS = [
    (1, 0.0, True, False),
    (2, 0.9, False, False),
    (3, 0.0, False, True),
    (3, 0.9, True, True),
]


@pytest.mark.parametrize(("steps", "momentum", "training", "masked"), PLANS)
def test_prospr_is_differences_of_the_final_loss_through_training(model, batches, steps, momentum, training, masked):
    model.train(training)
    masks, batches = make_masks(model, masked), batches[: steps + 1]

    def final_loss(factors):
        return total_loss(trained(with_factors(model, factors), masks, batches, momentum), batches[-1:])

    options = {"type": "prospr", "steps": steps, "momentum": momentum}
    expected = differences(final_loss, masks)
    found = pxframe.score(model, batches, scorer=options, masks=masks)
    agree(found, {n: d.abs() for n, d in expected.items()})
    expected = differences(lambda c: final_loss(gates(c, masks)), channel_entries(masks), step=1e-7)
    agree(channel_scores(model, batches, masks, options), {n: d.abs() for n, d in expected.items()}, rtol=1e-4)


@pytest.mark.parametrize(("steps", "momentum", "training", "masked"), PLANS)
def test_prospr_first_order_is_theta_times_the_final_gradient(model, batches, steps, momentum, training, masked):
    model.train(training)
    masks, batches = make_masks(model, masked), batches[: steps + 1]
    later = trained(with_factors(model, masks), masks, batches, momentum, lr=0.3)
    later.zero_grad()
    F.cross_entropy(later(batches[-1][0]), batches[-1][1]).backward()
    signed = {n: p.grad * model.get_parameter(n).detach() for n, p in later.named_parameters()}
    options = {"type": "prospr", "steps": steps, "momentum": momentum, "order": "first", "lr": 0.3}
    found = pxframe.score(model, batches, scorer=options, masks=masks)
    agree(found, {n: signed[n].abs() for n in masks}, rtol=1e-9)
    sums = {}
    for n, mask in masks.items():
        gated = sum((signed[p] * masks.get(p, 1)).flatten(1).sum(1) if p == n else signed[p] for p in GATED[n])
        sums[n] = torch.where(mask.flatten(1).any(1), gated, signed[n].flatten(1).sum(1)).abs()
    agree(channel_scores(model, batches, masks, options), sums, rtol=1e-9)


@pytest.mark.parametrize("order", ["full", "first"])
def test_prospr_trains_on_batches_in_their_order(model, batches, order):
    swapped = [batches[1], batches[0], *batches[2:]]
    one, other = (pxframe.score(model, b, scorer="prospr", order=order) for b in (batches, swapped))
    assert all(not torch.allclose(one[n], other[n], rtol=1e-3) for n in one)


@pytest.mark.parametrize("order", ["full", "first"])
def test_prospr_reads_one_batch_more_than_steps_and_asks_for_them(model, batches, order):
    def stream():
        yield from batches[:3]
        raise AssertionError("one batch too many")

    pxframe.score(model, stream(), scorer="prospr", steps=2, order=order)
    with pytest.raises(pxframe.PxframeError, match=r"prospr: 3 steps need 4 batches, .*; 'batches' gave 2$"):
        pxframe.score(model, batches[:2], scorer="prospr", order=order)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"type": "grasp", "temperature": 0}, "grasp: 'temperature' must be a finite number above 0, got 0"),
        ({"type": "grasp", "temperature": "hot"}, "grasp: 'temperature' must be"),
        ({"type": "prospr", "steps": 0}, "prospr: 'steps' must be a whole number of at least 1, got 0"),
        ({"type": "prospr", "steps": 2.0}, "prospr: 'steps' must be"),
        ({"type": "prospr", "lr": -0.1}, "prospr: 'lr' must be a finite number above 0"),
        ({"type": "prospr", "momentum": 1}, r"prospr: 'momentum' must be a number in \[0, 1\)"),
        ({"type": "prospr", "order": "second"}, "prospr: 'order' must be one of 'full', 'first'; got 'second'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, text):
    with pytest.raises(pxframe.PxframeError, match=text):
        build("scorer", options)


# Second derivatives


class Attending(nn.Module):
    """Four tokens; attention by torch's module, or by its function."""

    def __init__(self, module):
        super().__init__()
        self.embed, self.head = nn.Linear(3, 4), nn.Linear(4, 3)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True) if module else None
        self.qkv = None if module else nn.Linear(4, 12)

    def forward(self, x):
        x = self.embed(x)
        if self.attention is not None:
            x = self.attention(x, x, x, need_weights=False)[0]
        else:
            q, k, v = self.qkv(x).view(*x.shape[:2], 3, 2, 2).permute(2, 0, 3, 1, 4)
            x = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head(x.mean(1).tanh())


@pytest.mark.parametrize("module", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_attention_has_its_second_derivatives(module, training):
    torch.manual_seed(3)
    model = Attending(module).double().train(training)
    nn.init.normal_(model.embed.weight)
    batches = [(torch.randn(5, 4, 3, dtype=torch.float64), torch.arange(5) % 3) for _ in range(3)]
    masks = make_masks(model, masked=False)
    some = {n: range(0, m.numel(), 5) for n, m in masks.items()}
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = differences(lambda m: flow(model, m, masks, batches, 1.0), masks, entries=some, step=1e-5)
    agree(pxframe.score(model, batches, scorer="grasp", temperature=1.0), expected)
    expected = differences(
        lambda m: total_loss(trained(with_factors(model, m), masks, batches, 0.9), batches[-1:]),
        masks,
        entries=some,
        step=1e-5,
    )
    found = pxframe.score(model, batches, scorer="prospr", steps=2, momentum=0.9)
    agree(found, {n: d.abs() for n, d in expected.items()})


def test_no_curvature_and_unused_weights_are_zeros_not_errors():
    """Of a loss that is linear in the weights GraSP is zero, and ProsPr its slope, whatever the steps."""
    model, batches = nn.Linear(2, 1), [(torch.ones(1, 2), None)] * 4
    model.spare = nn.Linear(3, 3)
    options = {"loss": lambda output, target: output.sum()}
    assert not any(s.any() for s in pxframe.score(model, batches, scorer="grasp", **options).values())
    found = pxframe.score(model, batches, scorer="prospr", **options)
    assert torch.allclose(found["weight"], model.weight.detach().abs())
    assert not found["spare.weight"].any()


class Noise(nn.Module):
    """Tells a function what it drew. (A list of its own would be put back as it was after every pass.)"""

    def __init__(self, tell):
        super().__init__()
        self.tell = tell

    def forward(self, x):
        self.tell(float(torch.rand(())))
        return x


def test_second_passes_meet_the_dropout_of_the_first(batches):
    seen = []
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 3), Noise(seen.append)).double()

    def augmented():
        for x, y in batches[:3]:
            yield x + torch.rand(()), y  # a source that draws numbers while it is first read

    pxframe.score(model, augmented(), scorer="grasp")
    first, second = seen[:3], seen[3:]
    assert first == second
    assert len(set(first)) == 3
    seen.clear()
    pxframe.score(model, augmented(), scorer="prospr", steps=2)
    steps, back = seen[:2], seen[3:]
    assert steps == back[::-1]
    assert len(set(steps)) == 2


# All of them


def snapshot(model):
    return (
        {n: m.training for n, m in model.named_modules()},
        {n: (p.requires_grad, id(p), p.grad is None, p._version) for n, p in model.named_parameters()},
        {n: (id(b), b._version) for n, b in model.named_buffers()},
    )


@pytest.fixture
def mixed(model):
    """A mixture of flags, as after freezing, and dropout."""
    model.insert(4, nn.Dropout(0.3)).train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    return model


@pytest.mark.parametrize("scorer", ALL)
def test_scoring_changes_nothing_and_repeats(mixed, batches, scorer):
    before, state = snapshot(mixed), {n: t.clone() for n, t in mixed.state_dict().items()}
    one = pxframe.score(mixed, batches, scorer=scorer)
    torch.rand(7)
    other = pxframe.score(mixed, iter(batches), scorer=scorer)
    assert all(torch.equal(one[n], other[n]) for n in one)
    pxframe.prune(mixed, batches, scorer=scorer, sparsity=0.5, rounds=2)
    assert all(torch.equal(t, state[n]) for n, t in mixed.state_dict().items())
    assert snapshot(mixed) == before


@pytest.mark.parametrize("scorer", ALL)
def test_frozen_parameters_are_scored_as_any(model, batches, scorer):
    expected = pxframe.score(model, batches, scorer=scorer)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    found = pxframe.score(model, batches, scorer=scorer)
    assert all(torch.equal(found[n], expected[n]) for n in expected)


class Watch:
    """An observer that keeps each round's masks and density."""

    def __init__(self):
        self.rounds = []

    @pxframe.hookimpl
    def pxframe_round_done(self, density, masks):
        self.rounds.append((density, {n: m.clone() for n, m in masks.items()}))

    def returned(self):
        """How many pruned weights returned in any round."""
        masks = [m for _, m in self.rounds]
        return sum(int((b[n] & ~a[n]).sum()) for a, b in pairwise(masks) for n in a)


@pytest.fixture
def watch():
    watch = Watch()
    host.host().manager.register(watch)
    yield watch
    host.host().manager.unregister(watch)


@pytest.mark.parametrize("scorer", ALL)
def test_every_round_keeps_exactly_its_count_and_only_force_lets_weights_return(mixed, batches, watch, scorer):
    ticket = pxframe.prune(mixed, batches, scorer=scorer, sparsity=0.8, rounds=8)
    assert [sum(int(m.sum()) for m in masks.values()) for _, masks in watch.rounds] == [
        round(0.2 ** (t / 8) * 63) for t in range(1, 9)
    ]
    assert ticket.kept == 13
    assert (watch.returned() > 0) == (scorer == "force")


def test_iterative_methods_take_a_hundred_rounds_and_the_others_one():
    rounds = {str(s): build("scorer", s).rounds for s in ALL}
    assert {s: r for s, r in rounds.items() if r != 1} == {"iter_snip": 100, "force": 100}


def test_grasp_of_activations_whose_derivative_has_none_in_torch():
    """nn.Hardsigmoid; against the same function written out."""

    class Written(nn.Module):
        def forward(self, x):
            return (x + 3).clamp(0, 6) / 6

    batches = [(torch.randn(8, 4), torch.arange(8) % 3)]
    scores = []
    for gate in (nn.Hardsigmoid(), Written()):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 5), gate, nn.Linear(5, 3))
        scores.append(pxframe.score(model, batches, "grasp"))
    assert all(torch.allclose(scores[0][n], scores[1][n], rtol=1e-4, atol=1e-9) for n in scores[0])
