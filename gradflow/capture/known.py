"""Parameters of which all was read as it arrived: kept as numbers, and made records when somebody asks.

Of a long training most steps are looked at by nobody, and to put a record together costs more than to keep
what goes into it. No torch here, and nothing that holds a graph: what is kept may be kept for long.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradflow.capture.lanes import Lanes
from gradflow.record import ParamStep, Use

__all__ = ["Known", "Layout", "Place", "Records", "shown"]


class Place(NamedTuple):
    """Where a use is: an input of a node that was made in a call.

    Attributes:
        path: Path of the called module; empty outside any call, too.
        number: Which call of it; None outside any call.
        node: Name of the node.
        slot: Which of its inputs.
    """

    path: str
    number: int | None
    node: str
    slot: int

    def use(self, branch: str, norm: float) -> Use:
        """Give the record of the use."""
        call = "" if self.number is None else f"{self.path}#{self.number}"
        return Use(branch, call, self.node, self.slot, norm)


class Layout(NamedTuple):
    """All that is known of one parameter in one step but the numbers: mostly the same in the next step.

    Attributes:
        names: Its names, of which the first is its FQN.
        shape: Its shape.
        contributors: Whose each row of the inner products is.
        owners: Contributor of each use.
        places: Where each use is.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    contributors: tuple[str, ...]
    owners: tuple[str, ...]
    places: tuple[Place, ...]


class Known(NamedTuple):
    """What was read of one parameter in one step.

    Attributes:
        layout: What the numbers are of.
        lanes: The branches of the step.
        numbers: Square of what the leaf received, ``[1]``; inner products, ``[C * C]``; square of what each
            use brought, ``[U]``.
        scale: What the optimizer reads as a multiple of what the leaf received.
    """

    layout: Layout
    lanes: Lanes
    numbers: NDArray[np.float64]
    scale: float = 1.0

    def record(self) -> ParamStep:
        """Put the record together."""
        layout, lanes, names = self.layout, self.lanes, self.layout.contributors
        count = len(names)
        gram = self.numbers[1 : 1 + count**2].reshape(count, count).copy()
        order, matrix = shown(lanes.order(names), lanes.ordered(gram, names), lanes)
        lengths = map(math.sqrt, self.numbers[1 + count**2 :].tolist())
        uses = zip(layout.places, layout.owners, lengths, strict=True)
        return ParamStep(
            contributors=order,
            gram=matrix,
            total_norm=math.sqrt(self.numbers[0]),
            absent=lanes.absent(order),
            fqn=layout.names[0],
            names=layout.names,
            shape=layout.shape,
            scale=self.scale,
            uses=tuple([place.use(owner, length) for place, owner, length in uses]),
        )


class Records(Mapping[str, ParamStep]):
    """The records of a step by FQN, each put together when any of them is asked for first.

    Args:
        parts: A record, or what it is made of, for every parameter.
    """

    def __init__(self, parts: Sequence[ParamStep | Known]) -> None:
        self._held: Sequence[ParamStep | Known] | dict[str, ParamStep] = parts

    def _records(self) -> dict[str, ParamStep]:
        held = self._held
        if not isinstance(held, dict):  # one place for both, so that two threads may ask at once
            records = (part if isinstance(part, ParamStep) else part.record() for part in held)
            held = self._held = {record.fqn: record for record in records}
        return held

    def __getitem__(self, fqn: str) -> ParamStep:
        return self._records()[fqn]

    def __iter__(self) -> Iterator[str]:
        return iter(self._records())

    def __len__(self) -> int:
        return len(self._held)

    def __repr__(self) -> str:
        return repr(self._records())

    def __reduce__(self) -> tuple[type[dict], tuple[dict[str, ParamStep]]]:  # a copy or pickle is a plain one
        return dict, (self._records(),)


def shown(
    order: tuple[str, ...], matrix: NDArray[np.float64], lanes: Lanes
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Leave out contributors that are no branch and brought nothing but zeros."""
    squares = matrix.diagonal().tolist()
    if 0.0 not in squares:
        return order, matrix
    keep = [i for i, name in enumerate(order) if squares[i] != 0.0 or name in lanes.branches]
    return tuple(order[i] for i in keep), matrix[np.ix_(keep, keep)]
