"""A run tried out before any work: parts that do not fit cost one line, and the try leaves no trace."""

import random
import shutil

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from PIL import Image

from pxframe.base.errors import PxframeError
from pxframe.job.config import load_config
from pxframe.job.job import Job
from pxframe.plugin import registry
from pxframe.stages.rehearsal import rehearse
from pxframe_plugins.cifar_resnet import CifarResNet

torch.set_num_threads(1)  # in networks this small, threads wait for each other
provider = CifarResNet()
FOLDER = "torchvision.datasets.ImageFolder"
LOAD = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}]
PACK = [{"type": "PackSegInputs"}]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Five classes of two images each."""
    root = tmp_path_factory.mktemp("five")
    rng = np.random.default_rng(0)
    for name in "abcde":
        (root / name).mkdir()
        for i in range(2):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Three grey images of two classes, in Pascal VOC's layout."""
    root = tmp_path_factory.mktemp("scenes")
    for folder in ("images", "labels"):
        (root / folder).mkdir()
    for i in range(3):
        Image.new("RGB", (32, 32), (90, 90, 90)).save(root / "images" / f"{i}.png")
        Image.new("L", (32, 32), i % 2).save(root / "labels" / f"{i}.png")
    (root / "all.txt").write_text("0\n1\n2\n")
    return root


def classification(root, **options):
    data = {split: {"type": FOLDER, "root": str(root)} for split in ("train", "test")}
    return registry.build("task", {"type": "classification", "data": data, "epochs": 1, "batch_size": 4, **options})


def segmentation(root, test=LOAD + PACK, head=None, **changes):
    data = {
        "type": "BaseSegDataset",
        "data_root": str(root),
        "ann_file": "all.txt",
        "data_prefix": {"img_path": "images", "seg_map_path": "labels"},
        "img_suffix": ".png",
        "metainfo": {"classes": ["ground", "thing"]},
        "serialize_data": False,
        **changes,
    }
    fcn = {"type": "FCNHead", "channels": 4, "num_convs": 1, "norm_cfg": {"type": "BN"}, **(head or {})}
    splits = {"train": {**data, "pipeline": LOAD + PACK}, "test": {**data, "pipeline": test}}
    config = {"type": "segmentation", "data": splits, "head": fcn, "epochs": 1, "batch_size": 2}
    return registry.build("task", config)


def runner_of(it, folder, classes=5):
    torch.manual_seed(0)
    model = provider.build(depth=8, width=4, num_classes=classes)
    return it.runner(model, provider, work_dir=folder, device="cpu", seed=1, resume=False)


def prepared_and_tried(it, folder):
    it.prepare()
    it.rehearse(runner_of(it, folder))


@pytest.mark.parametrize("head", [{"type": "MLP", "hidden": [4], "dropout": 0.5}, {"type": "Ridge"}])
def test_the_try_leaves_no_trace(folders, tmp_path, head):
    it = classification(folders, head=head, **({"epochs": None} if head["type"] == "Ridge" else {}))
    runner = runner_of(it, tmp_path)
    runner.model.backbone.train(False)
    before = {n: t.clone() for n, t in runner.model.state_dict().items()}
    modes = [m.training for m in runner.model.modules()]
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    it.rehearse(runner)
    assert all(torch.equal(t, before[n]) for n, t in runner.model.state_dict().items())
    assert [m.training for m in runner.model.modules()] == modes
    assert all(p.grad is None for p in runner.model.parameters())
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[:2]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert runner.iter == 0


def test_a_run_after_it_ends_as_one_without_it(folders, tmp_path):
    ends = []
    for tried in (False, True):
        it = classification(folders)
        runner = runner_of(it, tmp_path / str(tried))
        if tried:
            it.rehearse(runner)
        runner.train()
        ends.append((runner.model.state_dict(), runner.test()))
    (a, first), (b, second) = ends
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert first == second


class Other(BaseMetric):
    default_prefix = ""

    def process(self, data_batch, data_samples):
        self.results.extend(data_samples)

    def compute_metrics(self, results):
        return {"other": 1.0}


@pytest.mark.parametrize(
    ("options", "classes", "parts"),
    [
        ({"head": {"type": "Linear", "out_features": 3}}, 5, ("the head gives", "5 classes")),
        ({"head": {"type": "Linear", "in_features": 7}}, 5, ("'head'", "RuntimeError")),
        ({"head": None}, 3, ("own classifier gives", "5 classes")),
        ({"metric": {"type": Other, "name": "accuracy"}}, 5, ("other", "not the metric 'accuracy'")),
        ({"loss": "torch.nn.MSELoss", "metric": "torchmetrics.MeanSquaredError"}, 5, ("training step",)),
    ],
)
def test_mistakes_in_classification(folders, tmp_path, options, classes, parts):
    it = classification(folders, **options)
    it.prepare()
    runner = runner_of(it, tmp_path, classes)
    with pytest.raises(PxframeError) as error:
        it.rehearse(runner)
    text = str(error.value)
    assert "\n" not in text
    assert all(part in text for part in parts), text


def test_images_of_two_sizes(folders, tmp_path):
    root = shutil.copytree(folders, tmp_path / "sizes")
    Image.new("RGB", (20, 16)).save(root / "e" / "1.png")
    it = classification(root)
    it.prepare()
    with pytest.raises(PxframeError, match="16x16 and 16x20"):
        it.rehearse(runner_of(it, tmp_path / "run"))
    with pytest.raises(PxframeError, match="16x16 and 16x20"):
        list(it.batches(10, 10, seed=0))


@pytest.mark.parametrize("split", ["train", "test"])
def test_class_numbers_that_no_output_stands_for(folders, split):
    it = classification(folders, num_classes=6)
    it.prepare()
    it.dataset(split).targets[3] = 6
    with pytest.raises(PxframeError, match=rf"data\['{split}'\] has class numbers from 0 to 6; .* 0 to 5"):
        it.prepare()
    with pytest.raises(PxframeError, match="from 0 to 4"):
        classification(folders, num_classes=3).prepare()


def test_a_sound_segmentation_passes(scenes, tmp_path):
    prepared_and_tried(segmentation(scenes), tmp_path)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"test": LOAD[:1] + PACK}, ("a first test", "failed")),
        ({"head": {"num_classes": 1, "out_channels": 1}}, ("'head'", "'num_classes' is 1", "2 classes")),
        ({"head": {"in_channels": 7}}, ("training step", "RuntimeError")),
        ({"metainfo": {}}, ("no classes", "metainfo")),
        ({"test": [*LOAD, {"type": "Resize", "scale": (8, 8)}]}, ("data['test']", "PackSegInputs")),
    ],
)
def test_mistakes_in_segmentation(scenes, tmp_path, options, parts):
    with pytest.raises(PxframeError) as error:
        prepared_and_tried(segmentation(scenes, **options), tmp_path)
    text = str(error.value)
    assert "\n" not in text
    assert all(part in text for part in parts), text


def test_labels_out_of_range_are_named_with_their_file(scenes, tmp_path):
    root = shutil.copytree(scenes, tmp_path / "wrong")
    Image.new("L", (32, 32), 2).save(root / "labels" / "2.png")
    it = segmentation(root)
    it.prepare()
    with pytest.raises(PxframeError, match=r"2\.png has the label 2; labels must be from 0 to 1"):
        it.rehearse(runner_of(it, tmp_path / "run"))


def test_a_job_tries_its_tasks(folders, tmp_path):
    config = tmp_path / "job.py"
    config.write_text(
        f"""
backbone = dict(type="cifar_resnet", depth=8, width=4)
_data = dict(type="{FOLDER}", root={str(folders)!r})
prune = dict(scorer="magnitude", sparsity=0.5, samples=4, data=dict(type="classification", epochs=1,
             data=dict(train=_data, test=_data)))
tasks = dict(wrong=dict(type="classification", epochs=1, data=dict(train=_data, test=_data),
             head=dict(type="Linear", out_features=3)))
"""
    )
    job = Job.from_config(load_config(config, {"prune.exclude": ["conv1.*"]}), work_dir=tmp_path / "work")
    said = []
    with pytest.raises(PxframeError, match=r"^tasks\.wrong: .*the head gives outputs"):
        rehearse(job, said.append)
    assert [line.partition(" in place of ")[0] for line in said] == ["prune: the config excludes 'conv1.*'"]
