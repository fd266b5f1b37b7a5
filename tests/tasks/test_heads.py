"""Heads: fitted ones against independent solutions, frozen backbones left bit for bit as they were."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier

import pxframe
from pxframe.base.errors import PxframeError
from pxframe.plugin import registry
from pxframe.training.hooks.weights import TicketHook
from pxframe.training.settings import Training
from pxframe_plugins.cifar_resnet import CifarResNet
from pxframe_tasks.classification.heads import KNN, Ridge, mlp

torch.set_num_threads(1)  # in networks this small, threads wait for each other
provider = CifarResNet()
FOLDER = "torchvision.datasets.ImageFolder"
CROP = [{"type": "torchvision.transforms.v2.RandomCrop", "size": 16, "padding": 6}]


def blobs(counts, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    centres = torch.randn(len(counts), width, generator=generator)
    return centres[labels] + torch.randn(len(labels), width, generator=generator), labels


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("counts", [(30, 8, 3), (25, 4)])
def test_ridge_solves_the_weighted_normal_equations(counts, balanced):
    x, y = blobs(counts)
    head = Ridge(6, len(counts), alpha=0.7, balanced=balanced)
    head.fit(x, y)
    x = torch.cat([x, torch.ones(len(x), 1)], 1).double()
    share = len(y) / (len(counts) * torch.tensor(counts, dtype=torch.double)) if balanced else torch.ones(len(counts))
    weighted = x * share[y][:, None]
    penalty = 0.7 * torch.eye(7, dtype=torch.double)
    penalty[-1, -1] = 0  # the bias is free
    target = 2 * torch.nn.functional.one_hot(y, len(counts)).double() - 1
    solved = torch.linalg.solve(weighted.T @ x + penalty, weighted.T @ target).T
    found = torch.cat([head.weight, head.bias[:, None]], 1).double()
    torch.testing.assert_close(found, solved, rtol=1e-5, atol=1e-6)


def test_ridge_chooses_alpha_by_leaving_one_out():
    x, y = blobs((12, 12, 12))
    errors = {}
    for alpha in (0.01, 10.0, 3000.0):
        errors[alpha] = 0.0
        for out in range(len(y)):
            kept = torch.arange(len(y)) != out
            one = RidgeClassifier(alpha).fit(x[kept], y[kept])
            errors[alpha] += np.square(one.decision_function(x[[out]]) - (2 * np.eye(3)[y[out]] - 1)).sum()
    best = min(errors, key=errors.get)
    assert best == 10.0, "neither end, or the test shows little"
    several, single = Ridge(6, 3, alpha=[0.01, 10.0, 3000.0], balanced=False), Ridge(6, 3, alpha=best, balanced=False)
    several.fit(x, y)
    single.fit(x, y)
    torch.testing.assert_close(several.weight, single.weight)


def test_ridge_never_predicts_a_class_without_images():
    x, y = blobs((9, 9, 9))
    head = Ridge(6, 5)
    head.fit(x, torch.tensor([0, 2, 4])[y])
    assert set(head(x).argmax(1).tolist()) == {0, 2, 4}
    three = Ridge(6, 3)
    three.fit(x, y)
    torch.testing.assert_close(head(x)[:, [0, 2, 4]], three(x))


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_knn_votes_as_scikit_learn_s(temperature):
    x, y = blobs((20, 10, 10))
    queries, _ = blobs((6, 6, 6), seed=1)
    head = KNN(6, 3, images=40, k=7, temperature=temperature)
    head.fit(x, y)
    oracle = KNeighborsClassifier(7, metric="cosine", weights=lambda d: np.exp((1 - d) / temperature)).fit(x, y)
    votes = torch.from_numpy(oracle.predict_proba(queries)).float()
    assert votes.gt(0).sum(1).ge(2).any(), "the votes must not all agree"
    torch.testing.assert_close(head(queries).softmax(1), votes)


def test_mlp_has_the_widths_asked_for_and_keeps_all_logits():
    head = mlp(6, 3, hidden=[8, 4], dropout=0.5)
    assert [tuple(p.shape) for p in head.parameters() if p.ndim == 2] == [(8, 6), (4, 8), (3, 4)]
    kinds = [type(m).__name__ for m in head]
    assert kinds == ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three classes of unequal size: red, green and blue images with noise."""
    root = tmp_path_factory.mktemp("colours")
    rng = np.random.default_rng(0)
    for split, counts in (("train", (12, 8, 4)), ("test", (5, 5, 5)), ("other", (2, 3, 4))):
        for channel, count in enumerate(counts):
            folder = root / split / "rgb"[channel]
            folder.mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 120, (16, 16, 3), dtype=np.uint8)
                image[..., channel] += 120
                Image.fromarray(image).save(folder / f"{i}.png")
    return {
        "train": {"type": FOLDER, "root": str(root / "train"), "transform": CROP},
        "test": {"type": FOLDER, "root": str(root / "test")},
    }


def run(data, folder, ticket=None, **options):
    """A trained runner, and the backbone it began with."""
    torch.manual_seed(0)
    model = provider.build(depth=8, width=4, num_classes=3)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var.uniform_(0.5, 2)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    task = registry.build("task", {"type": "classification", "data": data, "batch_size": 5, **options})
    runner = task.runner(model, provider, work_dir=folder, device="cpu", seed=0, resume=False)
    if ticket is not None:
        runner.register_hook(TicketHook(ticket, "linear"))
    runner.train()
    return runner, before


@pytest.fixture(scope="module")
def ticket():
    torch.manual_seed(0)
    model = provider.build(depth=8, width=4, num_classes=3)
    return pxframe.prune(model, None, scorer="random", sparsity=0.5, exclude=("linear.*",))


def same(backbone, before, ticket):
    state = backbone.state_dict()
    for name, tensor in before.items():
        if not name.startswith("linear."):
            wanted = tensor * ticket.masks[name] if ticket is not None and name in ticket.masks else tensor
            assert torch.equal(state[name], wanted), name


TRAINED = [{"type": "Linear"}, {"type": "MLP", "hidden": [8], "dropout": 0.1}]


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("head", TRAINED)
def test_a_frozen_backbone_stays_bit_for_bit_while_its_head_learns(data, tmp_path, ticket, head, pruned):
    ticket = ticket if pruned else None
    runner, before = run(data, tmp_path, ticket, head=head, frozen=True, epochs=1, optimizer={"type": "SGD", "lr": 0})
    start = [p.clone() for p in runner.model.head.parameters()]
    runner, before = run(data, tmp_path, ticket, head=head, frozen=True, epochs=1)
    same(runner.model.backbone, before, ticket)
    assert not any(torch.equal(a, b) for a, b in zip(start, runner.model.head.parameters(), strict=True))
    assert all(p.grad is None for p in runner.model.backbone.parameters())


def test_without_frozen_the_backbone_learns(data, tmp_path):
    runner, before = run(data, tmp_path, epochs=1)
    with pytest.raises(AssertionError):
        same(runner.model.backbone, before, None)


def test_frozen_norms_keep_their_statistics_while_all_weights_learn(data, tmp_path):
    runner, before = run(data, tmp_path, frozen_norms=True, epochs=1)
    after = runner.model.backbone.state_dict()
    statistics = {name for name in after if name.endswith(("running_mean", "running_var"))}
    assert statistics
    for name, value in after.items():
        if name in statistics:
            assert torch.equal(value, before[name]), name
        elif value.is_floating_point():
            assert not torch.equal(value, before[name]), name


def test_freezing_needs_to_know_the_backbone():
    model = torch.nn.Linear(2, 2)
    settings = Training(epochs=1, frozen=True)
    with pytest.raises(PxframeError, match="'frozen' needs a model with the attribute 'backbone'"):
        pxframe.make_runner(
            model, settings, train=[], test=[], metric=None, work_dir=None, device="cpu", seed=0, resume=False
        )


FITTED = [{"type": "Ridge"}, {"type": "Ridge", "alpha": [0.1, 10.0]}, {"type": "KNN", "k": 5}]


@pytest.mark.parametrize("head", FITTED)
def test_a_fitted_head_sees_the_pruned_network_s_features_of_unaugmented_training_images(data, tmp_path, ticket, head):
    runner, before = run(data, tmp_path, ticket, head=head)
    model = runner.model.eval()
    same(model.backbone, before, ticket)
    mean, std = model.data_preprocessor.mean, model.data_preprocessor.std
    names = sorted(Path(data["train"]["root"]).glob("*/*.png"), key=lambda p: (p.parent.name, p.name))
    images = torch.stack([torch.from_numpy(np.array(Image.open(n))).permute(2, 0, 1) for n in reversed(names)])
    labels = torch.tensor(["bgr".index(n.parent.name) for n in reversed(names)])
    with torch.no_grad():
        features = model.backbone((images - mean) / std)
        kind = type(model.head)
        fresh = Ridge(16, 3, head.get("alpha", 1.0)) if kind is Ridge else KNN(16, 3, len(names), 5)
        fresh.fit(features, labels)  # in the other order
        torch.testing.assert_close(model.head(features), fresh(features), rtol=1e-4, atol=1e-4)
    assert not list(tmp_path.glob("*.pth")), "model.pth, which the job writes, is the only copy"
    assert runner.test()["accuracy"] > 50


@pytest.mark.parametrize("head", FITTED)
def test_test_images_do_not_influence_the_fit(data, tmp_path, head):
    one, _ = run(data, tmp_path / "one", head=head)
    other = {"type": FOLDER, "root": str(Path(data["test"]["root"]).with_name("other"))}
    two, _ = run({"train": data["train"], "test": other}, tmp_path / "two", head=head)
    a, b = one.model.head.state_dict(), two.model.head.state_dict()
    assert all(torch.equal(a[n], b[n]) for n in a)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"head": {"type": "KNN", "k": 0}}, ("'head'", "'k'", "1 to 24", "got 0")),
        ({"head": {"type": "KNN", "k": 25}}, ("'k'", "1 to 24")),
        ({"head": {"type": "KNN", "temperature": 0}}, ("'temperature'", "above 0")),
        ({"head": {"type": "Ridge", "alpha": 0}}, ("'alpha'", "above 0")),
        ({"head": {"type": "Ridge", "alpha": [1.0, -1.0]}}, ("'alpha'", "-1.0")),
        ({"head": {"type": "Ridge", "alpha": []}}, ("'alpha'", "empty")),
        ({"head": {"type": "Ridge", "alpha": "big"}}, ("'alpha'", "'big'")),
        ({"head": {"type": "Rigde"}}, ("'Rigde'", "did you mean 'Ridge'")),
        ({"head": {"type": "MLP", "hidden": [0]}, "epochs": 1}, ("'hidden'", "[0]")),
        ({"head": {"type": "MLP", "dropout": 1}, "epochs": 1}, ("'dropout'", "got 1")),
        ({"head": {"type": "Ridge"}, "epochs": 3}, ("'Ridge'", "fitted", "'epochs'")),
        ({"head": {"type": "KNN"}, "label_smoothing": 0.1}, ("fitted", "'label_smoothing'")),
        ({"head": {"type": "KNN"}, "optimizer": {"type": "SGD", "lr": 1.0}}, ("fitted", "'optimizer'")),
        ({"head": None, "frozen": True, "epochs": 1}, ("'frozen'", "'head'")),
        ({}, ("'epochs'",)),
    ],
)
def test_mistakes_cost_one_line(data, tmp_path, options, parts):
    with pytest.raises(PxframeError) as error:
        run(data, tmp_path, **options)
    text = str(error.value)
    assert "\n" not in text
    assert all(part in text for part in parts), text


def test_features_that_overflow_cost_one_line(data, tmp_path):
    with pytest.raises(PxframeError, match="not all finite"):
        run(data, tmp_path, head={"type": "Ridge"}, std=(1e-38, 1e-38, 1e-38))


def test_one_class_cannot_be_told_apart():
    with pytest.raises(PxframeError, match="one class"):
        Ridge(6, 3).fit(torch.randn(4, 6), torch.ones(4, dtype=torch.long))
