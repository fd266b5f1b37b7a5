"""Float32 suffices on deep and wide networks as people use them."""

import pytest
import torch
import torchvision
import zoo

import pxframe
from pxframe.network.net import Net
from pxframe.scoring.paths import jacobian_norms

MODELS = {"resnet152": torchvision.models.resnet152, "deeplab": lambda: zoo.DeepLab(full=True)}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_scores_are_finite_and_not_all_lost_to_underflow(name):
    torch.manual_seed(0)
    model = MODELS[name]()
    batches = [(torch.randn(2, 3, 64, 64), None)]
    for scorer in ("px",) if name == "resnet152" else ("px", "synflow"):
        scores = pxframe.score(model, batches, scorer=scorer)
        for layer, score in scores.items():
            assert score.dtype == torch.float32
            assert torch.isfinite(score).all(), layer
            if scorer == "px":  # SynFlow's low-level branch of DeepLab is 2**-151 of the whole: lost to underflow
                # Dilated by more than the map is wide, a kernel's outer weights see padding only.
                assert (score > 0).double().mean() > (0.0 if "aspp" in layer else 0.9), layer


@pytest.mark.slow
def test_counts_of_resnet152_exceed_float32():
    """What the exponents are for: the plain number fits no float32, nor a double."""
    torch.manual_seed(0)
    model = torchvision.models.resnet152()
    net = Net(model, {n: torch.ones_like(p, dtype=torch.bool) for n, p in model.named_parameters() if p.ndim > 1})
    by_paths, by_weights = jacobian_norms(net, [(torch.randn(1, 3, 64, 64), None)])
    assert 1024 < by_paths.log2() < 1e4
    assert float(by_paths) == float("inf")
    assert torch.isfinite(by_weights.log2())
