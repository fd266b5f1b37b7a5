"""The configs of the papers' experiments: all load; those on classification are built and stepped on tiny data.

The data lie as the real ones do: CIFAR's pickles, whose checksums are written into torchvision's classes, and folders
of images. Networks, images and schedules are made small; tasks, augmentation and the first method are the config's own.
"""

import ast
import hashlib
import pickle
from copy import deepcopy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100

from pxframe.base.options import check_options
from pxframe.job.config import checked, read_config
from pxframe.job.job import Job
from pxframe.plugin import registry
from pxframe.pruning.plan import PLAN_KEYS
from pxframe.stages.runs import pretrain, transfer
from pxframe.stages.tickets import make_tickets, make_whole_tickets

torch.set_num_threads(1)  # in networks this small, threads wait for each other
CONFIGS = Path(__file__).parents[2] / "configs"
DEMONSTRATIONS = [CONFIGS / "detection" / "digits.py"]  # of no paper's
FILES = [
    file
    for file in sorted(CONFIGS.glob("*/*.py"))
    if file.parent.name not in ("_base_", "real", "__pycache__") and file not in DEMONSTRATIONS
]
CLASSIFICATION = [f for f in FILES if f.parent.name == "classification"]


@cache
def read(file):
    return read_config(file)


def named(file):
    return str(file.relative_to(CONFIGS))


@pytest.mark.parametrize("file", FILES, ids=named)
def test_it_loads_and_inherits(file):
    tree = ast.parse(file.read_text())
    assert ast.get_docstring(tree), "it must say which paper it follows"
    assert any(isinstance(n, ast.Assign) and n.targets[0].id == "_base_" for n in tree.body)
    assert {task["type"] for task in read(file)["tasks"].values()} == {file.parent.name}


def write_pickle(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return [path.name, hashlib.md5(path.read_bytes()).hexdigest()]


def write_cifar(cls, root, patch):
    """A handful of images in the files of ``cls``, which from now on expects their checksums."""
    rng = np.random.default_rng(0)
    key, classes = ("labels", 10) if cls is CIFAR10 else ("fine_labels", 100)
    folder = root / cls.base_folder
    for listed in ("train_list", "test_list"):
        sums, each = [], 1 if len(getattr(cls, listed)) > 1 else 5
        for number, (file, _) in enumerate(getattr(cls, listed)):
            pixels = rng.integers(0, 256, (each, 3 * 32 * 32), dtype=np.uint8)
            labels = [(number + i) % classes for i in range(each)]
            sums.append(write_pickle(folder / file, {"data": pixels, key: labels}))
        patch.setattr(cls, listed, sums)
    names = {cls.meta["key"]: [f"class {i}" for i in range(classes)]}
    _, checksum = write_pickle(folder / cls.meta["filename"], names)
    patch.setattr(cls, "meta", {**cls.meta, "md5": checksum})


def write_folders(root, size, inside=""):
    rng = np.random.default_rng(1)
    for split in ("train", "val"):
        for name in ("n01443537", "n01629819", "n01641577"):
            folder = root / split / name / (inside if split == "train" else "")
            folder.mkdir(parents=True)
            for i in range(2):
                Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{name}_{i}.JPEG")


@pytest.fixture(scope="module", autouse=True)
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PXFRAME_DATA", str(root))
        write_cifar(CIFAR10, root / "cifar-10", patch)
        write_cifar(CIFAR100, root / "cifar-100", patch)
        write_folders(root / "tiny-imagenet-200", (64, 64), "images")
        write_folders(root / "imagenet", (50, 60))
        yield root


SMALL = {
    "cifar_resnet": {"type": "cifar_resnet", "depth": 8, "width": 4},
    "vgg16_bn": {"type": "vgg16_bn", "width": 8},
}
SIZES = {224: 32, (224, 224): (32, 32), 256: 36}


def small(config):
    """The same job on a network, images and schedules of a size for a test."""
    config = deepcopy(config)
    backbone = config["backbone"]
    classes = {"num_classes": backbone.get("num_classes", 1000)}
    config["backbone"] = SMALL.get(backbone["type"], SMALL["cifar_resnet"]) | classes
    prune = config["prune"]
    prune.update(sparsity=0.2, samples=4, batch_size=1)  # four batches, as ProsPr asks for
    first = prune["scorer"][0]
    prune["scorer"] = [first | {key: 1 for key in ("rounds", "draws") if key in first}]
    prune["controls"] = []
    for task in [*config["tasks"].values(), *([prune["data"]] if "data" in prune else [])]:
        task.update(batch_size=2, num_workers=0)
        if "epochs" in task:
            task["epochs"] = 1
        if task.get("head", {}).get("type") == "KNN":
            task["head"]["k"] = 2
        for transform in [t for split in task["data"].values() for t in split.get("transform", [])]:
            if "size" in transform:
                transform["size"] = SIZES.get(transform["size"], transform["size"])
    config["seed"] = 0
    return config


def test_the_methods_take_their_options_and_have_batches_enough():
    for file in CLASSIFICATION:
        prune = read(file)["prune"]
        for scorer in prune["scorer"]:
            built = registry.build("scorer", {k: v for k, v in scorer.items() if k not in PLAN_KEYS}, file.name)
            batches = prune["samples"] / prune.get("batch_size", prune["samples"])
            assert batches > getattr(built, "steps", 0)


def test_the_backbones_take_their_options():
    for file in CLASSIFICATION:
        options = dict(read(file)["backbone"])
        provider = registry.build("backbone", {"type": options.pop("type")})
        check_options(provider.build, options, file.name)
        if not (options.get("pretrained") or "checkpoint" in options):
            with torch.device("meta"):
                model = provider.build(**options)
            assert model.get_submodule(provider.classifier(model)).out_features == options.get("num_classes", 10)


@pytest.mark.parametrize("file", CLASSIFICATION, ids=named)
def test_a_classification_config_is_built_pruned_and_stepped(file, tmp_path):
    config = small(read(file))
    job = Job.from_config(checked(config, file), work_dir=tmp_path)
    model = pretrain(job, print)
    made = make_tickets(job, model, print) if not job.whole else {}
    for name in job.tasks:
        [(variant, ticket)] = (make_whole_tickets(job, name, model, print) if job.whole else made).items()
        row = transfer(job, name, variant, model, ticket, print)
        assert row["epochs"] == (0 if "epochs" not in config["tasks"][name] else 1)
        assert row["prunable_left"] == ticket.kept < ticket.total
        state = torch.load(tmp_path / "seed-0" / name / variant / "model.pth", weights_only=True)
        zeros = [
            (state[n.removeprefix("backbone.")][~mask] == 0).all()
            for n, mask in ticket.masks.items()
            if not n.startswith("head.")
        ]
        assert len(zeros) > 5
        assert all(zeros)
