"""Finding data: variables, and archives that are read as folders."""

import os
import zipfile

import pytest
from refusal import refused

from pxframe.files import archives
from pxframe.files.paths import expand, expand_all, locate


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("PXFRAME_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SOMEWHERE", str(tmp_path / "data"))
    monkeypatch.delenv("NOWHERE", raising=False)
    (tmp_path / "data").mkdir()


def archive(path, members):
    with zipfile.ZipFile(path, "w") as file:
        for name, text in members.items():
            file.writestr(name, text)


def test_existing_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("$SOMEWHERE") == locate("${SOMEWHERE}") == locate("~/data") == tmp_path / "data"
    assert locate(tmp_path / "data") == tmp_path / "data"


def test_a_path_through_an_archive(tmp_path):
    archive(tmp_path / "data" / "camvid.zip", {"camvid/img_dir/train/0.jpg": "a", "camvid/words.txt": "b"})
    folder = locate("$SOMEWHERE/camvid/camvid/img_dir")
    assert (folder / "train" / "0.jpg").read_text() == "a"
    assert tmp_path / "cache" in folder.parents
    assert locate("$SOMEWHERE/camvid/camvid/words.txt").read_text() == "b"
    assert len(list((tmp_path / "cache").iterdir())) == 1
    refused(lambda: locate("$SOMEWHERE/camvid/ann_dir"), "camvid.zip has no ann_dir", "at its top are: camvid")


def test_a_folder_beside_the_archive_comes_first(tmp_path):
    archive(tmp_path / "data" / "x.zip", {"a": "zip"})
    (tmp_path / "data" / "x").mkdir()
    (tmp_path / "data" / "x" / "a").write_text("folder")
    assert locate("$SOMEWHERE/x/a").read_text() == "folder"


def test_it_is_unpacked_once_and_again_when_it_changed(tmp_path):
    file = tmp_path / "data" / "x.zip"
    archive(file, {"a": "1"})
    first = locate("$SOMEWHERE/x/a")
    first.write_text("still the same copy")
    assert locate("$SOMEWHERE/x/a").read_text() == "still the same copy"
    archive(file, {"a": "2"})
    os.utime(file, ns=(0, 1))
    assert locate("$SOMEWHERE/x/a").read_text() == "2"


def test_an_interrupted_unpacking_is_not_taken_for_whole(tmp_path, monkeypatch):
    archive(tmp_path / "data" / "x.zip", {"a": "1", "b": "2"})
    real = zipfile.ZipFile.extractall

    def half(self, path):
        self.extract("a", path)
        raise KeyboardInterrupt

    monkeypatch.setattr(zipfile.ZipFile, "extractall", half)
    with pytest.raises(KeyboardInterrupt):
        locate("$SOMEWHERE/x/b")
    assert not list((tmp_path / "cache").iterdir())
    monkeypatch.setattr(zipfile.ZipFile, "extractall", real)
    assert locate("$SOMEWHERE/x/b").read_text() == "2"


@pytest.mark.parametrize("member", ["../evil", "a/../../evil", "/tmp/evil", "..\\evil", "C:\\evil", "evil\x1b[2J"])
def test_unsafe_members(tmp_path, member):
    archive(tmp_path / "data" / "x.zip", {"a": "1", member: "evil"})
    refused(lambda: locate("$SOMEWHERE/x/a"), "x.zip is unsafe", "evil")
    assert not list((tmp_path / "cache").glob("*"))


def test_what_is_missing_is_said(tmp_path):
    refused(lambda: locate("$SOMEWHERE/voc/JPEGImages"), str(tmp_path / "data" / "voc"), f"{tmp_path / 'data'} exists")
    refused(lambda: locate("$NOWHERE/voc"), "$NOWHERE/voc", "NOWHERE is not set; set it, or write the path out")
    (tmp_path / "data" / "bad.zip").write_text("no archive")
    refused(lambda: locate("$SOMEWHERE/bad/a"), "cannot unpack", "bad.zip")


def test_an_archive_that_would_fill_the_disk(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "data" / "x.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zeros", bytes(10**6))
    monkeypatch.setattr(archives, "LARGE", 10**5)
    refused(lambda: locate("$SOMEWHERE/x/zeros"), "x.zip is unsafe", "unpack to 1000000")
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(archives, "LARGE", 10**7)  # what grows as much, but is small, is harmless
    room = type("Usage", (), {"free": 10**5})
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: room)
    refused(lambda: locate("$SOMEWHERE/x/zeros"), "needs 1000000 bytes", "has 100000")
    assert not list((tmp_path / "cache").iterdir())
    monkeypatch.undo()
    monkeypatch.setenv("PXFRAME_CACHE", str(tmp_path / "cache"))
    assert locate(tmp_path / "data" / "x" / "zeros").stat().st_size == 10**6


def test_an_archive_damaged_inside_a_member(tmp_path):
    with zipfile.ZipFile(tmp_path / "data" / "x.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a", os.urandom(1000) + bytes(1000))
    whole = bytearray((tmp_path / "data" / "x.zip").read_bytes())
    whole[40:60] = b"\xff" * 20
    (tmp_path / "data" / "x.zip").write_bytes(whole)
    refused(lambda: locate("$SOMEWHERE/x/a"), "cannot unpack", "x.zip")


@pytest.mark.parametrize("name", ["a\0b", "a\x1b[2Jb", "a\nb", "a\udcffb"])
def test_names_with_control_characters(name):
    refused(lambda: expand(f"$SOMEWHERE/{name}"), "control characters")
    refused(lambda: locate(f"$SOMEWHERE/{name}"), "control characters")


@pytest.mark.parametrize("length", [252, 255, 256, 300])
def test_names_that_are_too_long(length):
    refused(lambda: locate("$SOMEWHERE/" + "n" * length), "there is no" if length < 256 else "File name too long")


def test_folders_in_any_script(tmp_path):
    archive(tmp_path / "data" / "Größe 数据.zip", {"图/ä.txt": "é"})
    assert locate("$SOMEWHERE/Größe 数据/图/ä.txt").read_text(encoding="utf-8") == "é"


def test_every_path_of_a_config_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    given = {
        "type": "csvset.Images",
        "csv_file": "$SOMEWHERE/x.csv",
        "data_prefix": {"img_path": "~/img", "seg": "${SOMEWHERE}/seg"},
        "pipeline": [{"type": "Load", "files": ("$SOMEWHERE/1", 2, None)}],
        "pattern": r"^img_\d+\.jpg$",
        "cost": "5 $ a piece",
    }
    data = str(tmp_path / "data")
    assert expand_all(given) == {
        **given,
        "csv_file": f"{data}/x.csv",
        "data_prefix": {"img_path": f"{tmp_path}/img", "seg": f"{data}/seg"},
        "pipeline": [{"type": "Load", "files": (f"{data}/1", 2, None)}],
    }
    assert given["csv_file"] == "$SOMEWHERE/x.csv"  # the user's own config is as it was


def test_an_unset_variable_names_its_key():
    nested = {"pipeline": [{"file": "a"}, {"file": "$NOWHERE/b"}]}
    refused(lambda: expand_all(nested, "data['train']"), "data['train']['pipeline'][1]['file']: $NOWHERE/b", "not set")


def test_configs_keep_their_type():
    from mmengine.config import ConfigDict

    expanded = expand_all(ConfigDict(a=dict(b="$SOMEWHERE/x")))
    assert type(expanded) is ConfigDict
    assert expanded.a.b == os.environ["SOMEWHERE"] + "/x"
