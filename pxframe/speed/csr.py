"""Linear layers and 1x1 convolutions that store and multiply only the weights that are not zero, on a CPU.

The weights are a matrix in CSR form (compressed sparse rows): the values, the column of each, and where each row
begins. torch multiplies it by Intel's MKL. A 1x1 convolution is such a product too: its weight times the channels.
"""

from __future__ import annotations

import functools
import warnings

import torch
from torch import Tensor, nn

from pxframe.base.errors import PxframeError

#: So many positions of a linear layer are multiplied at once: what is read and written then stays in the processor's
#: cache, where it has to be turned round in memory for the product, and back.
_BLOCK = 256


class CsrLayer(nn.Module):
    """Weights in CSR form. They are not trained: nothing here has a gradient.

    Attributes:
        values: parameter ``[n]``, the weights that are not zero, row by row.
        columns: int32 ``[n]``, the input of each.
        starts: int32 ``[out + 1]``, where in ``values`` each output begins, and the end.
        bias: parameter ``[out]`` or None.
        inputs: how many inputs there are.
    """

    columns: Tensor
    starts: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        _hush()
        matrix = weight.detach().flatten(1).to_sparse_csr()
        self.inputs = matrix.shape[1]
        self.values = nn.Parameter(matrix.values(), requires_grad=False)
        # MKL reads int32. torch makes int64, and would convert them in every call.
        self.register_buffer("columns", matrix.col_indices().int())
        self.register_buffer("starts", matrix.crow_indices().int())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)

    def matrix(self) -> Tensor:
        """The weights as torch's CSR tensor ``[out, in]``; it shares the memory of what is stored here."""
        _hush()
        size = len(self.starts) - 1, self.inputs
        return torch.sparse_csr_tensor(self.starts, self.columns, self.values, size)

    @property
    def weight(self) -> Tensor:
        """The weights with their zeros, made anew each time, for code that looks at them."""
        return self.matrix().to_dense()

    def extra_repr(self) -> str:
        outputs = len(self.starts) - 1
        return f"{self.inputs}, {outputs}, bias={self.bias is not None}, {len(self.values)} weights"

    def _check(self, x: Tensor) -> None:
        if torch.is_autocast_enabled("cpu"):
            raise PxframeError(
                f"{type(self).__name__} computes in the dtype of its weights: call the network outside torch.autocast"
            )
        if x.requires_grad and torch.is_grad_enabled():
            raise PxframeError(
                f"{type(self).__name__} is for inference only and has no gradient: call the network under "
                f"torch.no_grad(), or train the network that it was made from"
            )


class CsrLinear(CsrLayer):
    """What a linear layer gives, from weights in CSR form, for inference only.

    Args:
        layer: its weight and bias are copied; float32 or float64, on a CPU.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.weight, layer.bias)

    def forward(self, input: Tensor) -> Tensor:
        """``input [..., in]`` to ``[..., out]``, contiguous, as :class:`torch.nn.Linear` does."""
        self._check(input)
        matrix, flat = self.matrix(), input.reshape(-1, self.inputs)
        result = input.new_empty(len(flat), matrix.shape[0])
        for read, out in zip(flat.split(_BLOCK), result.split(_BLOCK), strict=True):
            product = torch.mm(matrix, read.t()).t()  # [positions, out], in memory the other way round
            if self.bias is None:
                out.copy_(product)
            else:
                torch.add(product, self.bias, out=out)
        return result.view(*input.shape[:-1], matrix.shape[0])


class CsrConv1x1(CsrLayer):
    """What a 1x1 convolution gives, from weights in CSR form, for inference only.

    Args:
        layer: its weight and bias are copied; float32 or float64, on a CPU; one group, no padding, any stride.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(layer.weight, layer.bias)
        self.stride = layer.stride

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, stride={self.stride}"

    def forward(self, input: Tensor) -> Tensor:
        """``input [N, in, H, W]`` or ``[in, H, W]`` to ``[(N,) out, H', W']``, as :class:`torch.nn.Conv2d` does."""
        self._check(input)
        x = input[..., :: self.stride[0], :: self.stride[1]]
        matrix, size = self.matrix(), x.shape[-2:]
        result = x.new_empty(*x.shape[:-3], matrix.shape[0], *size)
        images, results = x.reshape(-1, self.inputs, *size), result.view(-1, matrix.shape[0], size.numel())
        for image, out in zip(images, results, strict=True):  # an image is a matrix as it lies: [in, H' W']
            if self.bias is None:
                torch.mm(matrix, image.flatten(1), out=out)
            else:
                torch.addmm(self.bias[:, None], matrix, image.flatten(1), out=out)
        return result


def csr_layer(layer: nn.Module) -> CsrLayer:
    """The layer in CSR form; :func:`why_not` is empty for it."""
    return CsrLinear(layer) if isinstance(layer, nn.Linear) else CsrConv1x1(layer)  # type: ignore[arg-type]


def why_not(layer: nn.Module) -> str:
    """Why a linear layer or convolution has no CSR form here; the empty string if it has one."""
    if type(layer) not in (nn.Linear, nn.Conv2d):  # a subclass may do something else with its weight
        return f"a {type(layer).__name__}: only nn.Linear and nn.Conv2d themselves are replaced"
    if isinstance(layer, nn.Conv2d):
        if layer.kernel_size != (1, 1):
            return f"its kernel is {'x'.join(map(str, layer.kernel_size))}: only a 1x1 convolution is a matrix product"
        if layer.groups != 1:
            return f"it has {layer.groups} groups"
        if layer.padding not in ((0, 0), "valid", "same"):  # "same" pads a 1x1 kernel by nothing
            return "it pads its input"
    weight: Tensor = layer.weight  # type: ignore[assignment]
    if weight.dtype not in (torch.float32, torch.float64):
        return f"its weights are {weight.dtype}: torch multiplies CSR in float32 and float64 on a CPU"
    if layer._forward_hooks or layer._forward_pre_hooks:
        return "it has hooks"
    if bool(weight.all()):
        return "no weight is zero"
    return ""


@functools.cache
def missing() -> str:
    """Why this torch cannot multiply CSR matrices on the CPU; the empty string if it can."""
    _hush()
    try:
        torch.mm(torch.eye(2).to_sparse_csr(), torch.ones(2, 1))
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        return f"this torch has no product of CSR matrices on the CPU, every layer stays as it is: {reason}"
    return ""


@functools.cache
def _hush() -> None:
    """Make the first CSR tensors of this process here: torch warns once, of their beta state and of missing checks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.eye(1).to_sparse_csr()
        torch.sparse_csr_tensor(made.crow_indices(), made.col_indices(), made.values(), (1, 1))
