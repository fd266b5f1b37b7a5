"""A network as an ONNX file, for runtimes other than torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pxframe.base.errors import PxframeError
from pxframe.files.writing import replacing
from pxframe.running.inputs import arguments, divisible, leaves, mapped, noise_like
from pxframe.running.outputs import apart, outputs
from pxframe.running.undisturbed import evaluating
from pxframe.slimming.files import any_batch
from pxframe.slimming.quiet import quiet

#: How far onnxruntime's outputs may be from torch's, relative to the largest of them.
TOLERANCE = 1e-4


def export_onnx(model: nn.Module, example: Any, path: str | Path) -> float:
    """Write a network in eval mode as an ONNX file that takes batches of any size. ``model`` itself is not changed.

    The file is run with onnxruntime on the example, and on random inputs with one sample more. It is written only if
    the outputs are the model's.

    Args:
        model: for example the one of :class:`pxframe.Slim`, made of operations that torch's exporter knows. Detectors
            that pick boxes are not: export their backbone and heads.
        example: inputs, as for :func:`pxframe.prune`: a tensor, or a tuple or dict of tensors whose first dimension is
            the batch.
        path: the file; one that is there is replaced.

    Returns:
        the largest difference between outputs of onnxruntime and of torch, relative to the largest output.

    Raises:
        PxframeError: packages are missing, torch is older than 2.6 or cannot export the model, or the difference is
            above 1e-4.
    """
    load_onnx()
    if not hasattr(torch.export.Dim, "AUTO"):
        raise PxframeError(f"batches of any size in ONNX files need torch 2.6 or later; this is {torch.__version__}")
    args, kwargs = arguments(example)
    if not divisible(example) or not all(isinstance(part, Tensor) for part in (*args, *kwargs.values())):
        raise PxframeError(
            "export_onnx: the example must be one tensor, or a tuple or dict of tensors whose first dimension is the "
            "batch; of a model that takes a list of images, export the part that takes a tensor, such as model.backbone"
        )
    example = mapped(lambda x: x if len(x) > 1 else torch.cat([x, x]), example)  # torch takes 1 for a constant
    more = noise_like(example, torch.Generator().manual_seed(0))
    more = mapped(lambda x: torch.cat([x, x[:1]]), more)
    with evaluating(model), replacing(path) as scratch:
        content = _exported(model, example)
        differences = [apart(_doubles(outputs(model, x)), _doubles(_run(content, x))) for x in (example, more)]
        error = max(differences)
        if not error <= TOLERANCE:
            raise PxframeError(
                f"{path} is not written: onnxruntime's outputs differ from torch's by {error:.1e} of the largest; "
                f"export a part of the model, or try another version of torch or onnxruntime"
            )
        scratch.write_bytes(content)
    return error


def load_onnx() -> None:
    """Find the packages that only ONNX needs.

    Raises:
        PxframeError: one is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise PxframeError(
            f"ONNX files need onnx, onnxscript and onnxruntime (no {error.name}): pip install pxframe[onnx]"
        ) from None


def _exported(model: nn.Module, example: Any) -> bytes:
    """The file's content: without the traces of source files that the exporter adds, and the batch named as such."""
    args, kwargs = arguments(example)
    sizes = any_batch(args, kwargs)
    try:
        with torch.no_grad(), quiet():
            program: Any = torch.onnx.export(
                model, args, kwargs=kwargs, dynamo=True, dynamic_shapes=sizes, verbose=False
            )
            proto = program.model_proto
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever it meets in a model that it cannot trace
        cause = error
        while cause.__cause__ is not None:  # the exporter's own message is a long list of advice
            cause = cause.__cause__  # type: ignore[assignment]
        reason = str(cause).strip().partition("\n")[0]
        raise PxframeError(
            f"torch cannot export the model to ONNX ({type(cause).__name__}: {reason}); export a part of it, "
            f"such as model.backbone"
        ) from error
    graph = proto.graph
    batch = {value.type.tensor_type.shape.dim[0].dim_param for value in graph.input if value.type.tensor_type.shape.dim}
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.ClearField("metadata_props")
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param and dimension.dim_param in batch:
                dimension.dim_param = "batch"
    for holder in (proto, graph, *graph.node, *proto.functions, *(n for f in proto.functions for n in f.node)):
        holder.ClearField("metadata_props")
    return bytes(proto.SerializeToString())


def _run(content: bytes, inputs: Any) -> list[Tensor]:
    """Outputs of onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_inputs()]
        values = [inputs[name] for name in names] if isinstance(inputs, Mapping) else leaves(inputs)
        feed = {name: value.detach().cpu().numpy() for name, value in zip(names, values, strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, feed)]
    except Exception as error:  # whatever the runtime says
        reason = str(error).strip().partition("\n")[0]
        raise PxframeError(
            f"onnxruntime cannot run what torch exported with {divisible(inputs)} samples ({type(error).__name__}: "
            f"{reason}); export a part of the model"
        ) from error


def _doubles(values: list[Tensor]) -> list[Tensor]:
    return [value.double().cpu() for value in values]
