"""The jobs on real photographs: all load, and where the data are, every task takes a step of training and a test."""

import os
from pathlib import Path

import pytest

from pxframe.job.config import load_config
from pxframe.job.job import Job
from pxframe.job.prunings import prunings
from pxframe.stages.rehearsal import rehearse

FILES = sorted((Path(__file__).parents[2] / "configs" / "real").glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_names_its_tickets(file):
    config = load_config(file)
    assert config.seeds == (0, 1, 2)
    assert len(prunings(config.prune)) > 1


@pytest.mark.slow
@pytest.mark.skipif("PXFRAME_DATA" not in os.environ, reason="needs real images and a real network: set PXFRAME_DATA")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_task_takes_a_step(file, tmp_path):
    rehearse(Job.from_config(load_config(file), work_dir=tmp_path), print)
