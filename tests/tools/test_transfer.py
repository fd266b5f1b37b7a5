"""The main job on a small scale: prune once, transfer to two tasks, stop it anywhere, do things wrong."""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import pxframe
from pxframe.job.config import load_config
from pxframe.job.job import Job
from pxframe.stages.runs import pretrain
from pxframe.ticket.ticket import Ticket
from pxframe_tools import cli

TICKET = "px-rounds=5-80.00"
CONFIG = """
_data = {data!r}
_load = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]
_files = dict(img_path="JPEGImages", seg_map_path="SegmentationClass")
_scenes = dict(
    type="pxframe_tasks.demo.digit_scenes.DigitScenes",
    data_root=_data + "/scenes",
    data_prefix=_files,
    serialize_data=False,  # it calls the garbage collector, which takes half a second here
)


def _digits(name, classes):
    root = _data + "/" + name
    crop = dict(type="torchvision.transforms.v2.RandomCrop", size=8, padding=1)
    return dict(
        type="classification",
        prepare=dict(
            type="pxframe_tasks.demo.digits.write_folders", root=root, size=8, classes=classes, part=(0.0, 0.4)
        ),
        data=dict(
            train=dict(type="torchvision.datasets.ImageFolder", root=root + "/train", transform=[crop]),
            test=dict(type="torchvision.datasets.ImageFolder", root=root + "/test"),
        ),
        batch_size=32,
    )


backbone = dict(type="cifar_resnet", depth=8, width=4, num_classes=3)
pretrain = dict(**_digits("three", [0, 1, 2]), head=None, epochs=1)
prune = dict(scorer=dict(type="px", rounds=5), sparsity=0.8, samples=30)
tasks = dict(
    digits=dict(**_digits("ten", list(range(10))), epochs=3),
    scenes=dict(
        type="segmentation",
        prepare=dict(type="pxframe_tasks.demo.digits.write_scenes", root=_data + "/scenes", train=12, test=4, size=32),
        data=dict(
            train=dict(**_scenes, ann_file="ImageSets/Segmentation/train.txt", pipeline=_load),
            test=dict(**_scenes, ann_file="ImageSets/Segmentation/val.txt", pipeline=_load),
        ),
        head=dict(
            type="DepthwiseSeparableASPPHead",
            channels=8,
            dilations=(1, 2),
            c1_channels=4,
            norm_cfg=dict(type="BN"),
            align_corners=False,
        ),
        epochs=2,
        batch_size=4,
        save_predictions=True,
    ),
)
"""


@pytest.fixture(scope="module")
def made(shared_folder):
    """A folder with the config, and the work dir of a run of it that was never stopped. All workers read it."""
    folder = shared_folder / "transfer"
    config, work, printed = (folder / name for name in ("tiny.py", "work", "printed.json"))
    with FileLock(f"{folder}.lock"):
        if not printed.exists():
            folder.mkdir(exist_ok=True)
            config.write_text(CONFIG.format(data=str(folder / "data")))
            command = [sys.executable, "tools/transfer.py", str(config), "--work-dir", str(work)]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            printed.write_text(json.dumps([done.stdout, done.stderr]))
    return folder


@pytest.fixture
def config(made):
    return str(made / "tiny.py")


@pytest.fixture
def finished(made):
    return made / "work"


@pytest.fixture
def copied(finished, tmp_path):
    """The finished work dir once more, for tests that write into it."""
    return shutil.copytree(finished, tmp_path / "copied")


def rows(work):
    found = json.loads((work / "results.json").read_text())["rows"]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in found]


def test_results_and_table(made, finished):
    stdout, stderr = json.loads((made / "printed.json").read_text())
    table = rows(finished)
    assert [(r["task"], r["variant"]) for r in table] == [
        (task, variant) for task in ("digits", "scenes") for variant in ("dense", TICKET, "random-80.00")
    ]
    total = table[0]["prunable_total"]
    for row in table:
        assert row["metric"] == {"digits": "accuracy", "scenes": "mIoU"}[row["task"]]
        assert 0 <= row["value"] <= 100
        assert row["prunable_left"] == (total if row["variant"] == "dense" else round(0.2 * total))
        assert row["sparsity"] == pytest.approx(1 - row["prunable_left"] / total)
        assert f"{row['value']:.2f}" in stdout
    assert stderr == ""
    assert stdout.rstrip().endswith(f"results: {finished / 'results.json'}, {finished / 'report.html'}")


def test_transfer_writes_the_report_and_the_command_writes_the_same(copied, capsys):
    """Pictures, too: the command builds the tasks anew from the job's record."""
    names = ("report.html", "results.csv", "results.tex", "results.svg", "results.pdf")
    first = {name: (copied / name).read_bytes() for name in names}
    page = first["report.html"].decode()
    for text in ("px-rounds=5", "one seed: cannot be told", "tiny.py", "layer1.0.conv1.weight"):
        assert text in page
    assert page.count('<img src="data:image/webp;base64,') == 2 * (2 + 2)  # image, truth, dense network, best ticket
    assert cli.main(["report", str(copied)]) == 0
    assert {name: (copied / name).read_bytes() for name in names} == first


def test_pruned_weights_are_zero_in_the_trained_models(finished):
    ticket = Ticket.load(finished / "seed-0" / "tickets" / f"{TICKET}.safetensors")
    for task, prefix in (("digits", ""), ("scenes", "backbone.")):
        state = torch.load(finished / "seed-0" / task / TICKET / "model.pth", weights_only=True)
        for name, mask in ticket.masks.items():
            assert (state[prefix + name][~mask] == 0).all()
            assert (state[prefix + name][mask] != 0).any()


def test_a_trained_model_loads_without_this_library(finished):
    trained = torch.load(finished / "seed-0" / "digits" / TICKET / "model.pth", weights_only=True)
    network = pxframe.build_backbone({"type": "cifar_resnet", "depth": 8, "width": 4, "num_classes": 10})
    network.load_state_dict(trained)
    for name, mask in Ticket.load(finished / "seed-0" / "tickets" / f"{TICKET}.safetensors").masks.items():
        if not name.startswith("linear."):
            assert (trained[name][~mask] == 0).all()


def test_a_finished_run_is_not_repeated(config, copied, capsys, no_report):
    before = {p: p.stat().st_mtime_ns for p in copied.rglob("result.json")}
    assert cli.main(["transfer", config, "--work-dir", str(copied), "--resume"]) == 0
    assert {p: p.stat().st_mtime_ns for p in copied.rglob("result.json")} == before
    assert "in 0 s" not in capsys.readouterr().out


def heeding_interrupts():
    """What a shell starts in the background ignores Ctrl-C, and so does all that it starts: these tests, perhaps."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def until_stopped(running, how):
    """Send a signal until the process ends, as a user would: a library may swallow one. Returns its standard error."""
    while True:
        running.send_signal(how)
        try:
            return running.communicate(timeout=5)[1]  # a short job may end in twenty seconds
        except subprocess.TimeoutExpired:
            continue


@pytest.mark.slow
@pytest.mark.parametrize("stop", ["pretrain", f"scenes/{TICKET}/epoch_1.pth"])
def test_stopped_anywhere_and_resumed_ends_with_the_same_results(config, finished, tmp_path, stop):
    how = signal.SIGINT if stop == "pretrain" else signal.SIGKILL
    work = tmp_path / "work"
    command = [sys.executable, "tools/transfer.py", config, "--work-dir", str(work)]
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "preexec_fn": heeding_interrupts}
    with subprocess.Popen(command, **options) as running:
        deadline = time.monotonic() + 120
        while not (work / "seed-0" / stop).exists() and running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        errors = until_stopped(running, how)
    assert (work / "seed-0" / stop).exists()
    assert not (work / "results.json").exists()
    if how is signal.SIGINT:
        assert running.returncode in (130, -signal.SIGINT)  # the latter if a second signal met it while it ended
        assert errors == "stopped; the same command with --resume goes on from here\n"
    assert cli.main(["transfer", config, "--work-dir", str(work), "--resume"]) == 0
    assert rows(work) == rows(finished)
    log = (work / "seed-0" / "scenes" / TICKET / "train.log").read_text()
    assert log.count("epoch 1/2") == 1  # the epoch that was finished was not trained again
    assert not (work / "set-aside").exists()


def test_a_backbone_read_back_is_the_one_that_was_trained(config, tmp_path):
    """Values, memory layout and mode: each would change what a scorer sees after a resume."""
    job = Job.from_config(load_config(config), work_dir=tmp_path / "work", tasks=[])
    trained, read = pretrain(job, print), pretrain(job, print)
    assert trained is not read
    assert [m.training for m in trained.modules()] == [m.training for m in read.modules()]
    for (name, a), (_, b) in zip(trained.state_dict().items(), read.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
        assert a.stride() == b.stride(), name


def test_a_ticket_made_earlier_is_taken(config, finished, tmp_path, capsys, no_report):
    ticket = str(finished / "seed-0" / "tickets" / f"{TICKET}.safetensors")
    arguments = ["transfer", config, "--work-dir", str(tmp_path / "work"), "--ticket", ticket, "--tasks", "digits"]
    assert cli.main(arguments) == 0
    wanted = [{**r, "method": r["method"].removesuffix("-rounds=5")} for r in rows(finished) if r["task"] == "digits"]
    assert rows(tmp_path / "work") == wanted
    assert "other weights" not in capsys.readouterr().out


def test_prune_makes_the_same_ticket(config, finished, tmp_path):
    assert cli.main(["prune", config, "--work-dir", str(tmp_path / "work")]) == 0
    made, other = (w / "seed-0" / "tickets" / f"{TICKET}.safetensors" for w in (tmp_path / "work", finished))
    assert made.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("scorer", ["imp", "ltr"])
def test_scorers_that_train_use_the_task_s_own_runner(config, finished, tmp_path, scorer):
    options = [f"prune.scorer.type={scorer}", "prune.scorer.rounds=2"]
    if scorer == "ltr":
        options.append("prune.scorer.step=1")
    assert cli.main(["prune", config, "--work-dir", str(tmp_path), "--cfg-options", *options]) == 0
    name = f"{scorer}-rounds=2" if scorer == "imp" else "ltr-step=1-rounds=2"
    ticket = Ticket.load(tmp_path / "seed-0" / "tickets" / f"{name}-80.00.safetensors")
    assert ticket.kept == round(0.2 * ticket.total)
    assert bool(ticket.start) == (scorer == "ltr")


def run(config, work, *options, tasks=("digits",)):
    options = ["tasks.digits.epochs=1", "tasks.scenes.epochs=1", "prune.samples=4", *options]
    assert cli.main(["transfer", config, "--work-dir", str(work), "--tasks", *tasks, "--cfg-options", *options]) == 0
    return rows(work)


@pytest.mark.slow
def test_every_seed_and_scorer_in_one_table_and_one_figure(config, finished, tmp_path, capsys):
    table = run(config, tmp_path, "seed=[0,1]", "prune.scorer=[magnitude,snip]", "prune.sparsity=[0.5,0.8]")
    variants = [f"{method}-{level}.00" for level in (50, 80) for method in ("magnitude", "snip", "random")]
    assert [(r["seed"], r["variant"]) for r in table] == [(s, v) for s in (0, 1) for v in ("dense", *variants)]
    assert [r["method"] for r in table[:4]] == ["dense", "magnitude", "snip", "random"]
    assert (tmp_path / "seed-1" / "tickets" / "snip-80.00.safetensors").exists()
    printed = capsys.readouterr().out
    one, other = (r["value"] for r in table if r["variant"] == "snip-80.00")
    assert f"{(one + other) / 2:.2f} ± {abs(one - other) / 2**0.5:.2f}" in printed
    assert "seed 1: digits, snip-80.00: accuracy" in printed
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("2 seeds, p") == 2
    assert page.count("<figcaption>digits: accuracy (%)</figcaption>") == 1


def test_a_whole_model_is_pruned_with_its_head_as_training_begins_with_it(config, finished, tmp_path, no_report):
    table = run(config, tmp_path, "prune.whole=True", "prune.scorer=magnitude", "prune.sparsity=0.01", tasks=["scenes"])
    ticket = Ticket.load(tmp_path / "seed-0" / "tickets" / "scenes" / "magnitude-1.00.safetensors")
    assert any(n.startswith("decode_head.") for n in ticket.masks)
    assert any(n.startswith("backbone.model.layer1.") for n in ticket.masks)
    assert ticket.kept == round(0.99 * ticket.total) == table[1]["prunable_left"] == table[2]["prunable_left"]
    # mmseg draws its last layer anew when training begins, from a normal distribution of deviation 0.01
    assert ticket.density_per_layer()["decode_head.conv_seg.weight"] < 0.95
    state = torch.load(tmp_path / "seed-0" / "scenes" / "magnitude-1.00" / "model.pth", weights_only=True)
    masks = {name.replace("backbone.model.", "backbone."): mask for name, mask in ticket.masks.items()}
    assert all((state[name][~mask] == 0).all() for name, mask in masks.items())


def test_a_run_that_diverges_is_said_to(config, finished, tmp_path, capsys, no_report):
    table = run(
        config, tmp_path, "tasks.digits.optimizer.type=SGD", "tasks.digits.optimizer.lr=1e30", "prune.scorer=magnitude"
    )
    assert [row["diverged"] for row in table] == [1, 1, 1]
    printed = capsys.readouterr().out
    assert printed.count("diverged: the loss was not finite in epoch 1") == 3
    assert printed.count("(1 diverged)") == 3


def test_curves_go_to_the_back_ends_of_the_config(config, finished, tmp_path, no_report):
    curves = tmp_path / "curves.py"
    curves.write_text(Path(config).read_text() + 'vis_backends = [dict(type="TensorboardVisBackend")]\n')
    table = run(str(curves), tmp_path / "work", "prune.scorer=magnitude")
    for row in table:
        board = EventAccumulator(str(tmp_path / "work" / "seed-0" / "digits" / row["variant"] / "vis_data")).Reload()
        assert board.Scalars("test accuracy")[0].value == pytest.approx(row["value"])
        (loss,) = board.Scalars("loss")
        assert loss.step == 1
        log = (tmp_path / "work" / "seed-0" / "digits" / row["variant"] / "train.log").read_text()
        assert f"loss {loss.value:.4f}" in log


def test_a_mask_goes_with_the_weights_it_was_trained_to(config, finished, tmp_path, no_report):
    run(config, tmp_path, "transfer=mask+weights", "prune.scorer=magnitude")
    for variant in ("magnitude-80.00", "random-80.00"):
        ticket = Ticket.load(tmp_path / "seed-0" / "tickets" / f"{variant}+weights.safetensors")
        trained = torch.load(tmp_path / "seed-0" / "pretrain" / variant / "model.pth", weights_only=True)
        for name, mask in ticket.masks.items():
            assert torch.equal(ticket.start[name], trained[name])
            assert (ticket.start[name][~mask] == 0).all()
    dense = load_file(tmp_path / "seed-0" / "pretrained.safetensors")
    assert not torch.equal(dense["conv1.weight"] * ticket.masks["conv1.weight"], ticket.start["conv1.weight"])


def test_a_whole_model_is_trained_by_scorers_that_train(config, finished, tmp_path, no_report):
    """The largest weights of the dense model that the same job trains are those that the ticket keeps."""
    run(config, tmp_path, "prune.whole=True", "prune.scorer=magnitude_after_training", "prune.sparsity=0.5")
    ticket = Ticket.load(tmp_path / "seed-0" / "tickets" / "digits" / "magnitude_after_training-50.00.safetensors")
    state = torch.load(tmp_path / "seed-0" / "digits" / "dense" / "model.pth", weights_only=True)
    assert "head.weight" in ticket.masks
    masks = {n.removeprefix("backbone.").replace("head.", "linear."): m for n, m in ticket.masks.items()}
    kept = torch.cat([state[n][m].abs() for n, m in masks.items()])
    pruned = torch.cat([state[n][~m].abs() for n, m in masks.items()])
    assert kept.min() >= pruned.max()


def test_a_checkpoint_that_would_run_code_is_read_where_it_is_trusted_and_only_there(config, tmp_path, capsys):
    network = pxframe.build_backbone({"type": "cifar_resnet", "depth": 8, "width": 4, "num_classes": 3})
    torch.save({"state_dict": network.state_dict(), "args": argparse.Namespace()}, tmp_path / "unsafe.pth")
    options = ["--cfg-options", f"backbone.checkpoint={tmp_path / 'unsafe.pth'}", "prune.scorer=magnitude"]
    for flag, code in (([], 2), (["--trust-checkpoint"], 0), ([], 2)):
        work = str(tmp_path / f"work{len(list(tmp_path.iterdir()))}")
        assert cli.main(["prune", config, "--work-dir", work, *flag, *options]) == code
        refusal = capsys.readouterr().err
        assert ("--trust-checkpoint" in refusal) == (code == 2)


def test_an_early_step_past_the_end_of_training_is_refused(config, finished, tmp_path, capsys):
    options = ["prune.scorer.type=ltr", "prune.scorer.step=5000"]
    assert cli.main(["prune", config, "--work-dir", str(tmp_path), "--cfg-options", *options]) == 2
    assert "step 5000 is past its end" in capsys.readouterr().err


def test_show_and_list(finished, capsys):
    ticket = finished / "seed-0" / "tickets" / f"{TICKET}.safetensors"
    assert cli.main(["show", str(ticket)]) == 0
    shown = capsys.readouterr().out
    assert "layer1.0.conv1.weight" in shown
    assert "80.0" in shown
    assert "on one input of 3x8x8: " in shown
    assert cli.main(["list", "backbones", "resnet2[0]"]) == 0
    assert capsys.readouterr().out == "cifar_resnet resnet20\n"
    assert cli.main(["list", "scorers", "syn*"]) == 0
    assert capsys.readouterr().out == "synflow\nsynflow_l2\n"
    assert cli.main(["list", "tasks", "cooking*"]) == 2
    assert capsys.readouterr().err == "error: none of the tasks matches 'cooking*'\n"
    assert cli.main(["list"]) == 0
    listed = capsys.readouterr().out
    assert "px" in listed
    assert "segmentation" in listed


def test_escapes_in_a_ticket_do_not_reach_the_terminal(tmp_path, capsys):
    Ticket({"a": torch.ones(2, dtype=torch.bool)}, {"scorer": "p\x1b[2Jx", "note": "\x1b]0;x\x07"}).save(tmp_path / "t")
    assert cli.main(["show", str(tmp_path / "t")]) == 0
    assert not set(capsys.readouterr().out) & {"\x1b", "\x07"}


MISTAKES = {
    "unknown scorer": (["--cfg-options", "prune.scorer.type=pxx"], "there is no scorer 'pxx'; did you mean 'px'"),
    "sparsity": (["--cfg-options", "prune.sparsity=1.0"], "sparsity must be in [0, 1), got 1.0"),
    "percent": (["--cfg-options", "prune.sparsity=98.2"], "got 98.2; did you mean 0.982, which removes 98.2 %"),
    "config key": (["--cfg-options", "tasks.digits.epoch=2"], "takes no option 'epoch'; did you mean 'epochs'"),
    "exclude": (["--cfg-options", "prune.exclude=[conv9.*]"], "prune: exclude: no parameter is called 'conv9.*'"),
    "rows": (["--cfg-options", "prune.exclude=[linear.weight[q]]"], "no fused weight has rows 'linear.weight[q]'"),
    "exclude of a whole model": (
        ["--cfg-options", "prune.whole=True", "prune.exclude=[hed.*]", "prune.data=None"],
        "tasks.digits: prune: exclude: no parameter is called 'hed.*'; did you mean 'head.",
    ),
    "head": (["--cfg-options", "tasks.scenes.head.typ=2"], "typ"),
    "task name": (["--tasks", "digit"], "there is no task 'digit' in the config; did you mean 'digits'"),
    "no ticket": (["--ticket", "nowhere.safetensors"], "cannot read ticket nowhere.safetensors"),
    "foreign ticket": (["--ticket", __file__], "is no safetensors file"),
    "data": (
        ["--cfg-options", "tasks.digits.prepare=None", "tasks.digits.data.train.root=/nowhere"],
        "tasks.digits: task 'classification': data['train']: ",
    ),
    "back end": (["--cfg-options", "vis_backends=[TensorboardVisBackend]"], "a list of dict(type=...)"),
    "plug-in": (["--no-plugin", "pixie"], "there is no such plug-in"),
}
SLOW = {"plug-in": pytest.mark.slow}  # plug-ins are loaded once a process, so it needs one of its own


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW.get(name, ())) for name in MISTAKES])
def test_a_mistake_costs_one_line_and_exit_code_2(config, tmp_path, capsys, name):
    arguments, text = MISTAKES[name]
    command = [config, "--work-dir", str(tmp_path / "work"), *arguments]
    if name in SLOW:
        done = subprocess.run([sys.executable, "tools/transfer.py", *command], capture_output=True, text=True)
        code, errors = done.returncode, done.stderr
    else:
        code, errors = cli.main(["transfer", *command]), capsys.readouterr().err
    assert code == 2, errors
    lines = errors.splitlines()
    assert len(lines) == 1, errors
    assert lines[0].startswith("error: ")
    assert text in lines[0]
    assert not (tmp_path / "work").exists()  # nothing was begun, so nothing is in the way of the next try


def test_cuda_where_there_is_none_costs_one_line(config, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert cli.main(["transfer", config, "--work-dir", str(tmp_path), "--device", "cuda"]) == 2
    assert capsys.readouterr().err == "error: device 'cuda': torch sees no GPU on this machine; use 'cpu'\n"


def test_listing_imports_no_task_library(tmp_path):
    code = "import sys; from pxframe_tools import cli; cli.main(['list']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert {"timm", "segmentation"} <= set(done.stdout.split())
    heavy = {"mmseg", "open_clip", "timm", "torchvision", "sklearn", "mmcv", "mmengine.runner", "matplotlib"}
    assert not heavy & set(done.stderr.split())
