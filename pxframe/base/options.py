"""Checks of options that users give: their names, and the range of numbers.

``where`` is the beginning of a message: what the option belongs to, for example ``"prospr"`` or ``"backbone 'timm'"``.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Any

from pxframe.base.errors import PxframeError, near


def check_options(function: Any, options: Mapping[str, Any], where: str, beside: Iterable[str] = ()) -> None:
    """Check that ``function`` takes all ``options``, and that none is missing that it needs.

    Args:
        beside: what users may set in the same place, and another function takes; for the similar names alone.

    Raises:
        PxframeError: it does not take an option (the message names similar ones), or needs one that is not given.
    """
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    known = [name for name, p in parameters.items() if p.kind is not p.VAR_POSITIONAL] + list(beside)
    for option in options:
        if option not in parameters:
            raise PxframeError(f"{where} takes no option {option!r}{near(option, known)}")
    for key, p in parameters.items():
        if p.default is p.empty and key not in options and p.kind is not p.VAR_POSITIONAL:
            raise PxframeError(f"{where} needs the option {key!r}")


def whole_number(where: str, option: str, value: Any, least: int = 1) -> int:
    """Check that ``value`` is a whole number of at least ``least``, and give it.

    Raises:
        PxframeError: it is not; bools are refused too.
    """
    if type(value) is not int or value < least:
        raise PxframeError(f"{where}: {option!r} must be a whole number of at least {least}, got {value!r}")
    return value


def share(where: str, option: str, value: Any) -> float:
    """Check that ``value`` is a number in [0, 1), and give it.

    Raises:
        PxframeError: it is not; bools are refused too.
    """
    if not (_is_number(value) and 0 <= value < 1):
        raise PxframeError(f"{where}: {option!r} must be a number in [0, 1), got {value!r}")
    return value


def positive(where: str, option: str, value: Any) -> float:
    """Check that ``value`` is a finite number above 0, and give it.

    Raises:
        PxframeError: it is not; bools are refused too.
    """
    if not (_is_number(value) and 0 < value < math.inf):
        raise PxframeError(f"{where}: {option!r} must be a finite number above 0, got {value!r}")
    return value


def one_of(where: str, option: str, value: Any, known: Any) -> Any:
    """Check that ``value`` is among ``known``, and give it.

    Raises:
        PxframeError: it is not; the message lists what is.
    """
    if value not in known:
        raise PxframeError(f"{where}: {option!r} must be one of {', '.join(map(repr, known))}; got {value!r}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
