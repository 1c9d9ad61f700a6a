"""The newest steps of a recording, looked at together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from gradflow.errors import InvalidArgumentError
from gradflow.findings.branches import is_finite
from gradflow.record import Contributions
from gradflow.recording import Recording, Step

__all__ = ["Window", "window_of"]


@dataclass(frozen=True)
class Window:
    """Steps of a recording, in order; those without a gradient too.

    Attributes:
        steps: The steps.
    """

    steps: tuple[Step, ...]

    @cached_property
    def fed(self) -> tuple[Step, ...]:
        """The steps in which a gradient arrived."""
        return tuple(step for step in self.steps if len(step))

    @cached_property
    def sound(self) -> tuple[Step, ...]:
        """The steps in which a gradient arrived, without NaN or Inf."""
        return tuple(step for step in self.fed if all(is_finite(p) for p in step))

    @cached_property
    def models(self) -> tuple[Contributions, ...]:
        """Measures over the whole model, one for each of the ``sound`` steps."""
        return tuple(step.layer("") for step in self.sound)

    @cached_property
    def branches(self) -> tuple[str, ...]:
        """Branches of all steps, in the order of their lanes."""
        return tuple(dict.fromkeys(b for step in self.steps for b in step.branches))

    @property
    def span(self) -> str:
        """Which steps these are, in words."""
        if not self.steps:
            return "no step"
        first, last = self.steps[0].index, self.steps[-1].index
        return f"step {first}" if first == last else f"steps {first} to {last}"

    def scalar(self, name: str) -> list[float]:
        """Give the values that ``flow.log`` kept under a name, in order; steps without one are left out."""
        return [step.scalars[name] for step in self.steps if name in step.scalars]

    def neighbours(self) -> Iterator[tuple[Step, Step]]:
        """Give each step with the one right before it, where both were watched."""
        for before, after in zip(self.steps, self.steps[1:], strict=False):
            if after.index == before.index + 1:
                yield before, after


def window_of(recording: Recording | Sequence[Step], last: int | None) -> Window:
    """Take the newest steps.

    Args:
        recording: All steps.
        last: How many; None for all.

    Raises:
        InvalidArgumentError: ``last`` is no positive number of steps.
    """
    if last is not None and last < 1:
        raise InvalidArgumentError(
            f"last={last!r} is no positive number of steps",
            where="recording.findings",
            do="last=100, or last=None for all",
        )
    begin = 0 if last is None else max(0, len(recording) - last)
    return Window(tuple(recording[i] for i in range(begin, len(recording))))
