"""All stages of a job for one seed, one after the other: pre-train, make the tickets, transfer each to every task."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from pxframe.job.job import Job, Say
from pxframe.job.made import NotMade
from pxframe.stages.runs import finished_rows, pretrain, transfer
from pxframe.stages.tickets import finished_tickets, make_tickets, make_whole_tickets, with_weights


def repeat(job: Job, say: Say) -> list[dict[str, Any]]:
    """One repetition of the job, with one seed: a row for every task and ticket.

    A job that may make no files (:attr:`pxframe.job.job.Job.makes`) gives the rows that are there.
    """
    try:
        model = pretrain(job, say)
    except NotMade:
        return []

    # Prune once ...
    backbone_tickets = {} if job.whole else make_tickets(job, model, say)

    # ... and transfer to every task. Of tasks that were not asked for, rows that are there already stay in the table.
    rows = []
    for task in job.config.tasks:
        if task not in job.tasks:
            rows += finished_rows(job, task, model, finished_tickets(job, backbone_tickets, task), say)
            continue
        tickets = make_whole_tickets(job, task, model, say) if job.whole else backbone_tickets
        for variant, ticket in tickets.items():
            with suppress(NotMade):
                ready = with_weights(job, variant, ticket, model, say)
                rows.append(transfer(job, task, variant, model, ready, say))
    return rows
