"""A job grows: what is finished is used, what is new or changed is run, and nothing else ever is."""

import json
import os
import subprocess
import sys

import pytest

from pxframe.stages import runs, subject
from pxframe_tools import cli

CONFIG = """
def _digits(classes):
    root = "{data}/" + "".join(map(str, classes))
    folder = "torchvision.datasets.ImageFolder"
    return dict(
        type="classification",
        prepare=dict(
            type="pxframe_tasks.demo.digits.write_folders", root=root, size=8, classes=classes, part=(0.0, 0.1)
        ),
        data=dict(train=dict(type=folder, root=root + "/train"), test=dict(type=folder, root=root + "/test")),
        epochs=1,
        batch_size=16,
        amp="float32",
    )

seed = [0]
backbone = dict(type="cifar_resnet", depth=8, width=2, num_classes=3)
pretrain = dict(**_digits([0, 1, 2]), head=None)
prune = dict(scorer=["magnitude"], sparsity=0.8, samples=6)
tasks = dict(a=_digits([3, 4, 5, 6]), b=_digits([7, 8]))
"""
VARIANTS = ("dense", "magnitude-80.00", "random-80.00")


@pytest.fixture
def job(tmp_path, monkeypatch, capsys, no_report):
    """``job(text, *arguments)`` runs a config with these changes, and gives what was trained and what was printed."""
    trained = []
    train = runs.train

    def watched(setting, title, *args, **kwargs):
        trained.append(f"{setting.seed} {title}")
        return train(setting, title, *args, **kwargs)

    monkeypatch.setattr(runs, "train", watched)
    made = []
    prune = subject.prune
    monkeypatch.setattr(subject, "prune", lambda m, b, s, **k: made.append(s["type"]) or prune(m, b, s, **k))

    def run(*changes, resume=True, name="mine.py", command="transfer", arguments=(), code=0):
        config = tmp_path / name
        text = CONFIG.format(data=tmp_path / "data")
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        config.write_text(text)
        trained.clear()
        made.clear()
        options = ["--work-dir", str(tmp_path / "work"), *(["--resume"] if resume else []), *arguments]
        got = cli.main([command, str(config), *options])
        printed = "".join(capsys.readouterr())
        assert got == code, printed
        return sorted(trained), made[:], printed

    run.folder = tmp_path / "work"
    return run


def rows(folder):
    found = json.loads((folder / "results.json").read_text())["rows"]
    return {(r["seed"], r["task"], r["variant"]): r["value"] for r in found}


@pytest.mark.slow
def test_a_job_grows_by_seeds_methods_levels_and_tasks_and_repeats_nothing(job):
    trained, made, _ = job(resume=False)
    assert trained == sorted(["0 pretrain", *(f"0 {task} {variant}" for task in "ab" for variant in VARIANTS)])
    assert made == ["dense", "magnitude", "random"]
    first = rows(job.folder)
    assert set(first) == {(0, task, variant) for task in "ab" for variant in VARIANTS}

    trained, made, _printed = job(name="another_name.py")
    assert (trained, made) == ([], [])
    assert rows(job.folder) == first

    two = ("seed = [0]", "seed = [0, 1]")
    trained, made, _ = job(two)
    assert trained == sorted(["1 pretrain", *(f"1 {task} {variant}" for task in "ab" for variant in VARIANTS)])

    more = ('["magnitude"]', '["magnitude", "snip"]')
    trained, made, _ = job(two, more)
    assert trained == sorted(f"{seed} {task} snip-80.00" for seed in (0, 1) for task in "ab")
    assert made == ["snip", "snip"]

    levels = ("sparsity=0.8", "sparsity=[0.5, 0.8]")
    trained, _, _ = job(two, levels)
    assert trained == sorted(f"{s} {t} {m}-50.00" for s in (0, 1) for t in "ab" for m in ("magnitude", "random"))

    tasks = ("b=_digits([7, 8])", "b=_digits([7, 8]), c=_digits([1, 9])")
    trained, made, _ = job(tasks, levels)
    assert trained == sorted(f"0 c {v}" for v in (*VARIANTS, "magnitude-50.00", "random-50.00"))
    assert made == []
    assert {key: value for key, value in rows(job.folder).items() if key in first} == first
    assert not (job.folder / "set-aside").exists()


@pytest.mark.slow
def test_a_change_reruns_just_what_depends_on_it_and_says_so(job):
    job(resume=False)
    before = rows(job.folder)
    longer = ("a=_digits([3, 4, 5, 6])", "a=dict(_digits([3, 4, 5, 6]), epochs=2)")
    trained, made, printed = job(longer)
    assert trained == sorted(f"0 a {variant}" for variant in VARIANTS)
    assert made == []
    assert f"a: task.epochs was 1, now 2; 3 results are set aside in {job.folder / 'set-aside'}, " in printed
    assert printed.count("set aside") == 1
    assert {k: v for k, v in rows(job.folder).items() if k[1] == "b"} == {
        k: v for k, v in before.items() if k[1] == "b"
    }
    assert (job.folder / "set-aside" / "seed-0" / "a" / "dense" / "model.pth").exists()  # no work is lost

    trained, made, printed = job(longer, ("samples=6", "samples=9"))
    assert (trained, made) == ([], [])  # magnitude reads no images

    trained, made, printed = job(longer, ("head=None", "head=None, label_smoothing=0.1"))
    assert len(trained) == 7
    assert made == ["dense", "magnitude", "random"]
    told = [line for line in printed.splitlines() if "set aside" in line]
    assert "pretrained.safetensors was made with other settings (task.label_smoothing was None, now 0.1" in told[0]
    assert [line.split("; ")[0] for line in told[1:]] == [
        f"{place}: the weights or tickets before it changed" for place in ("tickets", "a", "b")
    ]


@pytest.mark.slow
def test_a_change_is_told_of_once_for_all_seeds_and_damaged_files_are_named_beside_it(job):
    two = ("seed = [0]", "seed = [0, 1]")
    job(two, resume=False)
    damaged = job.folder / "seed-1" / "b" / "dense" / "result.json"
    damaged.write_text("{")
    longer = ("b=_digits([7, 8])", "b=dict(_digits([7, 8]), epochs=2)")
    trained, _, printed = job(two, longer)
    assert trained == sorted(f"{seed} b {variant}" for seed in (0, 1) for variant in VARIANTS)
    told = [line for line in printed.splitlines() if "set aside" in line]
    assert len(told) == 2
    assert "b: task.epochs was 1, now 2; 5 results are set aside in " in told[0]
    assert str(damaged) in told[1]


def test_one_task_alone_leaves_the_rows_of_the_others(job):
    job(resume=False)
    before = rows(job.folder)
    trained, _, _printed = job(arguments=("--tasks", "b"))
    assert trained == []
    assert rows(job.folder) == before
    # ... unless they were made by other settings than the present ones
    trained, _, printed = job(
        ("a=_digits([3, 4, 5, 6])", "a=dict(_digits([3, 4, 5, 6]), epochs=2)"), arguments=("--tasks", "b")
    )
    assert trained == []
    assert {key[1] for key in rows(job.folder)} == {"b"}
    assert "a: 3 finished results are left out" in printed


def test_a_folder_with_work_in_it_is_taken_only_with_resume(job):
    job(resume=False, command="prune")
    _, _, printed = job(resume=False, code=2)
    assert "is not empty: add --resume" in printed
    (job.folder / "job.json").unlink()
    _, _, printed = job(resume=False, code=2)
    assert "is not empty: add --resume" in printed
    trained, made, _ = job()
    assert "0 pretrain" not in trained
    assert made == []


DAMAGE = {
    "empty": lambda file: file.write_bytes(b""),
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-20]),
    "one bit": lambda file: file.write_bytes(
        file.read_bytes()[:-9] + bytes([file.read_bytes()[-9] ^ 4]) + file.read_bytes()[-8:]
    ),
    "JSON of another kind": lambda file: file.write_text("[]"),
}


@pytest.mark.parametrize(
    "damage", ["one bit", *(pytest.param(d, marks=pytest.mark.slow) for d in DAMAGE if d != "one bit")]
)
def test_damaged_files_are_named_set_aside_and_made_again(job, damage):
    job(resume=False)
    before, work = rows(job.folder), job.folder / "seed-0"
    files = ["pretrained.safetensors", "tickets/magnitude-80.00.safetensors", "a/dense/result.json"]
    for file in files:
        DAMAGE[damage](work / file)
    trained, made, printed = job()
    assert trained == ["0 a dense", "0 pretrain"]
    assert made == ["magnitude"]
    assert all(f"{work / file} " in printed for file in files)
    assert rows(job.folder) == before
    assert (job.folder / "set-aside" / "seed-0" / "pretrained.safetensors").exists()


@pytest.mark.slow
def test_files_of_another_job_are_not_used(job, tmp_path):
    """Each copied over this job's own: the values would be silently wrong."""
    job(resume=False)
    before, work = rows(job.folder), job.folder
    other = tmp_path / "other"
    os.rename(work, other)
    job(("seed = [0]", "seed = [5]"), resume=False)
    os.rename(work / "seed-5", other / "seed-5")
    os.rename(other, tmp_path / "mixed")
    mixed = tmp_path / "mixed" / "seed-0"
    for file in ("pretrained.safetensors", "tickets/random-80.00.safetensors", "b/dense/result.json"):
        (mixed / file).write_bytes((tmp_path / "mixed" / "seed-5" / file).read_bytes())
    for path in work.iterdir():
        path.unlink() if path.is_file() else None
    for path in (tmp_path / "mixed").iterdir():
        os.rename(path, work / path.name)
    trained, made, printed = job()
    assert trained == ["0 b dense", "0 pretrain"]
    assert made == ["random"]
    assert "seed was 5, now 0" in printed
    assert rows(work) == before


@pytest.mark.slow
def test_an_unfinished_run_of_other_settings_is_not_gone_on_with(job):
    job(resume=False)
    run = job.folder / "seed-0" / "a" / "dense"
    (run / "result.json").unlink()
    (run / "recipe.json").write_text("{}")
    trained, _, printed = job()
    assert trained == ["0 a dense"]
    assert str(run) in printed
    assert (job.folder / "set-aside" / "seed-0" / "a" / "dense" / "model.pth").exists()
    for path in (run / "result.json", run / "recipe.json"):
        path.unlink()
    trained, _, printed = job()
    assert trained == ["0 a dense"]
    assert "no job of this kind wrote" in printed


@pytest.mark.slow
def test_checkpoints_stay_only_where_they_are_asked_for(job):
    job(resume=False)
    runs = job.folder / "seed-0"
    assert sorted(p.name for p in (runs / "a" / "dense").iterdir()) == [
        *("model.pth", "recipe.json", "result.json", "train.log")
    ]
    assert not list(runs.rglob("epoch_*.pth"))
    job(("seed = [0]", "seed = [1]\nkeep_checkpoints = True"))
    assert len(list(job.folder.rglob("epoch_1.pth"))) == 7


def test_a_collapsed_ticket_is_a_row_that_says_so_and_the_others_go_on(job):
    trained, _, printed = job(("sparsity=0.8", "sparsity=0.9995"), ("seed = [0]", "seed = [0, 1]"), resume=False)
    found = rows(job.folder)
    assert found[0, "a", "dense"] is not None
    assert found[0, "a", "random-99.95"] is None
    assert "0 a random-99.95" not in trained
    assert "collapsed, not trained" in printed
    row = next(r for r in json.loads((job.folder / "results.json").read_text())["rows"] if r["value"] is None)
    assert "no longer depends on its input" in row["collapsed"]
    trained, made, _ = job(("sparsity=0.8", "sparsity=0.9995"), ("seed = [0]", "seed = [0, 1]"))
    assert (trained, made) == ([], [])


def test_two_processes_do_not_work_in_one_folder(job, tmp_path):
    job(resume=False, command="prune")
    hold = (
        "import sys, time; from pathlib import Path; from pxframe.files.lock import owned\n"
        f"with owned(Path({str(job.folder)!r})): print('owned', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "owned\n"
        _, _, printed = job(code=2)
        assert f"process {holder.pid}" in printed
        assert printed.count("\n") <= 3  # what the command does, its threads, and the refusal
        holder.kill()
    trained, _, _ = job()  # the kernel took the lock back
    assert len(trained) == 6
