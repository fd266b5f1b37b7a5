"""Tickets: their numbers, their file and how they meet a model."""

import json
import math
import os
import resource
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
import torchvision
from torch import nn

from pxframe.base.errors import PxframeError
from pxframe.running.wrappers import plain_name
from pxframe.ticket import file as ticket_file
from pxframe.ticket.file import fingerprint
from pxframe.ticket.ticket import Ticket

META = {"scorer": "px", "options": {"variant": "paper", "eps": 0.1}, "seed": 3, "scope": None, "note": "é ° \"'\n"}


def net():
    """Three weights of odd sizes, and parameters beside them."""
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Conv2d(5, 7, 1), nn.Flatten(), nn.Linear(7, 3))


def random_masks(model, density=0.4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    named = model.named_parameters()
    return {n: torch.rand(p.shape, generator=generator) < density for n, p in named if p.ndim > 1}


def ticket_of(model, density=0.4, **meta):
    return Ticket(random_masks(model, density), meta)


def state(model):
    return {n: p.detach().clone() for n, p in model.state_dict(keep_vars=True).items()}


def unchanged(model, before):
    return all(before[n].equal(p) for n, p in model.state_dict().items())


def is_masked(model, before, masks, prefix=""):
    """Every parameter is what it was, with exactly the pruned weights of ``masks`` at zero."""
    for name, parameter in model.named_parameters():
        expected = before[name]
        if name.startswith(prefix) and name[len(prefix) :] in masks:
            expected = torch.where(masks[name[len(prefix) :]], expected, torch.zeros(()))
        if not parameter.equal(expected):
            return False
    return True


def error_of(call, *args, **kwargs):
    """The message of the PxframeError that ``call`` raises, which must be one line."""
    with pytest.raises(PxframeError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Holder(nn.Module):
    def __init__(self, **children):
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)


# --- numbers -----------------------------------------------------------------------------------------


def test_numbers_of_a_ticket():
    masks = {
        "a": torch.tensor([[True, False], [False, False]]),
        "b": torch.zeros(2, 3).bool(),
        "c": torch.ones(2).bool(),
    }
    ticket = Ticket(masks)
    assert (ticket.kept, ticket.total, ticket.sparsity) == (3, 12, 0.75)
    assert ticket.density_per_layer() == {"a": 0.25, "b": 0.0, "c": 1.0}
    assert ticket.emptied == ["b"]
    assert ticket.meta == {}
    assert "75.00%" in repr(ticket)


@pytest.mark.parametrize("masks", [{}, {"a": torch.ones(3)}, {"a": [True]}])
def test_only_bool_masks_make_a_ticket(masks):
    assert "bool masks" in error_of(Ticket, masks)


@pytest.mark.parametrize("name", [None, "", 3, "a\x1b[2J"])
def test_names_are_printable_text(name):
    assert "names of parameters" in error_of(Ticket, {name: torch.ones(2).bool()})


# --- file: what comes back ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shapes", [[(1,)], [(7,)], [(8,)], [(9, 3), (5,), (1, 1, 1)], [()], [(3, 0), (2, 2)], [(64, 33)]]
)
def test_round_trip_of_odd_sizes(tmp_path, shapes):
    generator = torch.Generator().manual_seed(len(shapes))
    masks = {f"z{9 - i}.weight": torch.rand(s, generator=generator) < 0.5 for i, s in enumerate(shapes)}
    Ticket(masks, META).save(tmp_path / "t")
    loaded = Ticket.load(str(tmp_path / "t"))
    assert loaded.meta == META
    assert list(loaded.masks) == list(masks), "the order of the layers is theirs, not the alphabet's"
    assert all(loaded.masks[n].equal(masks[n]) and loaded.masks[n].dtype == torch.bool for n in masks)


def test_round_trip_of_transposed_masks(tmp_path):
    mask = (torch.arange(15).reshape(3, 5) % 4 == 0).T
    Ticket({"w": mask}).save(tmp_path / "t")
    assert Ticket.load(tmp_path / "t").masks["w"].equal(mask)


@pytest.mark.parametrize("make", [net, torchvision.models.resnet18, torchvision.models.resnet152])
@pytest.mark.parametrize("emptied", [0, 0.5])
def test_file_is_one_bit_a_weight_and_200_bytes_a_layer(tmp_path, make, emptied):
    with torch.device("meta"):
        model = make()
    masks = random_masks(model)
    for name in list(masks)[: int(len(masks) * emptied)]:
        masks[name].zero_()
    ticket = Ticket(masks)
    options = {f"option_{i}": 0.1 * i for i in range(8)}
    versions = {"pxframe": "0.1.0", "torch": torch.__version__, "torchvision": torchvision.__version__}
    sha = fingerprint({"w": torch.arange(3)})
    per_layer = {"emptied": ticket.emptied, "density": ticket.density_per_layer()}
    ticket.meta = {**META, "options": options, "versions": versions, "fingerprint": sha, **per_layer}
    ticket.save(tmp_path / "t")
    assert os.path.getsize(tmp_path / "t") <= ticket.total / 8 + 200 * len(masks) + 2048
    loaded = Ticket.load(tmp_path / "t")
    assert loaded.meta == ticket.meta
    assert all(loaded.masks[n].equal(m) for n, m in masks.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64])
def test_values_to_start_from_come_back_bit_for_bit(tmp_path, dtype):
    masks = {"a": torch.tensor([[True, False]])}
    start = {"a": torch.tensor([[1.5, -2.0]]).to(dtype), "bn.running_var": torch.tensor(3).to(dtype)}
    Ticket(masks, {"seed": 1}, start).save(tmp_path / "t")
    found = Ticket.load(tmp_path / "t")
    assert found.start.keys() == start.keys()
    assert all(torch.equal(found.start[n], start[n]) and found.start[n].dtype == dtype for n in start)
    assert torch.equal(found.masks["a"], masks["a"])
    damaged = bytearray((tmp_path / "t").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "t").write_bytes(damaged)
    with pytest.raises(PxframeError, match="damaged"):
        Ticket.load(tmp_path / "t")


def test_rewind_sets_what_the_model_has_and_prunes_the_rest():
    model = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    start = {"0.weight": torch.tensor([[5.0, 6.0]]), "1.running_mean": torch.tensor([4.0]), "head.bias": torch.ones(3)}
    ticket = Ticket({"0.weight": torch.tensor([[True, False]])}, start=start)
    wrapped = nn.ModuleDict({"backbone": model})
    assert ticket.rewind(wrapped) == "backbone."
    assert model[0].weight.tolist() == [[5.0, 0.0]]
    assert model[1].running_mean.tolist() == [4.0]
    assert ticket.start["0.weight"].tolist() == [[5.0, 6.0]]


def test_rewind_refuses_values_of_another_network_and_changes_nothing():
    model = net()
    before, masks = state(model), random_masks(model)
    assert "none of the ticket's 1 values" in error_of(Ticket(masks, start={"q.r": torch.ones(1)}).rewind, model)
    infinite = Ticket(masks, start={"0.bias": torch.full((5,), torch.inf)})
    assert "infinite in 0.bias" in error_of(infinite.rewind, model)
    assert unchanged(model, before)


def test_a_buffer_may_be_infinite():
    model = nn.Linear(2, 2)
    model.register_buffer("attention", torch.zeros(2))
    Ticket({"weight": torch.eye(2).bool()}, start={"attention": torch.full((2,), -torch.inf)}).rewind(model)
    assert model.attention.isinf().all()


def test_same_ticket_same_bytes(tmp_path):
    masks, longer = random_masks(net()), list(range(300))
    Ticket(masks, {"a": 1, "b": longer, "c": {"x": 1, "y": 2}}).save(tmp_path / "one")
    Ticket(masks, {"c": {"y": 2, "x": 1}, "b": longer, "a": 1}).save(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    Ticket(masks, {"a": 2, "b": longer, "c": {"x": 1, "y": 2}}).save(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() != (tmp_path / "two").read_bytes()


def test_any_safetensors_reader_can_read_it(tmp_path):
    ticket = ticket_of(net(), seed=7)
    ticket.save(tmp_path / "t")
    with safetensors.safe_open(tmp_path / "t", framework="np") as file:
        head = json.loads(file.metadata()["pxframe"])
        bits = np.unpackbits(file.get_tensor("masks"), count=ticket.total)
    assert (head["format"], head["version"], head["meta"]) == ("pxframe-ticket", 2, {"seed": 7})
    assert bits.tolist() == torch.cat([m.flatten() for m in ticket.masks.values()]).int().tolist()
    assert head["layers"] == [[n, list(m.shape), int(m.sum())] for n, m in ticket.masks.items()]


# --- file: damage ------------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.ticket"
    Ticket({"a": torch.arange(21).reshape(3, 7) % 3 == 0, "b": torch.ones(2).bool()}, {"seed": 1}).save(path)
    return path


@pytest.mark.parametrize("flip", [0x01, 0x02, 0x08, 0x10, 0x20, 0x2A, 0xFF])
def test_any_altered_byte_is_found(tiny, flip):
    data = tiny.read_bytes()
    for at in range(len(data)):
        tiny.write_bytes(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :])
        assert str(tiny) in error_of(Ticket.load, tiny), at


def test_altered_bytes_of_a_large_ticket_are_found(tmp_path):
    path = tmp_path / "t"
    with torch.device("meta"):
        model = torchvision.models.resnet18()
    ticket_of(model, seed=1).save(path)
    data = path.read_bytes()
    for at in torch.linspace(0, len(data) - 1, 40).long().tolist():
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        assert str(path) in error_of(Ticket.load, path), at


def test_any_truncation_is_found(tiny):
    data = tiny.read_bytes()
    for length in range(len(data)):
        tiny.write_bytes(data[:length])
        assert str(tiny) in error_of(Ticket.load, tiny), length
    tiny.write_bytes(data + b"\0")
    assert str(tiny) in error_of(Ticket.load, tiny)


def test_what_is_no_ticket(tmp_path):
    path = tmp_path / "t"
    assert "No such file" in error_of(Ticket.load, path)
    assert "directory" in error_of(Ticket.load, tmp_path).lower()
    path.write_bytes(b"")
    assert "is empty" in error_of(Ticket.load, path)
    path.write_text("masks: none\n" * 20)
    assert "no safetensors file" in error_of(Ticket.load, path)
    safetensors.numpy.save_file({"masks": np.zeros(3, np.uint8)}, path)
    assert "no pxframe ticket" in error_of(Ticket.load, path)
    safetensors.numpy.save_file({"masks": np.zeros(3, np.uint8)}, path, {"pxframe": "7"})
    assert "no pxframe ticket" in error_of(Ticket.load, path)


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_named_and_not_run(tmp_path, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    torch.save({"masks": Bomb()}, "t", _use_new_zipfile_serialization=zipped)
    assert "pickle" in error_of(Ticket.load, "t")
    assert not Path("exploded").exists()


def rewrite(path, change=lambda head: None, **tensors):
    """The ticket with another head or other tensors, and a digest that fits."""
    data = path.read_bytes()
    head = json.loads(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["pxframe"])
    del head["sha256"]
    change(head)
    tensors = {**safetensors.torch.load(data), **tensors}
    head["sha256"] = ticket_file._digest(head, tensors)
    path.write_bytes(safetensors.torch.save(tensors, {"pxframe": ticket_file._json(head)}))


def test_other_versions_are_refused(tiny):
    rewrite(tiny)
    assert Ticket.load(tiny).kept == 9, "rewriting alone does no harm"
    rewrite(tiny, lambda head: head.update(version=3))
    assert "version 3, this pxframe reads 2; update pxframe" in error_of(Ticket.load, tiny)
    rewrite(tiny, lambda head: head.update(version=1))
    assert "version 1, which is no longer read; prune again" in error_of(Ticket.load, tiny)
    rewrite(tiny, lambda head: head.update(version="\x1b[31m2"))
    assert "no pxframe ticket" in error_of(Ticket.load, tiny)


def first(**changes):
    """Change the name, shape or kept count of the first layer."""

    def change(head):
        name, shape, kept = head["layers"][0]
        head["layers"][0] = [changes.get("name", name), changes.get("shape", shape), changes.get("kept", kept)]

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (first(kept=8), "a keeps 7 weights by its mask, 8 by its count"),
        (first(kept=True), "well-formed"),
        (first(shape=[3, 27]), "3 bytes of masks for 83 weights"),
        (first(shape=[2**30] * 5), "3 bytes of masks for"),
        (first(shape=[-3, -7]), "a with the shape [-3, -7]"),
        (first(shape=[0, 2**31]), "a with the shape [0, 2147483648]"),
        (first(shape=[3.0, 7]), "a with the shape [3.0, 7]"),
        (first(shape=[1] * 65), "well-formed"),
        (first(shape=None), "well-formed"),
        (first(name="b"), "two of its layers have one name"),
        (first(name=None), "a layer named None"),
        (first(name=""), "a layer named ''"),
        (first(name="\x1b[2Ja"), r"a layer named '\x1b[2Ja'"),
        (lambda head: head.pop("layers"), "well-formed"),
        (lambda head: head["layers"].append(["c"]), "well-formed"),
        (lambda head: head.update(layers=[]), "bytes of masks for 0 weights"),
        (lambda head: head.update(meta=None), "well-formed"),
    ],
)
def test_a_signed_contradiction_is_refused(tiny, change, says):
    rewrite(tiny, change)
    message = error_of(Ticket.load, tiny)
    assert says in message
    assert str(tiny) in message
    assert message.isprintable()


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"start.a": torch.full((3, 7), torch.nan)}, "NaN or infinite in a"),
        ({"start.a": torch.full((3, 7), torch.inf)}, "NaN or infinite in a"),
        ({"start.bias": torch.tensor([torch.nan]).half()}, "NaN or infinite in bias"),
        ({"start.a": torch.ones(7, 3)}, "a [7, 3], mask [3, 7]"),
        ({"start.\x1b[2J": torch.ones(1)}, r"'\x1b[2J'"),
        ({"start.": torch.ones(1)}, "names of parameters"),
        ({"other": torch.ones(1)}, "well-formed"),
        ({"masks": torch.ones(3, dtype=torch.int8)}, "bytes of masks"),
        ({"masks": torch.ones(1, 3, dtype=torch.uint8)}, "bytes of masks"),
    ],
)
def test_signed_tensors_that_make_no_ticket_are_refused(tiny, tensors, says):
    rewrite(tiny, **tensors)
    message = error_of(Ticket.load, tiny)
    assert says in message
    assert str(tiny) in message
    assert message.isprintable()


def test_a_signed_second_entry_of_metadata_is_refused(tiny):
    data = tiny.read_bytes()
    text = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["pxframe"]
    tiny.write_bytes(safetensors.torch.save(safetensors.torch.load(data), {"pxframe": text, "more": "x"}))
    assert "header was altered" in error_of(Ticket.load, tiny)


def test_names_beyond_ascii_and_a_meta_of_any_text(tmp_path):
    meta = {"note": "\x00\x1f\x7f\u2028é", "left_dense": ["bn.weight"], "collapsed": "all of it"}
    Ticket({"é°.weight": torch.ones(2).bool()}, meta, {"ü": torch.ones(1)}).save(tmp_path / "t")
    loaded = Ticket.load(tmp_path / "t")
    assert (list(loaded.masks), loaded.meta, list(loaded.start)) == (["é°.weight"], meta, ["ü"])


# --- file: writing -----------------------------------------------------------------------------------


def test_a_crash_while_writing_leaves_the_old_file(tiny, monkeypatch):
    before = tiny.read_bytes()

    def half(self, data):
        with open(self, "wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    assert "No space left" in error_of(ticket_of(net()).save, tiny)
    assert tiny.read_bytes() == before
    assert list(tiny.parent.iterdir()) == [tiny], "nothing is left lying about"


def test_a_full_disk_leaves_the_old_file(tiny):
    before, limits = tiny.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    ticket = Ticket(random_masks(nn.Linear(1000, 100)))
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # what the system writes at most to a file
        message = error_of(ticket.save, tiny)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"cannot write {str(tiny)!r}" in message
    assert tiny.read_bytes() == before
    assert list(tiny.parent.iterdir()) == [tiny]


def test_values_of_tied_weights_come_back(tmp_path):
    model = Holder(embed=nn.Linear(4, 4, bias=False), head=nn.Linear(4, 4, bias=False))
    model.head.weight = model.embed.weight
    Ticket({"embed.weight": torch.eye(4).bool()}, start=model.state_dict()).save(tmp_path / "t")
    start = Ticket.load(tmp_path / "t").start
    assert set(start) == {"embed.weight", "head.weight"}
    assert all(value.equal(model.embed.weight) for value in start.values())


def test_values_that_no_file_can_hold(tmp_path):
    ticket = Ticket({"a": torch.ones(2).bool()}, start={"b": torch.ones(2).to_sparse()})
    assert "safetensors refuses" in error_of(ticket.save, tmp_path / "t")
    loop = {}
    loop["itself"] = loop
    assert "JSON" in error_of(Ticket({"a": torch.ones(2).bool()}, loop).save, tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written(tmp_path):
    ticket = ticket_of(net(), made=object())
    assert "JSON" in error_of(ticket.save, tmp_path / "t")
    assert list(tmp_path.iterdir()) == []
    assert "directory" in error_of(ticket_of(net()).save, tmp_path).lower()


# --- apply -------------------------------------------------------------------------------------------


def test_apply_zeroes_the_pruned_weights_only():
    model = net()
    before, ticket = state(model), ticket_of(model)
    assert ticket.apply(model) == ""
    assert is_masked(model, before, ticket.masks)
    assert ticket.apply(model) == "", "once more changes nothing"
    assert is_masked(model, before, ticket.masks)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_apply_to_other_dtypes_layouts_and_to_nan(dtype):
    model = net().to(dtype).to(memory_format=torch.channels_last)
    ticket = ticket_of(model)
    with torch.no_grad():
        model[0].weight.fill_(torch.nan)
    ticket.apply(model)
    mask = ticket.masks["0.weight"]
    assert model[0].weight[mask].isnan().all()
    assert (model[0].weight[~mask] == 0).all()


@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [
        (lambda m: Holder(backbone=Holder(model=m), head=nn.Conv2d(7, 3, 1)), "backbone.model."),
        (lambda m: Holder(a=Holder(deep=m), b=net()[:3]), "a.deep."),
    ],
)
def test_the_prefix_is_found(wrap, prefix):
    model = net()
    ticket, whole = ticket_of(model), wrap(model)
    before = state(whole)
    assert ticket.apply(whole) == prefix
    assert is_masked(whole, before, ticket.masks, prefix)
    assert not unchanged(whole, before)


def compiled(model):
    return torch.compile(model, backend="eager")


WRAPPED = {
    "parallel": lambda m: (nn.DataParallel(m), ""),
    "compiled": lambda m: (compiled(m), ""),
    "both": lambda m: (compiled(nn.DataParallel(m)), ""),
    "in the middle": lambda m: (nn.DataParallel(Holder(backbone=compiled(m), head=nn.Linear(2, 2))), "backbone."),
    "a part of it": lambda m: (nn.Sequential(m[0], compiled(m[1]), nn.DataParallel(m[2]), *m[3:]), ""),
}


@pytest.mark.parametrize("wrapped", WRAPPED.values(), ids=WRAPPED)
def test_wrappers_make_no_difference(wrapped):
    model = net()
    ticket, before = ticket_of(model), state(model)
    ticket.start = {"0.weight": torch.ones(5, 3, 3, 3), "1.running_mean": torch.full((5,), 3.0)}
    whole, prefix = wrapped(model)
    assert ticket.check(whole) == prefix
    assert ticket.apply(whole) == prefix
    assert is_masked(model, before, ticket.masks)
    assert ticket.rewind(whole) == prefix
    assert model[0].weight.equal(ticket.masks["0.weight"].float())
    assert (model[1].running_mean == 3).all()
    named = dict(whole.named_parameters())
    theirs = Ticket(
        {
            n: ticket.masks[plain_name(n).removeprefix(prefix)]
            for n, p in named.items()
            if p.ndim > 1 and "head" not in n
        }
    )
    assert theirs.masks.keys() != ticket.masks.keys()
    plain = Holder(backbone=net()) if prefix else net()
    before = state(plain)
    assert theirs.apply(plain) == ""
    assert is_masked(plain, before, ticket.masks, prefix)


def test_a_prefix_may_name_wrappers():
    whole = Holder(teacher=nn.DataParallel(net()), student=net())
    assert ticket_of(net()).apply(whole, prefix="teacher.module") == "teacher."


def test_two_names_that_differ_by_a_wrapper_alone_stay_two():
    model = Holder(module=Holder(fc=nn.Linear(2, 2)), fc=nn.Linear(2, 2))
    before, mask = state(model), torch.eye(2).bool()
    Ticket({"module.fc.weight": mask}).apply(model, prefix="")
    assert (model.module.fc.weight[~mask] == 0).all()
    assert model.fc.weight.equal(before["fc.weight"])


def test_the_names_themselves_go_before_any_prefix():
    whole = net()
    whole.add_module("copy", net())
    ticket = Ticket({n: m for n, m in random_masks(whole).items() if not n.startswith("copy.")})
    before = state(whole)
    assert ticket.apply(whole) == ""
    assert is_masked(whole, before, ticket.masks)


def test_several_prefixes_are_an_error_until_one_is_given():
    whole = Holder(teacher=net(), student=net())
    before, ticket = state(whole), ticket_of(net())
    message = error_of(ticket.apply, whole)
    assert "'student.', 'teacher.'" in message
    assert "prefix=" in message
    assert unchanged(whole, before)
    assert ticket.apply(whole, prefix="student.") == "student."
    assert is_masked(whole, before, ticket.masks, "student.")


def test_a_prefix_may_lack_its_dot_and_must_fit():
    whole = Holder(teacher=net(), student=net())
    before, ticket = state(whole), ticket_of(net())
    for wrong in ("stud", "", "student.0."):
        assert "3 of 3 names missing" in error_of(ticket.apply, whole, prefix=wrong)
    assert unchanged(whole, before)
    assert ticket.apply(whole, prefix="teacher") == "teacher."


def test_one_backbone_by_two_paths_is_not_ambiguous():
    model = net()
    whole = Holder(first=model, second=model)
    before, ticket = state(model), ticket_of(model)
    assert ticket.apply(whole) == "first."
    assert is_masked(model, before, ticket.masks)


def test_a_tied_weight_is_known_by_both_names():
    model = Holder(embed=nn.Linear(4, 4, bias=False), head=nn.Linear(4, 4, bias=False))
    model.head.weight = model.embed.weight
    mask = torch.eye(4).bool()
    Ticket({"head.weight": mask}).apply(model)
    assert (model.embed.weight[~mask] == 0).all()


def test_missing_names_and_other_shapes_are_listed_and_nothing_changes():
    model = net()
    ticket = ticket_of(model)
    ticket.masks = {**ticket.masks, "gone.weight": torch.zeros(2).bool(), "4.weight": torch.zeros(9, 7).bool()}
    for whole in (model, Holder(backbone=model)):
        before = state(whole)
        message = error_of(ticket.apply, whole)
        assert "1 of 4 names missing (gone.weight)" in message
        assert "4.weight ticket [9, 7] model [3, 7]" in message
        assert "partial=True" in message
        assert ("prefix 'backbone.'" in message) == (whole is not model)
        assert unchanged(whole, before)


def test_the_closest_prefix_is_the_one_explained():
    model = net()
    masks = {**random_masks(model), "gone.weight": torch.zeros(2).bool()}
    whole = Holder(aux=nn.Sequential(nn.Conv2d(1, 1, 1)), backbone=model)
    message = error_of(Ticket(masks).apply, whole)
    assert "prefix 'backbone.': 1 of 4 names missing (gone.weight);" in message
    assert "(3 of 4)" in message


def test_a_prefix_ends_with_a_dot():
    whole = Holder(**{"10": nn.Linear(2, 2)})
    assert "1 of 1 names missing (0.weight)" in error_of(Ticket({"0.weight": torch.zeros(2, 2).bool()}).apply, whole)


def test_a_long_list_of_differences_is_cut():
    ticket = Ticket({f"x{i}.weight": torch.ones(1).bool() for i in range(30)})
    message = error_of(ticket.apply, net())
    assert "30 of 30 names missing (x0.weight, x1.weight, x2.weight, x3.weight and 26 more)" in message
    assert "the model has 0.weight, 0.bias" in message


def test_partial_applies_what_fits():
    model = net()
    masks = random_masks(model)
    other = {**masks, "gone.weight": torch.zeros(2).bool(), "4.weight": torch.zeros(9, 7).bool()}
    fitting = {n: masks[n] for n in ("0.weight", "2.weight")}
    for whole, prefix in ((net(), ""), (Holder(backbone=net()), "backbone.")):
        before = state(whole)
        assert Ticket(other).apply(whole, partial=True) == prefix
        assert is_masked(whole, before, fitting, prefix)
        assert not unchanged(whole, before)


def test_partial_needs_something_that_fits_in_one_place():
    whole = Holder(a=net(), b=net())
    before, masks = state(whole), random_masks(net())
    masks["4.weight"] = torch.zeros(9, 7).bool()
    assert "several prefixes" in error_of(Ticket(masks).apply, whole, partial=True)
    only = {"4.weight": masks["4.weight"]}
    assert "0 of 1" in error_of(Ticket(only).apply, whole, partial=True)
    assert "1 of 1 names missing" in error_of(Ticket({"q": torch.ones(1).bool()}).apply, whole, partial=True)
    assert unchanged(whole, before)


def test_models_without_weights_yet_are_refused():
    ticket = ticket_of(net())
    with torch.device("meta"):
        model = net()
    assert "meta device" in error_of(ticket.apply, model)
    lazy = Holder(fc=nn.LazyLinear(3))
    assert "1 of 1 names missing" in error_of(Ticket({"fc.weight": torch.ones(3, 2).bool()}).apply, lazy)


# --- fingerprint -------------------------------------------------------------------------------------


def test_fingerprint_tells_names_shapes_dtypes_and_bits_apart():
    value = torch.arange(6.0)
    cases = [
        {"a": value},
        {"b": value},
        {"a": value.reshape(2, 3)},
        {"a": value.reshape(3, 2)},
        {"a": value.bfloat16()},
        {"a": value.half()},
        {"a": value.view(torch.int32)},
        {"a": torch.nextafter(value, torch.full((6,), math.inf))},
        {"a": value[:3], "b": value[3:]},
        {"a": value[:2], "b": value[2:]},
        {"a": torch.tensor(1.0)},
        {"a": torch.zeros(0)},
    ]
    found = [fingerprint(case) for case in cases]
    assert len(set(found)) == len(cases)
    assert all(len(one) == 64 and int(one, 16) >= 0 for one in found)


def test_fingerprint_ignores_order_layout_and_gradients():
    a, b = torch.randn(4, 3, 2, 2), torch.randn(3)
    other = {"b": nn.Parameter(b), "a": nn.Parameter(a.to(memory_format=torch.channels_last))}
    assert fingerprint({"a": a, "b": b}) == fingerprint(other)
