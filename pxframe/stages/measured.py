"""What is measured of a job's tickets, kept in files like the outcome of every other stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from pxframe.base.errors import PxframeError, blaming
from pxframe.job.job import Job, Say
from pxframe.job.made import read_row, save_row
from pxframe.stages.runs import method_of, pretrain, ticket_digest
from pxframe.stages.tickets import make_tickets
from pxframe.ticket.file import fingerprint
from pxframe.ticket.ticket import Ticket

#: ``measure(job, model, variant, ticket, batches)``: a dict of numbers, texts and lists. The job has one seed.
Measure = Callable[[Job, nn.Module, str, Ticket, list[Any]], Mapping[str, Any]]


def measured(
    job: Job, what: str, settings: Mapping[str, Any], images: int, measure: Measure, say: Say
) -> list[dict[str, Any]]:
    """Measure every ticket of one repetition; the tickets are made where an earlier run did not.

    Args:
        what: is measured; the name of a folder.
        settings: of the measurement, beside ``images``; what was measured with others is measured anew.
        images: number of the images, drawn like those that scorers read.

    Returns:
        a row for each ticket: what ``measure`` gives, and ``seed``, ``variant``, ``method``, ``sparsity``.

    Raises:
        PxframeError: the job prunes whole models, or a measurement fails; the message names the ticket.
    """
    task = job.scored_on.task
    if task is None:
        raise PxframeError(f"{what} looks at tickets of the backbone, and prune.whole makes those of each task's model")
    model = pretrain(job, say)
    batches: list[Any] = []
    rows = []
    for variant, ticket in make_tickets(job, model, say).items():
        file = job.folder / "evidence" / what / f"{variant}.json"
        depends = {"settings": dict(settings), "images": images, "task": job.scored_on.config}
        depends |= {"weights": fingerprint(model.state_dict()), "ticket": ticket_digest(ticket)}
        recipe = job.recipe(what, {}, **depends)
        row = job.reuse(file, recipe, read_row, say)
        if row is None:
            batches = batches or list(task.batches(images, min(images, job.scored_on.batch_size), seed=job.seed))
            with blaming(f"{what} of {variant}, seed {job.seed}"):
                found = measure(job, model.to(job.device), variant, ticket, batches)
            about = {"seed": job.seed, "variant": variant, "method": method_of(job, variant, ticket)}
            row = {**about, "sparsity": ticket.sparsity, **found}
            save_row(file, row, recipe)
            say(f"{what}: {variant}")
        rows.append(row)
    return rows
