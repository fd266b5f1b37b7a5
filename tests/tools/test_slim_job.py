"""Jobs that train networks without the channels that their tickets removed."""

import json

import pytest
import torch
from digits_job import TASK

import pxframe
from pxframe_tools import cli

CONFIG = """
backbone = dict(type="cifar_resnet", depth=8, width=8, num_classes=3)
slim = True
pretrain = _digits
prune = dict(
    **dict(scorer="magnitude", sparsity=0.5, granularity=dict(type="channel", groups="mean")),
    **dict(samples=6, refit="bn", controls=[]),
)
tasks = dict(own=_digits, new=dict(_digits, head=dict(type="Linear")))
"""


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "job.py"
    file.write_text(TASK.format(data=str(tmp_path / "data")) + CONFIG)
    return [str(file), "--work-dir", str(tmp_path / "work")]


def parameters(tensors):
    return sum(tensor.numel() for tensor in tensors)


def rows(tmp_path):
    return json.loads((tmp_path / "work" / "results.json").read_text())["rows"]


@pytest.mark.slow
def test_a_job_trains_slim_networks_and_finds_them_again(config, tmp_path, capsys):
    assert cli.main(["transfer", *config]) == 0
    made = rows(tmp_path)
    assert [row["task"] for row in made] == ["own", "new"]
    for row in made:
        assert 0.2 < row["slim"]["flops"] < 0.9
        weights = torch.load(tmp_path / "work/seed-0" / row["task"] / row["variant"] / "model.pth", weights_only=True)
        dense = pxframe.build_backbone(dict(type="cifar_resnet", depth=8, width=8, num_classes=3))
        assert parameters(weights.values()) < 0.95 * parameters(dense.state_dict().values())
    printed = capsys.readouterr().out
    assert "; slim: " in printed
    [columns] = [line.split() for line in printed.splitlines() if line.startswith("task ")]
    assert columns[-4:] == ["flops", "params", "latency", "seconds"]
    assert cli.main(["transfer", *config, "--resume"]) == 0
    assert rows(tmp_path) == made


def test_the_mask_alone_gives_the_network_that_is_slimmed(config, tmp_path):
    """The small network's untrained accuracy is that of the masked one: nothing but time and size differs."""
    nothing_learnt = ["tasks.own.optimizer.type=SGD", "tasks.own.optimizer.lr=0.0", "tasks.own.frozen_norms=True"]
    assert cli.main(["transfer", *config, "--tasks", "own", "--cfg-options", *nothing_learnt]) == 0
    [row] = rows(tmp_path)
    assert row["slim"]["params"] < 1
    assert row["value"] == pytest.approx(row["zero_shot"]["start"])


def test_whole_models_are_refused_before_work_begins(config, capsys):
    assert cli.main(["transfer", *config, "--cfg-options", "prune.whole=True"])
    assert "slim takes out channels of the backbone alone" in capsys.readouterr().err
