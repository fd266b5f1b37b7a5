"""The scores of the authors' published program, on any network of ReLUs.

Source: github.com/iurada/px-ntk-pruning at commit ed6c40e, ``PX.score``; written from its description.
"""

import logging

import torch
from torch.overrides import TorchFunctionMode

import pxframe
from pxframe.base.devices import sent
from pxframe.running.inputs import divisible, leaves, mapped
from pxframe.running.threads import repeatable
from pxframe_plugins.px.replay import Recording, Replacing

_log = logging.getLogger(__name__)
#: Outputs of h that differ by a smaller share of the largest of g and h are taken for equal; float32 rounds at 1e-7.
_SAME = 1e-6


def official_scores(net, batches):
    """s = |dR/du| * theta^2 with R = sum over batches of sum_nk g^k(x_n^2) h^k(1), by name, in ``net.path_dtype``.

    Three passes over each batch. ``f``, the model in eval mode with its running statistics, says which ReLUs are open.
    ``g`` is given x^2, in it every parameter is 1, and ReLUs multiply by the gates of f. ``h`` is given ones, in it
    every parameter is u = theta^2, and ReLUs are the identity. In g and h, masks hold, batch norms normalise by the
    statistics of their own batch, and all else (dropout, stochastic depth) is in eval mode. R is differentiated through
    h alone.

    Some parameters have their own values in g and in h, neither 1 nor squared; of these u is theta. The program finds
    them by ``bn`` and ``fc`` in their names. Here they are found by what they do, which is the same on its ResNets:

    * gamma and beta of a batch norm with a name (``bn1``, ``norm``). Those of a batch norm that only has a number in a
      sequence (``downsample.1``) are squared in h and 1 in g, as they are in the program.
    * weight and bias of the head, a linear layer whose result is an output of the model.

    Everything else follows the program: biases and the gains of other norms are squared in h and 1 in g. Buffers stay
    as they are. Max-pooling takes the largest value of g, and of h. Other activations than ReLU are refused.
    Calls inside scripted code (``torch.jit``) are not seen.

    Raises:
        PxframeError: an activation that is no ReLU, a model that calls other ReLUs on other data, no data, or a batch
            norm that gets one value a channel.
    """
    total, dtype = {}, net.path_dtype
    for inputs, _ in batches:
        for name, gradient in _gradients(net, inputs).items():
            total[name] = total[name] + gradient if name in total else gradient
    if not total:
        raise pxframe.PxframeError("no data: 'batches' gave no (input, target) pair")
    return {name: total[name].abs() * theta.to(dtype).square() for name, theta in net.weights.items()}


def _gradients(net, inputs):
    """dR/du of one batch for the prunable weights, by name; zero where pruned or unused."""
    with torch.no_grad():
        gates, kept, body = _recorded(net, inputs)
        ones = {name: p if name in kept else torch.ones_like(p) for name, p in _parameters(net).items()}
        counts = _outputs(net, inputs, torch.square, _masked(net, ones), Replacing(gates))
    with torch.enable_grad():
        own = {name: p if name in kept else p.square() for name, p in _parameters(net).items()}
        weights = {name: own[name].detach().requires_grad_() for name in net.masks}
        values = _outputs(net, inputs, torch.ones_like, _masked(net, {**own, **weights}), Replacing())
        if [c.shape for c in counts] != [v.shape for v in values]:
            raise pxframe.PxframeError(
                "px: variant 'official' needs a model whose outputs keep their shapes whatever its input is, and those "
                "of this one do not; take another variant"
            )
        if not any(v.requires_grad for v in values):
            raise pxframe.PxframeError(
                "px: no floating-point output of the model depends on its prunable weights; exclude fewer of them"
            )
        if not net.memory.setdefault(__name__, False):
            net.memory[__name__] = True
            _warn_of_rounding(net, inputs, own, body, counts, values)
        total = torch.stack([(c * v).sum() for c, v in zip(counts, values, strict=True)]).sum()
        with repeatable(divisible(inputs) or 1):
            found = torch.autograd.grad(total, list(weights.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(weights, found, strict=True))


def _recorded(net, inputs):
    """The gates of f; names of the parameters that keep their values, and of weights that batch norms may hide."""
    given = {**net.parameters, **net.masked()}
    names = {id(tensor): name for name, tensor in given.items()}
    with net.evaluating(), Recording() as seen:
        output = net(inputs, given)
    head = {names[id(t)] for t in seen.last_linear(output) if id(t) in names}
    norms = {names[id(t)] for t in seen.norms if id(t) in names}
    body = [name for name in net.masks if name not in head] if seen.norms else []
    return seen.gates, head | {name for name in norms if not _only_numbered(name)}, body


def _only_numbered(parameter):
    """Whether the module of a parameter has a number for a name: ``downsample.1.weight``."""
    return parameter.rpartition(".")[0].rpartition(".")[2].isdigit()


def _parameters(net):
    return {name: p.to(net.path_dtype) if p.is_floating_point() else p for name, p in net.parameters.items()}


def _masked(net, weights):
    return {name: w * net.masks[name] if name in net.masks else w for name, w in weights.items()}


def _outputs(net, inputs, start, weights, mode: TorchFunctionMode):
    """The floating-point outputs of the model with these weights, its inputs replaced by ``start`` of them."""
    inputs = mapped(lambda x: start(x.to(net.path_dtype)) if x.is_floating_point() else x, inputs)
    with net.evaluating(), mode:
        output = net(inputs, weights)
    return [leaf for leaf in leaves(output) if leaf.is_floating_point()]


def _warn_of_rounding(net, inputs, weights, body, counts, values):
    """Warn if h is the same with other weights in front of the head: all their derivatives are zero then.

    In h all samples are equal and ReLUs are the identity. So an average over the image takes a batch norm to its beta.
    Where betas are zero, so is h; then g tells how large numbers are behind such norms.
    """
    if not body:
        return
    drawn = {n: torch.rand(net.weights[n].shape, generator=net.generator, dtype=net.path_dtype) for n in body}
    others = {**weights, **{name: sent(w, net.device) for name, w in drawn.items()}}
    with torch.no_grad():
        other = _outputs(net, inputs, torch.ones_like, _masked(net, others), Replacing())
        triples = zip(values, other, counts, strict=True)
        same = all((a - b).abs().max() <= _SAME * torch.maximum(a.abs().max(), c.abs().max()) for a, b, c in triples)
    if same:
        _log.warning(
            "px: variant 'official': what it differentiates does not depend on the weights in front of the head (batch "
            "norms of equal images, averaged over the image, give their betas), so the scores of these weights are "
            "rounding errors; another variant scores them"
        )
