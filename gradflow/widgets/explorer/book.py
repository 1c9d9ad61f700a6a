"""What the page of the explorer asks for, as JSON and float64 numbers: an overview, a step, a history, maps.

A book knows a recording that may be growing. The overview is small whatever the recording holds; steps,
histories and maps are worked out when they are asked for. No torch here.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradflow import findings
from gradflow.errors import NoSuchStepError
from gradflow.record import BESIDE_THE_TOTAL, RESERVED, ParamStep
from gradflow.recording import Recording, Step
from gradflow.render.panels import panels
from gradflow.render.story import ACCOUNTING
from gradflow.render.theme import style
from gradflow.widgets.explorer.rows import Tree, tree_of
from gradflow.widgets.explorer.table import Columns, columns_of, measured

__all__ = ["Book", "Reply"]

_MOST_READ = 4000  # parameters in steps that one history reads; more are thinned, which the page says
_CHUNK = 128  # steps that are measured at once


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer to the page.

    Attributes:
        head: What the numbers are; JSON.
        numbers: The numbers, in one row.
    """

    head: dict[str, Any]  # Any: whatever JSON holds
    numbers: NDArray[np.float64]


class Book:
    """A recording as the explorer reads it.

    Args:
        recording: The recording; it may grow, and forget its oldest steps.
    """

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.tree: Tree = tree_of(())
        self.indices: list[int] = []
        self._scalars: list[Mapping[str, float]] = []
        self._flags: list[int] = []
        self._fqns: dict[str, None] = {}
        self._names: dict[str, tuple[str, ...]] = {}
        self._lock = threading.RLock()  # the page asks, and the follower looks, from threads of their own
        self.refresh()

    def refresh(self) -> bool:
        """Look for new steps; tell whether there is anything new."""
        with self._lock:
            before = (len(self.indices), self.indices[-1:], self._scalars[-1:])
            fresh: list[Step] = []
            newest = self.indices[-1] if self.indices else -1
            for i in range(len(self.recording) - 1, -1, -1):
                step = self.recording[i]
                if step.index < newest:
                    break
                fresh.append(step)
            if self.indices and fresh:  # the newest may have been amended since
                self._forget(len(self.indices) - 1, len(self.indices))
            for step in reversed(fresh):
                self._add(step)
            oldest = self.recording[0].index if len(self.recording) else 0
            self._forget(0, bisect_left(self.indices, oldest))
            if len(self._fqns) != self.tree.rows[0].members:
                self.tree = tree_of(self._fqns)
            return before != (len(self.indices), self.indices[-1:], self._scalars[-1:])

    def _add(self, step: Step) -> None:
        self.indices.append(step.index)
        self._scalars.append(step.scalars)
        self._flags.append((not step.complete) + 2 * step.skipped + 4 * (not len(step)))
        for fqn in step.params:
            self._fqns.setdefault(fqn)

    def _forget(self, start: int, stop: int) -> None:
        for column in (self.indices, self._scalars, self._flags):
            del column[start:stop]

    def overview(self) -> Reply:
        """Give the tree, the looks of the contributors, and for every step its index, flags and scalars."""
        with self._lock:
            scalars = list(dict.fromkeys(name for kept in self._scalars for name in kept))
            branches = list(self.recording.branches)
            head = {
                "rows": [[row.place, row.parent, row.is_parameter, row.members] for row in self.tree.rows],
                "opened": self.tree.opened(),
                "branches": branches,
                "looks": _looks(branches),
                "steps": len(self.indices),
                "scalars": scalars,
                "beside": list(BESIDE_THE_TOTAL),
                "accounting": ACCOUNTING,
            }
            columns = [[kept.get(name, math.nan) for kept in self._scalars] for name in scalars]
            return Reply(head, np.array([self.indices, self._flags, *columns], dtype=float).ravel())

    def step(self, index: int) -> Reply:
        """Give all measures of every row in the step of that index.

        Raises:
            NoSuchStepError: the recording has no step of that index.
        """
        step = self.find(index)
        columns = columns_of([step], step)
        return self.page([step], columns)

    def page(self, steps: Sequence[Step], columns: Columns) -> Reply:
        """Give the measures of every row in some steps, in the same columns. Shape ``[S, R, columns]``."""
        blocks = []
        for step in steps:
            parameters = list(step)
            self._names |= {p.fqn: p.names for p in parameters}
            floor = findings.noise_floor(step)
            blocks.append(measured(parameters, self.tree.members(parameters), columns, floor))
        head = {**columns.named(), "steps": [s.index for s in steps], "rows": len(self.tree.rows)}
        return Reply(head, np.array(blocks).ravel())

    def history(self, place: str) -> Reply:
        """Give the measures of one row in every step, or in evenly spaced ones where it has many parameters.

        Its cosines are judged against the noise of the newest step. Shape ``[S, columns]``.
        """
        with self._lock:
            row = self.tree.rows[self.tree.at.get(place, 0)]
            fqns = self._inside(row.place)
            every = math.ceil(len(self.indices) * len(fqns) / _MOST_READ) or 1
            steps = [step for step in self._spaced(every) if len(step)]
        kept = [[p for fqn in fqns if (p := step.parameters.get(fqn)) is not None] for step in steps]
        columns = columns_of(steps, (p for parameters in kept for p in parameters))
        floor = findings.noise_floor(steps[-1]) if steps else 0.0
        chunks = [kept[i : i + _CHUNK] for i in range(0, len(kept), _CHUNK)]
        blocks = [measured([p for ps in c for p in ps], _blocks(c), columns, floor).ravel() for c in chunks]
        head = {**columns.named(), "steps": [s.index for s in steps], "every": every, "place": row.place}
        return Reply(head, np.concatenate(blocks) if blocks else np.zeros(0))

    def _inside(self, place: str) -> list[str]:
        """FQNs of the parameters that a row stands for, under any of their names."""
        known = [(fqn, (fqn, *self._names.get(fqn, ()))) for fqn in self._fqns]
        return [f for f, names in known if not place or any(f"{n}.".startswith(f"{place}.") for n in names)]

    def _spaced(self, every: int) -> list[Step]:
        """Every so-many-th step, counted back from the newest, so that this one is among them."""
        count = len(self.indices)
        positions = range((count - 1) % every, count, every) if count else ()
        return [self.find(self.indices[i]) for i in positions]

    def maps(self, index: int, place: str) -> Reply:
        """Give the equation of one parameter in one step as cells to colour, if its tensors were kept."""
        p = self.find(index).parameters.get(place)
        if p is None or p.tensors is None or p.total_tensor is None:
            return Reply({"index": index, "place": place, "panels": []}, np.zeros(0))
        branches = self.recording.branches
        found, shown = panels(p, branches)
        said = [
            {"sign": one.sign, "name": one.name, "under": one.under, "limit": one.limit, "empty": one.empty,
             "branch": one.name if one.look else "", "filled": one.cells is not None}
            for one in found
        ]  # fmt: skip
        rows, columns = shown.index.shape
        head = {"index": index, "place": place, "panels": said, "rows": rows, "columns": columns,
                "kernel": list(shown.kernel), "sentence": shown.sentence, "shape": list(p.shape)}  # fmt: skip
        cells = [one.cells.ravel() for one in found if one.cells is not None]
        return Reply(head, np.concatenate(cells) if cells else np.zeros(0))

    def find(self, index: int) -> Step:
        """Give the step of an index; recordings that forget have it at a changing position.

        Raises:
            NoSuchStepError: there is none, or not any more.
        """
        likely = bisect_left(self.indices, index)
        if likely < len(self.recording) and (step := self.recording[likely]).index == index:
            return step
        low, high = 0, len(self.recording)
        while low < high:
            middle = (low + high) // 2
            if self.recording[middle].index < index:
                low = middle + 1
            else:
                high = middle
        if low < len(self.recording) and (step := self.recording[low]).index == index:
            return step
        raise NoSuchStepError(
            f"no step of index {index} among the {len(self.recording)} of the recording",
            where="gradflow.explore",
            do="watch(..., last=N) forgets old steps; keep more, or stream them to a file with to=path",
        )


def _blocks(kept: Sequence[Sequence[ParamStep]]) -> NDArray[np.float64]:
    """Tell for a row of parameters which step each is of. Shape ``[S, P]``."""
    owner = np.repeat(np.arange(len(kept)), [len(parameters) for parameters in kept])
    return np.equal(np.arange(len(kept))[:, None], owner).astype(np.float64)


def _looks(branches: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour, dash and letter of every contributor."""
    looks = {name: style(name, branches) for name in (*branches, *RESERVED)}
    return {name: {"colour": s.colour, "dash": list(s.dash), "letter": s.letter} for name, s in looks.items()}
