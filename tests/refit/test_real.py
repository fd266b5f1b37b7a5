"""The pre-trained ResNet-20 on real images: what a refit gives back of its accuracy, without any training."""

import copy
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pxframe
from pxframe.base.errors import PxframeError
from pxframe.base.paths import locate

pytestmark = pytest.mark.slow


def images(part, number):
    """``number`` of the images, evenly over the classes, normalised as the network was trained."""
    if "PXFRAME_DATA" not in os.environ:
        pytest.skip("PXFRAME_DATA is not set")
    try:
        folder = Path(locate(f"$PXFRAME_DATA/cifar10-{part}/cifar10/{part}"))
    except PxframeError as error:
        pytest.skip(str(error))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    order, found, labels = np.random.default_rng(0), [], []
    for label, kind in enumerate(sorted(folder.iterdir())):
        files = sorted(kind.iterdir())
        for at in order.permutation(len(files))[: number // 10]:
            found.append((torch.from_numpy(np.array(Image.open(files[at]).convert("RGB"))) / 255 - mean) / std)
            labels.append(label)
    mixed = torch.from_numpy(order.permutation(len(found)))
    return torch.stack(found).permute(0, 3, 1, 2)[mixed], torch.tensor(labels)[mixed]


def test_refits_give_back_what_they_promise():
    """From 10 % at a sparsity of 90 %, with a thousand images."""
    x, _ = images("train", 1000)
    test, labels = images("test", 3000)
    checkpoint = locate("$PXFRAME_DATA/resnet20-12fca82f.th")
    model = pxframe.build_backbone(dict(type="cifar_resnet", depth=20, checkpoint=str(checkpoint))).eval()
    batches = [(part, None) for part in x.split(250)]
    found = {}
    for refit in ("keep", "bn", "obs"):
        sparse = copy.deepcopy(model)
        pxframe.prune(model, batches, "magnitude", sparsity=0.9, exclude="linear.*", refit=refit).rewind(sparse)
        with torch.no_grad():
            right = torch.cat([sparse(part).argmax(1) for part in test.split(500)]) == labels
        found[refit] = 100 * float(right.float().mean())
    assert found["keep"] < 20
    assert found["bn"] >= 34
    assert found["obs"] >= 44
