"""Which layer of the model each node of its trace comes from, for messages that a user can follow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import fx, nn
from torch.fx import traceback as fx_traceback
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

#: Key of ``node.meta`` that torch itself fills and copies.
_KEY = "nn_module_stack"


@contextmanager
def recording_layers(model: nn.Module) -> Iterator[list[str]]:
    """Record in each node that is traced inside the block the layer that runs: its path and its class.

    Gives the descriptions of the layers that run at the moment, outermost first. After an error in a layer they still
    stand there. The hooks are torch's global ones, so the model keeps its own hooks as they are.
    """
    paths = {module: path for path, module in model.named_modules()}
    running: list[str] = []

    def enter(module: nn.Module, _: Any) -> None:
        path = paths.get(module)
        name = type(module).__name__
        running.append(f"layer {path!r} ({name})" if path else f"the model itself ({name})")
        fx_traceback.get_current_meta()[_KEY] = {"layer": running[-1]}

    def leave(module: nn.Module, _: Any, output: Any) -> None:
        running.pop()
        fx_traceback.get_current_meta()[_KEY] = {"layer": running[-1]} if running else {}

    hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
    try:
        with fx_traceback.preserve_node_meta():
            yield running
    finally:
        for hook in hooks:
            hook.remove()


def layer_of(node: fx.Node) -> str:
    """The layer that a traced node comes from: ``"layer 'conv1' (Conv2d)"``; empty if that is not known."""
    return str((node.meta.get(_KEY) or {}).get("layer", ""))
