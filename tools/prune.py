"""Make the tickets of a job, without transferring them.

    python tools/prune.py CONFIG [--work-dir D] [--resume] [--device cpu|cuda] [--trust-checkpoint] [--cfg-options k=v]

The first half of ``transfer.py``: the backbone is built, trained if the config has a ``pretrain`` task, and pruned once
for every scorer and sparsity. The tickets are ``<work dir>/tickets/<scorer>-<sparsity>.safetensors``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pxframe.job.config import load_config
from pxframe.job.job import Job
from pxframe.job.stages import pretrained, rehearse
from pxframe.job.tickets import tickets, whole_tickets
from pxframe_tools.common import add_common, add_overrides, choose_threads, one_line_errors, start


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="a job's config file, e.g. configs/quickstart.py")
    parser.add_argument("--work-dir", metavar="D", help="where everything is written; default: the config's")
    parser.add_argument("--resume", action="store_true", help="go on where an earlier run stopped")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    add_overrides(parser)
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    start(args)
    config = load_config(args.config, args.cfg_options)
    tasks = None if config.prune.get("whole") else []  # the backbone is pruned for all of them alike
    job = Job.from_config(config, device=args.device, tasks=tasks, work_dir=args.work_dir, resume=args.resume)
    print(f"threads: {choose_threads()}", flush=True)
    rehearse(job)
    job.claim({"config": config.to_dict(), "device": args.device, "ticket": None})
    for repetition in job.repetitions():
        model = pretrained(repetition, print)
        if not job.whole:
            tickets(repetition, model, print)
        for task in job.tasks:
            whole_tickets(repetition, task, model, print)
    return 0


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make the tickets of a job.")
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
