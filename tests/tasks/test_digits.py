"""The handwritten digits on disk: layouts, splits, labels, and that writing them again gives the same files."""

import hashlib

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from pxframe.base.errors import PxframeError
from pxframe_tasks.demo.digits import SCENE_CLASSES, write_folders, write_scenes


def files(root):
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*") if p.is_file()
    }


def test_folders_hold_all_digits_once(tmp_path):
    write_folders(tmp_path, range(10), size=8)
    found = [
        (np.asarray(Image.open(p))[..., 0].tobytes(), int(p.parent.name))
        for split in ("train", "test")
        for p in (tmp_path / split).rglob("*.png")
    ]
    data = load_digits()
    images = np.round(data.images * 255 / 16).astype(np.uint8)
    assert sorted(found) == sorted((i.tobytes(), int(t)) for i, t in zip(images, data.target, strict=True))
    share = len(list((tmp_path / "test").rglob("*.png"))) / len(found)
    assert share == pytest.approx(0.25, abs=0.01)


def test_classes_size_and_parts(tmp_path):
    write_folders(tmp_path / "all", [3, 7], size=16)
    assert sorted(p.name for p in (tmp_path / "all" / "train").iterdir()) == ["3", "7"]
    assert Image.open(next((tmp_path / "all").rglob("*.png"))).size == (16, 16)
    write_folders(tmp_path / "a", [3, 7], size=16, part=(0, 0.5))
    write_folders(tmp_path / "b", [3, 7], size=16, part=(0.5, 1))
    a, b = files(tmp_path / "a"), files(tmp_path / "b")
    assert a.keys().isdisjoint(b)
    assert a | b == files(tmp_path / "all")


def test_scenes_are_voc(tmp_path):
    write_scenes(tmp_path, train=6, test=3, size=48)
    seen = set()
    for split, count in (("train", 6), ("val", 3)):
        names = (tmp_path / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()
        assert len(names) == count
        for name in names:
            image = Image.open(tmp_path / "JPEGImages" / f"{name}.jpg")
            label = Image.open(tmp_path / "SegmentationClass" / f"{name}.png")
            assert (image.mode, label.mode, image.size, label.size) == ("RGB", "P", (48, 48), (48, 48))
            values = set(np.unique(label).tolist())
            assert {0, 255} < values
            seen |= values
            assert label.getpalette()[: 3 * 3] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
    assert seen <= {*range(len(SCENE_CLASSES)), 255}
    assert len(seen) > 8
    assert len(SCENE_CLASSES) == 11


def test_every_digit_in_a_scene_has_an_unlabelled_outline(tmp_path):
    write_scenes(tmp_path, train=4, test=1, size=48)
    for path in (tmp_path / "SegmentationClass").iterdir():
        label = np.asarray(Image.open(path)).astype(int)
        for a, b in ((label[:, 1:], label[:, :-1]), (label[1:], label[:-1])):
            touching = ((a == 0) & (b > 0) & (b < 255)) | ((b == 0) & (a > 0) & (a < 255))
            assert not touching.any()


def test_the_same_files_again_and_others_for_another_seed(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_scenes(tmp_path / name, train=2, test=1, size=40, seed=seed)
        write_folders(tmp_path / name / "folders", [1], size=16)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a")["JPEGImages/train_00000.jpg"] != files(tmp_path / "c")["JPEGImages/train_00000.jpg"]


def test_more_scenes_keep_the_first_ones(tmp_path):
    write_scenes(tmp_path / "few", train=2, test=1, size=40)
    write_scenes(tmp_path / "more", train=3, test=2, size=40)
    few, more = files(tmp_path / "few"), files(tmp_path / "more")
    assert all(more[n] == h for n, h in few.items() if "ImageSets" not in n)


def test_bad_options(tmp_path):
    for options in (
        {"classes": [11]},
        {"classes": []},
        {"classes": [1], "part": (1, 0)},
        {"classes": [1], "test_share": 2},
    ):
        with pytest.raises(PxframeError):
            write_folders(tmp_path, **options)
    with pytest.raises(PxframeError):
        write_scenes(tmp_path, size=10)
