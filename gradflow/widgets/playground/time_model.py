"""A recurrent cell, unrolled: what each time step contributes to one of its matrices.

``h_t = tanh(W h_(t-1) + U x_t)``, from ``h_0 = 0``; the score ``v · h_T`` stands for the loss. ``W`` is an
orthogonal matrix times the spectral radius, so nothing but the radius decides how a gradient shrinks or grows
on its way back through a linear cell. Inputs ``x_t`` and ``v`` have length 1. No widget here.

Shapes: ``T`` time steps, ``H = 4`` hidden units; ``W`` ``[H, H]``, ``U`` ``[H, 2]``; float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradflow.capture.recorder import watch
from gradflow.recording import Step
from gradflow.widgets.playground import state as states
from gradflow.widgets.playground.time_state import WHERE, TimeState

__all__ = ["Cell", "Time", "inputs", "run", "score"]

_HIDDEN = 4


class Cell(nn.Module):
    """A recurrent cell without biases, its recurrent matrix of a given spectral radius.

    Args:
        radius: Largest absolute eigenvalue of the recurrent matrix; here all have it.
        is_linear: Leaves the nonlinearity away.
    """

    def __init__(self, radius: float, *, is_linear: bool = False) -> None:
        super().__init__()
        self.recurrent = nn.Linear(_HIDDEN, _HIDDEN, bias=False, dtype=torch.float64)
        self.input = nn.Linear(2, _HIDDEN, bias=False, dtype=torch.float64)
        rng = np.random.default_rng(3)
        turn, _ = np.linalg.qr(rng.normal(size=(_HIDDEN, _HIDDEN)))
        with torch.no_grad():
            self.recurrent.weight.copy_(torch.tensor(radius * turn))
            self.input.weight.copy_(torch.tensor(0.4 * rng.normal(size=(_HIDDEN, 2))))
        self._is_linear = is_linear

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """Give the next hidden state ``[H]`` of an input ``[2]`` and the hidden state before."""
        before = self.recurrent(h) + self.input(x)
        after: Tensor = before if self._is_linear else torch.tanh(before)
        return after


def inputs(length: int) -> Tensor:
    """Give the inputs, ``[T, 2]``: they go round the unit circle."""
    angles = torch.arange(length, dtype=torch.float64) * 0.7
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def score(h: Tensor) -> Tensor:
    """Give what is differentiated: the last hidden state along a fixed direction of length 1."""
    return h.sum() / math.sqrt(_HIDDEN)


def run(state: TimeState) -> Step:
    """Unroll the cell that a state tells of, go back once, and give what ``gradflow.watch`` recorded."""
    cell = Cell(state.radius, is_linear=state.cell == "linear")
    with watch(cell) as flow:
        h = torch.zeros(_HIDDEN, dtype=torch.float64)
        for x in inputs(state.length):
            h = cell(x, h)
        score(h).backward()
        flow.step()
    return flow.recording.last


class Time:
    """The playground without its picture: a state, and what each time step contributes.

    Args:
        start: Parts of a :class:`~gradflow.widgets.playground.time_state.TimeState`; the rest is as usual.

    Attributes:
        step: What was recorded of both matrices.

    Raises:
        InvalidArgumentError: a name or a value means nothing here.

    Example:
        >>> time = Time({"length": 3, "radius": 0.5, "cell": "linear"})
        >>> time.norms.round(3).tolist()
        [0.25, 0.5, 1.0]
    """

    def __init__(self, start: Mapping[str, Any] | None = None) -> None:
        self._start = states.read(TimeState, start or {}, WHERE)
        self._put(self._start)

    @property
    def state(self) -> dict[str, Any]:
        """The state as a dict that can be printed, saved as JSON and given back."""
        return states.as_dict(self._state)

    @state.setter
    def state(self, given: Mapping[str, Any]) -> None:
        """Be where a state tells of."""
        self._put(states.read(TimeState, given, WHERE))

    @property
    def norms(self) -> NDArray[np.float64]:
        """Norm of what each time step contributes to the matrix, first to last. Shape ``[T]``."""
        return self.norms_of(self._state.matrix)

    def norms_of(self, matrix: str) -> NDArray[np.float64]:
        """Give the norms for one of the matrices; read from the uses that were recorded. Shape ``[T]``."""
        found = np.zeros(self._state.length)
        for use in self.step[f"{matrix}.weight"].uses:
            found[int(use.call.rpartition("#")[2])] = use.norm
        return found

    def change(self, **changes: Any) -> None:  # values of a TimeState
        """Replace parts of the state.

        Raises:
            InvalidArgumentError: a name or a value means nothing here.
        """
        self._put(states.changed(self._state, changes, WHERE))

    def reset(self) -> None:
        """Go back to where it began."""
        self._put(self._start)

    def _put(self, state: TimeState) -> None:
        self.step = run(state)  # before the state changes: an error leaves both as they were
        self._state = state
