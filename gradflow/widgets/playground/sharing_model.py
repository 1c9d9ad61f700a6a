"""One encoder or three copies: the same training from the same start, in three ways, for real.

The encoder is a matrix, ``z = W x``; the loss is the mean triplet loss of a few fixed triplets. Each way is
trained under ``gradflow.watch``, and only as far as it is looked at. No widget here.

Shapes: ``K`` triplets; inputs ``[K, 2]``, weights ``[2, 2]``; float64.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from gradflow.capture.recorder import watch
from gradflow.recording import Step
from gradflow.widgets.playground import state as states
from gradflow.widgets.playground.optimizers import make
from gradflow.widgets.playground.sharing_state import BRANCHES, MODES, MOST_STEPS, WHERE, SharingState

__all__ = ["MARGIN", "START", "Moment", "Sharing", "Training", "triplets"]

MARGIN = 1.0
START = ((0.9, 0.2), (-0.1, 0.8))
"""The matrix that every encoder starts with."""

_CLASSES = np.array([[0.95, 0.35], [0.35, 0.95]])  # where the inputs of two classes lie
_SPREAD = 0.22


def triplets(count: int = 12) -> dict[str, Tensor]:
    """Give fixed triplets of inputs: anchor and positive of one class, the negative of the other.

    Returns:
        Inputs by branch, ``[K, 2]`` float64.
    """
    rng = np.random.default_rng(0)
    own = np.arange(count) % 2
    classes = {"anchor": own, "positive": own, "negative": 1 - own}
    return {b: torch.tensor(_CLASSES[c] + rng.normal(0, _SPREAD, (count, 2))) for b, c in classes.items()}


@dataclass(frozen=True, slots=True)
class Moment:
    """One training at one step.

    Attributes:
        weights: The matrix that each branch goes through, ``[2, 2]`` by branch.
        loss: The loss with these weights.
        step: What ``gradflow.watch`` recorded of the update that led here; None at the start.
    """

    weights: Mapping[str, NDArray[np.float64]]
    loss: float
    step: Step | None

    @property
    def drift(self) -> float:
        """The largest distance (Frobenius norm) between the weights of two branches."""
        pairs = combinations(self.weights.values(), 2)
        return max(float(np.linalg.norm(one - other)) for one, other in pairs)


class Training:
    """One way of training, remembered step by step and trained on as it is looked at.

    Args:
        mode: ``"shared"``, ``"copied"`` or ``"averaged"``.
        optimizer: The word for an optimizer.
        rate: Learning rate.

    Attributes:
        moments: What was so far, from the start.
    """

    def __init__(self, mode: str, optimizer: str, rate: float) -> None:
        first = nn.Linear(2, 2, bias=False, dtype=torch.float64)
        with torch.no_grad():
            first.weight.copy_(torch.tensor(START, dtype=torch.float64))
        self._averages, self._inputs = mode == "averaged", triplets()
        self._encoders = {b: first if mode == "shared" else copy.deepcopy(first) for b in BRANCHES}
        self._weights = [p for e in dict.fromkeys(self._encoders.values()) for p in e.parameters()]
        self._optimizer = make(optimizer, self._weights, rate)
        if mode == "shared":
            self._flow = watch(first, self._optimizer, branches=BRANCHES, last=1, keep="tensors")
        else:
            self._flow = watch(
                list(self._encoders.values()),
                self._optimizer,
                branches=self._encoders,
                last=1,
                keep="tensors",
            )
        self.moments = [self._moment(None)]

    def at(self, steps: int) -> Moment:
        """Give what is after so many steps; trains on where it was not looked at before."""
        while len(self.moments) <= steps:
            self._advance()
        return self.moments[steps]

    def close(self) -> None:
        """End watching."""
        self._flow.close()

    def _advance(self) -> None:
        self._optimizer.zero_grad()
        self._loss().backward()
        if self._averages:
            mean = torch.stack([_gradient(w) for w in self._weights]).mean(dim=0)
            for weight in self._weights:
                weight.grad = mean.clone()
        self._optimizer.step()
        self.moments.append(self._moment(self._flow.recording.last))

    def _loss(self) -> Tensor:
        a, p, n = (self._encoders[b](self._inputs[b]) for b in BRANCHES)
        near, far = (torch.linalg.vector_norm(a - other, dim=1) for other in (p, n))
        return F.relu(near - far + MARGIN).mean()

    def _moment(self, step: Step | None) -> Moment:
        weights = {b: e.weight.detach().numpy().copy() for b, e in self._encoders.items()}
        with torch.no_grad():  # a look, not a pass that counts
            return Moment(weights, self._loss().item(), step)


def _gradient(weight: nn.Parameter) -> Tensor:
    assert weight.grad is not None, "every branch reaches its own weight"
    return weight.grad


class Sharing:
    """The playground without its picture: a state, three trainings, and what one can do to them.

    Args:
        start: Parts of a :class:`~gradflow.widgets.playground.sharing_state.SharingState`.

    Attributes:
        trainings: The three ways, by mode.

    Raises:
        InvalidArgumentError: a name or a value means nothing here.

    Example:
        >>> sharing = Sharing({"mode": "shared", "steps": 3})
        >>> sharing.moment.drift
        0.0
    """

    def __init__(self, start: Mapping[str, Any] | None = None) -> None:
        self._start = states.read(SharingState, start or {}, WHERE)
        self.trainings: dict[str, Training] = {}
        self._state = self._start
        self._begin()

    @property
    def state(self) -> dict[str, Any]:
        """The state as a dict that can be printed, saved as JSON and given back."""
        return states.as_dict(self._state)

    @state.setter
    def state(self, given: Mapping[str, Any]) -> None:
        """Be where a state tells of."""
        self._put(states.read(SharingState, given, WHERE))

    @property
    def moment(self) -> Moment:
        """The training that is looked at, at the step that is looked at."""
        return self.trainings[self._state.mode].at(self._state.steps)

    @property
    def spots(self) -> dict[str, NDArray[np.float64]]:
        """Where each branch's encoder sends the probe, ``[2]`` by branch."""
        return {b: w @ np.array(self._state.probe) for b, w in self.moment.weights.items()}

    def change(self, **changes: Any) -> None:  # values of a SharingState
        """Replace parts of the state; another optimizer or rate trains anew from the equal start.

        Raises:
            InvalidArgumentError: a name or a value means nothing here.
        """
        self._put(states.changed(self._state, changes, WHERE))

    def step(self, count: int = 1) -> None:
        """Look further, at most to the last step.

        Raises:
            InvalidArgumentError: not a whole number from 1 to 100.
        """
        further = states.check_whole(count, 1, MOST_STEPS, "count", WHERE)
        self.change(steps=min(MOST_STEPS, self._state.steps + further))

    def reset(self) -> None:
        """Go back to where it began."""
        self._put(self._start)

    def _put(self, state: SharingState) -> None:
        before, self._state = self._state, state
        if (before.optimizer, before.rate) != (state.optimizer, state.rate):
            self._begin()
        for training in self.trainings.values():
            training.at(state.steps)

    def _begin(self) -> None:
        for training in self.trainings.values():
            training.close()
        self.trainings = {m: Training(m, self._state.optimizer, self._state.rate) for m in MODES}
        for training in self.trainings.values():
            training.at(self._state.steps)
