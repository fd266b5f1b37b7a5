"""Density and width by layer, against masks made by hand."""

import shutil

import report_jobs as jobs

from pxframe.report.data.found import read
from pxframe.report.data.tickets import read_tickets


def test_profiles_are_means_over_the_seeds(tmp_path):
    jobs.write(tmp_path, [jobs.row(1, seed=0), jobs.row(1, seed=1), jobs.row(1, "dense", 0.0)])
    jobs.ticket(tmp_path, "px-90.00", 0, a=4, b=1)
    jobs.ticket(tmp_path, "px-90.00", 1, a=2, b=2)
    found = read_tickets(read(tmp_path))
    (profile,) = found.profiles
    assert profile.names == ("a.weight", "b.weight")
    assert (profile.density, profile.width) == ((0.75, 0.375), (0.75, 0.375))
    assert (profile.task, profile.method, profile.seeds) == ("", "px", 2)
    assert (found.ill, found.notes) == ([], [])


def test_a_ticket_of_a_whole_model_is_its_task_s(tmp_path):
    jobs.write(tmp_path, [jobs.row(1), jobs.row(1, task="scenes")])
    for task in ("digits", "scenes"):
        jobs.ticket(tmp_path, f"{task}/px-90.00".replace("/", "_"), a=1)
        folder = tmp_path / "seed-0" / "tickets" / task
        folder.mkdir()
        (tmp_path / "seed-0" / "tickets" / f"{task}_px-90.00.safetensors").rename(folder / "px-90.00.safetensors")
    assert [profile.task for profile in read_tickets(read(tmp_path)).profiles] == ["digits", "scenes"]


def test_emptied_collapsed_damaged_and_absent_tickets_are_told_of(tmp_path):
    names = ("empty", "fell", "damaged", "absent", "../../outside")
    jobs.write(tmp_path, [jobs.row(1, name) for name in names])
    jobs.ticket(tmp_path, "empty-90.00", a=0, b=4)
    jobs.ticket(tmp_path, "fell-90.00", meta={"collapsed": "no path"}, a=1, b=1)
    jobs.ticket(tmp_path, "damaged-90.00", a=1, b=1)
    (tmp_path / "seed-0" / "tickets" / "damaged-90.00.safetensors").write_bytes(b"{")
    shutil.copy(tmp_path / "seed-0" / "tickets" / "empty-90.00.safetensors", tmp_path / "outside-90.00.safetensors")
    found = read_tickets(read(tmp_path))
    assert [profile.variant for profile in found.profiles] == ["empty-90.00", "fell-90.00"]
    assert [(ill.variant, ill.emptied, ill.collapsed) for ill in found.ill] == [
        ("empty-90.00", ("a.weight",), ""),
        ("fell-90.00", (), "no path"),
    ]
    (damaged,) = found.notes
    assert "A ticket is left out" in damaged
    assert "damaged-90.00.safetensors" in damaged
    assert found.absent == ["../../outside-90.00", "absent-90.00"]  # a name is no way out of the folder
