"""Weights from files: wrappers' prefixes, names that only look like them, and files that run code."""

from contextvars import copy_context

import pytest
import torch
from torch import nn

from pxframe.base.errors import PxframeError
from pxframe.plugin.checkpoint import fit, load_checkpoint, read_checkpoint, trust, unwrap


def net(**extra):
    torch.manual_seed(0)
    return nn.ModuleDict({"stem": nn.Linear(2, 3), "fc": nn.Linear(3, 2), **extra})


def same(model, state):
    return all(torch.equal(t, state[n]) for n, t in model.state_dict().items())


PREFIXES = ("", "module.", "backbone.", "encoder.", "model.", "module.backbone.")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_of_wrappers_come_off(prefix, tmp_path):
    state = {n: t + 1 for n, t in net().state_dict().items()}
    torch.save({"epoch": 3, "model": {prefix + n: t for n, t in state.items()}}, tmp_path / "x.pth")
    model = net()
    load_checkpoint(model, tmp_path / "x.pth")
    assert same(model, state)


@pytest.mark.parametrize("prefix", ["student.", "module.student.", "student.encoder."])
def test_a_provider_adds_the_prefixes_of_its_files(prefix, tmp_path):
    state = {n: t + 1 for n, t in net().state_dict().items()}
    torch.save({prefix + n: t for n, t in state.items()} | {"teacher.x": torch.ones(1)}, tmp_path / "x.pth")
    with pytest.raises(PxframeError, match="does not fit the model"):
        load_checkpoint(net(), tmp_path / "x.pth")
    model = net()
    load_checkpoint(model, tmp_path / "x.pth", holders=("student.",))
    assert same(model, state)


def test_the_core_names_no_provider_s_prefix():
    import pxframe.plugin.checkpoint as module

    assert not {"encoder_q.", "visual."} & set(module._HOLDERS)


@pytest.mark.parametrize("name", ["encoder", "module", "backbone", "model"])
def test_a_network_s_own_names_stay(name, tmp_path):
    model = net(**{name: net()})
    state = {n: t + 1 for n, t in model.state_dict().items()}
    for prefix in ("", "module.", f"{name}."):
        torch.save({prefix + n: t for n, t in state.items()}, tmp_path / "x.pth")
        model = net(**{name: net()})
        load_checkpoint(model, tmp_path / "x.pth")
        assert same(model, state), prefix


def test_what_lies_beside_a_part_is_told_apart():
    state = {"module.encoder_q.a": torch.ones(1), "module.encoder_k.a": torch.ones(2), "module.queue": torch.ones(3)}
    part, rest = unwrap(state, {"a", "b"}, holders=("encoder_q.",))
    assert part.keys() == {"a"}
    assert len(part["a"]) == 1
    assert rest.keys() == {"encoder_k.a", "queue"}


def test_a_name_without_the_prefix_of_all_others_is_listed(tmp_path):
    state = {f"module.{n}": t for n, t in net().state_dict().items()} | {"bn.weight": torch.ones(1)}
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(PxframeError, match=r"unexpected bn\.weight$"):
        load_checkpoint(net(), tmp_path / "x.pth")


def test_fresh_names_may_be_missing_and_no_others():
    state = {n: t + 1 for n, t in net().state_dict().items() if not n.startswith("fc.")}
    model = net()
    fit(model, state, "x.pth", fresh=("fc.",))
    assert same(model, {**net().state_dict(), **state})
    del state["stem.bias"]
    with pytest.raises(PxframeError, match=r"lacks stem\.bias$"):
        fit(net(), state, "x.pth", fresh=("fc.",))


class Option:
    """What a training script keeps beside its weights."""


def unsafe(kind, path):
    model = net()
    if kind == "object":
        torch.save({"state_dict": model.state_dict(), "args": Option()}, path)
    elif kind == "module":
        torch.save({"model": model}, path)
    else:
        torch.jit.save(torch.jit.trace(nn.Sequential(nn.Linear(2, 3)), torch.ones(1, 2)), str(path))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["object", "module", "script"])
def test_only_trust_reads_files_that_run_code(kind, tmp_path):
    path = tmp_path / "x.pth"
    unsafe(kind, path)

    def trusting():
        trust()
        return read_checkpoint(path)

    state = copy_context().run(trusting)
    assert state.keys() == ({"0.weight", "0.bias"} if kind == "script" else net().state_dict().keys())
    with pytest.raises(PxframeError) as error:  # also after it: trust ends with its context
        read_checkpoint(path)
    assert "would run code" in str(error.value)
    assert "--trust-checkpoint" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_trusted_file_of_missing_code_says_so(tmp_path, monkeypatch):
    torch.save({"state_dict": net().state_dict(), "args": Option()}, tmp_path / "x.pth")
    monkeypatch.delattr(f"{__name__}.Option")

    def trusting():
        trust()
        return read_checkpoint(tmp_path / "x.pth")

    with pytest.raises(PxframeError, match=r"needs code that is not here: .*Option"):
        copy_context().run(trusting)
