"""Shuffled masks: another method's layer densities without its choice of weights, a control."""

import torch

import pxframe
from pxframe.base.devices import sent
from pxframe.base.errors import within
from pxframe.network.ties import joined
from pxframe.plugin.registry import build
from pxframe.pruning.plan import split_settings
from pxframe.running.undisturbed import stream

#: What is copied from the other scorer, so that the core treats this one alike.
_COPIED = ("needs", "rounds", "revives", "defaults", "comparable")


class Shuffled(pxframe.Scorer):
    """s of another scorer, permuted at random within each layer.

    Frankle, Dziugaite, Roy, Carbin, "Pruning Neural Networks at Initialization: Why Are We Missing the Mark?", ICLR
    2021, the ablation called random shuffling. It tells whether a method's choice of weights matters, or only how many
    it keeps of each layer.

    Each layer keeps exactly as many entries as it would by the other scorer, under any scope. ``random`` differs: its
    layers have the densities of chance (``scope="global"``) or of a distribution (``scope="layer"``), whatever the
    method that it stands beside. A group of an N:M pattern keeps N in any case.

    One permutation of each layer serves all rounds. The other scorer sees the masks permuted back in each round, so its
    rounds go as they would without this one. It draws the same random numbers, too. Entries that ``exclude`` holds
    (``"*.qkv.weight[q]"``) stay where they are. Of entries with equal scores at the threshold the core keeps some by
    their position, so a later round may see others of them pruned than the other scorer alone would.

    ``score_channels`` permutes whole channels, and of layers whose channels go together all of them alike.
    ``score_groups`` permutes the entries of such groups. Numbers of rounds, needs and default settings are the other
    scorer's, and so is what training of the ticket is to start from. Settings of ``pxframe.prune`` stand beside ``of``.

    Args:
        of: the other scorer: its name or ``dict(type=NAME, **options)``.

    Raises:
        PxframeError: there is no such scorer or option.
    """

    name = "shuffled"
    needs = "nothing"

    def __init__(self, of):
        self.of = of
        options, settings = split_settings(of) if isinstance(of, (str, dict)) else (of, {})
        for key in settings:
            raise pxframe.PxframeError(f"shuffled: 'of' has the setting {key!r}; put it beside 'of', not into it")
        with within("shuffled: 'of'"):
            self._inner = build("scorer", options)
        for key in _COPIED:
            setattr(self, key, getattr(self._inner, key))

    def options(self):
        return {"of": self.of}

    def score(self, net, batches):
        sizes = {name: mask.numel() for name, mask in net.masks.items()}
        places = _places(net, sizes, {name: held.flatten() for name, held in net.held.items()})
        scores = self._inner.score(_unshuffled(net, places), batches)
        return {name: _moved(score, places[name]) for name, score in scores.items()}

    def score_channels(self, net, batches):
        places = _of_rows(net, _of_channels(net))
        scores = self._inner.score_channels(_unshuffled(net, places), batches)
        return {name: _moved(score, places[name]) for name, score in scores.items()}

    def score_groups(self, net, batches):
        places = _of_channels(net)
        scores = self._inner.score_groups(_unshuffled(net, _of_rows(net, places)), batches)
        return {group: _moved(score, places[group]) for group, score in scores.items()}

    def restart(self, net):
        return self._inner.restart(net)


def _of_channels(net):
    """The places of channels: by layer, or by group where channels of several layers go together."""
    sizes = {name: len(mask) for name, mask in net.masks.items()}
    held = {name: held.flatten(1).any(1) for name, held in net.held.items()}
    if net.ties:
        none = {name: torch.zeros(size, dtype=torch.bool, device=net.device) for name, size in sizes.items()}
        held = joined(net.ties, {**none, **held}, lambda rows: rows.any(0)) if held else {}
        sizes = {group: len(next(iter(members.values()))) for group, members in net.ties.items()}
    return _places(net, sizes, held)


def _of_rows(net, places):
    """The places of the rows of each layer, from those of channels."""
    if not net.ties:
        return places
    moved = {name: torch.empty(len(mask), dtype=torch.int64, device=net.device) for name, mask in net.masks.items()}
    for group, members in net.ties.items():
        for layer, at in members.items():
            moved[layer][at] = at[places[group]]
    return moved


def _places(net, sizes, held):
    """By layer, the place that each entry's score moves to, drawn in the first round: on the CPU, by the net's seed.

    Args:
        sizes: how many entries there are.
        held: bool ``[entries]``, true where one stays at its place; layers without such entries may be left out.
    """
    if "shuffled" not in net.memory:
        generator = stream(net.generator.initial_seed(), "shuffled")  # the other scorer draws what it would draw alone
        held = {name: entries.cpu() for name, entries in held.items()}
        drawn = {name: _permutation(size, held.get(name), generator) for name, size in sizes.items()}
        net.memory["shuffled"] = {name: sent(places, net.device) for name, places in drawn.items()}
    return net.memory["shuffled"]


def _permutation(size, held, generator):
    if held is None:
        return torch.randperm(size, generator=generator)
    places, free = torch.arange(size), (~held).nonzero().flatten()
    places[free] = free[torch.randperm(len(free), generator=generator)]
    return places


def _unshuffled(net, places):
    """The net at the masks that the other scorer would have left."""
    masks = {}
    for name, mask in net.masks.items():
        at = places[name]
        masks[name] = mask.view(len(at), -1)[at].view(mask.shape)
    return net.with_(masks=masks)


def _moved(score, places):
    flat = score.flatten()
    return torch.empty_like(flat).scatter_(0, places, flat).view(score.shape)


@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(Shuffled)
