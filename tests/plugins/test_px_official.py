"""Variant "official" of px: the authors' own numbers, the formula written out by hand, and what it refuses."""

import logging
import os
from copy import deepcopy
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from refusal import refused
from safetensors.torch import load_file
from torch import nn

import pxframe
from pxframe.files.paths import locate
from pxframe.job.config import checked
from pxframe.job.job import Job
from pxframe.running.undisturbed import seeded
from pxframe.stages.runs import pretrain
from pxframe.stages.tickets import make_whole_tickets
from pxframe.ticket.file import fingerprint

OFFICIAL = dict(type="px", variant="official")
NORM_EPS = 1e-5


# --- the authors' numbers -------------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet20(nn.Module):
    """With the names of the reference."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
        self.blocks = nn.Sequential(*(Block(i, o, 1 if i == o else 2) for i, o in pairwise(widths)))
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        return self.fc(self.blocks(F.relu(self.bn(self.conv(x)))).mean((2, 3)))


@pytest.fixture(scope="module")
def reference():
    if "PXFRAME_DATA" not in os.environ:
        pytest.skip("PXFRAME_DATA is not set")
    return load_file(locate("$PXFRAME_DATA/px-official.safetensors"))


def part(reference, prefix):
    return {name.removeprefix(prefix): t for name, t in reference.items() if name.startswith(prefix)}


def scores_of_reference(reference, kind, dtype):
    model = ResNet20()
    model.load_state_dict(part(reference, "model."))
    masks = part(reference, "mask.") if kind == "masked" else None
    batches = [(images.to(dtype), None) for images in reference["images"].split(10)]
    return pxframe.score(model.to(dtype), batches, OFFICIAL, masks=masks)


def body_and_head(scores):
    return torch.cat([s.flatten() for name, s in scores.items() if name != "fc.weight"]), scores["fc.weight"]


@pytest.mark.parametrize("kind", ["dense", "masked"])
def test_scores_are_those_of_the_authors_program(reference, kind):
    """Each score of the classifier, to 1e-4 of itself.

    Those of the convolutions are rounding errors, as the next test shows, and change from machine to machine and from
    one number of threads to another. That they are small is all that two programs can agree on.
    """
    found = scores_of_reference(reference, kind, torch.float32)
    expected = part(reference, f"score.{kind}.")
    assert found.keys() == expected.keys()
    (body, head), (body_there, head_there) = body_and_head(found), body_and_head(expected)
    assert torch.allclose(head, head_there, rtol=1e-4, atol=0)
    assert max(body.max(), body_there.max()) < 0.01 * head_there.max()


@pytest.mark.parametrize("kind", ["dense", "masked"])
def test_their_scores_of_convolutions_are_rounding_errors(reference, kind, caplog):
    """In float64 the classifier's scores stay, and all others go to zero."""
    body, head = body_and_head(scores_of_reference(reference, kind, torch.float64))
    assert torch.allclose(head.float(), reference[f"score.{kind}.fc.weight"], rtol=1e-3)
    assert body.max() < 1e-10 * head.max()
    assert [record.message for record in caplog.records if "rounding errors" in record.message]


# --- the formula, by hand -------------------------------------------------------------------------------------------


class Tiny(nn.Module):
    """Every case of the rule for names. No average hides the convolutions, and zeros around the image vary h."""

    def __init__(self, relu=F.relu):
        super().__init__()
        self.first, self.norm = (
            nn.Conv2d(2, 3, 3, padding=1),
            nn.BatchNorm2d(3),
        )  # a norm with a name, a convolution with a bias
        self.side = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3))  # a norm with a number
        self.drop, self.readout = nn.Dropout(0.5), nn.Linear(3 * 3 * 3, 4)
        self.relu = relu

    def forward(self, x):
        x = self.relu(self.norm(self.first(x))) + self.side(x)
        return self.readout(self.drop(F.max_pool2d(self.relu(x), 2)).flatten(1))


def tiny(**options):
    torch.manual_seed(0)
    model = Tiny(**options).double()
    for name, tensor in model.state_dict().items():
        if "num_batches" not in name:
            nn.init.uniform_(tensor, 0.5, 2.0) if "running_var" in name else nn.init.normal_(tensor)
    return model


def two_batches():
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(n, 2, 6, 6, dtype=torch.float64, generator=generator), None) for n in (3, 4)]


def by_hand(x, w, gates, running=None):
    """Tiny's output from a dict of its weights, and which of its ReLUs are open.

    ``gates``: None for ReLUs, else what multiplies their inputs. ``running``: None normalises by the batch, else by the
    running statistics in this dict.
    """
    recorded = []

    def relu(z):
        if gates is None:
            recorded.append((z > 0).double())
            return z * recorded[-1]
        recorded.append(None)
        return z * gates[len(recorded) - 1]

    def norm(z, name):
        if running is None:
            mean = z.sum((0, 2, 3)) / (z.numel() / 3)
            variance = (z - mean.view(1, 3, 1, 1)).square().sum((0, 2, 3)) / (z.numel() / 3)
        else:
            mean, variance = (running[f"{name}.running_{key}"] for key in ("mean", "var"))
        mean, variance, gamma, beta = (
            t.view(1, 3, 1, 1) for t in (mean, variance, w[f"{name}.weight"], w[f"{name}.bias"])
        )
        return (z - mean) / (variance + NORM_EPS).sqrt() * gamma + beta

    def conv(z, weight):
        z = F.pad(z, (1, 1, 1, 1))
        rows = [
            (z[:, :, None, i : i + 3, j : j + 3] * weight.transpose(0, 1)).sum((1, 3, 4))
            for i in range(6)
            for j in range(6)
        ]
        return torch.stack(rows, -1).unflatten(-1, (6, 6))

    z = relu(norm(conv(x, w["first.weight"]) + w["first.bias"].view(1, 3, 1, 1), "norm"))
    z = relu(z + norm(conv(x, w["side.0.weight"]), "side.1"))
    pooled = z.unflatten(2, (3, 2)).unflatten(4, (3, 2)).amax((3, 5))
    return pooled.flatten(1) @ w["readout.weight"].T + w["readout.bias"], recorded


KEPT = ("norm.weight", "norm.bias", "readout.weight", "readout.bias")


def expected_scores(model, batches, masks):
    theta = {name: p.detach() for name, p in model.named_parameters()}
    u = {name: (p if name in KEPT else p**2).clone().requires_grad_(name in masks) for name, p in theta.items()}
    ones = {name: p if name in KEPT else torch.ones_like(p) for name, p in theta.items()}

    def masked(values):
        return {name: value * masks[name] if name in masks else value for name, value in values.items()}

    for x, _ in batches:
        gates = by_hand(x, masked(theta), None, dict(model.named_buffers()))[1]
        g = by_hand(x**2, masked(ones), gates)[0]
        h = by_hand(torch.ones_like(x), masked(u), [1.0, 1.0])[0]
        (g.detach() * h).sum().backward()
    return {name: u[name].grad.abs() * theta[name] ** 2 for name in masks}


WEIGHTS = ("first.weight", "side.0.weight", "readout.weight")


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_scores_equal_the_formula_written_out(share):
    model = tiny()
    masks = {name: torch.rand_like(model.get_parameter(name)) < share for name in WEIGHTS}
    found = pxframe.score(model, two_batches(), OFFICIAL, masks=masks)
    for name, expected in expected_scores(model, two_batches(), masks).items():
        assert torch.allclose(found[name], expected, rtol=1e-9, atol=1e-11 * float(expected.max())), name
        assert (expected > 0).double().mean() > share / 2
        assert not found[name][~masks[name]].any()


def test_head_left_out_of_the_score_still_acts_by_its_own_values():
    model = tiny()
    every, some = (
        pxframe.score(
            model, two_batches(), OFFICIAL, masks={n: torch.ones_like(model.get_parameter(n)).bool() for n in m}
        )
        for m in (WEIGHTS, WEIGHTS[:2])
    )
    assert all(torch.equal(every[name], some[name]) for name in some)


# --- any way to call a ReLU, and nothing changed --------------------------------------------------------------------

SPELLINGS = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "functional in place": lambda x: F.relu(x, inplace=True),
    "functional, in place by name": F.relu_,
    "torch": torch.relu,
    "torch in place": torch.relu_,
    "method": lambda x: x.relu(),
    "method in place": lambda x: x.relu_(),
    "keyword": lambda x: F.relu(input=x),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_way_to_call_a_relu_is_one(spelling):
    expected = pxframe.score(tiny(), two_batches(), OFFICIAL)
    found = pxframe.score(tiny(relu=SPELLINGS[spelling]), two_batches(), OFFICIAL)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


class ReadAgain(nn.Module):
    """What a ReLU has written into is read twice, as where an activation opens a block."""

    def __init__(self, in_place):
        super().__init__()
        self.one, self.two, self.in_place = nn.Linear(3, 3), nn.Linear(3, 3), in_place

    def forward(self, x):
        x = self.one(x)
        y = F.relu(x, self.in_place)
        return self.two(y) + (x if self.in_place else y)


def test_what_a_relu_writes_into_is_read_as_it_left_it():
    batches = [(torch.randn(5, 3), None)]
    models = [ReadAgain(True), ReadAgain(False)]
    models[1].load_state_dict(models[0].state_dict())
    one, other = (pxframe.score(model, batches, OFFICIAL) for model in models)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("training", [False, True])
def test_model_data_and_random_state_are_left_as_they_were(training):
    model, batches = tiny(relu=nn.ReLU(inplace=True)).train(training), two_batches()
    model.norm.eval()
    before, data = deepcopy(model), deepcopy(batches)
    state = torch.get_rng_state()
    found = pxframe.score(model, batches, OFFICIAL)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), before.state_dict().values(), strict=True)
    )
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(x, y) for (x, _), (y, _) in zip(batches, data, strict=True))
    evaluated = pxframe.score(tiny(relu=nn.ReLU(inplace=True)).eval(), two_batches(), OFFICIAL)
    assert all(torch.equal(found[name], evaluated[name]) for name in found)


def test_a_network_that_is_not_averaged_gives_no_warning(caplog):
    caplog.set_level(logging.WARNING)
    ticket = pxframe.prune(tiny(), two_batches(), {**OFFICIAL, "rounds": 4}, sparsity=0.7)
    assert ticket.kept == round(0.3 * ticket.total)
    assert not [record for record in caplog.records if "rounding" in record.message]


@pytest.mark.parametrize("norm", [True, False])
def test_an_average_behind_batch_norms_is_warned_of_where_betas_are_zero_too(norm, caplog):
    torch.manual_seed(0)
    norms = [nn.BatchNorm2d(8) if norm else nn.Identity() for _ in range(2)]
    layers = [nn.Conv2d(3, 8, 3, padding=1), norms[0], nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), norms[1], nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4, bias=False))
    pxframe.score(model, [(torch.randn(4, 3, 8, 8), None)], OFFICIAL)
    assert norm == any("rounding errors" in record.message for record in caplog.records)


# --- a new head ------------------------------------------------------------------------------------------------------


def test_a_job_that_prunes_whole_models_scores_and_masks_a_new_head_for_the_task(tmp_path):
    """The classifier of the backbone has ten outputs; the task has five classes, so does the head in its ticket."""
    fake = dict(type="torchvision.datasets.FakeData", size=12, image_size=(3, 16, 16), num_classes=5)
    config = {
        "seed": 7,
        "backbone": dict(type="cifar_resnet", depth=8, width=4),
        "prune": dict(whole=True, scorer=OFFICIAL | {"rounds": 2}, sparsity=0.5, samples=8, batch_size=4, controls=[]),
        "tasks": {"five": dict(type="classification", data=dict(train=fake, test=fake), num_classes=5, epochs=1)},
    }
    job = Job.from_config(checked(config, "mine.py"), work_dir=tmp_path)
    model = pretrain(job, print)
    [ticket] = make_whole_tickets(job, "five", model, print).values()
    with seeded(7, torch.device("cpu")):
        head = nn.Linear(16, 5)  # torch's initialisation, from the job's seed
    scored = {f"backbone.{name}": p for name, p in model.named_parameters()} | {"head.weight": head.weight}
    assert ticket.masks["head.weight"].shape == (5, 16)
    assert not any("linear" in name for name in ticket.masks)
    assert ticket.total == sum(scored[name].numel() for name in ticket.masks)
    assert ticket.meta["fingerprint"] == fingerprint({name: scored[name] for name in ticket.masks})


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("relu", "named"),
    [
        (nn.SiLU(inplace=True), "'silu'"),
        (nn.ReLU6(), "'hardtanh'"),
        (lambda x: x * torch.sigmoid(x), "'sigmoid'"),
        (lambda x: x.clamp_(min=0), "'clamp'"),
        (lambda x: x.softmax(1), "'softmax'"),
    ],
)
def test_another_activation_is_refused_by_name(relu, named):
    parts = ("networks of ReLUs alone", named, "shape [3, 3, 6, 6]; take another variant")
    refused(lambda: pxframe.score(tiny(relu=relu), two_batches(), OFFICIAL), *parts)


def test_a_model_that_calls_other_relus_on_other_data_is_refused():
    class Fickle(Tiny):
        def forward(self, x):  # the data have negative numbers, their squares do not
            return super().forward(F.relu(x) if x.min() >= 0 else x)

    refused(lambda: pxframe.score(Fickle().double(), two_batches(), OFFICIAL), "calls the same ReLUs")


class Ending(nn.Module):
    def __init__(self, ending):
        super().__init__()
        self.layer, self.ending = nn.Linear(3, 4), ending

    def forward(self, x):
        return self.ending(self.layer(x), x)


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        (lambda z, x: z[x.min(1).values < 1], "outputs keep their shapes"),
        (lambda z, x: z.detach(), "no floating-point output of the model depends on its prunable weights"),
    ],
)
def test_outputs_without_a_meaning_for_the_formula_are_refused(ending, said):
    batches = [(torch.tensor([[0.5, 2.0, 3.0], [1.0, 2.0, 3.0]]), None)]
    refused(lambda: pxframe.score(Ending(ending), batches, OFFICIAL), said)


def test_one_value_a_channel_is_refused():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    refused(lambda: pxframe.score(model, [(torch.rand(1, 3), None)], OFFICIAL), "give larger batches")
