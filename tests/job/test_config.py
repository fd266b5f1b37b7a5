"""Configs: overrides, names, and one line for each mistake."""

import pkgutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pxframe.base.errors import PxframeError
from pxframe.job.config import find_config, load_config
from pxframe.job.job import Job
from pxframe.ticket.ticket import Ticket

GIVEN = ("mine", Ticket({"conv1.weight": torch.ones(16, 3, 3, 3, dtype=torch.bool)}))

GOOD = """
_size = 8
backbone = dict(type="cifar_resnet", depth=8)
prune = dict(scorer="magnitude", sparsity=0.5, data=dict(type="classification", data=dict(train={}, test={}), epochs=1))
tasks = dict()
"""


@pytest.fixture
def write(tmp_path):
    def config(text, name="mine.py"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return config


def test_defaults_and_overrides(write):
    config = load_config(write(GOOD), {"prune.sparsity": 0.7, "backbone.depth": 14})
    assert config.prune.sparsity == 0.7
    assert config.backbone["depth"] == 14
    assert config.work_dir == Path("work_dirs/mine")
    assert config.seeds == (0,)
    assert not hasattr(config, "_size")


def test_modules_beside_the_config_and_custom_imports_are_found(write, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "beside_this_config.py").write_text("import torch\nclass Head(torch.nn.Linear): pass\n")
    load_config(write(GOOD + "custom_imports = dict(imports=['beside_this_config'])\n"))
    assert pkgutil.resolve_name("beside_this_config.Head")
    with pytest.raises(PxframeError, match="no_such_module_here"):
        load_config(write(GOOD + "custom_imports = dict(imports=['no_such_module_here'])\n"))


def test_an_override_of_a_task_that_is_not_there_names_near_ones(write):
    config = write(GOOD + "tasks = dict(fine_tuned=dict(type='classification'))\n")
    with pytest.raises(PxframeError, match="'fintuned' has no 'type'; did you mean 'fine_tuned'"):
        load_config(config, {"tasks.fintuned.epochs": 3})


def test_variables_in_the_work_dir_are_expanded(write, monkeypatch):
    monkeypatch.setenv("MINE_OUT", "/somewhere")
    assert load_config(write(GOOD + "work_dir = '$MINE_OUT/run'\n")).work_dir == Path("/somewhere/run")
    with pytest.raises(PxframeError, match="variable MINE_NOT is not set"):
        load_config(write(GOOD + "work_dir = '$MINE_NOT/run'\n"))


@pytest.mark.parametrize(
    "name", ["../../x", "/tmp/x", "a/b", "", 3, "tickets", "set-aside", "seed-3", "x" * 300, "a\0b", ".a"]
)
def test_task_names_are_names_of_folders(write, name):
    with pytest.raises(PxframeError, match="cannot be the name of a task"):
        load_config(write(GOOD + f"tasks = {{{name!r}: dict(type='classification')}}\n"))


def test_configs_of_the_package_are_found_by_name():
    assert find_config("quickstart").samefile(find_config("configs/quickstart.py"))
    assert find_config("real/short").name == "short.py"


@pytest.mark.parametrize("name", ["quickstart", "real/short", "real/long"])
def test_every_config_of_the_package_loads(name):
    config = load_config(name)
    assert config.tasks


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "sede = 1\n", "there is no key 'sede'; did you mean 'seed'"),
        (GOOD.replace("sparsity", "sparsty"), "prune: there is no key 'sparsty'; did you mean 'sparsity'"),
        (GOOD.replace("tasks = dict()", ""), "needs a dict 'tasks'"),
        (GOOD + "tasks = dict(digits=3)\n", "'digits' must be a dict"),
        (GOOD + "1 / 0\n", "ZeroDivisionError: division by zero"),
        (GOOD + "def\n", "SyntaxError"),
        (GOOD + "seed = [[0, 1]]\n", "'seed' must be a whole number from 0 to 2"),
        (GOOD + "seed = 2**32\n", "'seed' must be a whole number from 0 to 2"),
        (GOOD + "tasks = dict(tickets=dict(type='classification'))\n", "'tickets' cannot be the name of a task"),
        (GOOD + "seed = [1, 1]\n", "'seed' must be a whole number from 0 to 2"),
    ],
)
def test_mistakes_in_a_config_cost_one_line(write, text, message):
    with pytest.raises(PxframeError, match=message) as caught:
        load_config(write(text))
    assert "\n" not in str(caught.value)
    assert "mine.py" in str(caught.value)


def test_a_missing_config_names_near_matches():
    with pytest.raises(PxframeError, match=r"no config 'quickstrat.py'; did you mean 'quickstart.py'"):
        load_config("quickstrat.py")


@pytest.mark.parametrize(
    ("overrides", "arguments", "message"),
    [
        ({"prune.scorer": "magnitud"}, {}, "did you mean 'magnitude'"),
        ({"prune.scorer": {"type": "px", "varient": 1, "_delete_": True}}, {}, "did you mean 'variant'"),
        ({"prune.sparsity": 1.5}, {}, r"sparsity must be in \[0, 1\), got 1.5"),
        ({"prune.sparsity": [0.5, -1]}, {}, r"sparsity must be in \[0, 1\), got -1"),
        ({"prune.scorer": ["snip", "snip"]}, {}, "two tickets 'snip-50.00'"),
        ({"prune.sparsity": [0.9, 0.9 + 1e-12]}, {}, "two tickets 'magnitude-90.00'"),
        ({"prune.sparsity": []}, {}, "'sparsity' is an empty list"),
        ({"prune.scorer": []}, {}, "'scorer' is an empty list"),
        ({"prune.schedule": "cubic"}, {}, "no schedule 'cubic'"),
        ({"prune.scope": "layers"}, {}, "no scope 'layers'; did you mean 'layer'"),
        ({"prune.exclude": 5}, {}, "'exclude' must be a name"),
        ({"prune.samples": -5}, {}, "'samples' must be a whole number of at least 1, got -5"),
        ({"prune.batch_size": 2.5}, {}, "'batch_size' must be a whole number of at least 1, got 2.5"),
        ({"prune.mode": "test"}, {}, "'mode' must be one of .*got 'test'"),
        ({"vis_backends": 5}, {}, "'vis_backends' must be a list"),
        ({"pretrain": 5}, {}, "'pretrain' must be a dict"),
        ({"prune.whole": True, "prune.data": {"type": "classification"}}, {}, "leave prune.data out"),
        ({"transfer": "weights"}, {}, "'transfer' must be one of"),
        ({"transfer": "mask+weights", "prune.whole": True, "prune.data": None}, {}, "give one"),
        ({"prune.whole": True, "prune.data": None}, {"given": GIVEN}, "cannot be used with a given ticket"),
        ({"backbone.type": "cifar_resnt"}, {}, "did you mean 'cifar_resnet'"),
        ({"tasks.x": {"type": "classificaton"}}, {}, "did you mean 'classification'"),
        ({"tasks.x": {"type": "segmentation", "epoch": 3}}, {}, "takes no option 'epoch'; did you mean 'epochs'"),
        ({}, {"tasks": ["digits"]}, "there is no task 'digits'"),
        ({"prune.data": None}, {}, "give prune.data or pretrain"),
    ],
)
def test_mistakes_of_a_job_are_found_before_work_begins(write, overrides, arguments, message):
    with pytest.raises(PxframeError, match=message):
        Job.from_config(load_config(write(GOOD), overrides), **arguments)


def test_cuda_where_there_is_none(write, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(PxframeError, match="device 'cuda': torch sees no GPU on this machine; use 'cpu'"):
        Job.from_config(load_config(write(GOOD)), device="cuda")


def test_which_of_several_gpus_makes_no_difference(write):
    """A run that goes on with another GPU keeps what it has."""
    config = load_config(write(GOOD))
    jobs = [SimpleNamespace(config=config, seed=0, device=device) for device in ("cuda", "cuda:1", "cpu")]
    one, other, cpu = (Job.recipe(job, "prune", {}) for job in jobs)
    assert one == other != cpu
