"""The configs for Pascal VOC: each is built, scored on and trained a step, on a devkit of a few small images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pxframe
from pxframe.job.config import load_config, read_config
from pxframe.job.job import Job
from pxframe.training.window import initialised

torch.set_num_threads(1)  # in networks this small, threads wait for each other
CONFIGS = sorted(Path("configs/segmentation").glob("*.py"))
LISTS = {"train": "abc", "val": "de", "aug": "fgh", "trainaug": "abcfgh"}
VIT = {"type": "timm", "model": "vit_tiny_patch16_224", "depth": 4, "embed_dim": 24, "dynamic_img_size": True}


@pytest.fixture(scope="module")
def devkit(tmp_path_factory):
    """Upright and lying images; palette PNGs with a border of 255. SBD's folder has labels of its own."""
    root = tmp_path_factory.mktemp("data") / "VOCdevkit" / "VOC2012"
    rng = np.random.default_rng(0)
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationClassAug", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for split, names in LISTS.items():
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(names) + "\n")
    for i, name in enumerate("abcdefgh"):
        size = (30, 40) if i % 2 else (40, 30)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / "JPEGImages" / f"{name}.jpg")
        for folder, label in (("SegmentationClass", 1), ("SegmentationClassAug", 2)):
            if folder == "SegmentationClassAug" or name in "abcde":
                picture = np.zeros(size, dtype=np.uint8)
                picture[4:20, 4:20] = 255
                picture[6:18, 6:18] = label
                image = Image.fromarray(picture, mode="P")
                image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + 759 * [224])  # a shorter one costs labels bits
                image.save(root / folder / f"{name}.png")
    return root


def small(path):
    """The config with a small backbone and a small head, on small images; everything else is its own."""
    config = read_config(path)
    tiny = {"epochs": 1, "batch_size": 2, "num_workers": 0, "head.channels": 4}
    tiny |= {"data.train.pipeline.2.scale": (40, 40), "data.train.pipeline.3.crop_size": (32, 32)}
    if "c1_channels" in config["tasks"]["voc"]["head"]:
        tiny["head.c1_channels"] = 2
    overrides = {f"tasks.voc.{key}": value for key, value in tiny.items()}
    overrides |= {"prune.scorer.rounds": 1, "prune.sparsity": 0.5}
    for task in ("tasks.voc", "prune.data") if "data" in config["prune"] else ("tasks.voc",):
        for split in ("train", "test"):  # serialising calls the garbage collector, which takes half a second here
            overrides[f"{task}.data.{split}.serialize_data"] = False
    backbone = VIT if "vit" in path.stem else {"type": "timm", "model": "resnet10t"}
    return load_config(path, overrides | {"backbone": {"_delete_": True, **backbone}})


@pytest.fixture
def build(devkit, tmp_path, monkeypatch):
    """A function that gives a config's job, made small, and its task with what makes a runner of it."""
    monkeypatch.setenv("PXFRAME_DATA", str(devkit.parents[1]))

    def made(path):
        job = Job.from_config(small(path), work_dir=tmp_path)
        task = job.tasks["voc"]

        def runner():
            torch.manual_seed(0)
            model = job.provider.build(**job.backbone)
            return task.runner(model, job.provider, work_dir=tmp_path, device="cpu", seed=0, resume=False)

        return job, task, runner

    return made


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_trained_with_the_settings_of_the_paper(path, build, capsys):
    assert "\n_base_ = [" in path.read_text(encoding="utf-8")
    run = build(path)[2]()
    optimizer = run.optim_wrapper.optimizer
    assert {round(group["initial_lr"], 6) for group in optimizer.param_groups} == {0.001, 0.01}
    assert {(g["momentum"], g["weight_decay"]) for g in optimizer.param_groups} == {(0.9, 1e-4)}
    [steps] = run.param_schedulers
    assert (sorted(steps.milestones), steps.gamma, steps.by_epoch) == ([50, 60], 0.1, True)
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    run.train()
    moved = {name.split(".")[0] for name, p in run.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"backbone", "decode_head"}
    assert run.test().keys() >= {"mIoU", "aAcc"}
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "side"),
    [("deeplabv3plus_resnet50", 40), ("deeplabv3plus_clip_vit", 48), ("whole_deeplabv3plus_resnet50", 40)],
)
def test_a_config_s_tickets(name, side, build):
    job, task, runner = build(Path(f"configs/segmentation/voc_{name}.py"))
    whole = name.startswith("whole")
    source = task if whole else job.scored_on.task
    [(inputs, labels)] = source.batches(3, 3, seed=0)
    assert inputs.shape == (3, 3, side, side)  # upright and lying images, padded
    assert labels.shape == (3, side, side)
    model = initialised(runner()).eval() if whole else job.provider.build(**job.backbone).eval()
    pruning = job.prunings["px-rounds=1-50.00"]
    ticket = pxframe.prune(model, [(inputs, labels)], pruning.scorer, loss=source.loss, **pruning.settings)
    assert whole == any(name.startswith("decode_head.") for name in ticket.masks)
    assert ticket.sparsity == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deeplabv3plus_resnet50", {"epochs": 80, "batch_size": 16, "output_stride": 16}),
        ("uper_resnet50", {"epochs": 80, "output_stride": None}),
        ("deeplabv3plus_clip_vit", {"epochs": 80, "size_divisor": 16, "output_stride": None}),
    ],
)
def test_the_length_and_the_strides(name, options):
    task = load_config(f"segmentation/voc_{name}").tasks["voc"]
    assert {key: task[key] for key in options} == options


def test_sbd_adds_its_images_with_its_labels(build):
    [path] = [path for path in CONFIGS if "sbd" in path.stem]
    dataset = build(path)[1].dataset("train")
    images = [dataset.get_data_info(i) for i in range(len(dataset))]
    assert [Path(image["img_path"]).stem for image in images] == list("abcfgh")
    assert {Path(image["seg_map_path"]).parent.name for image in images} == {"SegmentationClassAug"}
