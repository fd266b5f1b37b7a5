"""Making tickets in a job: provenance, modes, the images scored on, and what survives a stop."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import pxframe
from pxframe.base.errors import PxframeError
from pxframe.job.config import JobConfig, Prune
from pxframe.job.job import Job, ScoredOn
from pxframe.job.prunings import prunings
from pxframe.plugin.registry import SCORERS, build
from pxframe.stages import subject, trainer
from pxframe.stages.runs import ticket_digest
from pxframe.stages.tickets import make_tickets, same_weights, with_weights
from pxframe.ticket.file import fingerprint
from pxframe.ticket.ticket import Ticket
from pxframe.training.hooks.weights import TicketHook


class Task:
    """Gives one batch, and counts how often it is asked."""

    reads = 0
    loss = staticmethod(torch.nn.functional.cross_entropy)

    def batches(self, samples, batch_size, *, seed):
        self.reads += 1
        return [(torch.rand(2, 4), torch.zeros(2, dtype=torch.long))]


@pytest.fixture
def job(tmp_path):
    config = JobConfig(
        file="mine.py", backbone={"type": "cifar_resnet"}, tasks={}, prune=Prune(controls=[], data={"type": "x"})
    )
    scored_on = ScoredOn(Task(), {"type": "classification"}, 5, 2, "eval")
    provider = SimpleNamespace(classifier=lambda model: "")
    return Job(config, (3,), "cpu", tmp_path, True, provider, None, {}, scored_on, {})


def test_a_ticket_knows_the_weights_it_was_made_from():
    model = torch.nn.Linear(4, 3)
    weights = {"weight": model.weight}
    ticket = Ticket({"weight": torch.ones(3, 4, dtype=torch.bool)}, {"fingerprint": fingerprint(weights)})
    assert same_weights(ticket, model)
    with torch.no_grad():
        model.weight[0, 0] += 1
    assert not same_weights(ticket, model)


def ticket(kept, total=100, scorer="px", **options):
    return Ticket({"weight": torch.arange(total) < kept}, {"scorer": scorer}, **options)


@pytest.mark.parametrize(
    ("transfer", "start", "trained_from"),
    [
        (None, {}, 1.0),
        (None, {"weight": 7.0}, 7.0),
        ("mask", {"weight": 7.0}, 1.0),
        ("mask+weights", {"weight": 7.0, "bias": 7.0}, 7.0),
    ],
)
def test_which_weights_a_ticket_is_transferred_with(job, transfer, start, trained_from):
    job.config.transfer = transfer
    model = torch.nn.Linear(2, 1)
    torch.nn.init.ones_(model.weight)
    mask = {"weight": torch.tensor([[True, False]])}
    made = Ticket(mask, start={n: torch.full_like(model.get_parameter(n), value) for n, value in start.items()})
    hook = TicketHook(with_weights(job, "ticket", made, model, print))
    training = SimpleNamespace(
        model=model, iter=0, optim_wrapper=SimpleNamespace(optimizer=torch.optim.SGD(model.parameters(), 1.0))
    )
    hook.before_train(training)
    assert model.weight.tolist() == [[trained_from, 0.0]]
    with torch.no_grad():
        model.weight.fill_(3.0)
    training.iter = 5  # resumed: training has been there already
    hook.before_train(training)
    assert model.weight.tolist() == [[3.0, 0.0]]


class Path(torch.nn.Module):
    """timm's DropPath in short: off in evaluation mode, though it is no layer of torch's."""

    def forward(self, x):
        return x * torch.rand(()) if self.training else x


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_mode_is_that_of_batch_norms_alone(job, monkeypatch, mode):
    def prune(model, batches, scorer, **_):
        assert [m.training for m in model] == [mode == "train", False, False, False]
        return ticket(1)

    monkeypatch.setattr(subject, "prune", prune)
    job.scored_on = ScoredOn(Task(), {"type": "classification"}, 5, 2, mode)
    job.prunings = prunings(Prune(scorer="magnitude", sparsity=0.5, controls=[]))
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Dropout(), Path(), torch.nn.Linear(2, 2))
    assert make_tickets(job, model, print)["magnitude-50.00"].kept == 1


def test_the_images_are_read_once_for_all_prunings_of_a_seed(job):
    job.prunings = prunings(Prune(scorer=["snip", "px", "synflow"], sparsity=[0.1, 0.2, 0.3]))
    made = make_tickets(
        job, torch.nn.Sequential(torch.nn.Linear(4, 30), torch.nn.ReLU(), torch.nn.Linear(30, 3)), print
    )
    assert len(made) == 13
    assert job.scored_on.task.reads == 1


def test_a_grid_opens_every_image_once_and_scores_a_single_shot_method_once(job, tmp_path, monkeypatch):
    """Eight methods at nine sparsities: the tickets, and what they say of themselves, are those of a prune for each."""
    for number in range(6):
        image = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(0, 256, (8, 8, 3), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(image)
    folder = {"type": "torchvision.datasets.ImageFolder", "root": str(tmp_path / "images")}
    task = build("task", {"type": "classification", "data": {"train": folder, "test": folder}})
    opened, scored = [], []
    open_image = Image.open
    monkeypatch.setattr(Image, "open", lambda path, *args: opened.append(path) or open_image(path, *args))
    single = ["snip", "grasp", "magnitude", "random"]
    for name in single:
        scorer = SCORERS.get(name)
        score = scorer.score
        monkeypatch.setattr(scorer, "score", lambda *args, s=score, n=name: scored.append(n) or s(*args))
    iterative = [{"type": name, "rounds": 2} for name in ("px", "synflow", "synflow_l2", "ntk_sap")]
    levels = [0.1 * number for number in range(1, 10)]
    job.scored_on = ScoredOn(task, {"type": "classification"}, 6, 3, "eval")
    job.prunings = prunings(Prune(scorer=[*single, *iterative], sparsity=levels, controls=[]))
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 2)
    )
    made = make_tickets(job, model, print)
    assert len(made) == 72
    assert len(opened) == len(set(opened)) == 6
    assert sorted(scored) == sorted(single)
    batches = list(task.batches(6, 3, seed=job.seed))
    for name, pruning in job.prunings.items():
        alone = pxframe.prune(
            model, batches, pruning.scorer, **pruning.settings, loss=task.loss, seed=job.seed, allow_collapse=True
        )
        assert all(torch.equal(made[name].masks[n], mask) for n, mask in alone.masks.items()), name
        meta = dict(made[name].meta)
        assert meta.pop("made_by")["settings"]["sparsity"] == pruning.settings["sparsity"]
        assert meta == alone.meta


def test_a_random_ticket_has_the_granularity_of_the_one_it_stands_beside(job):
    job.prunings = prunings(Prune(scorer=[{"type": "magnitude", "granularity": "2:4"}, "magnitude"], sparsity=0.5))
    made = make_tickets(job, torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 8)), print)
    groups = torch.cat([m.view(-1, 4).sum(1) for m in made["random-granularity=2_4-50.00"].masks.values()])
    assert groups.tolist() == [2] * 24


def test_tickets_of_other_weights_settings_or_damaged_ones_are_made_again(job):
    job.prunings = prunings(Prune(scorer="magnitude", sparsity=0.5, controls=[]))
    model, said = torch.nn.Linear(4, 4), []
    file = job.folder / "tickets" / "magnitude-50.00.safetensors"
    (first,) = make_tickets(job, model, said.append).values()
    (again,) = make_tickets(job, model, said.append).values()
    assert torch.equal(first.masks["weight"], again.masks["weight"])
    assert len(said) == 1
    with torch.no_grad():
        model.weight.neg_().add_(torch.randn(4, 4))
    (other,) = make_tickets(job, model, said.append).values()
    assert "weights changed" in said[1]
    assert same_weights(other, model)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    make_tickets(job, model, said.append)
    assert "damaged" in said[3]
    assert Ticket.load(file).kept == 8


def test_trainings_of_a_scorer_that_trains_are_not_repeated_after_a_stop(job, monkeypatch):
    """Stopped in the third of four trainings, the job does two more, and ends with the same ticket."""
    trained = []

    def train_between(setting, task, model, ticket, work_dir, start, stop, backbone):
        if len(trained) == 2 and not resumed:
            raise KeyboardInterrupt
        trained.append(int(ticket.kept))
        with torch.no_grad():
            model.weight.add_(0.01 * torch.arange(16.0).view(4, 4)).mul_(ticket.masks["weight"])

    monkeypatch.setattr(trainer, "train_between", train_between)
    job.prunings = prunings(Prune(scorer={"type": "imp", "rounds": 4}, sparsity=0.75, controls=[]))
    model, resumed = torch.nn.Linear(4, 4), True
    (whole,) = make_tickets(job, model, print).values()
    assert trained == [16, 11, 8, 6]
    (job.folder / "tickets" / "imp-rounds=4-75.00.safetensors").unlink()
    assert not list((job.folder / "tickets").iterdir())
    trained.clear()
    resumed = False
    with pytest.raises(KeyboardInterrupt):
        make_tickets(job, model, print)
    resumed = True
    (again,) = make_tickets(job, model, print).values()
    assert trained == [16, 11, 8, 6]
    assert torch.equal(whole.masks["weight"], again.masks["weight"])


def test_weights_of_a_ticket_s_own_need_a_task_to_train_on(job):
    job.config.transfer = "mask+weights"
    refitted = Ticket({"weight": torch.tensor([[True, False]])}, {}, {"weight": torch.ones(1, 2)})
    for made in (ticket(1), refitted):  # a refit is no training
        with pytest.raises(PxframeError, match="carries no trained weights, and there is no 'pretrain'"):
            with_weights(job, "px", made, torch.nn.Linear(2, 1), print)


def test_tickets_of_one_start_and_other_masks_are_told_apart():
    """Late rewinding gives every ticket the same start, which has a value for each masked weight."""
    start = {"weight": torch.ones(2, 2)}
    one, other = (Ticket({"weight": torch.eye(2).bool() ^ flip}, start=start) for flip in (False, True))
    assert ticket_digest(one) != ticket_digest(other)
    assert ticket_digest(one) == ticket_digest(Ticket(one.masks, {"note": 1}, start))
    assert ticket_digest(one) != ticket_digest(Ticket(one.masks))


def test_costs_of_channels_depend_on_the_images_and_so_does_the_recipe(job):
    """Of magnitudes they do not: such a ticket is not made again for other images."""
    granularity = {"type": "channel", "compute_aware": True}
    aware = {"type": "magnitude", "granularity": granularity, "exclude": "1.*"}
    model = torch.nn.Sequential(torch.nn.Linear(4, 30), torch.nn.Linear(30, 3))
    said = []
    for size in (8, 64):
        job.prunings = prunings(Prune(scorer=[aware, "magnitude"], sparsity=0.5, controls=[]))
        job.scored_on = ScoredOn(Task(), {"type": "classification", "size": size}, 5, 2, "eval")
        make_tickets(job, model, said.append)
    assert len([line for line in said if line.startswith("prune: magnitude")]) == 3
    assert any("task.size was 8, now 64" in line for line in said)


def test_a_collapsed_ticket_is_not_trained_for_weights(job):
    job.config.transfer = "mask+weights"
    collapsed = Ticket({"weight": torch.zeros(1, 2, dtype=torch.bool)}, {"collapsed": "no path"})
    assert with_weights(job, "px", collapsed, torch.nn.Linear(2, 1), print) is collapsed


def test_a_given_ticket_is_not_taken_for_its_control(job):
    job.given = ("random-50.00", Ticket({"weight": torch.eye(4).bool().repeat(1, 2).view(8, 4)[:4]}))
    job.config.prune = Prune(data={"type": "x"})
    job.given[1].masks["weight"] = torch.tensor([[True, False, True, False]] * 4)
    with pytest.raises(PxframeError, match="has the name of a control"):
        make_tickets(job, torch.nn.Linear(4, 4), print)
