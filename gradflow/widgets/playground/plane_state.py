"""The state of the embedding plane."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gradflow.errors import InvalidArgumentError
from gradflow.widgets.playground import state as states
from gradflow.widgets.playground.losses import LOSSES
from gradflow.widgets.playground.optimizers import OPTIMIZERS

__all__ = ["BRANCHES", "REACH", "START", "WHERE", "PlaneState"]

BRANCHES = ("anchor", "positive", "negative")
REACH = 4.0
"""Inputs are kept within ``[-REACH, REACH]`` in both directions."""

START = {"anchor": (0.3, -0.5), "positive": (1.1, 0.4), "negative": (-0.9, 0.5)}
"""Where the inputs are at first: the hinge is active, and its dead zone near."""

WHERE = "gradflow.playground.plane"


@dataclass(frozen=True, slots=True)
class PlaneState:
    """All that the embedding plane shows follows from this.

    Attributes:
        points: The inputs by branch, each a pair; a branch that is left out is where it is at first.
        weight: The encoder's matrix, two rows of two.
        loss: ``"triplet"``, ``"contrastive"`` or ``"infonce"``.
        margin: Margin of the hinge, in units of the distance.
        temperature: Divides the cosines of InfoNCE.
        stopped: Branches whose embedding is detached.
        optimizer: ``"SGD"``, ``"momentum"`` or ``"Adam"``.
        rate: Learning rate.
        steps: Updates made so far.
        memory: What the optimizer remembers of earlier steps, by the names that torch has for it.

    Raises:
        InvalidArgumentError: a value means nothing here.
    """

    points: Mapping[str, Sequence[float]] = field(default_factory=dict)
    weight: Sequence[Sequence[float]] = ((1.0, 0.3), (-0.2, 0.9))
    loss: str = "triplet"
    margin: float = 1.0
    temperature: float = 0.5
    stopped: Sequence[str] = ()
    optimizer: str = "SGD"
    rate: float = 0.1
    steps: int = 0
    memory: Mapping[str, Any] = field(default_factory=dict)  # numbers and lists, as the optimizer has them

    def __post_init__(self) -> None:
        for name in (*self.points, *self.stopped):
            states.check_choice(name, BRANCHES, "branch", WHERE)
        states.check_choice(self.loss, LOSSES, "loss", WHERE)
        states.check_choice(self.optimizer, OPTIMIZERS, "optimizer", WHERE)
        points = {**START, **self.points}
        checked = {
            "points": {b: states.check_pair(points[b], REACH, f"points[{b!r}]", WHERE) for b in BRANCHES},
            "weight": _square(self.weight),
            "margin": states.check_number(self.margin, 0.0, 3.0, "margin", WHERE),
            "temperature": states.check_number(self.temperature, 0.05, 2.0, "temperature", WHERE),
            "stopped": tuple(b for b in BRANCHES if b in self.stopped),
            "rate": states.check_number(self.rate, 0.0, 1.0, "rate", WHERE),
            "steps": states.check_whole(self.steps, 0, 10**9, "steps", WHERE),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def knob(self) -> float:
        """The number that the chosen loss reads: its margin or its temperature."""
        return float(getattr(self, LOSSES[self.loss].knob))


def _square(rows: Sequence[Sequence[float]]) -> tuple[tuple[float, float], ...]:
    if not isinstance(rows, Sequence) or len(rows) != 2:
        raise InvalidArgumentError(f"weight={rows!r:.60}", where=WHERE, do="give two rows of two")
    return tuple(states.check_pair(row, math.inf, "weight", WHERE) for row in rows)
