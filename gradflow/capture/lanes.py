"""The order of contributors in a step: branches by their lanes, then the reserved ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from gradflow.record import RESERVED

__all__ = ["Lanes"]


class Lanes:
    """The branches of a step, and the order of contributors that follows, found once for each set of them."""

    def __init__(self, branches: Sequence[str]) -> None:
        self.branches = tuple(branches)
        self._orders: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._absent: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._places: dict[tuple[str, ...], NDArray[np.intp]] = {}

    def order(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Put contributors in order."""
        found = self._orders.get(names)
        if found is None:
            found = self._orders[names] = _in_order(names, self.branches)
        return found

    def ordered(self, matrix: NDArray[np.float64], names: tuple[str, ...]) -> NDArray[np.float64]:
        """Put a matrix over contributors in their order."""
        order = self.order(names)
        if order == names:
            return matrix
        places = self._places.get(names)
        if places is None:
            rows = np.array([names.index(name) for name in order])
            places = self._places[names] = rows[:, None] * len(names) + rows
        return matrix.ravel()[places]

    def absent(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Give the branches that are not among the contributors."""
        found = self._absent.get(names)
        if found is None:
            found = self._absent[names] = tuple(b for b in self.branches if b not in names)
        return found


def _in_order(names: Iterable[str], branches: Sequence[str]) -> tuple[str, ...]:
    """Branches in the order of their lanes, then the reserved contributors."""
    known = dict.fromkeys(names)
    return tuple(dict.fromkeys(name for name in (*branches, *RESERVED, *known) if name in known))
