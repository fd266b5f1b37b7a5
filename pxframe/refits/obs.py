"""The least-squares weights of each layer for its mask, one layer after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor

from pxframe.network.net import Net
from pxframe.passes.batches import Batches
from pxframe.passes.products import find_products
from pxframe.passes.sweep import pieces, sweep
from pxframe.refits.least_squares import LeastSquares


def least_squares(
    net: Net,
    data: Batches,
    tensors: Mapping[str, Tensor],
    held: Mapping[str, Tensor],
    *,
    damping: float,
    steps: int,
    sequential: bool,
) -> dict[str, Tensor]:
    """The prunable weights that give each layer the outputs closest to the dense network's, by name.

    A weight that is used in several places, in a deformable convolution, or computed before its use stays as it is.

    Args:
        tensors: parameters and buffers of the pruned network, by name; its weights are where the search starts.
        held: by name, bool tensors that are true where a weight must stay as it is. They cover whole rows.
        damping, steps: see :meth:`pxframe.refits.least_squares.LeastSquares.solve`.
        sequential: a layer's inputs come from the layers before it as they have been refitted, and from batch norms
            with statistics measured there, else from the dense network.
    """
    batches = [part for inputs, _ in data for part in pieces(net, inputs)]
    dense = {**net.buffers, **net.parameters}
    pruned = dict(tensors)
    again = _used_again(net, batches)
    networks = [dense, pruned] if sequential else [dense]
    found = {}
    for product, values in sweep(net, batches, networks, measured=pruned if sequential else None):
        name = product.name
        if name in again:
            continue
        index = product.index
        problem = LeastSquares(dense[name].flatten()[index])
        for given in zip(*values, strict=True):
            columns = [product.columns(value) for value in given]
            problem.add(columns[-1], columns[0] if sequential else None)
        kept = net.masks[name].flatten()[index]
        start = pruned[name].flatten()[index]
        solved = problem.solve(start, kept, damping, steps)
        if name in held:
            solved = torch.where(held[name].flatten()[index], start, solved)
        weight = pruned[name].flatten().clone()  # it may have lain in memory in another order
        weight[index] = solved
        found[name] = pruned[name] = weight.view(pruned[name].shape)
    return found


def _used_again(net: Net, batches: list) -> set[str]:
    """Names of the weights that some entry of takes part in more than one product, or in anything else."""
    if not batches:
        return set()
    trace = net.trace(batches[0])
    products = find_products(trace, net.masks, net.device)
    uses: Counter[str] = Counter()
    for product in products.values():
        uses[product.name] += product.shape.numel()
    again = {name for name, number in uses.items() if number > net.weights[name].numel()}
    parts = {node: name for node, name in trace.moved.items() if name in net.masks}
    for node in trace.nodes:
        if node not in parts and node not in products:
            again |= {parts[used] for used in node.all_input_nodes if used in parts}
    return again
