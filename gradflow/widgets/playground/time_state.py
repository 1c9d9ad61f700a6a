"""The state of the playground of an unrolled recurrent cell."""

from __future__ import annotations

from dataclasses import dataclass

from gradflow.widgets.playground import state as states

__all__ = ["CELLS", "MATRICES", "MOST_STEPS", "WHERE", "TimeState"]

CELLS = ("tanh", "linear")
MATRICES = ("input", "recurrent")
MOST_STEPS = 40
WHERE = "gradflow.playground.time"


@dataclass(frozen=True, slots=True)
class TimeState:
    """All that is shown follows from this.

    Attributes:
        length: Number of time steps.
        radius: Spectral radius of the recurrent matrix.
        cell: ``"tanh"``, or ``"linear"`` for a cell without nonlinearity.
        matrix: ``"recurrent"`` or ``"input"``: whose contributions are shown.
        focus: The time step whose number is told, from 1; kept within the length.

    Raises:
        InvalidArgumentError: a value means nothing here.
    """

    length: int = 20
    radius: float = 0.7
    cell: str = "tanh"
    matrix: str = "input"
    focus: int = 1

    def __post_init__(self) -> None:
        states.check_choice(self.cell, CELLS, "cell", WHERE)
        states.check_choice(self.matrix, MATRICES, "matrix", WHERE)
        object.__setattr__(self, "length", states.check_whole(self.length, 2, MOST_STEPS, "length", WHERE))
        focus = states.check_whole(self.focus, 1, MOST_STEPS, "focus", WHERE)
        object.__setattr__(self, "focus", min(focus, self.length))
        object.__setattr__(self, "radius", states.check_number(self.radius, 0.0, 2.0, "radius", WHERE))
