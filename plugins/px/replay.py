"""Runs of a model that record its ReLUs, and runs that replace them and normalise by their own batch.

The calls of the model's functions are caught, not its modules. So the ReLU of a module, of ``torch.nn.functional``, of
a tensor, and the one that writes into its input are one case, and the model itself stays as it is.
"""

import inspect

import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

import pxframe
from pxframe.running.inputs import leaves

#: Names of functions that are activations, or hold some, and no ReLU; those that write into their input end in ``_``.
_OTHERS = frozenset(
    (
        *("relu6", "hardtanh", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "glu"),
        *("hardswish", "hardsigmoid", "hardshrink", "softshrink", "tanhshrink", "softplus", "softsign", "threshold"),
        *("sigmoid", "logsigmoid", "tanh", "softmax", "softmin", "log_softmax", "gumbel_softmax"),
        *("clamp", "clamp_min", "clamp_max", "clip", "maximum", "minimum"),
        *("scaled_dot_product_attention", "multi_head_attention_forward"),
        *("rnn_relu", "rnn_tanh", "lstm", "gru", "rnn_relu_cell", "rnn_tanh_cell", "lstm_cell", "gru_cell"),
    )
)
_BATCH_NORM = inspect.signature(F.batch_norm)


class Recording(TorchFunctionMode):
    """Notes in a forward pass which ReLUs are open, and which tensors batch norms and linear layers are given.

    Attributes:
        gates: for each ReLU in the order of calls, a bool tensor of its input's shape: true where the input is above 0.
        norms: the gammas and betas of all batch norms.

    Raises:
        PxframeError: in the block, at an activation that is no ReLU.
    """

    def __init__(self):
        super().__init__()
        self.gates, self.norms, self._linear = [], [], []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, _name(func)
        if name == "relu":
            self.gates.append(_input(args, kwargs) > 0)  # before the call, which may write into the input
        elif name in _OTHERS:
            raise pxframe.PxframeError(
                f"px: variant 'official' reads networks of ReLUs alone, and this one calls {name!r} on a tensor of "
                f"shape {list(_input(args, kwargs).shape)}; take another variant"
            )
        out = func(*args, **kwargs)
        if func is F.batch_norm:
            given = _BATCH_NORM.bind(*args, **kwargs).arguments
            self.norms += [given[key] for key in ("weight", "bias") if given.get(key) is not None]
        elif func is F.linear:
            self._linear.append((out, [*args[1:], *kwargs.values()]))
        return out

    def last_linear(self, output):
        """Weights and biases of the linear layers whose results are among the model's outputs."""
        ends = {_memory(leaf) for leaf in leaves(output)}
        return [t for out, given in self._linear if _memory(out) in ends for t in given if t is not None]


class Replacing(TorchFunctionMode):
    """Puts something else in the place of ReLUs; batch norms normalise by their batch, in both modes of their module.

    Args:
        gates: what each ReLU multiplies its input by, in the order of calls. None: every ReLU is the identity.
    """

    def __init__(self, gates=None):
        super().__init__()
        self._gates = None if gates is None else iter(gates)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if _name(func) == "relu":
            return self._relu(_input(args, kwargs), func.__name__.endswith("_") or _in_place(args, kwargs))
        if func is F.batch_norm:
            given = {**_BATCH_NORM.bind(*args, **kwargs).arguments, "running_mean": None, "running_var": None}
            return func(**{**given, "training": True})
        return func(*args, **kwargs)

    def _relu(self, x, in_place):
        if self._gates is None:
            return x
        gate = next(self._gates, None)
        if gate is None or gate.shape != x.shape:
            raise pxframe.PxframeError(
                "px: variant 'official' needs a model that calls the same ReLUs whatever its input is, and this one "
                "does not; take another variant"
            )
        return x.mul_(gate) if in_place else x * gate


def _name(func):
    name = getattr(func, "__name__", "")
    return name if name.startswith("_") else name.rstrip("_")


def _memory(tensor):
    return tensor.untyped_storage()._cdata


def _input(args, kwargs):
    return args[0] if args else kwargs["input"]


def _in_place(args, kwargs):
    return bool(args[1] if len(args) > 1 else kwargs.get("inplace", False))
