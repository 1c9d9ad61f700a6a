"""An unrolled recurrent cell in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradflow.recording import Step
from gradflow.widgets.playground import skin, time_twin
from gradflow.widgets.playground.time_model import Time
from gradflow.widgets.playground.time_state import WHERE, TimeState
from gradflow.widgets.playground.time_view import view
from gradflow.widgets.twin import Twin

__all__ = ["TimePlayground", "time"]


class TimePlayground(skin.Skin):
    """See what each time step of a recurrent cell contributes to one matrix.

    Made by :func:`time`.
    """

    kind, state_kind, where = Time, TimeState, WHERE
    todos = ("change", "reset")
    model: Time
    _esm, _css = skin.script("time"), skin.style_sheet()

    @property
    def step(self) -> Step:
        """What ``gradflow.watch`` recorded of both matrices."""
        return self.model.step

    def twin(self) -> Twin:
        """Give a still picture and a table, for where no kernel runs."""
        return time_twin.twin(view(self.model))

    def _seen(self) -> dict[str, Any]:
        return view(self.model)


def time(state: Mapping[str, Any] | None = None, **entries: Any) -> TimePlayground:
    """Open a recurrent cell, unrolled: each time step is a use of the same matrices.

    Args:
        state: A state to begin with, such as ``widget.state`` of another time.
        **entries: Parts of the state by name: ``length`` (2 to 40 time steps), ``radius`` (spectral radius of
            the recurrent matrix, 0 to 2), ``cell`` (``"tanh"``, ``"linear"``), ``matrix`` (``"input"``,
            ``"recurrent"``), ``focus`` (the time step that is read out).

    Returns:
        A widget. Its ``state`` is a dict to print, save and set again; ``step`` is the recorded step, and
        ``model.norms`` has the norm of what each time step contributes.

    Raises:
        InvalidArgumentError: an entry means nothing here.

    Example:
        >>> time(length=3, radius=0.5, cell="linear").model.norms.round(3).tolist()
        [0.25, 0.5, 1.0]
    """
    return TimePlayground({**(state or {}), **entries})
