"""Checks of options that come from users: names that a function takes, and numbers in their range."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

from pxframe.base.errors import PxframeError, near


def check_options(function: Any, options: Mapping[str, Any], where: str) -> None:
    """Refuse options that ``function`` does not take, naming near matches."""
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for option in options:
        if option not in parameters:
            raise PxframeError(f"{where} takes no option {option!r}{near(option, parameters)}")
    for key, p in parameters.items():
        if p.default is p.empty and key not in options and p.kind is not p.VAR_POSITIONAL:
            raise PxframeError(f"{where} needs the option {key!r}")


def whole_number(where: str, option: str, value: Any, least: int = 1) -> int:
    """``value`` if it is a whole number of at least ``least``, else an error."""
    if type(value) is not int or value < least:
        raise PxframeError(f"{where}: {option!r} must be a whole number of at least {least}, got {value!r}")
    return value


def share(where: str, option: str, value: Any) -> float:
    """``value`` if it is a number in [0, 1), else an error."""
    if not (_is_number(value) and 0 <= value < 1):
        raise PxframeError(f"{where}: {option!r} must be in [0, 1), got {value!r}")
    return value


def positive(where: str, option: str, value: Any) -> float:
    """``value`` if it is a finite number above 0, else an error."""
    if not (_is_number(value) and 0 < value < math.inf):
        raise PxframeError(f"{where}: {option!r} must be a number above 0, got {value!r}")
    return value


def one_of(where: str, option: str, value: Any, known: Any) -> Any:
    """``value`` if it is among ``known``, else an error that lists them."""
    if value not in known:
        raise PxframeError(f"{where}: {option!r} must be one of {', '.join(map(repr, known))}; got {value!r}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
