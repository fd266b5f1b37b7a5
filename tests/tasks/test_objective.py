"""Losses and metrics from a config: numbers and vectors as targets, scores by hand, and one line for mistakes."""

import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import pxframe
from pxframe.base.errors import PxframeError
from pxframe.plugin import registry
from pxframe_plugins.cifar_resnet import CifarResNet
from pxframe_tasks.classification.objective import build_loss

torch.set_num_threads(1)  # in networks this small, threads wait for each other
provider = CifarResNet()
TARGETS = {
    "number": lambda i: float(i),
    "whole": lambda i: i,
    "vector": lambda i: np.array([i, -i / 2]),
    "labels": lambda i: torch.tensor([i % 2, i % 3 == 0, 1]),
}


class Set:
    def __init__(self, kind, count=9):
        self.kind, self.count = kind, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        return Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)), TARGETS[self.kind](index)


@pytest.fixture(autouse=True)
def module(monkeypatch):
    module = types.ModuleType("targetset")
    module.Set = Set
    monkeypatch.setitem(sys.modules, "targetset", module)


RMSE = {"type": "torchmetrics.MeanSquaredError", "squared": False, "name": "RMSE", "unit": "px"}


def task(kind, **options):
    data = {split: {"type": "targetset.Set", "kind": kind} for split in ("train", "test")}
    config = {"type": "classification", "data": data, "epochs": 1, "batch_size": 4, "num_classes": 1}
    return registry.build("task", config | {"optimizer": {"type": "SGD", "lr": 1e-4}} | options)


def trained(it, folder):
    """A trained runner's test values, and outputs and targets computed image by image."""
    it.prepare()
    torch.manual_seed(0)
    model = provider.build(depth=8, width=4, num_classes=3)
    runner = it.runner(model, provider, work_dir=folder, device="cpu", seed=1, resume=False)
    it.rehearse(runner)
    runner.train()
    values = runner.test()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (it.mean, it.std))
    data = Set(it.data["test"]["kind"])
    with torch.no_grad():
        x = torch.stack([(torch.from_numpy(np.array(data[i][0])).permute(2, 0, 1) - mean) / std for i in range(9)])
        outputs = runner.model.eval()(x).double().numpy()
    return values, outputs, np.array([np.asarray(data[i][1]) for i in range(9)], dtype=float)


@pytest.mark.parametrize("kind", ["number", "whole", "vector"])
def test_regression_from_a_config(tmp_path, kind):
    it = task(kind, loss="torch.nn.MSELoss", metric=RMSE, num_classes=2 if kind == "vector" else 1)
    values, outputs, targets = trained(it, tmp_path)
    assert (it.metric, it.higher_is_better, it.unit) == ("RMSE", False, "px")
    assert values == {
        "RMSE": pytest.approx(np.sqrt(np.mean((outputs.reshape(targets.shape) - targets) ** 2)), rel=1e-5)
    }


def test_several_labels_an_image(tmp_path):
    loss = {"type": "torch.nn.BCEWithLogitsLoss"}
    metric = {"type": "torchmetrics.classification.MultilabelAccuracy", "num_labels": 3, "name": "hits", "unit": "%"}
    values, outputs, targets = trained(task("labels", loss=loss, metric=metric, num_classes=3), tmp_path)
    right = (outputs > 0) == targets
    assert values == {"hits": pytest.approx(100 * right.mean(0).mean(), rel=1e-5)}


def test_another_metric_for_the_default_loss(tmp_path):
    metric = {"type": "torchmetrics.Accuracy", "task": "multiclass", "num_classes": 9, "top_k": 2, "name": "top 2"}
    it = task("whole", num_classes=9, metric={**metric, "average": "micro"})
    values, outputs, targets = trained(it, tmp_path)
    best = np.argsort(-outputs, 1)[:, :2]
    assert values == {"top 2": pytest.approx((best == targets[:, None]).any(1).mean())}
    assert (it.higher_is_better, it.unit) == (True, "")


def test_one_output_and_one_number_are_compared_image_by_image():
    output, target = torch.randn(5, 1, dtype=torch.double, requires_grad=True), torch.arange(5)
    by_hand = sum((o.item() - t) ** 2 for o, t in zip(output, range(5), strict=True)) / 5
    assert build_loss("torch.nn.MSELoss")(output, target).item() == pytest.approx(by_hand)
    assert build_loss({"type": "torch.nn.functional.mse_loss"})(output, target).item() == pytest.approx(by_hand)
    logits, labels = torch.randn(5, 4), torch.tensor([0, 3, 1, 1, 2])
    smooth = build_loss({"type": "torch.nn.CrossEntropyLoss", "label_smoothing": 0.1})
    assert torch.equal(smooth(logits, labels), F.cross_entropy(logits, labels, label_smoothing=0.1))


def test_scorers_take_the_same_loss():
    it = task("number", loss="torch.nn.MSELoss", metric=RMSE)
    model = provider.build(depth=8, width=4, num_classes=1).eval()
    [(x, y)] = it.batches(9, 9, seed=0)
    scores = pxframe.score(model, [(x, y)], scorer="snip", loss=it.loss)
    loss = ((model(x)[:, 0] - y) ** 2).mean()
    [gradient] = torch.autograd.grad(loss, [model.conv1.weight])
    torch.testing.assert_close(scores["conv1.weight"], (gradient * model.conv1.weight).abs(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "options", "parts"),
    [
        ("number", {}, ("data['train']", "no class number", "'loss'")),
        ("vector", {}, ("no class number",)),
        ("number", {"loss": "torch.nn.MSELos", "metric": RMSE}, ("'loss'", "MSELos")),
        ("number", {"loss": {"type": "torch.nn.MSELoss", "sqare": 1}, "metric": RMSE}, ("'loss'", "sqare")),
        ("number", {"loss": 3, "metric": RMSE}, ("'loss'", "got 3")),
        ("number", {"loss": "torch.nn.MSELoss"}, ("'metric'",)),
        ("number", {"loss": "torch.nn.MSELoss", "metric": {"type": "torchmetrics.Nope"}}, ("'metric'", "Nope")),
        ("number", {"loss": "torch.nn.MSELoss", "metric": {**RMSE, "sq": 1}}, ("'metric'", "sq")),
        ("number", {"loss": "torch.nn.MSELoss", "metric": {**RMSE, "unit": 3}}, ("'metric'", "'unit'")),
        ("number", {"metric": "torchmetrics.aggregation.SumMetric"}, ("'higher_is_better'",)),
        ("number", {"metric": "torch.nn.Linear"}, ("'metric'",)),
        ("number", {"loss": "torch.nn.MSELoss", "metric": RMSE, "label_smoothing": 0.1}, ("'label_smoothing'",)),
    ],
)
def test_mistakes_cost_one_line(kind, options, parts):
    with pytest.raises(PxframeError) as error:
        task(kind, **options).prepare()
    text = str(error.value)
    assert "\n" not in text
    assert all(part in text for part in parts), text


def test_a_metric_of_several_numbers_shows_before_training(tmp_path):
    metric = {**RMSE, "num_outputs": 2}
    it = task("vector", num_classes=2, loss="torch.nn.MSELoss", metric=metric)
    runner = it.runner(
        provider.build(depth=8, width=4), provider, work_dir=tmp_path, device="cpu", seed=0, resume=False
    )
    with pytest.raises(PxframeError, match="more than one number"):
        it.rehearse(runner)
