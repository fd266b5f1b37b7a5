"""Attention heads that carry nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pxframe.slimming.groups import load_torch_pruning

#: Parameters with a number for each head in their last dimension.
_BY_HEAD = "relative_position_bias_table"


@dataclass
class Attention:
    """An attention module with the fused projection ``qkv`` and the projection ``proj``, as in timm and torchvision.

    Attributes:
        name: of the module.
        module: it has ``qkv``, ``proj`` and ``num_heads``.
    """

    name: str
    module: Any

    @property
    def width(self) -> int:
        """Rows of each head's queries, keys or values."""
        return self.module.proj.in_features // self.module.num_heads

    def idle(self) -> list[int]:
        """The heads whose values do not depend on the input, or are not used. One head stays."""
        qkv, proj, width = self.module.qkv, self.module.proj, self.width
        values = qkv.weight[2 * proj.in_features :].detach()
        found = []
        for head in range(self.module.num_heads):
            part = slice(head * width, (head + 1) * width)
            if not values[part].any() or not proj.weight[:, part].any():
                found.append(head)
        return found[: self.module.num_heads - 1]

    def remove(self, heads: list[int]) -> None:
        """Take heads out. What they add, the bias of their values, goes into the bias of ``proj``.

        The attention weights of a head sum to one, so constant values come through as they are.
        """
        pruning = load_torch_pruning()
        module, width = self.module, self.width
        size = module.proj.in_features
        rows = [head * width + row for head in heads for row in range(width)]
        if module.qkv.bias is not None:
            with torch.no_grad():
                shift = module.proj.weight[:, rows] @ module.qkv.bias[2 * size :][rows]
                if module.proj.bias is None:
                    module.proj.bias = nn.Parameter(torch.zeros_like(shift))
                module.proj.bias += shift
        pruning.prune_linear_out_channels(module.qkv, [part * size + row for part in range(3) for row in rows])
        pruning.prune_linear_in_channels(module.proj, rows)
        table = getattr(module, _BY_HEAD, None)
        if isinstance(table, nn.Parameter):
            left = [head for head in range(module.num_heads) if head not in heads]
            setattr(module, _BY_HEAD, nn.Parameter(table.detach()[..., left], table.requires_grad))
        if getattr(module, "attn_dim", None) == size:
            module.attn_dim = size - len(rows)
        module.num_heads -= len(heads)


def attentions(model: nn.Module) -> Iterator[Attention]:
    """The modules of this kind in a model."""
    qkv: Any
    proj: Any
    for name, module in model.named_modules():
        qkv, proj, heads = (getattr(module, key, None) for key in ("qkv", "proj", "num_heads"))
        known = isinstance(qkv, nn.Linear) and isinstance(proj, nn.Linear) and isinstance(heads, int)
        if known and qkv.out_features == 3 * proj.in_features and proj.in_features % heads == 0:
            yield Attention(name, module)
