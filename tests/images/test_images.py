"""Images and targets: what a data set may give, what is refused, and which images are drawn."""

import logging
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from pxframe.base.errors import PxframeError
from pxframe.images.dataset import Images
from pxframe.images.drawing import drawn
from pxframe.training.make import stacked

SKEWED = [0] * 20 + [1] * 5 + [2] * 5


class Set:
    """Images of one mode, and targets in any container."""

    def __init__(self, targets=None, mode="RGB", array=None):
        if targets is not None:
            self.targets = targets
        self.image = Image.new(mode, (5, 4), 7 if mode in ("L", "P") else 0) if array is None else array

    def __len__(self):
        return 30

    def __getitem__(self, index):
        return self.image, SKEWED[index]


@pytest.fixture(autouse=True)
def module(monkeypatch):
    module = types.ModuleType("imageset")
    module.Set = Set
    monkeypatch.setitem(sys.modules, "imageset", module)


def images(transform=(), samples=None, **options):
    extra = {} if samples is None else {"samples": samples}
    return Images({"type": "imageset.Set", "transform": list(transform), **extra, **options})


CONTAINERS = {
    "list": list,
    "tensor": torch.tensor,
    "numpy": np.array,
    "tensors": lambda values: [torch.tensor(value) for value in values],
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_targets_in_any_container_are_drawn_evenly(kind):
    data = images(targets=CONTAINERS[kind](SKEWED), samples=15)
    assert data.targets == [0] * 5 + [1] * 5 + [2] * 5
    assert all(type(t) is int for t in data.targets)
    assert [data[i]["data_samples"].item() for i in range(15)] == data.targets


def test_without_a_list_of_targets_the_draw_is_over_all_images():
    data = images(samples=15)
    assert data.targets is None
    assert len(data) == 15
    fake = Images({"type": "torchvision.datasets.FakeData", "size": 4, "image_size": (3, 8, 8), "num_classes": 3})
    assert fake[3]["inputs"].shape == (3, 8, 8)
    assert fake[3]["data_samples"].dtype == torch.int64


@pytest.mark.parametrize("targets", [[0.5] * 30, ["a"] * 30, [[0, 1]] * 30, [1, 2], None])
def test_targets_that_are_no_class_numbers_are_no_classes(targets):
    assert images(targets=targets).targets is None


@pytest.mark.parametrize(
    ("mode", "colour", "rgb"),
    [
        ("L", 100, (100, 100, 100)),
        ("1", 1, (255, 255, 255)),
        ("LA", (100, 3), (100, 100, 100)),
        ("RGBA", (10, 20, 30, 3), (10, 20, 30)),
        ("CMYK", (255, 0, 0, 0), (0, 255, 255)),
        ("CMYK", (0, 0, 0, 155), (100, 100, 100)),
    ],
)
def test_other_modes_become_rgb(mode, colour, rgb):
    image = images(array=Image.new(mode, (5, 4), colour))[0]["inputs"]
    assert image.dtype == torch.uint8
    assert torch.equal(image, torch.tensor(rgb, dtype=torch.uint8).view(3, 1, 1).expand(3, 4, 5))


def test_arrays_and_tensors_of_bytes_are_taken_as_they_are():
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    expected = torch.from_numpy(pixels).permute(2, 0, 1)
    assert torch.equal(images(array=pixels)[0]["inputs"], expected)
    assert torch.equal(images(array=expected)[0]["inputs"], expected)


TRANSFORMS = "torchvision.transforms."


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"transform": [{"type": TRANSFORMS + "ToTensor"}]}, "torch.float32.*leave out ToTensor.*'mean' and 'std'"),
        (
            {
                "transform": [
                    {"type": TRANSFORMS + "v2.ToImage"},
                    {"type": TRANSFORMS + "v2.ToDtype", "dtype": torch.float32, "scale": True},
                ]
            },
            "must stay uint8",
        ),
        ({"mode": "I;16"}, "8 bits a channel.*'I;16'"),
        ({"mode": "I"}, "8 bits a channel"),
        ({"mode": "F"}, "8 bits a channel"),
        ({"array": np.zeros((4, 5, 3), np.float32)}, "torch.float32"),
        ({"array": torch.zeros(1, 4, 5, dtype=torch.uint8)}, r"\[3, H, W\], got \[1, 4, 5\]"),
        ({"array": "picture.png"}, "got str"),
    ],
)
def test_what_is_no_image_of_bytes_is_refused(options, part):
    with pytest.raises(PxframeError, match=part):
        images(**options)[0]


def test_folders_do_not_clip_images_of_16_bits(tmp_path):
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((4, 4), 1000, np.uint16)).save(tmp_path / "a" / "deep.png")
    folder = Images({"type": "torchvision.datasets.ImageFolder", "root": str(tmp_path)})
    with pytest.raises(PxframeError, match=r"deep\.png has more than 8 bits"):
        folder[0]


def test_images_of_two_sizes_make_no_batch():
    items = [{"inputs": torch.zeros(3, h, 5), "data_samples": 0} for h in (4, 4, 6)]
    assert stacked(items[:2])["inputs"].shape == (2, 3, 4, 5)
    with pytest.raises(PxframeError, match=r"differ in size \(4x5 and 6x5, .*'transform'"):
        stacked(items)


def test_fewer_images_than_asked_for_are_told_of(caplog):
    with caplog.at_level(logging.WARNING):
        assert sorted(drawn(7, 19, None, seed=0)) == list(range(7))
        drawn(7, 19, None, seed=1)
    assert [r.getMessage() for r in caplog.records] == [
        "'samples' asks for 19 images, and the data set has 7: all of them are taken"
    ]
    caplog.clear()
    assert len(drawn(7, 7, None, seed=0)) == 7
    assert not caplog.records


@pytest.mark.parametrize(
    ("total", "samples", "part"), [(0, 3, "no images"), (3, 0, "'samples'"), (3, True, "'samples'")]
)
def test_draws_that_cannot_be_made(total, samples, part):
    with pytest.raises(PxframeError, match=part):
        drawn(total, samples, None, seed=0)
