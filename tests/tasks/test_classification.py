"""The classification task: learns, resumes exactly, keeps pre-trained weights, and names mistakes."""

import shutil

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from pxframe.base.errors import PxframeError
from pxframe.images.dataset import Images
from pxframe.plugin import registry
from pxframe_plugins.cifar_resnet import CifarResNet
from pxframe_plugins.timm_models import Timm
from pxframe_tasks.classification.accuracy import Accuracy

torch.set_num_threads(1)  # in networks this small, threads wait for each other
provider = CifarResNet()
FOLDER = "torchvision.datasets.ImageFolder"
CROP = [
    {"type": "torchvision.transforms.v2.RandomCrop", "size": 16, "padding": 2},
    {"type": "torchvision.transforms.v2.RandomHorizontalFlip"},
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three classes: red, green and blue images with noise."""
    root = tmp_path_factory.mktemp("colours")
    rng = np.random.default_rng(0)
    for split, count in (("train", 13), ("test", 5)):
        for channel, name in enumerate(("red", "green", "blue")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 120, (16, 16, 3), dtype=np.uint8)
                image[..., channel] += 120
                Image.fromarray(image).save(root / split / name / f"{i}.png")
    return {
        "train": {"type": FOLDER, "root": str(root / "train"), "transform": CROP},
        "test": {"type": FOLDER, "root": str(root / "test")},
    }


def task(data, **options):
    sgd = {"type": "SGD", "lr": 0.05, "momentum": 0.9}
    config = {"type": "classification", "data": data, "epochs": 3, "batch_size": 8, "optimizer": sgd}
    return registry.build("task", config | options)


def run(task, folder, model=None, provider=provider, **options):
    torch.manual_seed(0)
    model = provider.build(depth=8, width=4, num_classes=3) if model is None else model
    return task.runner(model, provider, work_dir=folder, device="cpu", seed=1, resume=True, **options)


def test_it_learns(data, tmp_path, capsys):
    it = task(data, epochs=10)
    it.prepare()
    runner = run(it, tmp_path)
    untrained = runner.test()[it.metric]
    runner.train()
    assert runner.test()[it.metric] > max(untrained, 80)
    assert capsys.readouterr() == ("", "")


def test_the_score_is_what_the_network_predicts(data, tmp_path):
    """The whole path (decoding, normalising, head, metric) against a few lines without any of it."""
    it = task(data, mean=(100, 110, 120), std=(50, 60, 70), epochs=1)
    runner = run(it, tmp_path)
    runner.train()
    score = runner.test()["accuracy"]
    model, right = runner.model.eval(), []
    mean, std = torch.tensor((100.0, 110, 120)), torch.tensor((50.0, 60, 70))
    for path, label in it.dataset("test").samples.samples:
        x = (torch.from_numpy(np.array(Image.open(path))) - mean) / std
        with torch.no_grad():
            pooled = provider.features(model.backbone, x.permute(2, 0, 1)[None])[-1].mean((2, 3))
            logits = pooled @ model.head.weight.T + model.head.bias
        right.append(int(logits.argmax()) == label)
    assert score == pytest.approx(100 * np.mean(right))


@pytest.mark.parametrize("before", [5, 0])
def test_a_trained_model_loads_in_plain_timm(data, tmp_path, before):
    it, timms = task(data, epochs=1), Timm()
    model = timms.build("resnet10t", num_classes=before)
    assert bool(timms.classifier(model)) == (before > 0)
    place = timms.place(model)
    runner = run(it, tmp_path, model, timms)
    runner.train()
    plain = timm.create_model("resnet10t", num_classes=3).eval()
    plain.load_state_dict(it.export(runner.model, place))
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(plain(x), runner.model.eval()(x))


def test_an_error_in_a_process_that_loads_data_is_told_in_its_own_words(data, tmp_path):
    shutil.copytree(data["train"]["root"], tmp_path / "train")
    deep = tmp_path / "train" / "green" / "3.png"
    Image.fromarray(np.full((16, 16), 1000, np.uint16)).save(deep)
    changed = {**data, "train": {**data["train"], "root": str(tmp_path / "train")}}
    with pytest.raises(PxframeError) as caught:
        run(task(changed, epochs=1, num_workers=1), tmp_path / "run").train()
    assert str(caught.value).startswith(f"the image {deep} has more than 8 bits a channel")
    assert "\n" not in str(caught.value)


def test_images_stay_in_bytes(data):
    sample = Images(data["train"])[0]
    assert sample["inputs"].dtype == torch.uint8
    assert sample["inputs"].shape == (3, 16, 16)


def test_resumed_run_ends_as_an_uninterrupted_one(data, tmp_path):
    whole = run(task(data), tmp_path / "whole")
    whole.train()
    run(task(data, schedule=None), tmp_path / "cut")  # built only: leaves nothing to resume

    class Kill(Exception):
        pass

    cut = run(task(data), tmp_path / "cut")
    step = cut.model.train_step

    def fail(*args, **kwargs):
        if cut.iter == 6:  # in the second of three epochs of four steps
            raise Kill
        return step(*args, **kwargs)

    cut.model.train_step = fail
    with pytest.raises(Kill):
        cut.train()
    resumed = run(task(data), tmp_path / "cut")
    resumed.train()
    a, b = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert whole.test() == resumed.test()


def test_timm_weights_are_not_initialised_again(data, tmp_path):
    timm = Timm()
    model = timm.build("resnet10t", num_classes=3)
    before = {n: p.clone() for n, p in model.named_parameters() if not n.startswith("fc.")}
    runner = run(task(data, epochs=1, optimizer={"type": "SGD", "lr": 0.0}), tmp_path, model, timm)
    runner.train()
    after = dict(runner.model.backbone.named_parameters())
    assert all(torch.equal(after[n], p) for n, p in before.items())


class Cosine(nn.Module):
    """A head of another kind, by its dotted name."""

    def __init__(self, in_channels, num_classes, scale):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, in_channels))
        self.scale = scale

    def forward(self, x):
        return self.scale * nn.functional.linear(nn.functional.normalize(x), nn.functional.normalize(self.weight))


def test_another_head_by_config(data, tmp_path):
    runner = run(task(data, head={"type": f"{__name__}.Cosine", "scale": 8.0}), tmp_path)
    assert runner.model.head.weight.shape == (3, 16)
    runner.train()
    assert runner.test()["accuracy"] > 50


def test_the_backbone_s_own_classifier(data, tmp_path):
    runner = run(task(data, head=None, epochs=1), tmp_path)
    runner.train()
    names = dict(runner.model.named_parameters())
    assert "backbone.linear.weight" in names
    loaded = provider.build(depth=8, width=4, num_classes=3, checkpoint=tmp_path / "epoch_1.pth")
    assert torch.equal(loaded.linear.weight, names["backbone.linear.weight"])


@pytest.mark.parametrize("head", [{"type": "Linear"}, None])
def test_the_head_s_learning_rate(data, tmp_path, head):
    runner = run(task(data, head=head, head_lr_mult=10), tmp_path)
    rates = {id(p): g["initial_lr"] for g in runner.optim_wrapper.optimizer.param_groups for p in g["params"]}
    head = runner.model.head or runner.model.backbone.linear
    assert rates[id(head.weight)] == pytest.approx(0.5)
    assert rates[id(runner.model.backbone.conv1.weight)] == pytest.approx(0.05)


def test_a_backbone_s_conv_head_is_not_the_head(data, tmp_path):
    timm = Timm()
    runner = run(task(data, head_lr_mult=10), tmp_path, timm.build("mobilenetv3_small_050"), timm)
    rates = {id(p): g["initial_lr"] for g in runner.optim_wrapper.optimizer.param_groups for p in g["params"]}
    assert rates[id(runner.model.backbone.conv_head.weight)] == pytest.approx(0.05)


def test_accuracy_is_in_percent():
    metric = Accuracy()
    pairs = ((0, 0), (1, 1), (2, 1), (3, 3))
    metric.process(None, [{"target": torch.tensor(a), "output": torch.eye(4)[b]} for a, b in pairs])
    assert metric.evaluate(4) == {"accuracy": 75.0}


def test_label_smoothing(data, tmp_path):
    x, y = torch.rand(4, 3, 16, 16), torch.tensor([0, 1, 2, 0])
    model = run(task(data, label_smoothing=0.2), tmp_path).model.eval()
    loss = model(x, y, "loss")["loss"]
    log = model(x).log_softmax(1)
    by_hand = -(0.8 * log[torch.arange(4), y] + 0.2 * log.mean(1)).mean()
    assert loss.item() == pytest.approx(by_hand.item(), abs=1e-5)


def test_prepare_writes_digits(tmp_path):
    write = {
        "type": "pxframe_tasks.demo.digits.write_folders",
        "root": str(tmp_path / "d"),
        "classes": [0, 1],
        "size": 16,
    }
    data = {s: {"type": FOLDER, "root": str(tmp_path / "d" / s)} for s in ("train", "test")}
    for _ in range(2):
        it = task(data, prepare=write)
        it.prepare()
    assert len(it.dataset("train")) == pytest.approx(0.75 * 360, abs=1)  # of 178 zeros and 182 ones


def with_test(data, **changes):
    return data | {"test": data["test"] | changes}


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda d: {"data": {"train": d["train"]}}, ("'data'", "'test'")),
        (lambda d: {"data": d | {"val": {}}}, ("'val'",)),
        (lambda d: {"data": with_test(d, root="/no/such/place")}, ("data['test']", "/no/such/place")),
        (lambda d: {"data": with_test(d, root="$NO_SUCH_VARIABLE/x")}, ("data['test']", "NO_SUCH_VARIABLE")),
        (lambda d: {"data": with_test(d, type="torchvision.datasets.Nope")}, ("data['test']", "Nope")),
        (lambda d: {"data": with_test(d, rot=1)}, ("data['test']", "rot")),
        (lambda d: {"data": with_test(d, type="torchvision.datasets.CIFAR10")}, ("data['test']", "not found")),
        (
            lambda d: {"data": with_test(d, transform=[{"type": "torchvision.transforms.v2.No"}])},
            ("data['test']", "No"),
        ),
        (lambda d: {"data": with_test(d, root=d["test"]["root"] + "/..", type=FOLDER)}, ("classes",)),
        (lambda d: {"optimiser": {}}, ("optimiser", "'optimizer'")),
        (lambda d: {"prepare": {"type": "pxframe_tasks.demo.digits.nope", "root": "x"}}, ("'prepare'", "nope")),
    ],
)
def test_mistakes_show_before_work_begins(data, change, parts):
    with pytest.raises(PxframeError) as error:
        task(**{"data": data, **change(data)}).prepare()
    text = str(error.value)
    assert "\n" not in text
    assert all(part in text for part in parts), text


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"head": {"type": "Lineal"}}, ("'head'", "Lineal")),
        ({"head": {"type": "Linear", "bais": 1}}, ("'head'", "bais")),
        ({"optimizer": {"type": "SDG"}}, ("'optimizer'", "SDG")),
    ],
)
def test_mistakes_show_before_training(data, tmp_path, options, parts):
    with pytest.raises(PxframeError) as error:
        run(task(data, **options), tmp_path)
    text = str(error.value)
    assert "\n" not in text
    assert all(part in text for part in parts), text
