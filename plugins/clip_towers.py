"""open_clip's image towers, for images of any size and with dilated stages. Parameters and values are untouched."""

from __future__ import annotations

from typing import Any

import torch
from open_clip.model import _build_vision_tower
from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from open_clip.transformer import VisionTransformer
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn
from torch.func import functional_call


class AnySizeViT(VisionTransformer):
    """The library's tower. For images of another size, its positional embedding is interpolated (bicubic)."""

    def _embeds(self, x: Tensor) -> Tensor:
        grid = [size // patch for size, patch in zip(x.shape[-2:], self.patch_size, strict=True)]
        if grid == list(self.grid_size):
            return super()._embeds(x)
        position = resample_abs_pos_embed(self.positional_embedding[None], grid, list(self.grid_size))
        x = self.conv1(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], 1) + position.to(x.dtype)
        return self.ln_pre(self.patch_dropout(x))


class AnySizeAttentionPool(AttentionPool2d):
    """The library's attention pooling. For maps of another size, its positional embedding is interpolated (bicubic)."""

    def forward(self, x: Tensor) -> Tensor:
        position, grid = self.positional_embedding, list(x.shape[-2:])
        if len(position) == grid[0] * grid[1] + 1:
            return super().forward(x)
        return functional_call(self, {"positional_embedding": resample_abs_pos_embed(position[None], grid)[0]}, (x,))


class DilatedAvgPool(nn.Module):
    """At every pixel, the mean of 2x2 pixels that are ``dilation`` apart; at the border the pixel counts twice."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation

    def forward(self, x: Tensor) -> Tensor:
        d = self.dilation
        x = x + torch.cat([x[..., d:, :], x[..., -d:, :]], -2)
        return (x + torch.cat([x[..., d:], x[..., -d:]], -1)) / 4


def build_tower(config: dict[str, Any], quick_gelu: bool) -> Any:
    """The image tower of one of open_clip's model configs, with random weights; no text tower is built."""
    # The library's function turns a config into a tower of the library's own classes. Changing the class of the result
    # avoids a second copy of that function; both subclasses override methods and add no state.
    tower = _build_vision_tower(config["embed_dim"], config["vision_cfg"], quick_gelu)
    if isinstance(tower, ModifiedResNet):
        tower.attnpool.__class__ = AnySizeAttentionPool
        for stage in stages(tower):
            for block in stage:  # the library starts the residual branches at zero, where nothing has a saliency
                nn.init.ones_(block.bn3.weight)
    else:
        tower.__class__ = AnySizeViT
        tower.output_tokens = False  # else the towers of CoCa give a pair
    return tower


def stages(tower: Any) -> list[Any]:
    """The four stages of the ResNet."""
    return [tower.layer1, tower.layer2, tower.layer3, tower.layer4]


def dilate(tower: Any, output_stride: int) -> None:
    """Let the ResNet end at 1 / ``output_stride`` (4, 8, 16 or 32), in place.

    A stage that loses its stride takes its anti-aliasing average at every pixel, and the layers behind it are dilated.
    The outputs of the strided network are among those of the dilated network, with the same values.
    """
    stride, dilation = 4, 1
    for stage in stages(tower):
        for block in stage:
            block.conv2.dilation = block.conv2.padding = (dilation, dilation)
            if block.stride > 1:
                strided = stride < output_stride
                block.avgpool, shortcut = (
                    nn.AvgPool2d(block.stride) if strided else DilatedAvgPool(dilation) for _ in range(2)
                )
                block.downsample.add_module("-1", shortcut)
                stride, dilation = (stride * 2, dilation) if strided else (stride, dilation * 2)
