"""What made a file: every stage of a job writes its recipe into its file, and compares it on every start.

A recipe is all that a stage's outcome depends on: settings, seed, digests of what it starts from, versions. A file that
is damaged, or was made by another recipe, is set aside and made again; it is never used.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pxframe.base import ranks
from pxframe.base.errors import PxframeError, some
from pxframe.files.writing import SET_ASIDE, read_json, replacing, set_aside, write_json
from pxframe.ticket.file import fingerprint

Value = TypeVar("Value")
Recipe = Mapping[str, Any]

_KEY = "pxframe"


class NotMade(PxframeError):
    """A file that another process is to make is not there, or was made by another recipe.

    Attributes:
        changed: where the recipes differ, or why the file cannot be used; empty if there is no file.
    """

    def __init__(self, file: Path, changed: Sequence[str] = ()) -> None:
        why = f"was made with other settings ({some(changed)})" if changed else "is not there"
        super().__init__(f"{file} {why}; an earlier step of the job makes it")
        self.changed = tuple(changed)


#: How the difference of two digests ends, whose values say nothing to a reader.
_DIGEST = " changed"
#: How a difference begins that no change of a config makes: the file was copied from elsewhere.
_FOREIGN = ("seed was ", "stage was ", "it holds no recipe")


def canonical(value: Any) -> Any:
    """``value`` as JSON gives it back; what JSON does not know is written as text."""
    return json.loads(json.dumps(value, sort_keys=True, default=str))


def digest(value: Any) -> str:
    """SHA-256, in hexadecimal, of a JSON-able value; the order of keys is moot."""
    return hashlib.sha256(json.dumps(canonical(value), sort_keys=True).encode()).hexdigest()


def reuse(
    file: Path,
    recipe: Recipe,
    read: Callable[[Path], tuple[Value, Any]],
    root: Path,
    say: Callable[[str], None],
    belongings: Path | None = None,
    told: set[str] | None = None,
) -> Value | None:
    """What an earlier run left in ``file``, if the same recipe made it; else None, and the file is set aside.

    Of several ranks, rank 0 looks and decides.

    Args:
        read: gives the file's value and the recipe in it; raises :class:`pxframe.PxframeError` where it is damaged.
        root: the job's folder; what is set aside goes to ``root/set-aside``.
        say: told in one line why a file is not used.
        belongings: the folder that is set aside with the file, where one belongs to it.
        told: the changed settings that were told of before, for other files; this function adds to it. A change is
            told of once, with the number of files that it concerns. Damaged and foreign files are named, each of them.
    """
    return ranks.by_first(lambda: _reuse(file, recipe, read, root, say, belongings or file, told))


def _reuse(
    file: Path,
    recipe: Recipe,
    read: Callable[[Path], tuple[Value, Any]],
    root: Path,
    say: Callable[[str], None],
    moved: Path,
    told: set[str] | None,
) -> Value | None:
    if not file.exists():
        return None
    try:
        value, found = read(file)
    except PxframeError as error:
        reason = str(error).replace(f"{file} ", "", 1)
        say(f"{file} {reason}; set aside as {set_aside(moved, root)}, and made again")
        return None
    changed = differences(canonical(found), canonical(recipe))
    if not changed:
        return value
    line = _summary(file, moved, root, recipe, read, changed, told) if told is not None else None
    place = set_aside(moved, root)
    if line is None:
        line = f"{file} was made with other settings ({some(changed)}); set aside as {place}, and made again"
    if line:
        say(line)
    return None


def existing(file: Path, recipe: Recipe, read: Callable[[Path], tuple[Value, Any]]) -> Value:
    """What is in ``file``, if ``recipe`` made it; nothing is moved.

    Raises:
        NotMade: it is not there, it is damaged, or another recipe made it.
    """
    if not file.exists():
        raise NotMade(file)
    try:
        value, found = read(file)
    except PxframeError as error:
        raise NotMade(file, [str(error).replace(f"{file} ", "", 1)]) from error
    changed = differences(canonical(found), canonical(recipe))
    if changed:
        raise NotMade(file, changed)
    return value


def _summary(
    file: Path,
    moved: Path,
    root: Path,
    recipe: Recipe,
    read: Callable[[Path], tuple[Any, Any]],
    changed: Sequence[str],
    told: set[str],
) -> str | None:
    """One line on a change, with the number of files beside ``file`` and of other seeds that it concerns.

    Returns:
        an empty line if it was told of before; None if ``file`` is to be named: it is foreign, or the only one.
    """
    if any(change.startswith(_FOREIGN) for change in changed):
        return None
    _seed, *inside, _name = moved.relative_to(root).parts
    # What a setting changes has other digests, too; one that has other digests alone depends on what was changed.
    settings = [change for change in changed if not change.endswith(_DIGEST)]
    if not (settings or told):  # nothing that it depends on has changed: it is another's
        return None
    what = f"{'/'.join(inside) or recipe['stage']}: {some(settings) or 'the weights or tickets before it changed'}"
    if what in told:
        return ""
    told.add(what)
    aside = f"are set aside in {root / SET_ASIDE}, and made again"
    if not settings:
        return f"{what}; the results that depend on it {aside}"
    last = f"*/{file.relative_to(moved)}" if file != moved else f"*{file.suffix}"
    count = 0
    for other in root.glob("/".join(("seed-*", *inside, last))):
        with suppress(PxframeError):  # a damaged file is named when its turn comes
            count += {*settings} <= {*differences(canonical(read(other)[1]), canonical(recipe))}
    return f"{what}; {count} results {aside}" if count > 1 else None


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Where two JSON values differ, as ``"task.epochs was 6, now 7"``; of two digests, ``"weights changed"``."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [d for k in keys for d in differences(old.get(k), new.get(k), f"{path}.{k}" if path else k)]
    if old == new:
        return []
    if path and all(isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) for value in (old, new)):
        return [f"{path}{_DIGEST}"]
    return [f"{path} was {_short(old)}, now {_short(new)}"] if path else ["it holds no recipe"]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# --- a network's state ---


def save_state(file: Path, state: Mapping[str, Tensor], recipe: Recipe) -> None:
    """Write the tensors of a network by name, with what made them; tied tensors are written once for each name.

    Of several ranks, rank 0 writes.
    """

    def save() -> None:
        tensors = {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}
        about = {"recipe": canonical(recipe), "sha256": fingerprint(tensors)}
        with replacing(file) as scratch:
            safetensors.torch.save_file(tensors, scratch, {_KEY: json.dumps(about, sort_keys=True)})

    ranks.by_first(save)


def read_state(file: Path) -> tuple[dict[str, Tensor], Any]:
    """The tensors in a file of :func:`save_state`, and the recipe.

    Raises:
        PxframeError: the file is damaged, or none of this function's.
    """
    try:
        with safe_open(file, "pt") as opened:
            about = json.loads((opened.metadata() or {})[_KEY])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no dict)
        recipe, sha256 = about["recipe"], about["sha256"]
    except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
        raise PxframeError(f"{file} is damaged, or was not written by a job ({type(error).__name__})") from error
    if fingerprint(tensors) != sha256:
        raise PxframeError(f"{file} is damaged: its content does not match its sha256")
    return tensors, recipe


# --- a row of results ---


def save_row(file: Path, row: Mapping[str, Any], recipe: Recipe) -> None:
    """Write one row of results, with what made it. Of several ranks, rank 0 writes."""
    content = {"row": canonical(row), "recipe": canonical(recipe)}
    ranks.by_first(lambda: write_json(file, {**content, "sha256": digest(content)}))


def read_row(file: Path) -> tuple[dict[str, Any], Any]:
    """The row in a file of :func:`save_row`, and the recipe.

    Raises:
        PxframeError: the file is damaged or altered, or none of this function's.
    """
    found = read_json(file)
    if not (isinstance(found.get("row"), dict) and "recipe" in found):
        raise PxframeError(f"{file} is no result of a job")
    content = {"row": found["row"], "recipe": found["recipe"]}
    if digest(content) != found.get("sha256"):
        raise PxframeError(f"{file} was altered: its content does not match its sha256")
    return found["row"], found["recipe"]
