"""A job in two processes: tickets, weights, predictions and results are those of one process."""

import json

import pytest
import torch
from launched import finished, own_lines, rows, written
from PIL import Image
from safetensors.torch import load_file

import pxframe

pytestmark = pytest.mark.slow  # starts processes that import torch and train


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The folders of the same job in one process and in two, and what the two printed."""
    folder = tmp_path_factory.mktemp("jobs")
    config = written(folder)
    code, one, err = finished(1, config, "--work-dir", folder / "one")
    assert code == 0, err
    code, two, err = finished(2, config, "--work-dir", folder / "two")
    assert code == 0, err
    return folder / "one", folder / "two", (one, two, err)


def test_tickets_are_equal_bit_for_bit_and_start_from_the_same_training(both):
    one, two, _ = both
    states = [load_file(work / "seed-0" / "pretrained.safetensors") for work in (one, two)]
    start = pxframe.build_backbone(dict(type="cifar_resnet", depth=8, width=4, num_classes=3)).state_dict()
    moved = [(states[0][n] - start[n]).abs().max() for n in start if start[n].is_floating_point()]
    assert max(moved) > 0.01
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-3, atol=1e-4, msg=name)
    for variant in ("px-70.00", "snip-70.00"):
        tickets = [pxframe.Ticket.load(work / "seed-0" / "tickets" / f"{variant}.safetensors") for work in (one, two)]
        assert all(torch.equal(mask, tickets[1].masks[name]) for name, mask in tickets[0].masks.items())


def test_trained_models_and_results_are_those_of_one_process_within_rounding(both):
    one, two, _ = both
    expected, found = rows(one), rows(two)
    assert (
        set(found)
        == set(expected)
        == {(t, f"{s}-70.00") for t in ("digits", "ridge", "scenes", "boxes") for s in ("px", "snip")}
    )
    for key, row in expected.items():
        if key[0] == "boxes":  # a detector's loss divides by what it found in a batch: the steps are not the same
            continue
        assert found[key]["value"] == pytest.approx(row["value"], abs=0.5), key
        states = [torch.load(work / "seed-0" / "/".join(key) / "model.pth") for work in (one, two)]
        for name, value in states[0].items():
            torch.testing.assert_close(states[1][name], value, rtol=0.02, atol=0.005, msg=f"{key} {name}")


def test_predictions_are_of_all_test_images_in_their_order(both):
    one, two, _ = both
    kept = [json.loads((work / "seed-0/digits/px-70.00/predictions.json").read_text()) for work in (one, two)]
    assert kept[1]["label"] == kept[0]["label"] == sorted(kept[0]["label"])
    assert len(kept[0]["label"]) > 20
    differ = sum(a != b for a, b in zip(kept[0]["predicted"], kept[1]["predicted"], strict=True))
    assert differ <= 1
    boxes = [json.loads((work / "seed-0/boxes/px-70.00/predictions.json").read_text())["found"] for work in (one, two)]
    assert [len(found) for found in boxes] == [5, 5]
    pictures = [sorted((work / "seed-0/scenes/px-70.00/predictions").iterdir()) for work in (one, two)]
    assert [p.name for p in pictures[0]] == [p.name for p in pictures[1]]
    assert len(pictures[0]) == 5
    assert all(Image.open(p).size == (32, 32) for p in pictures[1])


def test_only_the_first_process_prints_and_nothing_is_left_over(both):
    one, two, (printed, again, err) = both

    def without_seconds(text):
        return [line.rpartition(" in ")[0] for line in text.splitlines() if " in " in line]

    assert without_seconds(again.replace("two", "one")) == without_seconds(printed)
    assert own_lines(err) == []
    assert "Warning" not in err
    names = [sorted(str(p.relative_to(work)) for p in work.rglob("*")) for work in (one, two)]
    assert names[0] == names[1]


def test_the_same_command_goes_on_in_as_many_processes_and_repeats_nothing(both):
    _, two, _ = both
    before = {file: file.stat().st_mtime_ns for file in two.rglob("result.json")}
    assert before
    code, out, err = finished(2, two.parent / "job.py", "--work-dir", two, "--resume")
    assert code == 0, err
    assert {file: file.stat().st_mtime_ns for file in two.rglob("result.json")} == before
    assert "prune:" not in out
