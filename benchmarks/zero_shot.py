"""What tickets of a pre-trained network give without any training, by scorer and refit.

    PXFRAME_DATA=... python benchmarks/zero_shot.py [--sparsity 0.9] [SCORER ...]

A ResNet-20 trained on CIFAR-10, whose convolutions are pruned with 1,000 training images; 3,000 test images. PX takes
100 rounds, many minutes on a CPU. The folder that PXFRAME_DATA names holds ``resnet20-12fca82f.th``,
``cifar10-train.zip`` and ``cifar10-test.zip``.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import pxframe
from pxframe.files.paths import locate

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
SCORERS: dict[str, Any] = {
    "magnitude": "magnitude",
    "lamp": "lamp",
    "wanda": "wanda",
    "wanda, erk": dict(type="wanda", distribution="erk"),
    "sparsegpt, erk": dict(type="sparsegpt", distribution="erk"),
    "fisher": "fisher",
    "cap": dict(type="cap", gradients=16),
    "snip": "snip",
    "px": "px",
}


def images(part: str, number: int) -> tuple[Tensor, Tensor]:
    """``number`` normalised images, evenly over the classes, and their labels."""
    folder, draw = Path(locate(f"$PXFRAME_DATA/cifar10-{part}/cifar10/{part}")), np.random.default_rng(0)
    found, labels = [], []
    for label, kind in enumerate(sorted(folder.iterdir())):
        files = sorted(kind.iterdir())
        for at in draw.permutation(len(files))[: number // 10]:
            found.append((torch.from_numpy(np.array(Image.open(files[at]).convert("RGB"))) / 255 - MEAN) / STD)
            labels.append(label)
    order = torch.from_numpy(draw.permutation(len(found)))
    return torch.stack(found).permute(0, 3, 1, 2)[order], torch.tensor(labels)[order]


def accuracy(model: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    with torch.no_grad():
        guesses = torch.cat([model(part).argmax(1) for part in data[0].split(500)])
    return 100 * float((guesses == data[1]).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("scorers", nargs="*", choices=SCORERS)
    args = parser.parse_args()
    checkpoint = str(locate("$PXFRAME_DATA/resnet20-12fca82f.th"))
    model = pxframe.build_backbone(dict(type="cifar_resnet", depth=20, checkpoint=checkpoint)).eval()
    inputs, labels = images("train", 1000)
    batches = list(zip(inputs.split(250), labels.split(250), strict=True))
    test = images("test", 3000)
    print(f"dense {accuracy(model, test):.1f}", flush=True)
    for name in args.scorers or SCORERS:
        found = {}
        for refit in ("keep", "bn", "obs"):
            settings = dict(scorer=SCORERS[name], sparsity=args.sparsity, exclude="linear.*", refit=refit)
            sparse = copy.deepcopy(model)
            ticket = pxframe.prune(model, batches, **settings, allow_collapse=True)
            ticket.rewind(sparse)
            found[refit] = accuracy(sparse, test)
        print(f"{name}: {', '.join(f'{refit} {value:.1f}' for refit, value in found.items())}", flush=True)


if __name__ == "__main__":
    main()
