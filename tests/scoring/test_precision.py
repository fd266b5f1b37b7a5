"""Scoring runs in full precision whatever interface set another, and the caller's settings come back."""

import os
import subprocess
import sys
import textwrap
from argparse import Namespace

import pytest
import torch
from pretend_gpu import PretendGPU
from torch import nn

import pxframe
from pxframe_tools.common import start

SCRIPT = """
import warnings

warnings.simplefilter("ignore")
import torch
from torch import nn

import pxframe

OPERATIONS = ("all", "matmul", "conv", "rnn")
PAIRS = [("generic", "all"), *((b, o) for b in ("cuda", "mkldnn") for o in OPERATIONS)]


def asked(question):
    try:
        return question()
    except Exception as error:
        return type(error).__name__


def state():
    flags = [asked(lambda: torch._C._get_fp32_precision_getter(*pair)) for pair in PAIRS]
    cudnn = torch.backends.cudnn
    old = [torch.get_float32_matmul_precision, lambda: cudnn.allow_tf32, lambda: torch.backends.cuda.matmul.allow_tf32]
    return flags, [asked(question) for question in old], cudnn.deterministic, cudnn.benchmark


class Watch(pxframe.Scorer):
    name, needs = "watch", "training"

    def score(self, net, batches):
        self._seen = state()
        net.trained()
        return {n: w.abs() for n, w in net.weights.items()}


def train(model, ticket, start=0, stop=None):
    trained_in.append(state())


SETTER
before, trained_in, watch = state(), [], Watch()
pxframe.prune(nn.Linear(4, 4), None, scorer=watch, sparsity=0.5, train=train)
assert state() == before, (before, state())
assert trained_in == [before], (before, trained_in)
flags, (matmul, conv, linear), deterministic, benchmark = watch._seen
assert matmul == "highest" and conv is False and linear is False, watch._seen
assert deterministic and not benchmark
assert all(f in ("ieee", "AttributeError") for f in flags), flags
AFTERWARDS
"""
NEW = hasattr(torch._C, "_set_fp32_precision_setter")


def run(setter, afterwards="pass"):
    code = textwrap.dedent(SCRIPT).replace("SETTER", setter).replace("AFTERWARDS", afterwards)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "setter",
    [
        pytest.param("pass", marks=pytest.mark.slow),
        pytest.param("torch.set_float32_matmul_precision('high')", marks=pytest.mark.slow),
        pytest.param("torch.backends.cudnn.allow_tf32 = False", marks=pytest.mark.slow),
        pytest.param("torch.backends.cudnn.benchmark = True", marks=pytest.mark.slow),
        pytest.param("torch.backends.cuda.matmul.allow_tf32 = True", marks=pytest.mark.slow),
    ],
)
def test_full_precision_whatever_the_old_interface_said(setter):
    run(setter)


@pytest.mark.skipif(not NEW, reason="torch before 2.9 has no fp32_precision flags")
@pytest.mark.parametrize(
    "setter",
    [
        pytest.param("torch.backends.cudnn.conv.fp32_precision = 'ieee'", marks=pytest.mark.slow),
        pytest.param("torch.backends.cudnn.conv.fp32_precision = 'tf32'", marks=pytest.mark.slow),
        pytest.param("torch.backends.cuda.matmul.fp32_precision = 'tf32'", marks=pytest.mark.slow),
        pytest.param("torch.backends.fp32_precision = 'tf32'", marks=pytest.mark.slow),
        pytest.param("torch.backends.mkldnn.matmul.fp32_precision = 'bf16'", marks=pytest.mark.slow),
        "torch.set_float32_matmul_precision('medium'); torch.backends.cudnn.rnn.fp32_precision = 'ieee'",
    ],
)
def test_full_precision_whatever_the_new_interface_said(setter):
    run(setter)


@pytest.mark.slow
@pytest.mark.skipif(not NEW, reason="torch before 2.9 has no fp32_precision flags")
def test_a_flag_that_inherits_still_inherits_afterwards():
    """The restored flags are the ones set, not the values they resolved to."""
    run(
        "torch.backends.fp32_precision = 'tf32'",
        "torch.backends.fp32_precision = 'ieee'; assert torch.backends.cuda.matmul.fp32_precision == 'ieee'",
    )


def repeatable():
    cuda = torch.backends.cuda
    kernels = [cuda.flash_sdp_enabled, cuda.mem_efficient_sdp_enabled, cuda.math_sdp_enabled, cuda.cudnn_sdp_enabled]
    return torch.get_deterministic_debug_mode(), [enabled() for enabled in kernels]


class Watch(pxframe.Scorer):
    name, needs = "watch", "training"

    def score(self, net, batches):
        self.seen = repeatable()
        net.trained()
        return {n: w.abs() for n, w in net.weights.items()}


@pytest.mark.parametrize("asked", [0, 2])
def test_on_a_gpu_operations_are_repeatable_while_scoring(asked):
    """Torch warns where it cannot; a caller's strict mode, in which it refuses, is his own training's."""
    watch, trained_in = Watch(), []
    try:
        torch.set_deterministic_debug_mode(asked)
        before = repeatable()
        with PretendGPU():
            model = nn.Linear(4, 4).to("cuda")
            pxframe.prune(model, None, watch, 0.5, train=lambda *_, **__: trained_in.append(repeatable()))
        assert watch.seen == (1, [False, False, True, False])
        assert trained_in == [before]
        assert repeatable() == before
    finally:
        torch.set_deterministic_debug_mode(0)


def test_on_a_cpu_the_caller_s_kernels_stay():
    watch = Watch()
    pxframe.prune(nn.Linear(4, 4), None, watch, 0.5, train=lambda *_, **__: None)
    assert watch.seen == repeatable()


def test_commands_ask_cublas_for_repeatable_sums(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    start(Namespace(no_plugin=[]))
    assert os.environ.pop("CUBLAS_WORKSPACE_CONFIG") == ":4096:8"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    start(Namespace(no_plugin=[]))
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
