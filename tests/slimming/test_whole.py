"""Whole models: detectors, whose outputs are picked among numbers, and mmseg's segmentors."""

import copy

import pytest
import torch
from slim_networks import DETECTORS, before_picking, deeplab, shaken, without_rows
from torch import nn
from torchvision.models import detection

import pxframe
from pxframe.slimming.build import TOLERANCE
from pxframe.slimming.choices import Choices, OtherOperations
from pxframe.slimming.compare import Wanted, apart

#: Parts of the names of layers that make what is picked.
LAST = ("cls_logits", "bbox_reg", "bbox_pred", "bbox_ctrness", "cls_score")


def smaller(model, found):
    sizes = [sum(p.numel() for p in network.parameters()) for network in (model, found.model)]
    return sizes[1] / sizes[0]


@pytest.mark.parametrize("name", DETECTORS)
def test_detectors(name):
    torch.manual_seed(0)
    model = shaken(DETECTORS[name]())
    ticket = without_rows(model, 0.4, LAST)
    found = pxframe.slim(model, ticket, ([torch.rand(3, 64, 64)],))
    assert {name.partition(".")[0] for name in found.channels} >= {"backbone"}
    assert name != "fasterrcnn" or {"rpn.head.conv.0.0", "roi_heads.box_head.fc6"} <= found.channels.keys()
    assert name != "retinanet" or "head.regression_head.conv.0.0" in found.channels
    assert found.error < TOLERANCE
    assert smaller(model, found) < 0.95
    masked = copy.deepcopy(model)
    ticket.apply(masked)
    x = torch.randn(2, 3, 64, 48)
    with torch.no_grad():  # pxframe's own comparison is not used here
        for one, other in zip(before_picking(masked, x), before_picking(found.model, x), strict=True):
            assert (one - other).abs().max() < 1e-5 * one.abs().max()
        assert found.model([x[0]])[0].keys() == {"boxes", "labels", "scores"}


def test_a_detector_s_backbone_alone():
    torch.manual_seed(0)
    detector = shaken(DETECTORS["fasterrcnn"]())
    masked = copy.deepcopy(detector)
    ticket = without_rows(detector.backbone, 0.4, [])
    ticket.apply(masked)
    images = torch.randn(2, 3, 64, 64)
    detector.backbone = pxframe.slim(detector.backbone, ticket, images).model
    assert detector.backbone.body["0"][0].out_channels < 12
    with torch.no_grad():
        for one, other in zip(before_picking(masked, images), before_picking(detector, images), strict=True):
            assert (one - other).abs().max() < 1e-5 * one.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fasterrcnn_mobilenet_v3_large_320_fpn", "ssdlite320_mobilenet_v3_large"])
def test_real_detectors(name):
    torch.manual_seed(0)
    model = shaken(getattr(detection, name)(weights=None, weights_backbone=None, num_classes=4))
    stay = (*LAST, "head.classification_head", "head.regression_head")
    found = pxframe.slim(model, without_rows(model, 0.4, stay), ([torch.rand(3, 96, 96)],))
    assert found.error < TOLERANCE
    assert smaller(model, found) < 0.6


@pytest.mark.parametrize("depth", [18, 50])
def test_deeplab_v3_plus_of_mmseg(depth):
    torch.manual_seed(0)
    model = shaken(deeplab(depth))
    ticket = without_rows(model, 0.4, ["conv_seg"])
    found = pxframe.slim(model, ticket, torch.randn(2, 3, 64, 64))
    assert {"decode_head.bottleneck.conv", "decode_head.sep_bottleneck.0.depthwise_conv.conv"} <= found.channels.keys()
    assert smaller(model, found) < 0.7
    masked = copy.deepcopy(model)
    ticket.apply(masked)
    x = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        one, other = masked(x, mode="tensor"), found.model(x, mode="tensor")
    assert (one - other).abs().max() < 1e-5 * one.abs().max()


class Boxes(nn.Module):
    """It gives the rows of ``b`` where ``c`` is above a threshold. One row of ``b`` takes a channel by its number."""

    def __init__(self, threshold, by_number=False):
        super().__init__()
        self.a = nn.Conv2d(3, 6, 1)
        self.b = nn.Conv2d(6, 2, 1)
        self.c = nn.Conv2d(6, 1, 1)
        self.threshold = threshold
        self.by_number = by_number

    def forward(self, x):
        h = self.a(x).relu()
        boxes, scores = self.b(h), self.c(h)
        if self.by_number:
            boxes = self.b(torch.cat([h[:, 3:4], h[:, 1:]], 1))
        return boxes.movedim(1, -1)[(scores > self.threshold)[:, 0]]


def rows_of(model, **rows):
    masks = {n: torch.ones_like(p, dtype=torch.bool) for n, p in model.named_parameters() if p.ndim > 1}
    for name, gone in rows.items():
        masks[f"{name}.weight"][gone] = False
    return pxframe.Ticket(masks)


def test_where_nothing_is_picked_there_is_still_a_proof():
    """No box is above the threshold, so the outputs are empty whatever is taken out."""
    torch.manual_seed(0)
    for threshold in (1e9, -1e9):
        model = Boxes(threshold, by_number=True).eval()
        found = pxframe.slim(model, rows_of(model, a=[0, 2]), torch.randn(2, 3, 4, 4))
        assert found.channels == {}
        assert list(found.whole) == ["a"]
    model = Boxes(1e9).eval()
    assert pxframe.slim(model, rows_of(model, a=[0, 2]), torch.randn(2, 3, 4, 4)).channels == {"a": (6, 4)}


def test_integers_alone_are_no_proof_but_what_they_are_picked_from():
    class Classes(Boxes):
        def forward(self, x):
            return self.b(self.a(x).relu()).argmax(1)

    torch.manual_seed(0)
    model = Classes(0.0).eval()
    x = [torch.randn(2, 3, 4, 4)]
    wanted, other = Wanted(model, x), copy.deepcopy(model)
    assert wanted.difference(other) == 0.0
    with torch.no_grad():
        other.b.bias += 1e-2  # both classes, so the classes are the same
    assert torch.equal(other(x[0]), model(x[0]))
    assert wanted.difference(other) > 1e-3


def test_a_near_tie_that_rounding_turns_is_no_difference():
    """The second network's scores are a millionth off, and in another order."""

    class Sorted(nn.Module):
        def __init__(self, shift):
            super().__init__()
            self.layer = nn.Linear(1, 1)
            self.register_buffer("scores", torch.tensor([1.0, 1.0 + shift]))

        def forward(self, x):
            order = self.scores.argsort()
            return self.layer(x)[order], order

    x = torch.tensor([[1.0], [100.0]])
    model, other = Sorted(5e-7).eval(), Sorted(-5e-7).eval()
    other.layer.load_state_dict(model.layer.state_dict())
    assert not torch.equal(model(x)[0], other(x)[0])
    assert Wanted(model, [x]).difference(other) < 2e-6
    far = Sorted(-1e-2).eval()
    far.layer.load_state_dict(model.layer.state_dict())
    assert Wanted(model, [x]).difference(far) > 1e-3


def test_choices_of_other_operations_are_not_taken():
    x = torch.tensor([3.0, 1.0, 2.0])
    with Choices() as noted:
        assert x.argmax() == 0
    with Choices(noted.noted):
        assert (-x).argmax() == 0
    with pytest.raises(OtherOperations), Choices(noted.noted):
        x.sort()
    with pytest.raises(OtherOperations), Choices([]):
        x.argmax()


def test_differences():
    inf, nan = float("inf"), float("nan")
    one = torch.tensor([1.0, -4.0, inf])
    assert apart([one], [one]) == 0.0
    assert apart([one], [torch.tensor([1.5, -4.0, inf])]) == 0.125
    for other in ([1.0, -4.0, 5.0], [nan, -4.0, inf], [1.0, -4.0, -inf], [1.0, -4.0]):
        assert apart([one], [torch.tensor(other)]) == inf
    assert apart([torch.tensor([nan])], [torch.tensor([nan])]) == inf
    assert apart([torch.zeros(0, 4)], [torch.zeros(1, 4)]) == inf


def test_a_part_that_passes_no_gradient_gets_smaller_too():
    class Proposing(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(3, 6, 1)
            self.b = nn.Conv2d(6, 5, 1)
            self.c = nn.Conv2d(5, 3, 1)
            self.d = nn.Conv2d(6, 2, 1)

        def forward(self, x):
            h = self.a(x).relu()
            return self.d(h), self.c(self.b(h).relu()).argmax(1)

    torch.manual_seed(0)
    model = Proposing().eval()
    found = pxframe.slim(model, rows_of(model, a=[1], b=[0, 3]), torch.randn(2, 3, 4, 4))
    assert found.channels == {"a": (6, 5), "b": (5, 3)}


def test_an_example_that_the_model_does_not_take():
    model = DETECTORS["fcos"]().eval()
    ticket = without_rows(model, 0.4, LAST)
    with pytest.raises(pxframe.PxframeError, match=r"the model cannot be called with the example \(.*\(\[image\],\)"):
        pxframe.slim(model, ticket, [torch.rand(3, 64, 64)])
