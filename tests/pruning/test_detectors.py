"""torchvision's detectors as they are: lists of images and targets in, losses out."""

import pytest
import torch
from refusal import refused
from torch import nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

import pxframe


class Tiny(nn.Sequential):
    """A backbone of one feature map."""

    out_channels = 32  # the heads' group norm has 32 groups

    def __init__(self):
        super().__init__(nn.Conv2d(3, 8, 3, stride=8, padding=1), nn.ReLU(), nn.Conv2d(8, 32, 1))


def anchors(sizes=(16,), ratios=(1.0,)):
    return AnchorGenerator((sizes,), (ratios,))


DETECTORS = {
    "fcos": lambda **view: FCOS(Tiny(), 3, anchor_generator=anchors(), **view),
    "retinanet": lambda **view: RetinaNet(Tiny(), 3, anchor_generator=anchors(), **view),
    "fasterrcnn": lambda **view: FasterRCNN(Tiny(), 3, rpn_anchor_generator=anchors(), **view),
}


def batch(*sizes):
    """Images of different sizes; the second has no object."""
    some = {"boxes": torch.tensor([[2.0, 3.0, 20.0, 24.0]] * 3), "labels": torch.tensor([1, 2, 1])}
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    images = [torch.rand(3, *size) for size in sizes]
    return (images, [some, none][: len(images)]), None


def loss(losses, _):
    return torch.stack(list(losses.values())).sum()


def detector(name):
    torch.manual_seed(0)
    return DETECTORS[name](min_size=32, max_size=48).train()


@pytest.mark.parametrize("name", DETECTORS)
def test_where_paths_are_asked_for_a_detector_is_refused_with_a_way_out_that_leads_somewhere(name):
    model = detector(name).eval()
    advice = "only scorers that read no paths can prune the whole model; any other can prune a sub-module"
    pair = batch((32, 40))
    refused(lambda: pxframe.score(model, [pair], "px"), "asks for the values", advice, "pxframe.prune(model.backbone")
    refused(lambda: pxframe.score(model, [((pair[0][0],), None)], "px"), "aten.copy", advice)
    ticket = pxframe.prune(model.backbone, [(torch.rand(2, 3, 32, 40), None)], "px", sparsity=0.5, rounds=1)
    assert ticket.apply(model) == "backbone."


@pytest.mark.parametrize("name", DETECTORS)
def test_snip_scores_the_gradient_of_the_detectors_losses(name):
    model, pair = detector(name), batch((32, 40), (36, 32))
    torch.manual_seed(1)
    scores = pxframe.score(model, [pair], "snip", loss=loss, seed=3)
    assert all(torch.isfinite(score).all() for score in scores.values())
    assert any(".0.weight" in key and score.any() for key, score in scores.items() if key.startswith("backbone"))
    if name == "fasterrcnn":
        return  # it draws the boxes that count, so its losses are others each time
    total = loss(model(*pair[0]), None)
    for key, gradient in zip(scores, torch.autograd.grad(total, map(model.get_parameter, scores)), strict=True):
        expected = (gradient * model.get_parameter(key)).abs()
        torch.testing.assert_close(scores[key], expected.detach(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("scorer", ["snip", "magnitude", "grasp", "iter_snip"])
@pytest.mark.parametrize("name", DETECTORS)
def test_a_whole_detector_is_pruned(name, scorer):
    model, batches = detector(name), [batch((32, 40), (36, 32)), batch((40, 40))]
    prune = lambda: pxframe.prune(model, batches, scorer, sparsity=0.5, rounds=2, loss=loss)  # noqa: E731
    if (name, scorer) == ("fasterrcnn", "grasp"):
        refused(prune, "double backwards on roi_align not supported")
    else:
        ticket = prune()
        assert ticket.kept == ticket.total // 2


@pytest.mark.parametrize("scorer", ["px", dict(type="px", variant="joint"), "synflow"], ids=str)
def test_path_methods_refuse_the_detector_and_read_its_backbone(scorer):
    model = detector("fcos")
    refused(lambda: pxframe.prune(model, [batch((32, 40), (36, 32))], scorer, sparsity=0.5), "values of a tensor")
    ticket = pxframe.prune(model.backbone, [(torch.rand(2, 3, 32, 32), None)], scorer, sparsity=0.5, rounds=1)
    assert ticket.kept == ticket.total // 2
