"""What a config excludes is tried before any work, and what it replaces is said."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pxframe.base.errors import PxframeError
from pxframe.job.config import JobConfig, Prune
from pxframe.job.exclusions import check_exclude, default_exclude, replaced_default
from pxframe.job.job import Job, ScoredOn
from pxframe.job.prunings import prunings


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.qkv, self.head = nn.Linear(3, 8), nn.Linear(8, 24), nn.Linear(8, 2)

    def forward(self, x):
        q, k, v = self.qkv(self.embed(x)).chunk(3, -1)
        return self.head(F.scaled_dot_product_attention(q, k, v).mean(1))


class Task:
    reads = 0

    def batches(self, samples, batch_size, *, seed):
        self.reads += 1
        return [(torch.rand(samples, 5, 3), torch.zeros(samples, dtype=torch.long))]


def job_of(folder, classifier="head", **prune):
    provider = SimpleNamespace(classifier=lambda model: classifier)
    config = JobConfig(file="mine.py", backbone={}, tasks={}, prune=Prune(sparsity=0.5, data={"type": "x"}, **prune))
    scored_on = ScoredOn(Task(), {}, 5, 2, "eval")
    return Job(config, (3,), "cpu", folder, True, provider, None, prunings(config.prune), scored_on, {})


REPLACED = "prune: the config excludes {} in place of the default, 'head.*': head.weight is pruned and counted too"


@pytest.mark.parametrize(
    ("prune", "lines"),
    [
        (dict(scorer="magnitude"), []),
        (dict(scorer="magnitude", exclude="embed.*"), [REPLACED.format("'embed.*'")]),
        (dict(scorer=["magnitude", "snip"], exclude=["*[q]"], controls=["random"]), [REPLACED.format("'*[q]'")]),
        (dict(scorer="magnitude", exclude=[]), [REPLACED.format("nothing")]),
        (dict(scorer="magnitude", exclude=["embed.*", "head.*"]), []),
        (dict(scorer="magnitude", exclude="head.weight"), []),
        (dict(scorer=["magnitude", dict(type="snip", exclude="qkv.*")]), [REPLACED.format("'qkv.*'")]),
        (dict(scorer=dict(type="magnitude", exclude=None)), []),
    ],
)
def test_a_default_that_is_replaced_is_named_once(tmp_path, prune, lines):
    assert replaced_default(job_of(tmp_path, **prune), Attention()) == lines


def test_where_there_is_no_classifier_nothing_is_replaced(tmp_path):
    job = job_of(tmp_path, classifier="", scorer="magnitude", exclude="embed.*")
    assert default_exclude(job.provider, Attention()) == ()
    assert replaced_default(job, Attention()) == []


@pytest.mark.parametrize(
    ("exclude", "message"),
    [
        ("embd.*", r"prune: exclude: no parameter is called 'embd\.\*'; did you mean 'embed"),
        (["embed.*", "hed.*"], r"no parameter is called 'hed\.\*'"),
        ("*", "no prunable weight"),
        ("qvk.weight[q]", r"prune: exclude: no fused weight has rows 'qvk\.weight\[q\]'; did you mean"),
        (["qkv.weight[q]", "embed.weight[k]"], r"no fused weight has rows 'embed\.weight\[k\]'"),
    ],
)
def test_what_matches_nothing_is_refused_before_any_work(tmp_path, exclude, message):
    job = job_of(tmp_path, scorer=["magnitude", dict(type="px", exclude=exclude)])
    with pytest.raises(PxframeError, match=message) as error:
        check_exclude(job, Attention(), job.scored_on.task)
    assert "\n" not in str(error.value)


def test_what_matches_is_taken_and_the_model_stays_as_it_was(tmp_path):
    job, model = job_of(tmp_path, scorer="magnitude", exclude=["head.*", "*.weight[q]", "qkv.weight[v]"]), Attention()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_exclude(job, model, job.scored_on.task)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_nothing_is_read_where_nothing_is_excluded_or_a_ticket_was_given(tmp_path):
    for job in (job_of(tmp_path), replace(job_of(tmp_path, exclude="nowhere"), prunings={})):
        check_exclude(job, Attention(), job.scored_on.task)
        assert job.scored_on.task.reads == 0
        assert replaced_default(job, Attention()) == []
