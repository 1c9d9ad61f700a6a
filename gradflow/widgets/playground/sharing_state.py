"""The state of the playground of shared and copied encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradflow.widgets.playground import state as states
from gradflow.widgets.playground.optimizers import OPTIMIZERS

__all__ = ["BRANCHES", "MODES", "MOST_STEPS", "REACH", "WHERE", "SharingState"]

BRANCHES = ("anchor", "positive", "negative")
MODES = ("shared", "copied", "averaged")
MOST_STEPS = 100
REACH = 2.0
"""The probe is kept within ``[-REACH, REACH]`` in both directions."""

WHERE = "gradflow.playground.sharing"


@dataclass(frozen=True, slots=True)
class SharingState:
    """All that is shown follows from this.

    Attributes:
        mode: ``"shared"``: one encoder, called three times. ``"copied"``: three equal copies, each trained by
            what its own branch brings. ``"averaged"``: three copies, each moved by the mean of the three.
        steps: How many updates after the equal start are looked at.
        optimizer: ``"SGD"``, ``"momentum"`` or ``"Adam"``.
        rate: Learning rate.
        probe: The input that all three encoders are shown; a pair.

    Raises:
        InvalidArgumentError: a value means nothing here.
    """

    mode: str = "copied"
    steps: int = 20
    optimizer: str = "SGD"
    rate: float = 0.1
    probe: Sequence[float] = (0.9, 0.9)

    def __post_init__(self) -> None:
        states.check_choice(self.mode, MODES, "mode", WHERE)
        states.check_choice(self.optimizer, OPTIMIZERS, "optimizer", WHERE)
        checked = {
            "steps": states.check_whole(self.steps, 0, MOST_STEPS, "steps", WHERE),
            "rate": states.check_number(self.rate, 0.0, 1.0, "rate", WHERE),
            "probe": states.check_pair(self.probe, REACH, "probe", WHERE),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
