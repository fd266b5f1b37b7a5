"""The backbone of a ticket, built again from what the ticket's file says."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pxframe.base.errors import PxframeError
from pxframe_tools.common import add_common, check_file, start

if TYPE_CHECKING:  # torch takes seconds to import
    from torch import nn

    from pxframe.ticket.ticket import Ticket


@dataclass(frozen=True)
class Ticketed:
    """A ticket and its backbone.

    Attributes:
        ticket: the ticket.
        model: the backbone in eval mode, with the values that the ticket starts from, its weights masked.
        config: of the backbone.
        size: of one input, without the batch.
    """

    ticket: Ticket
    model: nn.Module
    config: dict[str, Any]
    size: list[int]


def add_ticket_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ticket", metavar="TICKET", help="file of a ticket, e.g. px-90.00.safetensors")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="checkpoint of the backbone, if the job pre-trained it or it was trained later",
    )
    add_common(parser)


def check_ticket_arguments(args: argparse.Namespace) -> None:
    """Refuse files that cannot be read, before torch is imported."""
    check_file(args.ticket, "ticket")
    if args.weights is not None:
        check_file(args.weights, "checkpoint")


def output(args: argparse.Namespace, ending: str) -> Path:
    """What ``--out`` names, or a file or folder beside the ticket, its name with ``ending``."""
    ticket = Path(args.ticket)
    return Path(args.out) if args.out else ticket.with_name(f"{ticket.name.removesuffix('.safetensors')}{ending}")


def built(args: argparse.Namespace) -> Ticketed:
    """Build the backbone that a ticket was made from.

    Raises:
        PxframeError: the ticket's file does not say what it was made from, or the backbone's weights are not at hand.
    """
    from pxframe.plugin.checkpoint import load_checkpoint
    from pxframe.plugin.registry import build_backbone
    from pxframe.ticket.file import fingerprint
    from pxframe.ticket.ticket import Ticket

    start(args)
    ticket = Ticket.load(args.ticket)
    made_by, size = ticket.meta.get("made_by") or {}, ticket.meta.get("input")
    config = made_by.get("backbone")
    if not isinstance(config, dict) or made_by.get("whole"):
        what = "the whole model of a task" if made_by.get("whole") else "a model that its file does not name"
        raise PxframeError(f"{args.ticket}: it was made from {what}; load it in Python, and call pxframe.slim")
    if not size or not all(isinstance(number, int) for number in size):
        raise PxframeError(f"{args.ticket}: its file does not say the size of one input; call pxframe.slim in Python")
    model = build_backbone(dict(config)).eval()
    if args.weights is not None:
        load_checkpoint(model, args.weights)
    as_pruned = fingerprint(model.state_dict()) == made_by.get("weights")
    if args.weights is None and not as_pruned:
        raise PxframeError(
            f"{args.ticket}: its backbone had other weights than the config gives, since they were pre-trained by the "
            f"job, or drawn at random: give them, or those trained since, by --weights FILE"
        )
    ticket.rewind(model) if as_pruned else ticket.apply(model)
    return Ticketed(ticket, model, config, size)
