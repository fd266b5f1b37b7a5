"""The pre-trained ResNet-20 on real images: what a refit gives back of its accuracy, without any training."""

import copy
import importlib.util
import os
from pathlib import Path

import pytest

import pxframe
from pxframe.base.errors import PxframeError
from pxframe.files.paths import locate

PATH = Path(__file__).parents[2] / "benchmarks" / "zero_shot.py"
spec = importlib.util.spec_from_file_location("zero_shot", PATH)
zero_shot = importlib.util.module_from_spec(spec)
spec.loader.exec_module(zero_shot)

pytestmark = pytest.mark.slow


def images(part, number):
    if "PXFRAME_DATA" not in os.environ:
        pytest.skip("PXFRAME_DATA is not set")
    try:
        return zero_shot.images(part, number)
    except PxframeError as error:
        pytest.skip(str(error))


def test_refits_give_back_what_they_promise():
    """From 10 % at a sparsity of 90 %, with a thousand images."""
    x, _ = images("train", 1000)
    test = images("test", 3000)
    checkpoint = locate("$PXFRAME_DATA/resnet20-12fca82f.th")
    model = pxframe.build_backbone(dict(type="cifar_resnet", depth=20, checkpoint=str(checkpoint))).eval()
    batches = [(part, None) for part in x.split(250)]
    found = {}
    for refit in ("keep", "bn", "obs"):
        sparse = copy.deepcopy(model)
        pxframe.prune(model, batches, "magnitude", sparsity=0.9, exclude="linear.*", refit=refit).rewind(sparse)
        found[refit] = zero_shot.accuracy(sparse, test)
    assert found["keep"] < 20
    assert found["bn"] >= 34
    assert found["obs"] >= 44
