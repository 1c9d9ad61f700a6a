"""Times of several variants of the same work, interleaved, so that a busy machine slows all alike.

A round runs every variant for a few steps, in an order that turns. What is compared is the median of the
ratios within the rounds, with the quartiles beside it.
"""

from __future__ import annotations

import gc
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

__all__ = ["Spread", "Times", "Variant", "Work", "cpu_seconds", "interleave", "pooled", "then", "warmed"]

Work = Callable[[], object]


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Variant:
    """A step, and what is put on for a turn of it, so that several variants can take the step of one model.

    Attributes:
        work: Does one step.
        on: Called before each turn, untimed.
        off: Called after it, untimed.
        steps: How many in a turn; None for as many as others take.
    """

    work: Work
    on: Work = _nothing
    off: Work = _nothing
    steps: int | None = None


@dataclass(frozen=True)
class Spread:
    """A median and its quartiles; all three are the same for what was counted or measured once."""

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

    def times(self, factor: float) -> Spread:
        """Give the same in another unit."""
        return Spread(self.median * factor, self.low * factor, self.high * factor)

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.median:.3f}"
        return f"{self.median:.3f} ({self.low:.3f}–{self.high:.3f})"


@dataclass(frozen=True)
class Times:
    """Seconds a step, one entry a round.

    Attributes:
        cpu: CPU seconds of all threads of the process, and of those that it waited for.
        wall: Seconds by the clock.
    """

    cpu: list[float]
    wall: list[float]

    def over(self, other: Times) -> Times:
        """Give the ratios to another variant, round by round."""
        return Times(
            [a / b for a, b in zip(self.cpu, other.cpu, strict=True)],
            [a / b for a, b in zip(self.wall, other.wall, strict=True)],
        )

    def minus(self, other: Times) -> Times:
        """Give the differences to another variant, round by round."""
        return Times(
            [a - b for a, b in zip(self.cpu, other.cpu, strict=True)],
            [a - b for a, b in zip(self.wall, other.wall, strict=True)],
        )


def pooled(runs: Sequence[Mapping[str, Times]]) -> dict[str, Times]:
    """Put the rounds of several runs of the same variants together."""
    return {
        name: Times([c for run in runs for c in run[name].cpu], [w for run in runs for w in run[name].wall])
        for name in runs[0]
    }


def cpu_seconds() -> float:
    """Give the CPU seconds of this process and of its children that have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + spent.ru_utime + spent.ru_stime


def interleave(
    variants: Mapping[str, Work | Variant], *, rounds: int, steps: int = 1, warm: int = 2
) -> dict[str, Times]:
    """Time every variant in every round.

    Args:
        variants: What does one step.
        rounds: How many rounds.
        steps: Steps of each variant in a round.
        warm: Steps of each before anything is timed.

    Returns:
        Seconds a step by variant.
    """
    turns = {name: v if isinstance(v, Variant) else Variant(v) for name, v in variants.items()}
    for variant in turns.values():
        variant.on()
        for _ in range(warm):
            variant.work()
        variant.off()
    times = {name: Times([], []) for name in turns}
    names = list(turns)
    for turn in range(rounds):
        gc.collect()
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            variant = turns[name]
            variant.on()
            cpu, wall = _timed(variant.work, variant.steps or steps)
            variant.off()
            times[name].cpu.append(cpu)
            times[name].wall.append(wall)
    return times


def _timed(work: Work, steps: int) -> tuple[float, float]:
    """Give the CPU seconds of a step, and those by the clock."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    for _ in range(steps):
        work()
    return (cpu_seconds() - cpu) / steps, (time.perf_counter() - wall) / steps


def then(first: Work, second: Work) -> Callable[[], None]:
    """Do one after the other."""

    def both() -> None:
        first()
        second()

    return both


def warmed(variant: Variant) -> Variant:
    """Begin each turn with a step that is not timed."""
    return replace(variant, on=then(variant.on, variant.work))
