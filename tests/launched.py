"""Starting a job in one process, or in several through torchrun's module; a config that takes seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path

TRANSFER = Path(__file__).parents[1] / "tools" / "transfer.py"
#: No augmentation and no dropout: random draws differ from process to process.
CONFIG = """
_data, _folder = {data!r}, "torchvision.datasets.ImageFolder"
_digits = dict(
    type="classification",
    prepare=dict(
        type="pxframe_tasks.demo.digits.write_folders", root=_data + "/digits", size=8, classes=[0, 1, 2],
        part=(0.0, 0.4),
    ),
    data=dict(
        train=dict(type=_folder, root=_data + "/digits/train"), test=dict(type=_folder, root=_data + "/digits/test")
    ),
    epochs=1,
    batch_size=16,
    amp="float32",
    optimizer=dict(type="SGD", lr=0.05, momentum=0.9),
)

def _scenes(split):
    return dict(
        type="BaseSegDataset",
        data_root=_data + "/scenes",
        metainfo=dict(classes=["background", *map(str, range(10))]),
        ann_file=f"ImageSets/Segmentation/{{split}}.txt",
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
        pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")],
    )

_segmentation = dict(
    type="segmentation",
    prepare=dict(type="pxframe_tasks.demo.digits.write_scenes", root=_data + "/scenes", train=9, test=5, size=32),
    data=dict(train=_scenes("train"), test=_scenes("val")),
    head=dict(type="FCNHead", channels=8, num_convs=1, dropout_ratio=0.0, norm_cfg=dict(type="BN"),
              align_corners=False),
    out_indices=(0, 1),  # the last stage is left unread: its weights have no gradient
    epochs=2,
    batch_size=4,
    amp="float32",
    save_predictions=True,
)
_names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_boxes = dict(
    type="detection",
    prepare=_segmentation["prepare"],
    data=dict(
        train=dict(type="VOCBoxes", root=_data + "/scenes", split="train", classes=_names),
        test=dict(type="VOCBoxes", root=_data + "/scenes", split="val", classes=_names),
    ),
    head=dict(type="RetinaNet"),
    fpn=dict(out_channels=8, maps=[1, 2]),
    anchors=dict(sizes=[[10], [14], [18], [24]], aspect_ratios=[[1]] * 4),
    min_size=32,
    max_size=64,
    epochs=1,
    batch_size=4,
    amp="float32",
    save_predictions=True,
)
backbone = dict(type="cifar_resnet", depth=8, width=4, num_classes=3)
pretrain = dict(_digits, head=None, epochs=2)
prune = dict(scorer=["px", "snip"], sparsity=0.7, rounds=2, samples=30, batch_size=6, controls=[])
tasks = dict(
    digits=dict(_digits, save_predictions=True),
    ridge=dict(
        _digits, epochs=None, optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=5e-4), amp=None,
        head=dict(type="Ridge"),
    ),
    scenes=_segmentation,
    boxes=_boxes,
)
"""


def written(folder):
    """The config file, in ``folder``; its data go there too."""
    file = folder / "job.py"
    file.write_text(CONFIG.format(data=str(folder / "data")))
    return file


def command(processes, *arguments):
    """The command that runs a job in so many processes."""
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *(several if processes > 1 else []), str(TRANSFER), *map(str, arguments)]


def started(processes, *arguments):
    return subprocess.Popen(
        command(processes, *arguments),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(processes, *arguments):
    """Run a job to its end: exit code, stdout and stderr."""
    process = started(processes, *arguments)
    out, err = process.communicate()
    return process.returncode, out, err


def rows(work):
    """The results by task and variant."""
    found = json.loads((work / "results.json").read_text())["rows"]
    return {(row["task"], row["variant"]): row for row in found}


def own_lines(err):
    """What the job itself said on stderr; the launcher adds lines of its own, and a traceback of itself."""
    return [line for line in err.splitlines() if line.startswith(("error: ", "stopped", "usage: "))]
