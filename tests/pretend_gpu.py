"""A GPU that is only pretended, so that a machine without one can find what would fail or wait on a real one.

Inside ``with PretendGPU() as gpu:`` every tensor still lies in the CPU's memory and holds its real numbers, but tensors
moved or made with ``device="cuda"`` are *marked*, they say ``cuda:0`` when asked for their device, and so does every
tensor that an operation computes from them, also in a backward pass. When the block ends it fails if the program did

* **mix**: gave one operation tensors of both devices. CUDA allows a tensor without dimensions from the CPU in most
  operations, but not in ``stack`` and ``cat``, nor that the result is written into it;
* **read**, in a round: took numbers off the device (``item``, ``if tensor``, ``nonzero``, ``tensor[mask]``, ``cpu``).
  The processor waits there until the device has done all it was given;
* **copy**, in a round: brought tensors to the device (``to("cuda")``, ``tensor(..., device="cuda")``), which waits too,
  unless they lie in pinned memory and ``non_blocking=True`` is passed.

A round is what runs inside ``with gpu.round():``. Outside of rounds reads and copies are only listed in ``gpu.seen``::

    with PretendGPU() as gpu:
        model.to("cuda")
        with gpu.round():
            model(torch.randn(8, 3, 32, 32, device="cuda")).sum().backward()

How it works: a ``TorchFunctionMode`` sees the calls that name a device, or ask for one; it answers for the marks, and
leaves ``"cuda"`` out of what reaches torch. A ``TorchDispatchMode`` sees every operation below them, with its inputs
and results, and hands the marks on; they belong to the memory of a tensor, so that its views share them. What torch
makes within an operation without saying so (a zero gradient, say) is taken to be on the right device.

What it cannot see: speed, memory, other rounding, operations that exist on one kind of device only, mixed precision
as CUDA does it (autocast is the CPU's here), and code inside of torch's own Python functions that asks for a device.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
#: Where a tensor is. PINNED: on the CPU, in memory that the device can read by itself. ANYWHERE: torch made it.
DEVICE, HOST, PINNED, ANYWHERE = "device", "host", "pinned", "anywhere"
#: Operations whose result, or its size, the processor must know before it can go on.
READS = frozenset(
    (
        *("_local_scalar_dense", "nonzero", "argwhere", "masked_select", "equal", "allclose", "is_nonzero", "bincount"),
        *("_unique", "_unique2", "unique_dim", "unique_consecutive", "unique_dim_consecutive"),
    )
)
_AUTOCAST = torch.autocast
_GROUPED = torch._C._group_tensors_by_device_and_dtype
_ROOT = Path(__file__).parent.parent


class Fault(NamedTuple):
    """What a GPU would refuse or wait at: its kind (mix, read or copy), the operation, and where in the code."""

    kind: str
    operation: str
    place: str


class PretendGPU:
    """See the module.

    Args:
        allowed: libraries that may read and copy, such as ``"torchvision/"``, because nobody here can change them.

    Attributes:
        faults: what has been found so far, each once.
        seen: every read and copy outside of rounds, in order.
    """

    def __init__(self, allowed: tuple[str, ...] = ()) -> None:
        self.allowed = allowed
        self.faults: list[Fault] = []
        self.seen: list[Fault] = []
        self._marks: dict[int, tuple[StorageWeakRef, str]] = {}  # the weak reference keeps the key from being used anew
        self._in_round = False
        self._stack = ExitStack()
        self._functions = _Functions(self)

    def __enter__(self) -> PretendGPU:
        for name, value in _CUDA.items():
            self._stack.enter_context(mock.patch(f"torch.cuda.{name}", value))
        self._stack.enter_context(mock.patch("torch.autocast", lambda device_type, *a, **k: _AUTOCAST("cpu", *a, **k)))
        # So that data loaders pin their batches.
        self._stack.enter_context(mock.patch("torch.accelerator.is_available", return_value=True))
        # Else no function mode would be active in what a backward pass calls: hooks, and functions written in Python.
        self._stack.enter_context(mock.patch("torch.autograd.has_torch_function", return_value=False))
        self._stack.enter_context(mock.patch("torch._C._group_tensors_by_device_and_dtype", self._grouped))
        self._stack.enter_context(_Operations(self))
        self._stack.enter_context(self._functions)
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        self._stack.close()
        if kind is None:
            lines = [f"  {fault.kind} ({fault.operation}) {fault.place}" for fault in self.faults]
            assert not lines, "\n".join(["on a GPU:", *lines])

    @contextmanager
    def round(self):
        """Inside the block nothing may be read from the device or copied to it."""
        before, self._in_round = self._in_round, True
        try:
            yield
        finally:
            self._in_round = before

    def where(self, tensor: Tensor) -> str:
        """DEVICE, HOST, PINNED or ANYWHERE."""
        key = _key(tensor)
        if key is None:
            return ANYWHERE
        return self._marks[key][1] if key in self._marks else HOST

    def mark(self, tensor: Tensor, where: str) -> None:
        key = _key(tensor)
        if key is not None:
            self._marks[key] = (StorageWeakRef(_plain(tensor).untyped_storage()), where)

    def _grouped(self, lists: list[list[Tensor]], indices: bool = False) -> Any:
        """For clipping and optimizers, which work on all tensors of one device at a time."""
        groups = {}
        for (_, dtype), found in _GROUPED(lists, indices).items():
            first = next(t for t in found[0][0] if t is not None)
            groups[CUDA if self.where(first) == DEVICE else CPU, dtype] = found
        return groups

    def known(self, tensor: Tensor) -> bool:
        return _key(tensor) in self._marks

    def found(self, kind: str, operation: str) -> None:
        fault = Fault(kind, operation, _place())
        if kind != "mix" and (not self._in_round or fault.place.startswith(self.allowed)):
            self.seen.append(fault)
        elif fault not in self.faults:
            self.faults.append(fault)


class _Functions(TorchFunctionMode):
    """Sees what programs call: marks what they move or make, and says ``cuda:0`` for what is marked."""

    def __init__(self, gpu: PretendGPU) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        gpu, kwargs, name = self.gpu, dict(kwargs or {}), _name(func)
        if name == "_parse_to" or isinstance(
            func, type
        ):  # they only read a device's name, as torch.device("cuda") does
            return func(*args, **kwargs)
        if name in _PROPERTIES and args and isinstance(args[0], Tensor):
            here = gpu.where(args[0])
            return _PROPERTIES[name](here) if here in (DEVICE, PINNED) else func(*args, **kwargs)
        if name in _METHODS and args and isinstance(args[0], Tensor):
            return _METHODS[name](self, func, *args, **kwargs)
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        places = {gpu.where(t) for t in tensors}
        args, kwargs, target = _without_device(args, kwargs)
        if name in ("tensor", "as_tensor", "asarray") and target is not None:
            self._crosses({DEVICE if target == CUDA else HOST} | (places or {HOST}), name)
        if name == "new_tensor" and DEVICE in places:
            gpu.found("copy", name)
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type == "cpu" and (target == CUDA or DEVICE in places):
            gpu.found("mix", f"{name} with a generator of the CPU")
        out = func(*args, **kwargs)
        if isinstance(func, (torch._ops.OpOverload, torch._ops.OpOverloadPacket)) and target is None:
            return out  # of a graph: the operations below have marked it
        for result in pytree.tree_leaves(out):
            if isinstance(result, Tensor):
                if kwargs.get("pin_memory"):
                    gpu.mark(result, PINNED)
                elif target is not None:
                    gpu.mark(result, DEVICE if target == CUDA else HOST)
                elif not tensors:
                    gpu.mark(result, HOST)
                elif not gpu.known(result) and DEVICE in places:
                    gpu.mark(result, DEVICE)
        return out

    def to(self, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Tensor.to, in all its forms."""
        gpu, here = self.gpu, self.gpu.where(tensor)
        copy = kwargs.pop("copy", False)
        if args and isinstance(args[0], Tensor):
            other = args[0]
            device, dtype, later, form = (CUDA if gpu.where(other) == DEVICE else CPU), other.dtype, False, None
        else:
            device, dtype, later, form = torch._C._nn._parse_to(*args, **kwargs)
        there = here if device is None else DEVICE if device.type == "cuda" else HOST
        moves = (here == DEVICE) != (there == DEVICE) and here != ANYWHERE
        if moves and there == DEVICE and not (here == PINNED and later):
            gpu.found("copy", "to")
        if moves and there == HOST:
            gpu.found("read", "to")
        out = tensor.to(dtype=dtype or tensor.dtype, copy=copy or moves, memory_format=form or torch.preserve_format)
        if device is not None and (moves or not gpu.known(out)):
            gpu.mark(out, there)
        return out

    def cuda(self, func: Any, tensor: Tensor, *args: Any, non_blocking: bool = False) -> Tensor:
        return self.to(func, tensor, CUDA, non_blocking=non_blocking)

    def cpu(self, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self.to(func, tensor, CPU)

    def pin_memory(self, func: Any, tensor: Tensor, *args: Any) -> Tensor:
        out = tensor.clone()
        self.gpu.mark(out, PINNED)
        return out

    def reads(self, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        if self.gpu.where(tensor) == DEVICE:
            self.gpu.found("read", _name(func))
        return func(tensor, *args, **kwargs)

    def refused(self, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        """NumPy sees the CPU's memory only."""
        if self.gpu.where(tensor) == DEVICE:
            self.gpu.found("mix", _name(func))
        return func(tensor, *args, **kwargs)

    def backward(self, func: Any, tensor: Tensor, gradient: Any = None, *args: Any, **kwargs: Any) -> None:
        with self:  # hooks call functions too
            torch.autograd.backward(tensor, gradient, *args, **kwargs)

    def _crosses(self, places: set[str], name: str) -> None:
        if DEVICE in places and len(places) > 1:
            self.gpu.found("copy", name)


class _Operations(TorchDispatchMode):
    """Sees every operation that torch runs: hands the marks on from its inputs to its results."""

    def __init__(self, gpu: PretendGPU) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        gpu, kwargs, name = self.gpu, kwargs or {}, func.overloadpacket.__name__
        inputs = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        before = {_key(t) for t in inputs}
        places = {gpu.where(t) for t in inputs}
        if DEVICE in places:
            self._judge(func, name, inputs, args, kwargs, places)
        out = func(*args, **kwargs)
        here = DEVICE if DEVICE in places else HOST if places & {HOST, PINNED} else ANYWHERE
        for result in pytree.tree_leaves(out):
            if isinstance(result, Tensor) and _key(result) not in before:
                gpu.mark(result, here)
        for written in _written(func, args, kwargs) if here == DEVICE else ():
            if gpu.where(written) == ANYWHERE:
                gpu.mark(written, DEVICE)
        return out

    def _judge(self, func: Any, name: str, inputs: list[Tensor], args: Any, kwargs: Any, places: set[str]) -> None:
        gpu = self.gpu
        hosts = [t for t in inputs if gpu.where(t) in (HOST, PINNED)]
        written = [t for t in _written(func, args, kwargs) if gpu.where(t) in (HOST, PINNED)]
        if name in READS or _masks(name, args):
            gpu.found("read", name)
        if not hosts:
            return
        if name in ("copy_", "_foreach_copy_"):
            gpu.found("read" if written else "copy", name)
        elif name in ("index", "index_put", "index_put_", "_index_put_impl_") and not written:
            if any(t is not None and gpu.where(t) == HOST and t.ndim for t in args[1]):
                gpu.found("copy", name)
            elif any(t.ndim for t in hosts):
                gpu.found("mix", name)
        elif (written and not name.startswith("_foreach")) or any(t.ndim or name in ("stack", "cat") for t in hosts):
            gpu.found("mix", name)


def _masks(name: str, args: Any) -> bool:
    """Whether a mask selects a number of entries that only the device knows. A single value is filled in blindly."""
    if name not in ("index", "index_put", "index_put_", "_index_put_impl_"):
        return False
    if name != "index" and args[2].numel() == 1:
        return False
    return any(t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1])


def _written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    found = []
    for number, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[number] if number < len(args) else kwargs.get(argument.name)
            found += [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
    return found


def _without_device(args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any], torch.device | None]:
    """The arguments with the CPU in the place of any device, and the device that they named."""
    target = None
    if kwargs.get("device") is not None:
        target = torch.device(kwargs["device"])
        kwargs = {**kwargs, "device": CPU}
    elif any(isinstance(a, torch.device) for a in args):
        target = next(a for a in args if isinstance(a, torch.device))
        args = tuple(CPU if isinstance(a, torch.device) else a for a in args)
    return args, kwargs, None if target is None else CUDA if target.type == "cuda" else CPU


def _name(func: Any) -> str:
    """The name of a function or method, or of the property that a getter belongs to."""
    name = getattr(func, "__name__", str(func))
    return getattr(func.__self__, "__name__", name) if name == "__get__" else name


def _plain(tensor: Tensor) -> Tensor:
    """What torch's functionalization wraps, or the tensor itself."""
    while torch._is_functional_tensor(tensor):
        tensor = torch._from_functional_tensor(tensor)
    return tensor


def _key(tensor: Tensor) -> int | None:
    """What all views of one memory have in common; None for sparse tensors, which have no memory of their own."""
    try:
        return _plain(tensor).untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):
        return None


def _place() -> str:
    """Where the program is, in this repository or a library: the innermost place outside of torch itself."""
    frame = sys._getframe(2)
    while frame is not None:
        path = frame.f_code.co_filename
        if "/site-packages/" in path:
            path = path.rpartition("/site-packages/")[2]
        elif Path(path).is_relative_to(_ROOT):
            path = str(Path(path).relative_to(_ROOT))
        if not path.startswith(("torch/", "/", "<")) and path != "tests/pretend_gpu.py":
            return f"{path}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return "torch"


_PROPERTIES = {
    "device": lambda here: CUDA if here == DEVICE else CPU,
    "is_cuda": lambda here: here == DEVICE,
    "is_cpu": lambda here: here != DEVICE,
    "is_pinned": lambda here: here == PINNED,
}
_METHODS = {
    **{name: getattr(_Functions, name) for name in ("to", "cuda", "cpu", "pin_memory", "backward")},
    **dict.fromkeys(("numpy", "__array__", "__dlpack__"), _Functions.refused),
    **dict.fromkeys(("tolist", "__repr__", "__reduce_ex__"), _Functions.reads),
}
#: What stands in for the functions of ``torch.cuda`` meanwhile.
_CUDA = {
    "is_available": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "device": lambda _: nullcontext(),
    "get_rng_state": lambda *_: torch.get_rng_state(),
    "set_rng_state": lambda *_: None,
    "manual_seed": lambda *_: None,
    "manual_seed_all": lambda *_: None,
    "synchronize": lambda *_: None,
    "empty_cache": lambda: None,
    "max_memory_allocated": lambda *_: 0,
    "reset_peak_memory_stats": lambda *_: None,
    "set_sync_debug_mode": lambda _: None,
    "is_current_stream_capturing": lambda: False,
}
