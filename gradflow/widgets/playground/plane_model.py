"""The numbers behind the embedding plane: a real encoder, real autograd, and what ``gradflow.watch`` saw.

An encoder without bias, ``z = W x``, is called for an anchor, a positive and a negative. Everything shown
is a function of the state: the encoder and its optimizer are made from it, run once under
``gradflow.watch``, and read. No widget here.

Shapes: points and embeddings ``[2]``, everything of the weight ``[2, 2]``; float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gradflow.capture.recorder import watch
from gradflow.record import ParamStep
from gradflow.recording import Step
from gradflow.widgets.playground import state as states
from gradflow.widgets.playground.losses import LOSSES
from gradflow.widgets.playground.optimizers import make, recall, remembered
from gradflow.widgets.playground.plane_state import BRANCHES, WHERE, PlaneState

__all__ = ["Outcome", "Plane", "run"]

_FLAT = 1e-3  # an encoder whose determinant is smaller cannot be asked which input lands at a place
_LONGEST_TRAIL = 200


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one forward, one backward and one update did, starting from a state.

    Attributes:
        loss: The loss, unitless.
        written: The loss as a formula with its numbers.
        embeddings: Where the encoder sends each input, ``[2]`` by branch.
        pulls: Where each embedding wants to go, the negative gradient of the loss, ``[2]`` by branch; a
            branch that is absent has none.
        radius: How far from the anchor the hinge dies; None where there is no hinge.
        step: What ``gradflow.watch`` recorded, tensors included; None when every branch is stopped.
        weight: The matrix after the update, ``[2, 2]``.
        memory: What the optimizer remembers after it.
    """

    loss: float
    written: str
    embeddings: Mapping[str, NDArray[np.float64]]
    pulls: Mapping[str, NDArray[np.float64]]
    radius: float | None
    step: Step | None
    weight: NDArray[np.float64]
    memory: Mapping[str, Any]  # numbers and lists

    @property
    def seen(self) -> ParamStep | None:
        """What was recorded of the matrix; None when every branch is stopped."""
        return None if self.step is None else self.step["weight"]


def run(state: PlaneState) -> Outcome:
    """Make the encoder and the optimizer that a state tells of, and let them take one step under watch."""
    encoder = nn.Linear(2, 2, bias=False, dtype=torch.float64)
    with torch.no_grad():
        encoder.weight.copy_(torch.tensor(state.weight, dtype=torch.float64))
    optimizer = make(state.optimizer, encoder.parameters(), state.rate)
    recall(optimizer, state.memory)
    kind = LOSSES[state.loss]
    with watch(encoder, optimizer, branches=BRANCHES, keep="tensors") as flow:
        z = {b: encoder(torch.tensor(state.points[b], dtype=torch.float64)) for b in BRANCHES}
        for embedding in z.values():
            embedding.retain_grad()
        compared = [z[b].detach() if b in state.stopped else z[b] for b in BRANCHES]
        loss = kind.value(*compared, state.knob)
        if loss.requires_grad:  # else every branch is stopped, and nothing could be learnt
            loss.backward()
            optimizer.step()
    places = [embedding.detach() for embedding in z.values()]
    return Outcome(
        loss=loss.item(),
        written=kind.written(*places, state.knob),
        embeddings={b: place.numpy() for b, place in zip(BRANCHES, places, strict=True)},
        pulls={b: -e.grad.numpy() for b, e in z.items() if e.grad is not None},
        radius=kind.radius(*places, state.knob) if kind.radius else None,
        step=flow.recording.last if loss.requires_grad else None,
        weight=encoder.weight.detach().numpy(),
        memory=remembered(optimizer),
    )


class Plane:
    """The embedding plane without its picture: a state, what follows from it, and what one can do to it.

    Args:
        start: Parts of a :class:`~gradflow.widgets.playground.plane_state.PlaneState`; the rest is as usual.

    Attributes:
        outcome: What a step from here does.
        trail: Embeddings before each step made since something was changed by hand, by branch.

    Raises:
        InvalidArgumentError: a name or a value means nothing here.

    Example:
        >>> plane = Plane({"margin": 0.2})
        >>> plane.outcome.seen.contributors
        ('anchor', 'positive', 'negative')
    """

    def __init__(self, start: Mapping[str, Any] | None = None) -> None:
        self._start = states.read(PlaneState, start or {}, WHERE)
        self._put(self._start)

    @property
    def state(self) -> dict[str, Any]:
        """The state as a dict that can be printed, saved as JSON and given back."""
        return states.as_dict(self._state)

    @state.setter
    def state(self, given: Mapping[str, Any]) -> None:
        """Be where a state tells of."""
        self._put(states.read(PlaneState, given, WHERE))

    def change(self, **changes: Any) -> None:  # values of a PlaneState
        """Replace parts of the state; a new optimizer remembers nothing.

        Raises:
            InvalidArgumentError: a name or a value means nothing here.
        """
        forgets = changes.get("optimizer", self._state.optimizer) != self._state.optimizer
        self._put(states.changed(self._state, {**changes, **({"memory": {}} if forgets else {})}, WHERE))

    def move(self, branch: str, to: Sequence[float]) -> None:
        """Put one input somewhere.

        Raises:
            InvalidArgumentError: no such branch, or no point.
        """
        states.check_choice(branch, BRANCHES, "branch", WHERE)
        self.change(points={**self._state.points, branch: to})

    def place(self, branch: str, at: Sequence[float]) -> None:
        """Put one *embedding* somewhere: moves its input to the one that the encoder sends there.

        Nothing moves while the encoder is so flat that hardly any place can be reached (``can_place``).

        Raises:
            InvalidArgumentError: no such branch, or no point.
        """
        spot = states.check_pair(at, np.inf, "at", WHERE)
        if self.can_place:
            self.move(branch, np.linalg.solve(np.array(self._state.weight), np.array(spot)).tolist())

    @property
    def can_place(self) -> bool:
        """Whether an embedding can be moved, that is, whether the matrix can be inverted."""
        return bool(abs(np.linalg.det(np.array(self._state.weight))) > _FLAT)

    def stop(self, branch: str, *, stopped: bool) -> None:
        """Detach the embedding of a branch, or attach it again.

        Raises:
            InvalidArgumentError: no such branch.
        """
        states.check_choice(branch, BRANCHES, "branch", WHERE)
        others = [b for b in self._state.stopped if b != branch]
        self.change(stopped=[*others, branch] if stopped else others)

    def step(self, count: int = 1) -> None:
        """Make updates; ends early when there is nothing to learn from.

        Raises:
            InvalidArgumentError: not a whole number from 1 to 1000.
        """
        for _ in range(states.check_whole(count, 1, 1000, "count", WHERE)):
            if self.outcome.step is None:
                return
            here = [*self.trail, {b: z.tolist() for b, z in self.outcome.embeddings.items()}]
            after = {
                "weight": self.outcome.weight.tolist(),
                "memory": self.outcome.memory,
                "steps": self._state.steps + 1,
            }
            self._put(states.changed(self._state, after, WHERE), here[-_LONGEST_TRAIL:])

    def reset(self) -> None:
        """Go back to where it began."""
        self._put(self._start)

    def _put(self, state: PlaneState, trail: Sequence[Mapping[str, list[float]]] = ()) -> None:
        self._state, self.trail = state, list(trail)
        self.outcome = run(state)
