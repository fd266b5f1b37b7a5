"""The runner: exact resume after a kill at any point, damaged checkpoints, tickets, quiet, random state."""

import gc
import os
import random
import signal
import subprocess
import sys
import weakref
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from pxframe.base.errors import PxframeError
from pxframe.ticket.ticket import Ticket
from pxframe.training.hooks.weights import TicketHook
from pxframe.training.make import make_runner
from pxframe.training.run import close
from pxframe.training.settings import Training

torch.set_num_threads(1)  # in networks this small, threads wait for each other
EPOCHS, STEPS, BATCH = 4, 5, 4


class Noisy(Dataset):
    """Augments with all three generators."""

    metainfo = {}

    def __init__(self):
        self.x = torch.randn(STEPS * BATCH + 1, 6, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        noise = random.random() + np.random.rand() + torch.rand(1)
        return {"inputs": self.x[index] + 0.1 * noise.float(), "data_samples": index % 3}


class Reinitialised(nn.Module):
    """Has a method that mmengine would call, as timm's models have."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Linear(6, 8)

    def init_weights(self):
        raise AssertionError("the backbone was initialised again")

    def forward(self, x):
        return self.conv1(x)


class Wrapped(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)


class Model(BaseModel):
    """Batch norm, dropout and a head that is initialised by ``init_weights``."""

    def __init__(self):
        super().__init__()
        self.backbone = Wrapped(Reinitialised())
        self.bn = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 3)
        self.stepped = 0

    def init_weights(self):
        super().init_weights()
        nn.init.normal_(self.head.weight)

    def forward(self, inputs, data_samples, mode):
        out = self.head(F.dropout(self.bn(self.backbone(inputs)), 0.3, self.training))
        if mode == "loss":
            return {"loss": F.cross_entropy(out, data_samples)}
        return [{"out": row.tolist()} for row in out]


class Total(BaseMetric):
    default_prefix = ""

    def process(self, data_batch, data_samples):
        self.results += [value for sample in data_samples for value in sample["out"]]

    def compute_metrics(self, results):
        return {"total": sum(results)}


class Kill(Exception):
    pass


class KillAt(Hook):
    """Stops the run like a signal would: at a stage, in an epoch, at a step."""

    priority = "LOWEST"

    def __init__(self, stage, epoch, step=None):
        def stop(runner, batch_idx=None, **_):
            if runner.epoch == epoch and step in (None, batch_idx):
                raise Kill

        setattr(self, stage, stop)


ADAM = {"type": "Adam", "lr": 0.05}
ONE_CYCLE = [{"type": "OneCycleLR", "eta_max": 0.1, "total_steps": EPOCHS * STEPS, "by_epoch": False}]
TWO = [{"type": "MultiStepLR", "milestones": [2]}, {"type": "LinearLR", "end": 3, "by_epoch": False}]
SCHEDULES = [None, ONE_CYCLE, TWO]


def runner(folder, **options):
    torch.manual_seed(7)
    model = Model()
    options = {"resume": True, "seed": 3, "optimizer": ADAM, "epochs": EPOCHS, "device": "cpu"} | options
    options.setdefault("batch_size", BATCH)
    return made(model, train=Noisy(), test=Noisy(), metric=Total(), work_dir=folder, **options)


def made(model, **options):
    """A runner of flat options, those of its training among them."""
    training = Training(**{f.name: options.pop(f.name) for f in fields(Training) if f.name in options})
    return make_runner(model, training, **options)


def finish(run):
    torch.manual_seed(random.randrange(1000))  # what the process did before must not matter
    state = {n: t.clone() for n, t in run.train().state_dict().items()}
    return state, run.test()["total"]


def same(a, b):
    return a[1] == b[1] and all(torch.equal(a[0][n], b[0][n]) for n in a[0])


@pytest.fixture(scope="module", params=range(len(SCHEDULES)), ids=["cosine", "onecycle", "two"])
def whole(request, tmp_path_factory):
    schedule = SCHEDULES[request.param]
    return schedule, finish(runner(tmp_path_factory.mktemp("whole"), schedule=schedule))


@pytest.mark.parametrize(
    "kill",
    [
        ("before_train", 0),
        ("after_train_iter", 0, 2),
        ("before_train_epoch", 2),
        ("after_train_iter", 2, 0),
        ("after_train_iter", 2, 3),
        ("after_train_epoch", 2),
        ("after_train", EPOCHS),
    ],
)
def test_resume_is_exact(whole, kill, tmp_path):
    schedule, expected = whole
    with pytest.raises(Kill):
        runner(tmp_path, schedule=schedule, hooks=[KillAt(*kill)]).train()
    assert same(finish(runner(tmp_path, schedule=schedule)), expected)


def test_resume_is_exact_with_workers(tmp_path):
    """And augmentation differs between epochs, unlike with mmengine's own seeding of workers."""
    expected = finish(runner(tmp_path / "whole", num_workers=2))
    with pytest.raises(Kill):
        runner(tmp_path / "cut", num_workers=2, hooks=[KillAt("after_train_iter", 1, 3)]).train()
    assert same(finish(runner(tmp_path / "cut", num_workers=2)), expected)

    class Seen(Hook):
        def __init__(self):
            self.noise = {}

        def before_train_iter(self, runner, batch_idx, data_batch):
            for x, label in zip(data_batch["inputs"], data_batch["data_samples"], strict=True):
                index = int((Noisy().x - x).std(1).argmin())
                assert label == index % 3
                self.noise.setdefault(index, []).append(float((x - Noisy().x[index]).mean()))

    seen = Seen()
    runner(tmp_path / "seen", num_workers=2, hooks=[seen]).train()
    assert all(len({round(v, 5) for v in values}) == len(values) for values in seen.noise.values())


def test_another_seed_gives_another_result(tmp_path):
    assert not same(finish(runner(tmp_path / "a")), finish(runner(tmp_path / "b", seed=4)))


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:-200] + bytes(200)])
def test_damaged_checkpoints_are_passed_over(damage, tmp_path, capsys):
    expected = finish(runner(tmp_path / "whole"))
    with pytest.raises(Kill):
        runner(tmp_path / "cut", hooks=[KillAt("after_train_iter", 3, 1)]).train()
    names = sorted(p.name for p in (tmp_path / "cut").glob("*.pth"))
    assert names == ["epoch_2.pth", "epoch_3.pth"]
    newest = tmp_path / "cut" / "epoch_3.pth"
    newest.write_bytes(damage(newest.read_bytes()))
    (tmp_path / "cut" / ".epoch_4.pth.abc.part").write_bytes(b"half")
    resumed = runner(tmp_path / "cut")
    assert same(finish(resumed), expected)
    assert "ignoring" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "cut").glob("*epoch*")) == ["epoch_3.pth", "epoch_4.pth"]


def killed_while_writing(folder):
    """Train, and end by a signal that cannot be caught, half-way through writing the third checkpoint."""
    from mmengine.fileio import LocalBackend

    def half(self, obj, filepath):
        whole = "epoch_3" not in str(filepath)
        Path(filepath).write_bytes(obj if whole else obj[: len(obj) // 2])
        if not whole:
            os.kill(os.getpid(), signal.SIGKILL)

    LocalBackend.put = half
    runner(folder).train()


@pytest.mark.slow
def test_a_kill_while_writing_leaves_the_older_checkpoint(tmp_path):
    expected = finish(runner(tmp_path / "whole"))
    code = f"import test_runner; test_runner.killed_while_writing({str(tmp_path / 'cut')!r})"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=Path(__file__).parent, check=False)
    assert done.returncode == -signal.SIGKILL
    left = sorted(p.name for p in (tmp_path / "cut").glob("*epoch*"))
    assert left[0].startswith(".epoch_3.pth.")
    assert left[1:] == ["epoch_2.pth"]
    assert same(finish(runner(tmp_path / "cut")), expected)
    assert not list((tmp_path / "cut").glob(".epoch*"))


def test_checkpoints_need_no_trust(tmp_path):
    with pytest.raises(Kill):
        runner(tmp_path, schedule=ONE_CYCLE, hooks=[KillAt("after_train", EPOCHS)]).train()
    checkpoint = torch.load(tmp_path / "epoch_4.pth", weights_only=True)
    assert {key: checkpoint["meta"][key] for key in ("epoch", "iter", "seed")} == {
        "epoch": 4,
        "iter": EPOCHS * STEPS,
        "seed": 3,
    }
    allowed = [getattr(g, "__module__", "") for g in torch.serialization.get_safe_globals()]
    assert not any(module.startswith(("mmengine", "numpy", "builtins")) for module in allowed)


def test_a_checkpoint_of_another_run_or_an_altered_one_is_not_resumed_from(tmp_path):
    def begun(**options):
        with pytest.raises(Kill):
            runner(tmp_path, hooks=[KillAt("after_train", EPOCHS)], **options).train()

    def resumed_at(made_by=""):
        class Look(Hook):
            def before_train(self, runner):
                raise Kill(runner.epoch)

        run = runner(tmp_path)
        run.made_by = made_by
        run.register_hook(Look(), priority="LOWEST")
        with pytest.raises(Kill) as at:
            run.train()
        return at.value.args[0]

    begun()
    assert resumed_at() == EPOCHS
    assert resumed_at(made_by="other settings") == 0
    newest = torch.load(tmp_path / "epoch_4.pth", weights_only=True)
    newest["state_dict"]["head.weight"][0, 0] = float("nan")
    torch.save(newest, tmp_path / "epoch_4.pth")
    assert resumed_at() == EPOCHS - 1  # the checkpoint before it
    del newest["optimizer"]
    torch.save(newest, tmp_path / "epoch_3.pth")
    assert resumed_at() == 0


def test_only_the_first_rank_writes_checkpoints(tmp_path, monkeypatch):
    with pytest.raises(Kill):
        runner(tmp_path, hooks=[KillAt("after_train", EPOCHS)]).train()
    file = tmp_path / "epoch_4.pth"
    before = file.read_bytes()
    run = runner(tmp_path)
    monkeypatch.setattr("mmengine.dist.utils.is_main_process", lambda group=None: False)
    run.save_checkpoint(str(tmp_path), "epoch_4.pth")
    assert file.read_bytes() == before


def test_a_closed_runner_holds_no_memory(tmp_path):
    run = runner(tmp_path, epochs=1)
    run.train()
    model, name = weakref.ref(run.model), run.experiment_name
    gc.collect()
    gc.disable()  # it is gone at once, and not when the garbage collector comes
    try:
        close(run)
        assert model() is None
    finally:
        gc.enable()
    assert name not in MessageHub._instance_dict
    assert name not in MMLogger._instance_dict


def test_without_resume_it_starts_over(tmp_path):
    first = runner(tmp_path, seed=4)
    first.train()
    second = finish(runner(tmp_path, resume=False, epochs=1))
    assert [p.name for p in tmp_path.glob("*.pth")] == ["epoch_1.pth"]
    assert not same(second, finish(first))


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    runner(tmp_path, epochs=1).train()
    other = runner(tmp_path)
    other.model.head = nn.Linear(8, 4)
    with pytest.raises(PxframeError, match=r"another model.*head\.weight"):
        other.train()


def test_two_runners_at_once_do_not_share_state(tmp_path):
    alone = finish(runner(tmp_path / "alone"))
    a, b = runner(tmp_path / "a"), runner(tmp_path / "b", seed=9)
    b.train()
    assert a.message_hub is not b.message_hub
    assert same(finish(a), alone)


def test_the_caller_s_random_state_and_scope_are_left_alone(tmp_path, capsys):
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    run = made(
        Model().to("cpu"), train=Noisy(), test=Noisy(), metric=Total(), work_dir=tmp_path, device="cpu", seed=1,
        resume=False, epochs=1, batch_size=4, optimizer=ADAM,
    )  # fmt: skip
    torch.set_rng_state(states[2])  # building the model drew from it
    run.train()
    run.test()
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])
    assert DefaultScope.get_current_instance() is None or "pxframe" not in DefaultScope.get_current_instance().name
    assert capsys.readouterr() == ("", "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch_1.pth", "last_checkpoint", "train.log"]
    assert "epoch 1/1: loss" in (tmp_path / "train.log").read_text()


def mask_of(weight):
    return torch.rand(weight.shape, generator=torch.Generator().manual_seed(5)) > 0.5


def test_a_ticket_holds_from_before_the_first_step_through_a_resume(tmp_path):
    def with_ticket(folder, **options):
        run = runner(folder, **options)
        source = Reinitialised()
        run.register_hook(TicketHook(Ticket({"conv1.weight": mask_of(source.conv1.weight)})))
        return run

    class Watch(Hook):
        pruned = []

        def after_train_iter(self, runner, **_):
            weight = runner.model.backbone.model.conv1.weight
            self.pruned.append(bool(weight[~mask_of(weight)].any()))

    expected = finish(with_ticket(tmp_path / "whole", hooks=[Watch()]))
    assert len(Watch.pruned) == EPOCHS * STEPS
    assert not any(Watch.pruned)
    weight = expected[0]["backbone.model.conv1.weight"]
    assert weight[mask_of(weight)].all()
    with pytest.raises(Kill):
        with_ticket(tmp_path / "cut", hooks=[KillAt("after_train_iter", 2, 1)]).train()
    assert same(finish(with_ticket(tmp_path / "cut")), expected)


def test_only_the_classifier_s_mask_may_be_missing(tmp_path):
    masks = {"conv1.weight": mask_of(Reinitialised().conv1.weight), "fc.weight": torch.ones(3, 8, dtype=torch.bool)}
    run = runner(tmp_path / "a", epochs=1)
    run.register_hook(TicketHook(Ticket(masks), classifier="fc"))
    run.train()
    for classifier, extra in (("", {}), ("fc", {"gone.weight": torch.ones(1, dtype=torch.bool)})):
        run = runner(tmp_path / "b", epochs=1)
        run.register_hook(TicketHook(Ticket(masks | extra), classifier=classifier))
        with pytest.raises(PxframeError, match="does not fit"):
            run.train()


def test_pretrained_weights_are_what_training_starts_from(tmp_path):
    class First(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch):
            if runner.iter == 0:
                self.weight = runner.model.backbone.model.conv1.weight.detach().clone()

    first = First()
    run = runner(tmp_path, epochs=1, hooks=[first])
    before = run.model.backbone.model.conv1.weight.detach().clone()
    run.train()
    assert torch.equal(first.weight, before)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"optimizer": {"type": "SDG", "lr": 1}}, ("'optimizer'", "SDG")),
        ({"optimizer": {"type": "SGD", "lrr": 1}}, ("'optimizer'", "lrr")),
        ({"schedule": [{"type": "Nope"}]}, ("'schedule'", "Nope")),
        ({"epochs": 0}, ("'epochs'",)),
        ({"batch_size": 2.5}, ("'batch_size'",)),
        ({"amp": "float16"}, ("'amp'",)),
        ({"device": "tpu"}, ("device", "tpu")),
    ],
)
def test_wrong_options_are_named_in_one_line(options, parts, tmp_path):
    with pytest.raises(PxframeError) as error:
        runner(tmp_path, **options)
    text = str(error.value)
    assert "\n" not in text
    assert all(part in text for part in parts), text


def test_factors_on_the_learning_rate(tmp_path):
    run = runner(tmp_path, head_lr_mult=10.0, head="head")
    rates = {id(g["params"][0]): g["initial_lr"] for g in run.optim_wrapper.optimizer.param_groups}
    model = run.model
    assert rates[id(model.head.weight)] == pytest.approx(0.5)
    assert rates[id(model.backbone.model.conv1.weight)] == pytest.approx(0.05)


@pytest.mark.parametrize(("amp", "dtype"), [(None, torch.float32), ("bfloat16", torch.bfloat16)])
def test_precision_of_training_and_testing(tmp_path, amp, dtype):
    seen = {True: set(), False: set()}
    run = runner(tmp_path, amp=amp, epochs=1)
    run.model.head.register_forward_hook(lambda module, args, out: seen[module.training].add(out.dtype))
    run.train()
    run.test()
    assert seen == {True: {dtype}, False: {torch.float32}}


def test_bfloat16_is_refused_where_its_gradients_are_wrong(tmp_path):
    model = Model()
    model.add_module("grouped", nn.Conv2d(4, 4, 3, groups=2, dilation=2))
    options = {"train": Noisy(), "test": Noisy(), "metric": Total(), "work_dir": tmp_path, "device": "cpu", "seed": 0}
    options |= {"resume": False, "epochs": 1, "batch_size": BATCH, "optimizer": ADAM}
    made(model, **options)
    with pytest.raises(PxframeError, match=r"wrong weight gradients .* \(grouped\); leave 'amp' out"):
        made(model, amp="bfloat16", **options)


def test_checkpoints_every_so_many_epochs(tmp_path):
    """The last is always written; a run that was killed goes on from the newest, and ends with the same bits."""
    whole = finish(runner(tmp_path / "whole"))
    run = runner(tmp_path / "part", checkpoint_every=3)
    assert same(whole, finish(run))
    assert sorted(p.name for p in (tmp_path / "part").glob("epoch_*.pth")) == ["epoch_3.pth", "epoch_4.pth"]
    (tmp_path / "part" / "epoch_4.pth").unlink()
    resumed = runner(tmp_path / "part", checkpoint_every=3)
    assert same(whole, finish(resumed))
    with pytest.raises(PxframeError, match="'checkpoint_every' must be a whole number of at least 1, got 0"):
        runner(tmp_path / "none", checkpoint_every=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_with_bfloat16(tmp_path):
    run = runner(tmp_path, device="cuda", amp="bfloat16")
    run.train()
    assert next(run.model.parameters()).is_cuda
    assert np.isfinite(run.test()["total"])
