"""Reading a map at positions between its pixels: ``grid_sample``, and deformable convolution.

Paths run through the map. The positions, and the mask of a deformable convolution, are recorded: where they are made
from the data, the weight of each of the four neighbours counts squared, as every factor does. With the gates open
nothing is known of them. A grid then reads the mean of the map; an offset is 0 and a mask is 1, which leaves a plain
convolution. Positions that do not depend on the data give fixed coefficients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pxframe.engine.reading import powered
from pxframe.engine.rules.table import Step, rule, unknown
from pxframe.engine.scaled import Scaled

_BILINEAR, _NEAREST = 0, 1
_ZEROS = 0
#: log2 of the four neighbours that a position reads at most.
_NEIGHBOURS = 2.0


@rule("grid_sampler_2d")
def grid_sample(step: Step) -> Scaled:
    """``(map [N, C, H, W], grid [N, H', W', 2], mode, padding, align_corners)``."""
    _, grid_node, mode, padding, align = step.args
    value, shape = step.path(), step.result_shape()
    if mode not in (_BILINEAR, _NEAREST):
        raise unknown(step.node, "with bicubic interpolation")
    from_data = grid_node in step.trace.active
    height, width = value.mantissa.shape[-2:]
    if from_data and not step.reading.replay:
        coefficient = float(powered(torch.tensor(1 / (height * width), dtype=torch.float64), step.reading.power))

        def mean(m: Tensor) -> Tensor:
            return (m.sum((2, 3), keepdim=True) * coefficient).expand(shape)

        return step.linear(value, mean, math.log2(height * width))
    grid = _precise(step.raw(grid_node))
    if mode == _NEAREST:
        return step.linear(value, lambda m: step.node.target(m, grid.to(m.dtype), *step.args[2:]), 0.0)  # type: ignore[operator]
    if padding == _ZEROS:
        x, y = (_pixels(grid[..., axis], size, align) for axis, size in enumerate((width, height)))
    else:  # the operation itself says where a position outside lands: it reads a map of positions
        x, y = _positions(step.node.target, grid, height, width, step.args[2:])
    read = _reader(x.flatten(1), y.flatten(1), 2 if from_data else step.reading.power)
    return step.linear(value, lambda m: read(m).view(shape), _NEIGHBOURS)


@rule("deform_conv2d")
def deformable_convolution(step: Step) -> Scaled:
    """``(map, weight, offset, mask, bias, stride, padding and dilation in y and x, groups, offset groups, masked)``."""
    _, weight_node, offset_node, mask_node, _, *geometry = step.args
    stride, padding, dilation = geometry[:2], geometry[2:4], geometry[4:6]
    groups, offset_groups, masked = geometry[6:]
    weight = step.fixed(weight_node)  # [out, in / groups, *kernel]
    terms = math.prod(weight.shape[1:])
    value = step.path()
    batch, channels, height, width = value.mantissa.shape
    out_height, out_width = step.result_shape()[-2:]
    taps = weight.shape[-2] * weight.shape[-1]
    open_mask = not masked or (mask_node in step.trace.active and not step.reading.replay)
    moves = offset_node not in step.trace.active or step.reading.replay
    if not moves and open_mask:

        def convolve(m: Tensor, w: Tensor) -> Tensor:
            return torch.convolution(m, w, None, stride, padding, dilation, False, [0, 0], groups)

        return step.weighted(value, weight_node, weight, convolve, terms)

    offset = torch.zeros(batch, offset_groups, taps, 2, out_height, out_width, device=weight.device)
    if moves:
        offset = _precise(step.raw(offset_node)).reshape(batch, offset_groups, taps, 2, out_height, out_width)
    at = torch.arange(taps, device=offset.device).view(-1, 1, 1)
    rows, columns = (torch.arange(size, device=offset.device) for size in (out_height, out_width))
    y = (at // weight.shape[-1] * dilation[0] + rows.view(-1, 1) * stride[0] - padding[0]) + offset[:, :, :, 0]
    x = (at % weight.shape[-1] * dilation[1] + columns * stride[1] - padding[1]) + offset[:, :, :, 1]
    read = _reader(
        x.reshape(batch * offset_groups, -1),
        y.reshape(batch * offset_groups, -1),
        2 if offset_node in step.trace.active else step.reading.power,
    )
    factor = None if open_mask else step.fixed(mask_node).reshape(batch, offset_groups, 1, taps, out_height, out_width)

    def columns_of(m: Tensor) -> Tensor:
        """[N, groups, in / groups * taps, H' W']: what each weight multiplies."""
        found = read(m.reshape(batch * offset_groups, channels // offset_groups, height, width))
        found = found.view(batch, offset_groups, channels // offset_groups, taps, out_height, out_width)
        found = found if factor is None else found * factor
        return found.reshape(batch, groups, terms, out_height * out_width)

    def multiply(columns: Tensor, w: Tensor) -> Tensor:
        return (w.reshape(groups, -1, terms) @ columns).view(batch, -1, out_height, out_width)

    bits = _NEIGHBOURS if factor is None or mask_node not in step.trace.active else math.inf
    return step.weighted(step.linear(value, columns_of, bits), weight_node, weight, multiply, terms)


def _precise(positions: Tensor) -> Tensor:
    """As at least float32: bfloat16 rounds positions by pixels in large maps."""
    return positions.to(torch.promote_types(positions.dtype, torch.float32))


def _pixels(position: Tensor, size: int, align: bool) -> Tensor:
    """Positions in [-1, 1] as numbers of pixels."""
    return (position + 1) / 2 * (size - 1) if align else ((position + 1) * size - 1) / 2


def _positions(operator: Any, grid: Tensor, height: int, width: int, options: Any) -> tuple[Tensor, Tensor]:
    """The x and y, in pixels, at which ``operator`` reads the map for each entry of the grid."""
    y, x = torch.meshgrid(
        *(torch.arange(size, dtype=torch.float64, device=grid.device) for size in (height, width)), indexing="ij"
    )
    found = operator(torch.stack([x, y]).expand(len(grid), -1, -1, -1), grid.double(), *options)
    return found[:, 0], found[:, 1]


def _reader(x: Tensor, y: Tensor, power: int) -> Callable[[Tensor], Tensor]:
    """Reads ``[N, C, H, W]`` at the positions x, y ``[N, P]`` in pixels: ``[N, C, P]``. Outside there is nothing.

    The weights of the neighbours are raised to ``power``. A weight as small as the rounding of a position counts as 0.
    """

    def read(m: Tensor) -> Tensor:
        height, width = m.shape[-2:]
        rounding = 16 * max(height, width) * torch.finfo(x.dtype).eps
        flat, total = m.flatten(2), None
        for right in (0, 1):
            for below in (0, 1):
                column, row = x.floor() + right, y.floor() + below
                nearness = (1 - (x - column).abs()), (1 - (y - row).abs())
                wx, wy = (torch.where(near > rounding, near, 0.0) for near in nearness)
                inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
                weight = powered(wx * wy, power).to(m.dtype) * inside
                index = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
                term = flat.gather(2, index.unsqueeze(1).expand(-1, flat.shape[1], -1)) * weight.unsqueeze(1)
                total = term if total is None else total + term
        assert total is not None
        return total

    return read
