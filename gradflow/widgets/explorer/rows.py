"""The rows of the explorer: the model, its modules, its parameters, as one tree in the model's order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gradflow.record import ParamStep

__all__ = ["Row", "Tree", "tree_of"]

_FEW = 12  # rows that the flow shows at first, if the model can be folded to so many


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the tree.

    Attributes:
        place: FQN or module path; empty for the whole model.
        parent: Position of the row it is inside of; -1 for the model.
        is_parameter: Whether it is a parameter; else a module.
        members: How many parameters it stands for.
    """

    place: str
    parent: int
    is_parameter: bool
    members: int


@dataclass(frozen=True, slots=True)
class Tree:
    """All rows, each after the one it is inside of.

    Attributes:
        rows: The rows; the first is the whole model.
        at: Position of each row, by its place.
    """

    rows: tuple[Row, ...]
    at: dict[str, int] = field(repr=False)

    def members(self, parameters: Sequence[ParamStep]) -> NDArray[np.float64]:
        """Tell which of the parameters each row stands for, as ``step.layer`` does: under any of their names.

        Returns:
            1 where it does, else 0. Shape ``[R, P]``: rows by parameters.
        """
        found = np.zeros((len(self.rows), len(parameters)))
        for column, p in enumerate(parameters):
            paths = {path for name in (p.fqn, *p.names) for path in _modules(name)} | {p.fqn}
            found[[self.at[path] for path in paths if path in self.at], column] = 1.0
        return found

    def opened(self) -> list[str]:
        """Give the modules that are open at first: whole levels, as long as few rows are shown."""
        opened: list[str] = []
        level = [0]
        shown = 1
        while level:
            inside = [i for i, row in enumerate(self.rows) if row.parent in level]
            folds = [i for i in inside if not self.rows[i].is_parameter]
            if opened and shown + len(inside) > _FEW:
                break
            opened += [self.rows[i].place for i in level if not self.rows[i].is_parameter]
            shown, level = shown + len(inside), folds
        return opened


def tree_of(fqns: Iterable[str]) -> Tree:
    """Set out parameters under their modules; a module that holds one parameter has no row of its own.

    Example:
        >>> tree = tree_of(["conv.weight", "fc.weight", "fc.bias"])
        >>> [(row.place, row.parent, row.members) for row in tree.rows]
        [('', -1, 3), ('conv.weight', 0, 1), ('fc', 0, 2), ('fc.weight', 2, 1), ('fc.bias', 2, 1)]
    """
    names = list(dict.fromkeys(fqns))
    counts: dict[str, int] = {"": 0}
    for name in names:
        for path in _modules(name):
            counts[path] = counts.get(path, 0) + 1
    rows = [Row("", -1, False, len(names))]
    at = {"": 0}
    known = set(names)
    for name in names:
        parent = 0
        for path in _modules(name)[1:]:
            if counts[path] > 1 and path not in known:
                if path not in at:
                    at[path] = len(rows)
                    rows.append(Row(path, parent, False, counts[path]))
                parent = at[path]
        at[name] = len(rows)
        rows.append(Row(name, parent, True, 1))
    return Tree(tuple(rows), at)


def _modules(fqn: str) -> list[str]:
    """The modules a parameter is inside of, outermost first; the model itself is ``""``."""
    parts = fqn.split(".")[:-1]
    return [".".join(parts[:i]) for i in range(len(parts) + 1)]
