"""open_clip's image towers, changed so that they take images of any size and can have dilated stages.

Parameters keep their names and shapes, so open_clip's files fit.
"""

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
    """open_clip's ViT. For images of another size, its positional embedding is interpolated (bicubic)."""

    def _embeds(self, x: Tensor) -> Tensor:
        grid = [size // patch for size, patch in zip(x.shape[-2:], self.patch_size, strict=True)]
        if grid == list(self.grid_size):
            return super()._embeds(x)
        position = resample_abs_pos_embed(self.positional_embedding[None], grid, list(self.grid_size))
        x = self.conv1(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], 1) + position.to(x.dtype)
        return self.ln_pre(self.patch_dropout(x))


class AnySizeAttentionPool(AttentionPool2d):
    """open_clip's attention pooling. For maps of another size, its positional embedding is interpolated (bicubic)."""

    def forward(self, x: Tensor) -> Tensor:
        position, grid = self.positional_embedding, list(x.shape[-2:])
        if len(position) == grid[0] * grid[1] + 1:
            return super().forward(x)
        return functional_call(self, {"positional_embedding": resample_abs_pos_embed(position[None], grid)[0]}, (x,))


class DilatedAvgPool(nn.Module):
    """The mean of 2x2 pixels that are ``dilation`` apart, at every pixel of ``[N, C, H, W]``.

    At the lower and right border, where there is no pixel at this distance, the pixel itself counts twice.
    """

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation

    def forward(self, x: Tensor) -> Tensor:
        d = self.dilation
        x = x + torch.cat([x[..., d:, :], x[..., -d:, :]], -2)
        return (x + torch.cat([x[..., d:], x[..., -d:]], -1)) / 4


def build_tower(config: dict[str, Any], quick_gelu: bool) -> Any:
    """Build the image tower of one of open_clip's model configs, with random weights. No text tower is built."""
    # open_clip's function turns a config into a tower of open_clip's own classes. Changing the class of the result
    # avoids a second copy of that function. Both subclasses override methods and add no state.
    tower = _build_vision_tower(config["embed_dim"], config["vision_cfg"], quick_gelu)
    if isinstance(tower, ModifiedResNet):
        tower.attnpool.__class__ = AnySizeAttentionPool
        for stage in stages(tower):
            for block in stage:  # open_clip starts residual branches at zero, where weights have no saliency
                nn.init.ones_(block.bn3.weight)
    else:
        tower.__class__ = AnySizeViT
        tower.output_tokens = False  # the towers of CoCa would return a pair
    return tower


def stages(tower: Any) -> list[Any]:
    """The four stages of the ResNet."""
    return [tower.layer1, tower.layer2, tower.layer3, tower.layer4]


def dilate(tower: Any, output_stride: int) -> None:
    """Change the ResNet in place so that its last stage has 1 / ``output_stride`` (4, 8, 16 or 32) of the resolution.

    A stage that loses its stride computes its anti-aliasing average at every pixel, and all later layers are dilated.
    The dilated network has more output pixels. Those that the strided network has too keep their values.
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
