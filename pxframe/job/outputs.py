"""The file that each stage of a job leaves, of a job of one seed."""

from __future__ import annotations

from pathlib import Path

from pxframe.job.job import Job


def pretrained_file(job: Job) -> Path:
    """The weights of the backbone after the ``pretrain`` task."""
    return job.folder / "pretrained.safetensors"


def tickets_folder(job: Job, task: str | None = None) -> Path:
    """Where tickets lie, as NAME.safetensors: those of the backbone, or those of a task's whole model."""
    return job.folder / "tickets" if task is None else job.folder / "tickets" / task


def weights_file(job: Job, name: str) -> Path:
    """A ticket with the weights that its own training on ``pretrain`` left (``transfer="mask+weights"``)."""
    return tickets_folder(job) / f"{name}+weights.safetensors"


def result_file(job: Job, task: str, variant: str) -> Path:
    """The row of results of a task trained with a ticket; its folder has all else that this run leaves."""
    return job.folder / task / variant / "result.json"
