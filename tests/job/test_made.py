"""What made a file: damage, other settings and foreign files are found, named and set aside."""

import json

import pytest
import torch

from pxframe.base.errors import PxframeError
from pxframe.job.made import digest, read_row, read_state, reuse, save_row, save_state

RECIPE = {"task": {"epochs": 6, "optimizer": {"lr": 0.1}}, "seed": 0, "weights": "ab"}


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1}) != digest({"a": 1, "b": [2, 1]})


def test_a_state_comes_back_with_tied_tensors_and_every_byte_counts(tmp_path):
    weight = torch.randn(3, 4)
    file = tmp_path / "state.safetensors"
    save_state(file, {"a": weight, "tied": weight, "n": torch.tensor(3), "turned": weight.T}, RECIPE)
    state, recipe = read_state(file)
    assert recipe == RECIPE
    assert torch.equal(state["tied"], weight)
    assert torch.equal(state["turned"], weight.T)
    assert state["n"] == 3
    data = bytearray(file.read_bytes())
    begin = 8 + int.from_bytes(data[:8], "little")
    for at in range(begin, len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1
        file.write_bytes(damaged)
        with pytest.raises(PxframeError, match="damaged"):
            read_state(file)
    for cut in (b"", data[:5], data[:-3], b"{}", b"\x80\x04."):
        file.write_bytes(cut)
        with pytest.raises(PxframeError, match="damaged"):
            read_state(file)


@pytest.mark.parametrize(
    "content", ["", "{", "{}", "[]", "null", "3", "\x00\x01", '{"row": 3}', '{"row": {}, "recipe": {}}']
)
def test_a_row_that_is_damaged_or_altered_is_not_read(tmp_path, content):
    file = tmp_path / "result.json"
    file.write_text(content)
    with pytest.raises(PxframeError):
        read_row(file)


def test_a_forged_value_is_found(tmp_path):
    file = tmp_path / "result.json"
    save_row(file, {"value": 71.5}, RECIPE)
    assert read_row(file) == ({"value": 71.5}, RECIPE)
    found = json.loads(file.read_text())
    found["row"]["value"] = 99.5
    file.write_text(json.dumps(found))
    with pytest.raises(PxframeError, match="altered"):
        read_row(file)


def test_a_file_is_used_only_if_the_same_recipe_made_it(tmp_path):
    file, said = tmp_path / "a" / "result.json", []
    assert reuse(file, RECIPE, read_row, tmp_path, said.append) is None
    save_row(file, {"value": 1.0}, RECIPE)
    assert reuse(file, RECIPE, read_row, tmp_path, said.append) == {"value": 1.0}
    assert said == []
    changed = {**RECIPE, "task": {"epochs": 7, "optimizer": {"lr": 0.1}}}
    assert reuse(file, changed, read_row, tmp_path, said.append) is None
    assert len(said) == 1
    assert "task.epochs was 6, now 7" in said[0]
    assert not file.exists()
    assert read_row(tmp_path / "set-aside" / "a" / "result.json")[0] == {"value": 1.0}


def results(root, variants=("dense", "px"), **recipe):
    for variant in variants:
        ticket = digest(variant)
        save_row(root / "seed-0" / "a" / variant / "result.json", {}, {"stage": "transfer", "ticket": ticket, **recipe})


def remade(root, said, told, variants=("dense", "px"), **recipe):
    """Ask for each result, as a job with this recipe does."""
    for variant in variants:
        folder = root / "seed-0" / "a" / variant
        wanted = {"stage": "transfer", "ticket": digest(variant), **recipe}
        reuse(folder / "result.json", wanted, read_row, root, said.append, belongings=folder, told=told)


def test_a_changed_setting_is_told_of_once_with_the_number_of_results(tmp_path):
    said, told = [], set()
    results(tmp_path, epochs=1)
    results(tmp_path, ["new"], epochs=2)
    remade(tmp_path, said, told, ["dense", "px", "new"], epochs=2)
    aside = tmp_path / "set-aside"
    assert said == [f"a: epochs was 1, now 2; 2 results are set aside in {aside}, and made again"]
    results(tmp_path, epochs=2)
    remade(tmp_path, said, told, ["dense", "px", "new"], epochs=2, lr=0.1)  # another change
    assert said[1:] == [f"a: lr was None, now 0.1; 3 results are set aside in {aside}, and made again"]


def test_what_depends_on_a_change_is_told_of_once_and_foreign_files_are_named(tmp_path):
    said, told = [], {"pretrain: epochs was 1, now 2"}
    results(tmp_path, weights=digest("old"))
    remade(tmp_path, said, told, weights=digest("new"))
    [line] = said
    assert line.startswith(
        "a: the weights or tickets before it changed; the results that depend on it are set aside in "
    )
    # Copied from a job whose settings are the same, and from a repetition with another seed.
    for told, recipe in ((set(), {"weights": digest("another's"), "seed": 0}), ({"a change"}, {"seed": 5})):
        said.clear()
        results(tmp_path, **recipe)
        remade(tmp_path, said, told, weights=digest("new"), seed=0)
        dense, px = said
        assert str(tmp_path / "seed-0" / "a" / "dense") in dense
        assert str(tmp_path / "seed-0" / "a" / "px") in px


def test_what_belongs_to_a_file_is_set_aside_with_it(tmp_path):
    folder, said = tmp_path / "task" / "px", []
    for _ in range(2):
        folder.mkdir(parents=True)
        (folder / "model.pth").write_text("weights")
        (folder / "result.json").write_text("nonsense")
        assert reuse(folder / "result.json", RECIPE, read_row, tmp_path, said.append, belongings=folder) is None
        assert not folder.exists()
    aside = [p for p in (tmp_path / "set-aside" / "task").iterdir()]
    assert len(aside) == 2
    assert all((p / "model.pth").read_text() == "weights" for p in aside)
    assert len(said) == 2
