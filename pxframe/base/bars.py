"""A progress bar for long work. It is drawn on stderr, and only if stderr is a terminal; rank 0 alone draws it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pxframe.base import ranks

if TYPE_CHECKING:
    from rich.progress import Progress


class Bar:
    """A bar of ``total`` steps with a text beside it. Nothing is drawn if stderr is not a terminal.

    Use it as ``with Bar(...) as bar: bar.advance("loss 0.1")``, or call ``start()`` and ``stop()``.

    Args:
        title: text in front of the bar.
        total: number of steps.
        done: number of steps that are done already.
    """

    def __init__(self, title: str, total: int, done: int = 0) -> None:
        self._title, self._total, self._done = title, total, done
        self._progress: Progress | None = None

    def start(self) -> Bar:
        if sys.stderr.isatty() and ranks.is_main():
            # Importing them takes a while, and most bars are not drawn.
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
                TimeRemainingColumn(),
            )
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._progress.add_task(self._title, total=self._total, completed=self._done, text="")
            self._progress.start()
        return self

    def stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    @property
    def shown(self) -> bool:
        """Whether the bar is drawn. If it is not, the caller need not spend time on the text."""
        return self._progress is not None

    def advance(self, text: str) -> None:
        """Count one more step as done, and show ``text``."""
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], advance=1, text=text)

    def __enter__(self) -> Bar:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
