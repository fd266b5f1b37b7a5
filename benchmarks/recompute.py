"""Scores of a finished job, computed again from its saved predictions by scikit-learn's confusion matrix alone.

python benchmarks/recompute.py CONFIG WORK_DIR

For jobs whose tasks have ``save_predictions=True``. Labels are read from the data set's own files; none of the code
that gave the scores takes part. Prints, for each task, the number of runs and the largest difference.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.metrics import confusion_matrix

from pxframe.job.config import load_config
from pxframe.job.job import Job


def accuracy(task: Any, folder: Path) -> float:
    """Percent of images on the confusion matrix's diagonal."""
    found = json.loads((folder / "predictions.json").read_text(encoding="utf-8"))
    matrix = confusion_matrix(task.dataset("test").targets, found["predicted"])
    return 100 * float(np.trace(matrix) / matrix.sum())


def mean_iou(task: Any, folder: Path) -> float:
    """Percent; mean over the classes that are labelled or predicted anywhere."""
    dataset = task.dataset("test")
    classes = len(dataset.metainfo["classes"])
    total = np.zeros((classes, classes), dtype=np.int64)
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        label = np.asarray(Image.open(info["seg_map_path"]))
        predicted = np.asarray(Image.open(folder / "predictions" / f"{Path(info['img_path']).stem}.png"))
        counted = label != task.ignore_index
        total += confusion_matrix(label[counted], predicted[counted], labels=range(classes))
    union = total.sum(0) + total.sum(1) - np.diag(total)
    return 100 * float(np.mean(np.diag(total)[union > 0] / union[union > 0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("work_dir", type=Path)
    args = parser.parse_args()
    job = Job.from_config(load_config(args.config), work_dir=args.work_dir)
    folders = {repetition.seed: repetition.folder for repetition in job.repetitions()}
    differences: dict[str, list[float]] = defaultdict(list)
    for row in json.loads((args.work_dir / "results.json").read_text(encoding="utf-8"))["rows"]:
        if row["value"] is None:  # a ticket that collapsed was not trained
            continue
        again = {"accuracy": accuracy, "mIoU": mean_iou}[row["metric"]]
        folder = folders[row["seed"]] / row["task"] / row["variant"]
        differences[row["task"]].append(abs(again(job.tasks[row["task"]], folder) - row["value"]))
    for name, found in differences.items():
        print(f"{name}: {len(found)} runs, largest difference {max(found):.4f} points")


if __name__ == "__main__":
    main()
