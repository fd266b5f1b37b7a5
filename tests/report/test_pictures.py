"""Predictions beside the truth: what a task draws is on the page, small; and what it cannot draw is said."""

import base64
import io

import numpy as np
import pytest
import report_jobs as jobs
from PIL import Image

import pxframe
from pxframe.base.errors import PxframeError
from pxframe.report.data.compare import answers
from pxframe.report.data.found import read
from pxframe.report.figures import pictures
from pxframe.report.figures.pictures import galleries


class Drawing(pxframe.Task):
    """Draws the name of the run's folder as a grey level."""

    def __init__(self, refuse=()):
        self.refuse, self.asked = refuse, []

    def pictures(self, folder, count):
        self.asked.append((folder, count))
        if folder.name in self.refuse:
            raise PxframeError("no predictions were saved; do so")
        noise = np.random.default_rng(0).integers(0, 256, (300, 600, 3), dtype=np.uint8)
        flat = [Image.new("RGB", (600, 300), colour) for colour in ("#ff0000", "#00ff00")]
        return [pxframe.Picture(f"image {n}", Image.fromarray(noise), *flat, {"cat": "#ff0000"}) for n in range(count)]


def opened(address):
    assert address.startswith("data:image/webp;base64,")
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def made(tmp_path, task, rows=None):
    found = read(jobs.write(tmp_path / "work", rows or jobs.several()))
    return galleries(found, answers(found.rows), {"digits": task})


def test_the_dense_network_and_the_best_tickets_are_shown(tmp_path):
    task = Drawing()
    (gallery,) = made(tmp_path, task)
    variants = ["dense", "magnitude-80.00", "px-90.00"]
    assert [folder for folder, _ in task.asked] == [tmp_path / "work" / "seed-0" / "digits" / v for v in variants]
    assert [shown.name for shown in gallery.shown] == ["image 0", "image 1"]
    for shown in gallery.shown:
        assert list(shown.predicted) == variants
        assert shown.colours == {"cat": "#ff0000"}
        assert opened(shown.image).size == (180, 90)
        assert opened(shown.truth).convert("RGB").getcolors() == [(180 * 90, (255, 0, 0))]  # a map keeps its colours
        assert opened(shown.predicted["dense"]).convert("RGB").getpixel((9, 9)) == (0, 255, 0)


def test_why_there_are_none_is_said_and_a_task_without_pictures_has_no_gallery(tmp_path):
    (gallery,) = made(tmp_path, Drawing(refuse=("dense",)))
    assert gallery.shown == []
    assert gallery.note == "task 'digits': its pictures: no predictions were saved; do so"
    assert made(tmp_path, pxframe.Task()) == []


def test_a_page_has_room_for_only_so_many_bytes(tmp_path, monkeypatch):
    def size(gallery):
        return sum(len(p) for one in gallery.shown for p in (one.image, one.truth, *one.predicted.values()))

    whole = size(made(tmp_path, Drawing())[0])
    monkeypatch.setattr(pictures, "BUDGET", whole - 1)
    (gallery,) = made(tmp_path, Drawing())
    assert 0 < size(gallery) < whole
    assert gallery.note == "Further pictures are left out, to keep the page small."


def test_collapsed_runs_are_not_asked_for_pictures(tmp_path):
    task = Drawing()
    made(tmp_path, task, [jobs.row(None, "px", collapsed="no path"), jobs.row(5, "dense", 0.0)])
    assert [folder.name for folder, _ in task.asked] == ["dense"]


@pytest.mark.parametrize("kind", ["no_such_task", "classification"])
def test_a_task_that_cannot_be_built_anew_does_not_cost_the_page(tmp_path, kind):
    found = read(jobs.write(tmp_path / "work", jobs.several(), tasks={"digits": {"type": kind, "nonsense": 1}}))
    (gallery,) = galleries(found, answers(found.rows))
    assert gallery.shown == []
    assert "digits" in gallery.note or "no_such_task" in gallery.note
