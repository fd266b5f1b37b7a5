"""The exception and the warning that reach a user, and the helpers that word them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class PxframeError(Exception):
    """An error that the user can mend. Its message says what is wrong, where, and what to do.

    The command line prints it as one line and exits with code 2.

    A process that loads data for torch hands its exceptions on with a traceback for a message. Of such a message, what
    the process itself said is kept.
    """

    def __init__(self, message: str = "") -> None:
        if message.startswith("Caught PxframeError in "):
            message = message.rpartition(f"\n{__name__}.PxframeError: ")[2].strip()
        super().__init__(message)


class PluginWarning(UserWarning):
    """A plug-in was left out, or failed while watching."""


@contextmanager
def within(where: str) -> Iterator[None]:
    """Put ``where`` in front of the message of a :class:`PxframeError` that the block raises."""
    try:
        yield
    except PxframeError as error:
        raise PxframeError(f"{where}: {error}") from error


@contextmanager
def blaming(where: str) -> Iterator[None]:
    """Turn any exception that a library raises inside the block into one line that begins with ``where``."""
    try:
        yield
    except PxframeError as error:
        raise PxframeError(f"{where}: {error}") from error
    except Exception as error:  # constructors of any library
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        line = (text.strip().splitlines() or ["no reason given"])[0].split(" Please check whether")[0]
        raise PxframeError(f"{where}: {type(error).__name__}: {line}") from error


def near(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'px'?"`` where a known name is close to ``name``, else the first few known names."""
    names = sorted(map(str, known))
    matches = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    if matches:
        return "; did you mean " + " or ".join(repr(m) for m in matches) + "?"
    return f"; known: {some(names, most=8) or 'none'}"


def some(items: Iterable[str], most: int = 4) -> str:
    """The first ``most`` of ``items``, comma separated, and how many more there are."""
    items = list(items)
    tail = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + tail


def printable(text: str) -> str:
    """``text`` in one line, without what a terminal would take for a command."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
