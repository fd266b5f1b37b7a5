"""The commands that measure tickets, on a small job: what they print and write, and that they go on where they were."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from digits_job import digits_job

import pxframe
from pxframe.evidence.spectrum import log_distance
from pxframe.evidence.width import widths
from pxframe.job.claim import changed_settings
from pxframe.job.config import load_config
from pxframe.job.job import Job
from pxframe.ticket.ticket import Ticket
from pxframe_tools import cli

PRUNE = 'scorer=["magnitude", "px"], sparsity=0.9, rounds=2'


@pytest.fixture
def job(tmp_path):
    config = tmp_path / "mine.py"
    config.write_text(digits_job(tmp_path / "data", PRUNE))
    return [str(config), "--work-dir", str(tmp_path / "work")]


def rows_of(job, what):
    return json.loads((Path(job[-1]) / f"{what}.json").read_text())["rows"]


def parts(job, seed):
    """Model, images and tickets of one seed, built here."""
    whole = Job.from_config(load_config(job[0]), tasks=[], work_dir=job[-1], resume=True)
    torch.manual_seed(seed)
    model = pxframe.build_backbone(dict(type="cifar_resnet", depth=8, width=4, num_classes=3))
    folder = whole.repetitions()[seed].folder / "tickets"
    batches = list(whole.scored_on.task.batches(4, 4, seed=seed))
    return model, batches, {file.stem: Ticket.load(file) for file in folder.glob("*.safetensors")}


def kernel(model, ticket, images):
    """J J^T in train mode, which normalises by the batch as a first measurement would; one output at a time."""
    ticket.apply(model.eval())
    with torch.no_grad():  # measure the statistics of batch norm layer by layer
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None
                module.train()
        model(images)
        model.eval()
    rows = []
    for one in images.split(1):
        for output in model(one).flatten():
            found = torch.autograd.grad(output, list(model.parameters()), retain_graph=True)
            named = zip(dict(model.named_parameters()), found, strict=True)
            rows.append(torch.cat([(g * ticket.masks.get(n, torch.tensor(1))).flatten().double() for n, g in named]))
    jacobian = torch.stack(rows)
    return (jacobian @ jacobian.T).numpy()


def test_spectra_are_those_of_explicit_kernels(job, capsys, no_report):
    assert cli.main(["spectrum", *job, "--images", "4"]) == 0
    printed = capsys.readouterr().out
    rows = rows_of(job, "spectrum")
    assert {(row["seed"], row["variant"]) for row in rows} == {
        (seed, name) for seed in (0, 1) for name in ("dense", "magnitude-90.00", "px-90.00", "random-90.00")
    }
    model, batches, tickets = parts(job, 1)
    found = {row["variant"]: row for row in rows if row["seed"] == 1}
    for name, ticket in tickets.items():
        values = np.linalg.eigvalsh(kernel(model, ticket, batches[0][0]))[::-1]
        if name == "dense":
            dense = values
        model.load_state_dict(parts(job, 1)[0].state_dict())
        np.testing.assert_allclose(found[name]["eigenvalues"], values, rtol=1e-3, atol=1e-5 * values[0])
    assert found["dense"]["distance"] == 0
    assert found["px-90.00"]["distance"] == pytest.approx(
        log_distance(found["px-90.00"]["eigenvalues"], dense), abs=0.05
    )
    assert "distance from dense" in printed
    assert "±" in printed
    for seed in (0, 1):
        assert f"\nseed {seed}: spectrum: px-90.00\n" in printed
        assert f"\nseed {seed}: prune: px kept" in printed


def test_a_finished_measurement_is_not_repeated_and_other_settings_are(job, capsys, monkeypatch, no_report):
    assert cli.main(["spectrum", *job, "--images", "4"]) == 0
    first = rows_of(job, "spectrum")
    with monkeypatch.context() as patch:
        patch.setattr("pxframe.evidence.spectrum.Kernel", lambda *_: pytest.fail("it was measured again"))
        assert cli.main(["spectrum", *job, "--images", "4", "--resume"]) == 0
    assert rows_of(job, "spectrum") == first
    assert cli.main(["spectrum", *job, "--images", "4", "--resume", "--largest", "3"]) == 0
    again = rows_of(job, "spectrum")
    for old, new in zip(first, again, strict=True):
        np.testing.assert_allclose(new["eigenvalues"], old["eigenvalues"][:3], rtol=1e-2)
        assert abs(new["trace"] - old["trace"]) < 6 * new["trace_error"]


def test_widths_are_counted_for_every_ticket(job, capsys):
    assert cli.main(["width", *job]) == 0
    model, batches, tickets = parts(job, 0)
    for row in rows_of(job, "width"):
        if row["seed"] == 0:
            wanted = widths(model, tickets[row["variant"]], batches[0][0])
            assert [layer["connected"] for layer in row["layers"]] == [width.connected for width in wanted]
            assert row["connected"] == sum(w.connected for w in wanted) / sum(w.units for w in wanted)
    assert "narrowest layer" in capsys.readouterr().out
    about, present = (json.loads((Path(job[-1]) / name).read_text()) for name in ("width.json", "job.json"))
    assert changed_settings(about["settings"], present) == []
    present["prune"]["samples"] = 7
    assert changed_settings(about["settings"], present) == ["prune.samples was 6, now 7"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["spectrum", "--images", "4", "--largest", "12"], "spectrum of dense, seed 0: the kernel has 12 rows"),
        (["width", "--cfg-options", "prune.whole=True", "prune.data=None"], "prune.whole makes those of each task"),
    ],
)
def test_mistakes_cost_one_line(job, capsys, arguments, words):
    assert cli.main([arguments[0], *job, *arguments[1:]]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_times_stand_beside_results_for_every_number_of_rounds(job, capsys, monkeypatch, no_report):
    assert cli.main(["timing", *job, "--rounds", "1", "3", "--cfg-options", "seed=0", "prune.scorer=px"]) == 0
    rows = rows_of(job, "timing")
    assert [(row["variant"], row["rounds"]) for row in rows if row["method"].startswith("px")] == [
        ("px-rounds=1-90.00", 1),
        ("px-rounds=3-90.00", 3),
    ]
    assert all(row["prune_seconds"] > 0 and 0 <= row["value"] <= 100 for row in rows)
    assert "seconds to prune" in capsys.readouterr().out
    monkeypatch.setattr("pxframe.pruning.loop.prune", lambda *_, **__: pytest.fail("it was timed again"))
    again = ["timing", *job, "--rounds", "1", "3", "--resume", "--cfg-options", "seed=0", "prune.scorer=px"]
    assert cli.main(again) == 0
    assert rows_of(job, "timing") == rows


def test_a_number_that_is_none_is_refused(job, capsys):
    for arguments in (["spectrum", *job, "--images", "0"], ["timing", *job, "--rounds", "two"]):
        with pytest.raises(SystemExit):
            cli.main(arguments)
        assert "invalid number value" in capsys.readouterr().err
