"""Variables expand in every path of a data set's config, not in its root alone."""

import pytest

from pxframe.base.errors import PxframeError
from pxframe.images.task import TrainedTask


class Pictures(TrainedTask):
    """A task whose data set is what it would be built from."""

    name = "pictures"

    def __init__(self, **config):
        self.data = {"train": {"type": "Images", **config}}

    def build_dataset(self, config, split):
        return config


def test_every_path_of_a_data_set_expands(tmp_path, monkeypatch):
    monkeypatch.setenv("SOMEWHERE", str(tmp_path))
    task = Pictures(root="$SOMEWHERE", csv_file="$SOMEWHERE/x.csv")
    assert task.dataset("train") == {"type": "Images", "root": str(tmp_path), "csv_file": f"{tmp_path}/x.csv"}
    assert task.data["train"]["csv_file"] == "$SOMEWHERE/x.csv"


def test_an_unset_variable_names_task_and_key(monkeypatch):
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(PxframeError, match=r"pictures.*data\['train'\]\['csv_file'\]: .*NOWHERE is not set") as error:
        Pictures(csv_file="$NOWHERE/x.csv").dataset("train")
    assert "\n" not in str(error.value)
