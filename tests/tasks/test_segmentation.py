"""The segmentation task: Pascal VOC's layout, any mmseg head by config, mIoU by scikit-learn's confusion matrix."""

import importlib.util
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix
from slim_tasks import train_slim

import pxframe
from pxframe.base.errors import PxframeError
from pxframe.plugin import registry
from pxframe.scoring.prunable import prunable
from pxframe.training.hooks.weights import TicketHook
from pxframe.training.window import initialised
from pxframe_plugins.cifar_resnet import CifarResNet
from pxframe_plugins.timm_models import Timm
from pxframe_tasks.segmentation.openmmlab import import_mmseg

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
    "aspp": {"type": "ASPPHead", "channels": 8, "dilations": (1, 2), "norm_cfg": BN},
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
            palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + 759 * [224])  # a shorter one costs labels bits
            palette.save(root / "SegmentationClass" / f"{name}.png")
    return root


def voc(root, split, pipeline, **changes):
    return {
        "type": "PascalVOCDataset",
        "data_root": str(root),
        "ann_file": f"ImageSets/Segmentation/{split}.txt",
        "data_prefix": {"img_path": "JPEGImages", "seg_map_path": "SegmentationClass"},
        "pipeline": pipeline,
        "serialize_data": False,  # it calls the garbage collector, which takes half a second here
    } | changes


def listed(root, *splits, **changes):
    """Several lists in one data set; their pipeline stands beside them."""
    parts = [voc(root, split, **{"pipeline": None, **changes}) for split in splits]
    parts = [{key: value for key, value in part.items() if value is not None} for part in parts]
    return {"type": "ConcatDataset", "datasets": parts, "pipeline": LOAD + AUGMENT + PACK}


def task(root, **options):
    data = {"train": voc(root, "train", LOAD + AUGMENT + PACK), "test": voc(root, "val", LOAD + PACK)}
    sgd = {"type": "SGD", "lr": 0.05, "momentum": 0.9}
    config = {"type": "segmentation", "data": data, "head": DEEPLAB, "epochs": 2, "batch_size": 4, "optimizer": sgd}
    return registry.build("task", config | options)


def run(task, folder, model=None, provider=provider, **options):
    torch.manual_seed(0)
    model = provider.build(depth=8, width=4) if model is None else model
    return task.runner(model, provider, work_dir=folder, device="cpu", seed=1, resume=True, **options)


def tried(runner):
    """What ``runner.test()`` gives, and every sample that it predicts on the way."""
    samples, step = [], runner.model.test_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner.model, "test_step", lambda batch: samples.append(step(batch)) or samples[-1])
        result = runner.test()
    return result, [sample for batch in samples for sample in batch]


def mean_iou(pairs, ignored=255):
    """In per cent, over the classes in labels or predictions: (label, prediction) pairs of arrays."""
    confusion = np.zeros((21, 21))
    for label, predicted in pairs:
        assert predicted.shape == label.shape
        kept = label != ignored
        confusion += confusion_matrix(label[kept], predicted[kept], labels=range(21))
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    return 100 * (confusion.diagonal()[union > 0] / union[union > 0]).mean()


def read_again(samples):
    """The label in a sample's file, beside the sample's prediction."""
    return [(np.asarray(Image.open(s.seg_map_path)), s.pred_sem_seg.data[0].numpy()) for s in samples]


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
    runner.train()
    result, samples = tried(runner)
    assert [Path(sample.seg_map_path) for sample in samples] == [
        root / "SegmentationClass" / f"val{i}.png" for i in range(4)
    ]
    assert {sample.pred_sem_seg.shape for sample in samples} == {(32, 40)}
    assert result[it.metric] == pytest.approx(mean_iou(read_again(samples), ignored), abs=0.006)
    assert isinstance(result[it.metric], float)
    assert runner.model.decode_head.num_classes == 21


def test_it_learns(root, tmp_path, capsys):
    it = task(root, epochs=40, head=HEADS["fcn"])
    it.prepare()
    runner = run(it, tmp_path)
    runner.train()
    assert runner.test()["mIoU"] > 60
    assert capsys.readouterr() == ("", "")


def test_a_frozen_backbone_stays_bit_for_bit_while_the_head_learns(root, tmp_path):
    runner = run(task(root, frozen=True, epochs=2), tmp_path)
    before = {name: value.clone() for name, value in runner.model.state_dict().items()}
    runner.train()
    after = runner.model.state_dict()
    changed = {name.partition(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {"decode_head"}


def test_saved_predictions_give_the_reported_score(root, tmp_path):
    it = task(root, save_predictions=True, epochs=1)
    runner = run(it, tmp_path)
    runner.train()
    result = runner.test()
    files = sorted((tmp_path / "predictions").iterdir())
    assert [file.name for file in files] == [f"val{i}.png" for i in range(4)]
    labels = root / "SegmentationClass"
    pairs = [(np.asarray(Image.open(labels / file.name)), np.asarray(Image.open(file))) for file in files]
    assert result["mIoU"] == pytest.approx(mean_iou(pairs), abs=0.006)


def test_predictions_of_one_name_are_refused(root, tmp_path):
    data = {"train": voc(root, "train", LOAD + PACK), "test": listed(root, "val", "val")}
    it = task(root, data=data, save_predictions=True)
    with pytest.raises(PxframeError, match="'save_predictions': two test images have the name val0, val1"):
        run(it, tmp_path)


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


@pytest.mark.parametrize("head", ["fcn", "deeplabv3+", "uper"])
def test_a_plain_vit_gives_maps_of_one_resolution(root, tmp_path, head):
    timm = Timm()
    model = timm.build("vit_tiny_patch16_224", embed_dim=24, depth=4, dynamic_img_size=True)
    it = task(root, head=HEADS[head], epochs=1, out_indices=(-3, -2, -1), size_divisor=16)
    runner = run(it, tmp_path, model, timm)
    maps = runner.model.extract_feat(torch.randn(2, 3, 32, 48))
    assert [m.shape for m in maps] == [(2, 24, 2, 3)] * 3
    runner.train()
    result, samples = tried(runner)
    assert {sample.pred_sem_seg.shape for sample in samples} == {(32, 40)}  # of 32 x 48, padded
    assert result["mIoU"] == pytest.approx(mean_iou(read_again(samples)), abs=0.006)


def test_padding_leaves_the_image_where_it_was(root, tmp_path):
    """With a head that looks at one pixel at a time, padded images are predicted as unpadded ones."""
    plain, padded = (run(task(root, size_divisor=d), tmp_path / str(d)).model.eval() for d in (1, 32))
    head = plain.decode_head.conv_seg  # as good as any 1x1 convolution
    for model in (plain, padded):
        model.extract_feat = lambda x: [x]
        model.decode_head.forward = lambda maps: head(maps[0].mean(1, keepdim=True).expand(-1, 8, -1, -1))
    data = task(root).dataset("test")[0]
    with torch.no_grad():
        a, b = (
            m.test_step({"inputs": [data["inputs"]], "data_samples": [data["data_samples"]]})[0]
            for m in (plain, padded)
        )
    assert torch.equal(a.seg_logits.data, b.seg_logits.data)


def test_the_head_s_learning_rate(root, tmp_path):
    runner = run(task(root, head_lr_mult=10), tmp_path)
    rates = {id(p): g["initial_lr"] for g in runner.optim_wrapper.optimizer.param_groups for p in g["params"]}
    assert rates[id(runner.model.decode_head.conv_seg.weight)] == pytest.approx(0.5)
    assert rates[id(runner.model.backbone.model.conv1.weight)] == pytest.approx(0.05)


def test_other_classes_and_suffixes_in_that_layout(root, tmp_path):
    root = shutil.copytree(root, tmp_path / "mine")
    for path in (root / "JPEGImages").iterdir():
        Image.open(path).save(path.with_suffix(".png"))
        path.unlink()
    changes = {"type": "BaseSegDataset", "img_suffix": ".png", "metainfo": {"classes": ["ground", "red", "blue"]}}
    data = {"train": voc(root, "train", LOAD + PACK, **changes), "test": voc(root, "val", LOAD + PACK, **changes)}
    it = task(root, data=data)
    it.prepare()
    assert (len(it.dataset("train")), len(it.dataset("test"))) == (9, 4)
    assert run(it, tmp_path / "run").model.decode_head.num_classes == 3


def test_the_written_digit_scenes(tmp_path):
    from pxframe_tasks.demo.digits import SCENE_CLASSES

    root = tmp_path / "scenes"
    write = {"type": "pxframe_tasks.demo.digits.write_scenes", "root": str(root), "train": 4, "test": 2, "size": 40}
    changes = {"type": "BaseSegDataset", "img_suffix": ".jpg", "metainfo": {"classes": SCENE_CLASSES}}
    data = {"train": voc(root, "train", LOAD + PACK, **changes), "test": voc(root, "val", LOAD + PACK, **changes)}
    it = task(root, data=data, prepare=write, epochs=1)
    it.prepare()
    runner = run(it, tmp_path / "run")
    runner.train()
    assert runner.model.decode_head.num_classes == 11
    result, samples = tried(runner)
    assert result["mIoU"] == pytest.approx(mean_iou(read_again(samples)), abs=0.006)


def changed(root, split, **changes):
    data = {"train": voc(root, "train", LOAD + PACK), "test": voc(root, "val", LOAD + PACK)}
    data[split] |= changes
    return {"data": data}


def parts(root, *splits, **changes):
    return {"data": {"train": listed(root, *splits, **changes), "test": voc(root, "val", LOAD + PACK)}}


def test_several_lists_in_one(root, tmp_path, monkeypatch):
    aug = shutil.copytree(root, tmp_path / "VOC")
    (aug / "SegmentationClass").rename(aug / "SegmentationClassAug")
    (aug / "ImageSets/Segmentation/val.txt").rename(aug / "ImageSets/Segmentation/aug.txt")
    monkeypatch.setenv("VOC_AUG", str(aug))
    train = listed(root, "train", "aug")
    prefix = {"img_path": "JPEGImages", "seg_map_path": "SegmentationClassAug"}
    train["datasets"][1] |= {"data_root": "$VOC_AUG", "data_prefix": prefix}
    it = task(root, data={"train": train, "test": voc(root, "val", LOAD + PACK)}, epochs=1)
    it.prepare()
    dataset = it.dataset("train")
    assert len(dataset) == 9 + 4
    assert dataset[12]["data_samples"].seg_map_path == str(aug / "SegmentationClassAug" / "val3.png")
    assert max(dataset[12]["inputs"].shape) <= 32  # cropped
    [(inputs, target)] = it.batches(13, 13, seed=0)
    assert (inputs.shape, target.shape) == ((13, 3, 32, 40), (13, 32, 40))  # not cropped
    run(it, tmp_path / "run").train()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: changed("/no/such", "train"), ("data['train']", "/no/such")),
        (lambda r: changed(r, "test", ann_file="ImageSets/no.txt"), ("data['test']", "'ann_file'", "no.txt")),
        (lambda r: changed(r, "test", data_prefix={"img_path": "Images"}), ("'img_path'", "Images")),
        (lambda r: changed(r, "train", type="PascalVOC"), ("data['train']", "PascalVOC")),
        (lambda r: changed(r, "train", suffix=1), ("data['train']", "suffix")),
        (lambda r: changed(r, "train", pipeline=[{"type": "LoadImage"}]), ("data['train']", "LoadImage")),
        (lambda r: changed(r, "train", img_suffix=".png"), ("data['train']", "train0.png")),
        (lambda r: {"heads": {}}, ("'head'",)),
        (lambda r: {"output_stride": 4}, ("'output_stride'", "4")),
        (lambda r: {"size_divisor": 0}, ("'size_divisor'", "0")),
        (lambda r: parts(r, "train", "augmented"), ("data['train']", "datasets[1]", "'ann_file'", "augmented.txt")),
        (lambda r: parts(r, "train", data_root="$NO_SUCH"), ("data['train']", "['datasets'][0]", "NO_SUCH")),
        (lambda r: parts(r, "train", pipeline=[]), ("datasets[0]", "'pipeline'", "once")),
    ],
)
def test_mistakes_show_before_work_begins(root, change, words):
    with pytest.raises(PxframeError) as error:
        task(root, **change(root)).prepare()
    text = str(error.value)
    assert "\n" not in text
    assert all(word in text for word in words), text


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


@pytest.mark.slow
def test_import_is_quiet_and_operators_fail_when_called():
    code = """
import sys
from pxframe_tasks.segmentation.openmmlab import import_mmseg
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


def mmseg_segmentor(head, **strides):
    """mmseg's own, with no part of this library in it, on a narrow ResNet-50."""
    from mmengine.registry import DefaultScope
    from mmseg.models import EncoderDecoder

    backbone = {"type": "ResNet", "depth": 50, "base_channels": 8, "stem_channels": 64, "norm_cfg": BN, **strides}
    head = {"in_channels": 256, "c1_in_channels": 32, "num_classes": 21, **head}
    with DefaultScope.overwrite_default_scope("mmseg"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return EncoderDecoder(backbone, head, train_cfg={}, test_cfg={"mode": "whole"})


@pytest.mark.parametrize(
    ("output_stride", "strides"),
    [
        (None, {}),
        (16, {"strides": (1, 2, 2, 1), "dilations": (1, 1, 1, 2), "contract_dilation": True}),
        (8, {"strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 4), "contract_dilation": True}),
    ],
)
def test_a_trained_model_is_mmseg_s_own(root, tmp_path, output_stride, strides):
    timm = Timm()
    torch.manual_seed(0)
    model = timm.build("resnet50", channels=(8, 16, 32, 64))
    head = {**DEEPLAB, "init_cfg": None}  # mmseg's default starts the last layer near zero
    it = task(root, head=head, out_indices=(-4, -3, -2, -1), output_stride=output_stride, epochs=1)
    ticket = pxframe.prune(model, None, scorer="random", sparsity=0.3, exclude=["fc.*"])
    runner = run(it, tmp_path, model, timm)
    runner.register_hook(TicketHook(ticket))
    runner.train()
    weights = it.export(runner.model, "fc")
    assert all(value.is_contiguous() and value.device.type == "cpu" for value in weights.values())
    for name, mask in ticket.masks.items():
        assert not weights[f"backbone.{name}"][~mask].any()
    plain = mmseg_segmentor(head, **strides)
    plain.load_state_dict(weights, strict=True)
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        maps, logits = plain.eval().extract_feat(x), plain(x)
        assert maps[-1].shape[-2:] == (64 // (output_stride or 32), 96 // (output_stride or 32))
        found = (*runner.model.eval().extract_feat(x), runner.model(x))
    for value, expected in zip(found, (*maps, logits), strict=True):
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-5 * expected.std().item())


def test_labels_at_full_resolution_are_scored_on_at_the_image_s(root):
    first, second = LOAD
    pipeline = [first, {"type": "Resize", "scale": (20, 16), "keep_ratio": True}, second, *PACK]
    data = {"train": voc(root, "train", LOAD + AUGMENT + PACK), "test": voc(root, "val", pipeline)}
    whole, small = task(root), task(root, data=data, size_divisor=32)
    [(_, full)], [(inputs, labels)] = (it.batches(4, 4, seed=0) for it in (whole, small))
    assert (inputs.shape, labels.shape) == ((4, 3, 32, 32), (4, 32, 32))
    assert torch.equal(labels[:, :16, :20], full[:, ::2, ::2])
    assert (labels[:, 16:] == 255).all()
    assert (labels[:, :, 20:] == 255).all()


@pytest.mark.parametrize("scorer", ["snip", "px", "synflow", "magnitude"])
def test_the_whole_model_is_pruned_head_included(root, tmp_path, scorer):
    it = task(root, head={**DEEPLAB, "init_cfg": None})  # mmseg's default starts the last layer near zero
    model = initialised(run(it, tmp_path)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batches = it.batches(2, 2, seed=0)  # scores that are not finite would be refused
    ticket = pxframe.prune(model, batches, scorer=scorer, loss=it.loss, sparsity=0.5, rounds=1)
    heads = {name for name in ticket.masks if name.startswith("decode_head.")}
    assert {"decode_head.conv_seg.weight", "decode_head.c1_bottleneck.conv.weight"} <= heads
    assert {name for name in ticket.masks if name not in heads} == {
        f"backbone.model.{name}" for name in prunable(provider.build(depth=8, width=4), exclude=["linear.*"])
    }
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert ticket.apply(model) == ""


def test_the_loss_is_the_head_s_but_for_the_pixels_it_divides_by(root, tmp_path):
    """mmseg divides by all pixels, this library by those that count; SNIP's scores differ by that factor alone."""
    it = task(root)
    model = initialised(run(it, tmp_path)).eval()
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    [(inputs, target)] = it.batches(4, 4, seed=0)
    share = (target != 255).float().mean()
    assert 0.5 < share < 0.97
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label[None])) for label in target]
    names = [name for name, _ in model.named_parameters() if name in prunable(model)]
    own = model.decode_head.loss(model.extract_feat(inputs), samples, {})["loss_ce"]
    torch.testing.assert_close(it.loss(model(inputs), target) * share, own)
    weights = dict(model.named_parameters())
    gradients = torch.autograd.grad(own, [weights[name] for name in names])
    scores = pxframe.score(model, [(inputs, target)], scorer="snip", loss=it.loss)
    assert scores.keys() == set(names)
    for name, gradient in zip(names, gradients, strict=True):
        torch.testing.assert_close(scores[name] * share, (gradient * weights[name]).abs(), rtol=1e-4, atol=1e-8)


def test_saved_labels_are_drawn_beside_the_truth_in_the_classes_colours(root, tmp_path):
    it = task(root, save_predictions=True)
    with pytest.raises(PxframeError, match="no predictions were saved; add save_predictions=True to the task"):
        it.pictures(tmp_path, 2)
    (tmp_path / "predictions").mkdir()
    labels = {}
    for name in ("val1", "val2", "val3"):  # a run that was stopped has not written all of them
        labels[name] = np.asarray(Image.open(root / "SegmentationClass" / f"{name}.png"))
        Image.fromarray(np.where(labels[name] == 255, 0, labels[name])).save(tmp_path / "predictions" / f"{name}.png")
    first, second = it.pictures(tmp_path, 2)
    assert (first.name, second.name) == ("val1", "val2")
    for picture in (first, second):
        label = labels[picture.name]
        image, truth, predicted = map(np.asarray, (picture.image, picture.truth, picture.predicted))
        assert image.shape == truth.shape == predicted.shape == (*label.shape, 3)
        colour = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 255: (128, 128, 128)}  # Pascal VOC's own
        for number in np.unique(label):
            assert (truth[label == number] == colour[number]).all()
        kept = label != 255
        assert (truth[kept] == predicted[kept]).all()
        assert (predicted[~kept] == 0).all()
        square = image[label % 255 > 0].mean(0)
        assert square.argmax() == (0 if 1 in label else 2)  # red or blue, as in the file: not BGR
    assert first.colours == {"background": "#000000", "bicycle": "#008000", "does not count": "#808080"}


def test_a_slim_segmentor_is_trained(root, tmp_path):
    result, maps = train_slim(task(root, epochs=1), tmp_path, 32)
    assert maps.shape[:2] == (2, 21)
    assert "mIoU" in result["metrics"]
