"""Transfer one pruned backbone to many tasks: the recipe, top to bottom.

    python tools/transfer.py CONFIG [--ticket F] [--tasks A B] [--work-dir D] [--resume]
                             [--device cpu|cuda] [--trust-checkpoint] [--cfg-options k=v]

1. Everything is checked before work begins: config keys, names, data, device, the ticket's fit.
2. The backbone is built, and trained on the config's ``pretrain`` task if it has one.
3. It is pruned once for every scorer and sparsity in the config; ``--ticket`` takes a ticket made earlier instead.
   With ``prune.whole`` every task's whole model is pruned, head included.
4. Every task is trained from the same weights: dense, with each ticket, and with a random ticket for each number
   of weights that one keeps. (``transfer="mask+weights"``: from the weights that a ticket's own training left.)
5. All of it is repeated for every seed in the config. One table is printed, with mean and standard deviation over
   the seeds; ``results.json`` and a figure, ``results.png``, are written into the work dir beside the tickets.

Stopped at any point, the same command with ``--resume`` ends with the same results as if it had not been; what is
finished is not repeated. Each run leaves, in ``<work dir>/<task>/<variant>``, its log (``train.log``) and the trained
model (``model.pth``), which loads without this library.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pxframe.base.errors import PxframeError
from pxframe.job.cells import variants
from pxframe.job.config import load_config
from pxframe.job.figure import draw
from pxframe.job.job import Job
from pxframe.job.results import print_table, write_results
from pxframe.job.stages import pretrained, rehearse, transferred
from pxframe.job.tickets import describe, same_weights, tickets, whole_tickets, with_weights
from pxframe.ticket.ticket import Ticket
from pxframe_tools.common import add_common, add_overrides, choose_threads, one_line_errors, start


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="a job's config file, e.g. configs/quickstart.py")
    parser.add_argument("--ticket", metavar="F", help="transfer this ticket instead of pruning")
    parser.add_argument("--tasks", nargs="+", metavar="NAME", help="only these tasks of the config")
    parser.add_argument("--work-dir", metavar="D", help="where everything is written; default: the config's")
    parser.add_argument("--resume", action="store_true", help="go on where an earlier run stopped")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    add_overrides(parser)
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    start(args)
    given = Ticket.load(args.ticket) if args.ticket else None
    config = load_config(args.config, args.cfg_options)
    job = Job.from_config(
        config,
        device=args.device,
        tasks=args.tasks,
        work_dir=args.work_dir,
        resume=args.resume,
        scored=given is None,
    )
    if not job.tasks:
        raise PxframeError(f"config {args.config} has no tasks to transfer to; `pxframe prune` makes tickets alone")
    print(f"threads: {choose_threads()}", flush=True)
    rehearse(job, given)
    digest = hashlib.sha256(Path(args.ticket).read_bytes()).hexdigest() if given else None
    job.claim({"config": config.to_dict(), "device": args.device, "ticket": digest})

    rows = []
    for repetition in job.repetitions():
        which = f"seed {repetition.seed}: " if len(job.seeds) > 1 else ""
        rows += repeat(repetition, given, lambda line, which=which: print(which + line, flush=True))
    results = job.work_dir / "results.json"
    write_results(results, rows, config=args.config, seeds=job.seeds, device=job.device)
    draw(rows, job.work_dir / "results.png")
    print()
    print_table(rows)
    print(f"\nresults: {results}, {results.with_suffix('.png')}")
    return 0


def repeat(job: Job, given: Ticket | None, say: Any) -> list[dict[str, Any]]:
    """One repetition of the job, with one seed: a row for every task and variant."""
    model = pretrained(job, say)

    # Prune once ...
    made = {"ticket": given} if given else {} if job.whole else tickets(job, model, say)
    if given:
        say(f"ticket: {describe(given)}{'' if same_weights(given, model) else '; made from other weights than these'}")

    # ... and transfer to every task.
    rows = []
    for task in job.tasks:
        if job.whole:
            made = whole_tickets(job, task, model, say)
        total = next(iter(made.values())).total
        for variant, ticket in variants(made, job.seed).items():
            start = with_weights(job, variant, ticket, model, say)
            rows.append(transferred(job, task, variant, model, start, total, say))
    return rows


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Transfer one pruned backbone to many tasks.")
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
