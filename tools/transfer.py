"""Transfer one pruned backbone to many tasks: the recipe, top to bottom.

    python tools/transfer.py CONFIG [--ticket F] [--tasks A B] [--work-dir D] [--resume]
                             [--device cpu|cuda] [--cfg-options k=v]

1. Everything is checked before work begins: config keys, names, data, device, the ticket's fit.
2. The backbone is built, and trained on the config's ``pretrain`` task if it has one.
3. It is pruned once for every sparsity in the config; ``--ticket`` takes a ticket made earlier instead.
4. Every task is trained from the same weights three times: dense, with the ticket, and with a random ticket that
   keeps exactly as many weights.
5. One table is printed, and ``results.json`` written, into the work dir beside the tickets.

Stopped at any point, the same command with ``--resume`` ends with the same results as if it had not been; what is
finished is not repeated. Each run's log is ``<work dir>/<task>/<variant>/train.log``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pxframe.command import add_common, add_overrides, one_line_errors, start
from pxframe.config import load_config
from pxframe.job import Job
from pxframe.results import print_table, write_results
from pxframe.steps import describe, pretrained, random_ticket, rehearse, same_weights, tickets, transferred
from pxframe.ticket import Ticket


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
    rehearse(job, given)
    job.claim({"config": config.to_dict(), "device": args.device, "ticket": args.ticket})

    model = pretrained(job, print)

    # Prune once ...
    made = {"ticket": given} if given else tickets(job, model, print)
    if given:
        print(
            f"ticket: {describe(given)}{'' if same_weights(given, model) else '; made from other weights than these'}"
        )
    total = next(iter(made.values())).total

    # ... and transfer to every task.
    rows = []
    for task in job.tasks:
        rows.append(transferred(job, task, "dense", model, None, total, print))
        for name, ticket in made.items():
            which = f"/{name}" if len(made) > 1 else ""
            rows.append(transferred(job, task, f"ticket{which}", model, ticket, total, print))
            rows.append(transferred(job, task, f"random{which}", model, random_ticket(job, ticket), total, print))

    results = job.work_dir / "results.json"
    write_results(results, rows, config=args.config, seed=job.seed, device=job.device)
    print()
    print_table(rows)
    print(f"\nresults: {results}")
    return 0


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Transfer one pruned backbone to many tasks.")
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
