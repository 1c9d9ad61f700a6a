"""What the mean over the ranks does to each branch: where the ranks pull alike it keeps, else it cancels.

Needs the tensors of every rank, for the inner products of one rank with another are in no recording.

Shapes: ``W`` is the number of ranks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gradflow.errors import NoSuchParameterError, NotKeptError, did_you_mean
from gradflow.merging import check_alike, in_order_of_ranks
from gradflow.metrics import Gram
from gradflow.record import RESERVED, ParamStep
from gradflow.recording import Recording, Step

__all__ = ["ALL", "Averaged", "Averaging", "averaging"]

ALL = "Σ"
"""Name of the row for everything that a leaf received."""


@dataclass(frozen=True, slots=True)
class Averaged:
    """One contributor on all ranks, and in their mean.

    Attributes:
        name: The branch, or ``"Σ"`` for all that the leaves received.
        gram: Inner products of what it brought on each rank. Shape ``[W, W]``, squared gradient units.

    Example:
        >>> same = Averaged("anchor", np.array([[4.0, 4.0], [4.0, 4.0]]))
        >>> same.norms, same.mean, same.kept
        ((2.0, 2.0), 2.0, 1.0)
        >>> Averaged("anchor", np.array([[4.0, -4.0], [-4.0, 4.0]])).kept  # the ranks annul one another
        0.0
    """

    name: str
    gram: Gram

    @property
    def norms(self) -> tuple[float, ...]:
        """Norm of what it brought on each rank, in gradient units."""
        return tuple(np.sqrt(np.maximum(np.diagonal(self.gram), 0.0)).tolist())

    @property
    def mean(self) -> float:
        """Norm of its mean over the ranks, which is what the optimizer reads of it."""
        with np.errstate(invalid="ignore"):
            return math.sqrt(max(float(self.gram.sum()), 0.0)) / len(self.gram)

    @property
    def kept(self) -> float:
        """``mean`` as a fraction of the average norm: 1 where all ranks pull alike; ``nan`` of zeros.

        Ranks that know nothing of one another, at right angles and of one size, keep ``1 / sqrt(W)``.
        """
        average = sum(self.norms) / len(self.norms)
        return self.mean / average if average else math.nan

    @property
    def smallest_cosine(self) -> float:
        """Cosine of the two ranks that agree least; ``nan`` where fewer than two brought anything."""
        norms = np.array(self.norms)
        here = norms > 0
        if here.sum() < 2:
            return math.nan
        with np.errstate(invalid="ignore", over="ignore"):  # inf in a run that diverged
            cosines = self.gram[np.ix_(here, here)] / np.outer(norms[here], norms[here])
        return float(np.clip(cosines[np.triu_indices(int(here.sum()), 1)], -1.0, 1.0).min())


@dataclass(frozen=True, slots=True)
class Averaging:
    """What the mean over the ranks did to each branch in one step.

    Attributes:
        where: FQN; empty for all parameters whose tensors were kept.
        index: Number of the step.
        rows: The branches, then everything together.
    """

    where: str
    index: int
    rows: tuple[Averaged, ...]

    def __getitem__(self, name: str) -> Averaged:
        return next(row for row in self.rows if row.name == name)

    def __str__(self) -> str:
        ranks = range(len(self.rows[0].gram))
        head = ("contributor", *(f"rank {r}" for r in ranks), "mean", "kept", "smallest cosine")
        lines = [head, *(_cells(row) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        where = self.where or "all that was kept in full"
        title = f"Norms in step {self.index}, {where}, and what the mean keeps of them"
        return "\n".join([title, *(_line(cells, widths) for cells in lines)])


def averaging(recordings: Sequence[Recording], fqn: str = "", *, position: int = -1) -> Averaging:
    """Compare what each branch brought on each rank with its mean over the ranks.

    Args:
        recordings: One of each rank, in any order, with tensors (``keep="tensors"``, or a few by patterns).
        fqn: A parameter; empty for all whose tensors every rank kept.
        position: Position of the step in the recordings.

    Raises:
        InvalidArgumentError: the recordings are not those of all ranks.
        NoSuchParameterError: no parameter of that name.
        NotKeptError: no tensors were kept.
    """
    steps = [one[position] for one in in_order_of_ranks(recordings)]
    if fqn and fqn not in steps[0].params:
        raise NoSuchParameterError(
            f"no parameter {fqn!r} in step {steps[0].index}",
            where="averaging",
            do=did_you_mean(fqn, steps[0].params),
        )
    here = [each for each in _kept(steps) if fqn in ("", each[0].fqn)]
    if not here:
        raise NotKeptError(
            "only inner products were kept, and none of one rank with another",
            where="averaging",
            do='gradflow.watch(..., keep="tensors") on every rank, or keep=["conv1.*"] for a few',
        )
    names = dict.fromkeys(n for each in here for p in each for n in p.contributors if n not in RESERVED)
    rows = [Averaged(name, sum((_gram(each, name) for each in here), np.zeros(()))) for name in (*names, ALL)]
    return Averaging(fqn, steps[0].index, tuple(rows))


def _kept(steps: Sequence[Step]) -> Iterator[list[ParamStep]]:
    """Give every parameter of which all ranks kept the tensors, as the ranks have it."""
    for fqn in steps[0].params:
        each = [p for step in steps if (p := step.parameters.get(fqn)) is not None and p.tensors is not None]
        if len(each) == len(steps):
            yield each


def _gram(each: Sequence[ParamStep], name: str) -> Gram:
    check_alike(each)
    size = each[0].total.size
    rows = np.zeros((len(each), size), np.result_type(*(p.total for p in each), np.float64))
    for row, p in zip(rows, each, strict=True):
        if name == ALL:
            row[:] = p.total.reshape(size)
        elif name in p.contributors:
            row[:] = p.contribution(name).reshape(size)
    with np.errstate(invalid="ignore", over="ignore"):  # inf of a run that diverged stays inf
        return np.ascontiguousarray((rows @ rows.conj().T).real)


def _cells(row: Averaged) -> tuple[str, ...]:
    numbers = [f"{norm:.4g}" for norm in (*row.norms, row.mean)]
    return (row.name, *numbers, f"{100 * row.kept:.0f} %", f"{row.smallest_cosine:.2f}")


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (
        cell.ljust(width) if i == 0 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join([first, *others])
