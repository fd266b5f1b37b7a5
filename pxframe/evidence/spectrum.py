"""The eigenvalues of a network's Neural Tangent Kernel: all of them, or the largest ones with bounds on errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pxframe.base.errors import PxframeError, blaming
from pxframe.base.options import whole_number
from pxframe.evidence.kernel import Kernel
from pxframe.network.net import Net
from pxframe.passes.batches import Batches
from pxframe.refits.norms import batch_statistics
from pxframe.running.undisturbed import derived_seed, seeded, stream
from pxframe.running.wrappers import unwrapped
from pxframe.scoring.precision import full_precision
from pxframe.ticket.ticket import Ticket

#: Rows of a kernel up to which its matrix is made: 128 MiB in float64.
LARGEST_MATRIX = 4096
#: Of eigenvalues below this share of the largest one, float32 gradients say nothing.
SOUND = 1e-6


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of a kernel and its trace.

    Attributes:
        eigenvalues: float64, the largest first.
        errors: of each eigenvalue, an upper bound on its distance from an eigenvalue of the kernel, but for rounding;
            zero where the whole matrix was made.
        trace: the sum of all eigenvalues.
        trace_error: the standard error of ``trace``; zero where the whole matrix was made.
        size: number of rows of the kernel.
    """

    eigenvalues: np.ndarray
    errors: np.ndarray
    trace: float
    trace_error: float
    size: int


def ntk_spectrum(
    model: nn.Module,
    batches: Iterable[Any],
    ticket: Ticket | None = None,
    largest: int | None = None,
    probes: int = 32,
    measured: bool = True,
    seed: int = 0,
) -> Spectrum:
    """The spectrum of the Neural Tangent Kernel of ``model`` pruned by ``ticket``; nothing is changed.

    The kernel is that of all parameters that training would change: those that take gradients, but for the pruned
    weights. The network is in eval mode, so much depends on batch norm's statistics: see ``measured``.

    Args:
        model: the network that the ticket was made from, in any mode.
        batches: ``(input, target)`` pairs; the kernel has a row for each sample and each output. Targets are not read.
        ticket: its masks and starting values are put in place. None: the dense network.
        largest: how many eigenvalues to compute, by Lanczos' method on products with vectors (SciPy's ``eigsh``), with
            Hutchinson's estimate of the trace. None: all of them from the whole matrix, of up to 4,096 rows.
        probes: vectors of random signs for the estimate of the trace; at least 2.
        measured: True: batch norm's statistics are measured on these samples first, in the pruned network, as training
            would have them, with whole batches; each should hold 16 samples or more. False: they stay what they are.
        seed: of the random vectors.

    Raises:
        PxframeError: the ticket does not fit the model; the kernel is too large for the whole matrix; the model fails
            on a batch.
    """
    whole_number("ntk_spectrum", "probes", probes, least=2)
    if largest is not None:
        whole_number("ntk_spectrum", "largest", largest)
    model = unwrapped(model)
    device = next(model.parameters()).device
    data = Batches(batches, device)
    with full_precision(device), seeded(derived_seed(seed, "spectrum"), device):
        net = _net(model, ticket)
        if measured:
            net = net.at(batch_statistics(net, data, {**net.buffers, **net.parameters, **net.masked()}))
        kernel = Kernel(net, list(data))
        if largest is None:
            if kernel.size > LARGEST_MATRIX:
                raise PxframeError(
                    f"the kernel of {kernel.samples} samples with {kernel.outputs} outputs has {kernel.size} rows, and "
                    f"the whole matrix is made of up to {LARGEST_MATRIX}: give fewer samples, or 'largest'"
                )
            found = torch.linalg.eigvalsh(kernel.matrix()).flip(0).numpy()
            return Spectrum(found, np.zeros_like(found), float(found.sum()), 0.0, kernel.size)
        return _estimated(kernel, largest, probes, seed)


def log_distance(values: Sequence[float], others: Sequence[float]) -> float | None:
    """The mean of |log10 a - log10 b| over eigenvalues a and b of the same rank.

    Ranks where either one is below :data:`SOUND` of its spectrum's largest are left out.

    Args:
        values, others: the largest first.

    Returns:
        None if no rank is left.
    """
    number = min(len(values), len(others))
    pair = [np.asarray(one[:number]) for one in (values, others)]
    sound = np.logical_and(*(one > SOUND * one[0] for one in pair))
    if not sound.any():
        return None
    return float(np.abs(np.log10(pair[0][sound]) - np.log10(pair[1][sound])).mean())


def _net(model: nn.Module, ticket: Ticket | None) -> Net:
    """The network of all trainable parameters, at the ticket's masks and starting values."""
    if ticket is not None:
        ticket.check_own(model)
    pruned = {} if ticket is None else ticket.masks
    masks = {
        name: pruned[name].to(p.device) if name in pruned else torch.ones_like(p, dtype=torch.bool)
        for name, p in model.named_parameters()
        if p.is_floating_point() and p.requires_grad
    }
    if not masks:
        raise PxframeError("no parameter of the model takes gradients (requires_grad), so it has no tangent kernel")
    net = Net(model, masks)
    if ticket is None or not ticket.start:
        return net
    own = {**net.parameters, **net.buffers}
    return net.at({name: value.to(own[name].device) for name, value in ticket.start.items() if name in own})


def _estimated(kernel: Kernel, largest: int, probes: int, seed: int) -> Spectrum:
    from scipy.sparse.linalg import LinearOperator, eigsh

    if largest >= kernel.size:
        raise PxframeError(
            f"the kernel has {kernel.size} rows, and Lanczos' method gives fewer eigenvalues than that: leave "
            f"'largest' out, or ask for fewer"
        )

    def product(vector: np.ndarray) -> np.ndarray:
        return kernel.times(torch.from_numpy(vector.reshape(-1))).numpy()

    generator = stream(seed, "spectrum")
    begin = torch.randn(kernel.size, generator=generator, dtype=torch.float64).numpy()
    operator = LinearOperator((kernel.size,) * 2, matvec=product, dtype=np.float64)
    with blaming("Lanczos' method"):  # of a kernel that is zero, for example
        values, vectors = eigsh(operator, k=largest, which="LA", v0=begin, tol=1e-6)
    order = np.argsort(values)[::-1]
    values, vectors = values[order], vectors[:, order]
    # For a symmetric matrix, some eigenvalue is no further from the estimate than its residual is long.
    errors = [float(np.linalg.norm(product(v) - value * v)) for value, v in zip(values, vectors.T, strict=True)]
    trace, spread = _trace(kernel, probes, generator)
    return Spectrum(values, np.array(errors), trace, spread, kernel.size)


def _trace(kernel: Kernel, probes: int, generator: torch.Generator) -> tuple[float, float]:
    """The mean of v^T K v over vectors of random signs, and its standard error (Hutchinson, 1989)."""
    found = []
    for _ in range(probes):
        signs = torch.randint(2, (kernel.size,), generator=generator).double().mul_(2).sub_(1)
        found.append(sum(_square(g) for g in kernel.backward(signs).values()))
    return float(np.mean(found)), float(np.std(found, ddof=1) / np.sqrt(probes))


def _square(tensor: Tensor) -> float:
    return float(tensor.double().square().sum())
