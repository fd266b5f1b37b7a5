"""The share of entries that is kept after each round."""

from __future__ import annotations

from collections.abc import Callable

#: ``(density after the last round, number of a round from 1, number of rounds)`` to the density after that round.
Schedule = Callable[[float, int, int], float]


def exponential(density: float, round: int, rounds: int) -> float:
    """density ** (round / rounds): every round keeps the same share (Tanaka et al., SynFlow, 2020, Alg. 1)."""
    return density ** (round / rounds)


def linear(density: float, round: int, rounds: int) -> float:
    """1 - (1 - density) * round / rounds: every round removes the same number."""
    return density if round == rounds else 1.0 - (1.0 - density) * round / rounds


SCHEDULES: dict[str, Schedule] = {"exponential": exponential, "linear": linear}
