"""The segmentation task: Pascal VOC's layout, any mmseg head by config, mIoU by scikit-learn's confusion matrix."""

import importlib.util
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix

from pxframe import registry
from pxframe.errors import PxframeError
from pxframe_plugins.cifar_resnet import CifarResNet
from pxframe_plugins.timm import Timm
from pxframe_tasks.openmmlab import import_mmseg

torch.set_num_threads(1)  # in networks this small, threads wait for each other
provider = CifarResNet()
BN = {"type": "BN"}
DEEPLAB = {
    "type": "DepthwiseSeparableASPPHead",
    "channels": 8,
    "dilations": (1, 2, 4),
    "c1_channels": 4,
    "norm_cfg": BN,
    "align_corners": False,
}
HEADS = {
    "deeplabv3+": DEEPLAB,
    "fcn": {"type": "FCNHead", "channels": 8, "num_convs": 1, "norm_cfg": BN, "in_index": 1},
    "psp": {"type": "PSPHead", "channels": 8, "pool_scales": (1, 2), "norm_cfg": BN},
    "uper": {
        "type": "UPerHead",
        "channels": 8,
        "pool_scales": (1, 2),
        "norm_cfg": BN,
        "in_index": [0, 1, 2],
    },
}
LOAD = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}]
PACK = [{"type": "PackSegInputs"}]
AUGMENT = [
    {"type": "RandomResize", "scale": (40, 32), "ratio_range": (0.8, 1.5), "keep_ratio": True},
    {"type": "RandomCrop", "crop_size": (32, 32)},
    {"type": "RandomFlip", "prob": 0.5},
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Ground in grey (0), a red square (1, aeroplane) or a blue one (2, bicycle), 255 around them."""
    root = tmp_path_factory.mktemp("VOC2012")
    rng = np.random.default_rng(0)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for split, count in (("train", 9), ("val", 4)):
        names = [f"{split}{i}" for i in range(count)]
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for i, name in enumerate(names):
            image = rng.integers(60, 120, (32, 40, 3), dtype=np.uint8)
            label = np.zeros((32, 40), dtype=np.uint8)
            y, x = rng.integers(2, 12, 2)
            label[y - 1 : y + 15, x - 1 : x + 15] = 255
            label[y : y + 14, x : x + 14] = 1 + i % 2
            image[label > 0, 2 * (i % 2)] = 240
            Image.fromarray(image).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
            palette = Image.fromarray(label, mode="P")
            palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
            palette.save(root / "SegmentationClass" / f"{name}.png")
    return root


def voc(root, split, pipeline, **changes):
    return {
        "type": "PascalVOCDataset",
        "data_root": str(root),
        "ann_file": f"ImageSets/Segmentation/{split}.txt",
        "data_prefix": {"img_path": "JPEGImages", "seg_map_path": "SegmentationClass"},
        "pipeline": pipeline,
    } | changes


def task(root, **options):
    data = {"train": voc(root, "train", LOAD + AUGMENT + PACK), "test": voc(root, "val", LOAD + PACK)}
    sgd = {"type": "SGD", "lr": 0.05, "momentum": 0.9}
    config = {"type": "segmentation", "data": data, "head": DEEPLAB, "epochs": 2, "batch_size": 4, "optimizer": sgd}
    return registry.build("task", config | options)


def run(task, folder, model=None, provider=provider, **options):
    torch.manual_seed(0)
    model = provider.build(depth=8, width=4) if model is None else model
    return task.runner(model, provider, work_dir=folder, device="cpu", seed=1, resume=True, **options)


@pytest.mark.parametrize(("head", "ignored"), [*((name, 255) for name in HEADS), ("fcn", 2)])
def test_heads_are_a_matter_of_config_and_miou_is_right(root, tmp_path, head, ignored):
    if ignored != 255:  # labels beyond the classes would not do any more
        root = shutil.copytree(root, tmp_path / "relabelled")
        for path in (root / "SegmentationClass").iterdir():
            label = Image.open(path)
            label.point(lambda v: 20 if v == 255 else v).save(path)
    it = task(root, head=HEADS[head], ignore_index=ignored)
    it.prepare()
    runner = run(it, tmp_path)
    predictions = []
    step = runner.model.test_step
    runner.model.test_step = lambda batch: predictions.append(step(batch)) or predictions[-1]
    runner.train()
    result = runner.test()
    confusion = np.zeros((21, 21))
    for [sample] in predictions:
        label = np.asarray(Image.open(root / "SegmentationClass" / f"{sample.img_path[-8:-4]}.png"))
        predicted = sample.pred_sem_seg.data[0].numpy()
        assert predicted.shape == label.shape == (32, 40)
        kept = label != ignored
        confusion += confusion_matrix(label[kept], predicted[kept], labels=range(21))
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    expected = 100 * (confusion.diagonal()[union > 0] / union[union > 0]).mean()
    assert result[it.metric] == pytest.approx(expected, abs=0.006)
    assert isinstance(result[it.metric], float)
    assert runner.model.decode_head.num_classes == 21


def test_it_learns(root, tmp_path, capsys):
    it = task(root, epochs=40, head=HEADS["fcn"])
    it.prepare()
    runner = run(it, tmp_path)
    runner.train()
    assert runner.test()["mIoU"] > 60
    assert capsys.readouterr() == ("", "")


def test_the_dilated_head_reads_the_maps_it_is_given(root, tmp_path):
    model = run(task(root), tmp_path).model
    assert model.decode_head.in_channels == 16
    assert model.decode_head.c1_bottleneck.conv.in_channels == 4
    model = run(task(root, head=DEEPLAB | {"in_index": 1}), tmp_path).model
    assert model.decode_head.in_channels == 8


def test_colours_reach_the_network_as_rgb(root, tmp_path):
    it = task(root, mean=(0, 10, 20), std=(1, 2, 4))
    runner = run(it, tmp_path)
    batch = next(iter(runner.test_dataloader))
    inputs = runner.model.data_preprocessor(batch)["inputs"][0]
    path = batch["data_samples"][0].img_path
    picture = torch.from_numpy(np.array(Image.open(path))).float()
    expected = ((picture - torch.tensor((0.0, 10, 20))) / torch.tensor((1.0, 2, 4))).permute(2, 0, 1)
    assert (inputs - expected).abs().max() <= 4  # two JPEG decoders


def test_resumed_run_ends_as_an_uninterrupted_one(root, tmp_path):
    whole = run(task(root), tmp_path / "whole")
    whole.train()

    class Kill(Exception):
        pass

    cut = run(task(root), tmp_path / "cut")
    step = cut.model.train_step

    def fail(*args, **kwargs):
        if cut.iter == 3:  # in the second epoch of two steps
            raise Kill
        return step(*args, **kwargs)

    cut.model.train_step = fail
    with pytest.raises(Kill):
        cut.train()
    resumed = run(task(root), tmp_path / "cut")
    resumed.train()
    a, b = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert whole.test() == resumed.test()


def test_timm_weights_are_not_initialised_again(root, tmp_path):
    timm = Timm()
    model = timm.build("resnet10t")
    before = {n: p.clone() for n, p in model.named_parameters() if not n.startswith("fc.")}
    runner = run(task(root, epochs=1, optimizer={"type": "SGD", "lr": 0.0}), tmp_path, model, timm)
    runner.train()
    after = dict(runner.model.backbone.model.named_parameters())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[n], p) for n, p in before.items())


def test_the_head_s_learning_rate(root, tmp_path):
    runner = run(task(root, head_lr_mult=10), tmp_path)
    rates = {id(p): g["initial_lr"] for g in runner.optim_wrapper.optimizer.param_groups for p in g["params"]}
    assert rates[id(runner.model.decode_head.conv_seg.weight)] == pytest.approx(0.5)
    assert rates[id(runner.model.backbone.model.conv1.weight)] == pytest.approx(0.05)


def test_the_written_digit_scenes(tmp_path):
    from pxframe_tasks.digits import SCENE_CLASSES

    root = tmp_path / "scenes"
    write = {"type": "pxframe_tasks.digits.write_scenes", "root": str(root), "train": 4, "test": 2, "size": 40}
    changes = {"type": "BaseSegDataset", "img_suffix": ".jpg", "metainfo": {"classes": SCENE_CLASSES}}
    data = {"train": voc(root, "train", LOAD + PACK, **changes), "test": voc(root, "val", LOAD + PACK, **changes)}
    it = task(root, data=data, prepare=write, epochs=1)
    it.prepare()
    runner = run(it, tmp_path / "run")
    runner.train()
    assert runner.model.decode_head.num_classes == 11
    assert 0 <= runner.test()["mIoU"] <= 100


def changed(root, split, **changes):
    data = {"train": voc(root, "train", LOAD + PACK), "test": voc(root, "val", LOAD + PACK)}
    data[split] |= changes
    return {"data": data}


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda r: changed("/no/such", "train"), ("data['train']", "/no/such")),
        (lambda r: changed(r, "test", ann_file="ImageSets/no.txt"), ("data['test']", "'ann_file'", "no.txt")),
        (lambda r: changed(r, "test", data_prefix={"img_path": "Images"}), ("'img_path'", "Images")),
        (lambda r: changed(r, "train", type="PascalVOC"), ("data['train']", "PascalVOC")),
        (lambda r: changed(r, "train", suffix=1), ("data['train']", "suffix")),
        (lambda r: changed(r, "train", pipeline=[{"type": "LoadImage"}]), ("data['train']", "LoadImage")),
        (lambda r: changed(r, "train", img_suffix=".png"), ("data['train']", "train0.png")),
        (lambda r: {"heads": {}}, ("'head'",)),
    ],
)
def test_mistakes_show_before_work_begins(root, change, parts):
    with pytest.raises(PxframeError) as error:
        task(root, **change(root)).prepare()
    text = str(error.value)
    assert "\n" not in text
    assert all(part in text for part in parts), text


@pytest.mark.parametrize(
    ("head", "part"),
    [
        ({"type": "DeepLabHead"}, "DeepLabHead"),
        (DEEPLAB | {"chanels": 3}, "chanels"),
        (DEEPLAB | {"in_index": 7}, "'in_index' 7"),
        ({"channels": 3}, "'type'"),
    ],
)
def test_mistakes_in_the_head(root, tmp_path, head, part):
    with pytest.raises(PxframeError) as error:
        run(task(root, head=head), tmp_path)
    text = str(error.value)
    assert "\n" not in text
    assert "'head'" in text
    assert part in text


def test_a_real_extension_is_left_alone(monkeypatch):
    monkeypatch.delitem(sys.modules, "mmcv._ext", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    import_mmseg()
    assert "mmcv._ext" not in sys.modules


def test_import_is_quiet_and_operators_fail_when_called():
    code = """
import sys
from pxframe_tasks.openmmlab import import_mmseg
import_mmseg()
from mmengine.utils.dl_utils.misc import mmcv_full_available
from mmengine.model import BaseModule
ext = sys.modules.get("mmcv._ext")
if ext.__spec__.loader is None:
    assert not mmcv_full_available()
    try:
        ext.nms()
    except RuntimeError as error:
        assert "needs full mmcv" in str(error)
    else:
        raise AssertionError
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
