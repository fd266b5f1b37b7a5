"""Write the report of a work folder: what came out of a job, finished or not.

    python tools/report.py WORK_DIR

Into the folder come ``report.html``, a page that needs nothing else; ``results.csv``, every run; ``results.tex``, the
means as a LaTeX table; and the figure, ``results.svg`` and ``results.pdf``. What ``spectrum``, ``width`` and ``timing``
measured is on the page, and has figures of these names. These commands and ``transfer`` write the same at their end.
"""

from __future__ import annotations

import argparse
import sys

from pxframe.job.places import work_folder
from pxframe_tools.common import add_common, script, start


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("work_dir", metavar="WORK_DIR", help="a job's work folder, e.g. work_dirs/quickstart")
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    root = work_folder(args.work_dir)  # before torch is imported, which takes seconds
    start(args)
    from pxframe.report.write import write_report

    print(f"report: {write_report(root)}")
    return 0


if __name__ == "__main__":
    sys.exit(script("Write the report of a job's work folder.", add_arguments, run))
