"""``benchmarks/gpu.py``, which is for a GPU, runs here in its small form, so that its code is not tried there first."""

import importlib.util
from pathlib import Path

import pytest
import torch

PATH = Path(__file__).parent.parent / "benchmarks" / "gpu.py"
spec = importlib.util.spec_from_file_location("gpu_benchmark", PATH)
gpu = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gpu)
torch.set_num_threads(1)

CHECKS = dict(gpu.checks("cpu"))


@pytest.mark.parametrize("label", CHECKS)
def test_every_check_passes_on_a_cpu(label, capsys):
    assert CHECKS[label](label.rpartition(": ")[2], "cpu", True)


def test_failures_are_counted(monkeypatch, capsys):
    def fails(*_):
        raise AssertionError("as it should")

    monkeypatch.setattr(gpu, "checks", lambda _: [("one: a", lambda *_: "fine"), ("two: b", fails), ("three", fails)])
    assert gpu.main(["--device", "cpu", "--quick"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["ok", "one:", "a", "fine"]
    assert lines[2].split() == ["FAILED", "two:", "b", "AssertionError:", "as", "it", "should"]


def test_another_mask_is_no_tie(monkeypatch):
    """A scorer whose masks are other ones on the second call is found out."""
    plain, calls = gpu.pxframe.prune, []

    def prune(model, batches, name, **options):
        calls.append(name)
        return plain(model, batches, "random", **options, seed=int(len(calls) > 1))

    monkeypatch.setattr(gpu.pxframe, "prune", prune)
    with pytest.raises(AssertionError, match="weights differ, by up to"):
        gpu.same_tickets("snip", "cpu", True)
