"""Times of several variants of the same work, interleaved, so that a busy machine slows all alike.

A round runs every variant for a few steps, in an order that turns; the first step of each is not
timed. What is compared is the median of the ratios within the rounds, with the quartiles beside it.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Spread", "Times", "interleave"]


@dataclass(frozen=True)
class Spread:
    """A median and its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Summarise at least one value."""
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f}–{self.high:.3f})"


@dataclass(frozen=True)
class Times:
    """Seconds a step, one entry a round.

    Attributes:
        cpu: CPU seconds of all threads of the process.
        wall: Seconds by the clock.
    """

    cpu: list[float]
    wall: list[float]

    def over(self, other: Times) -> Spread:
        """Give the ratio of CPU seconds to those of another variant, round by round."""
        return Spread.of([a / b for a, b in zip(self.cpu, other.cpu, strict=True)])

    def over_wall(self, other: Times) -> Spread:
        """Give the ratio of seconds by the clock to those of another variant, round by round."""
        return Spread.of([a / b for a, b in zip(self.wall, other.wall, strict=True)])


def interleave(
    variants: Mapping[str, Callable[[], object]], *, rounds: int, steps: int, warm: int = 2
) -> dict[str, Times]:
    """Time every variant in every round.

    Args:
        variants: Callables that do one step.
        rounds: How many rounds.
        steps: Timed steps of each variant in a round.
        warm: Steps of each before anything is timed.

    Returns:
        Seconds a step by variant.
    """
    for work in variants.values():
        for _ in range(warm):
            work()
    times = {name: Times([], []) for name in variants}
    for turn in range(rounds):
        names = list(variants)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            gc.collect()
            variants[name]()
            cpu, wall = time.process_time(), time.perf_counter()
            for _ in range(steps):
                variants[name]()
            times[name].cpu.append((time.process_time() - cpu) / steps)
            times[name].wall.append((time.perf_counter() - wall) / steps)
    return times
