"""Small whole models for the tests of this folder: torchvision's detectors, mmseg's DeepLabV3+."""

import torch
from torch import nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN

import pxframe


class Features(nn.Sequential):
    """Two maps, the second from the first; the pyramid adds a third."""

    def __init__(self):
        first = nn.Sequential(nn.Conv2d(3, 12, 3, stride=4, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        second = nn.Sequential(nn.Conv2d(12, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        super().__init__(first, second)


def pyramid():
    return BackboneWithFPN(Features(), {"0": "0", "1": "1"}, [12, 16], 32)


def anchors():
    return AnchorGenerator(((8,), (16,), (32,)), ((1.0,),) * 3)


SIZE = {"min_size": 64, "max_size": 64}
DETECTORS = {
    "fcos": lambda: FCOS(pyramid(), 3, anchor_generator=anchors(), **SIZE),
    "retinanet": lambda: RetinaNet(pyramid(), 3, anchor_generator=anchors(), **SIZE),
    "fasterrcnn": lambda: FasterRCNN(pyramid(), 3, rpn_anchor_generator=anchors(), **SIZE),
}


def before_picking(detector, x):
    """What a detector makes before it picks boxes, of images ``[N, 3, H, W]``; RoI heads of one box an image."""
    maps = detector.backbone(x)
    if not hasattr(detector, "rpn"):
        return list(detector.head(list(maps.values())).values())
    roi = detector.roi_heads
    boxes = [torch.tensor([[4.0, 6.0, 40.0, 30.0]])] * len(x)
    parts = roi.box_roi_pool(maps, boxes, [x.shape[-2:]] * len(x))
    scores, shifts = detector.rpn.head(list(maps.values()))
    return [*scores, *shifts, *roi.box_predictor(roi.box_head(parts))]


def deeplab(depth=18):
    """mmseg's DeepLabV3+ on a narrow ResNet, for three classes."""
    from pxframe_tasks.segmentation.openmmlab import import_mmseg

    import_mmseg()
    from mmengine.registry import DefaultScope
    from mmseg.registry import MODELS

    norm = {"type": "BN"}
    wide = 256 if depth >= 50 else 64
    backbone = {
        "type": "ResNetV1c",
        "depth": depth,
        "base_channels": 8,
        "stem_channels": 8,
        "dilations": (1, 1, 2, 4),
        "strides": (1, 2, 1, 1),
        "norm_cfg": norm,
        "contract_dilation": True,
    }
    head = {
        "type": "DepthwiseSeparableASPPHead",
        "in_channels": wide,
        "in_index": 3,
        "channels": 16,
        "dilations": (1, 2, 4),
        "c1_in_channels": wide // 8,
        "c1_channels": 4,
        "num_classes": 3,
        "norm_cfg": norm,
        "align_corners": False,
        "loss_decode": {"type": "CrossEntropyLoss", "avg_non_ignore": True},
    }
    with DefaultScope.overwrite_default_scope("mmseg"):
        return MODELS.build({"type": "EncoderDecoder", "backbone": backbone, "decode_head": head})


def without_rows(model, share, stay):
    """A ticket without a random share of the outputs of every layer whose name has none of ``stay`` in it."""
    generator = torch.Generator().manual_seed(0)
    masks = {}
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and not any(part in name for part in stay):
            masks[name] = torch.ones_like(parameter, dtype=torch.bool)
            masks[name][torch.randperm(len(parameter), generator=generator)[: int(share * len(parameter))]] = False
    return pxframe.Ticket(masks)


def shaken(model):
    """The same model with numbers that a trained one might have in its norms and biases, in eval mode."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.5)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.5)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()
