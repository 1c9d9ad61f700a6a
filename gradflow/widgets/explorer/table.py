"""All measures of one step, for every row of the tree at once: one block of numbers that a page can hold.

The formulas are those of :mod:`gradflow.metrics`, over a stack of Gram matrices instead of one.
Shapes: ``P`` parameters, ``R`` rows, ``C`` contributors, ``D`` contributors of the delta.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from gradflow.record import BESIDE_THE_TOTAL, RESERVED, ParamStep
from gradflow.recording import Step

__all__ = ["FIXED", "Columns", "columns_of", "measured"]

FIXED = ("total", "cancellation", "least", "pair", "delta", "relative", "residual")
"""Columns between the norms and the shares. ``least`` is the smallest cosine of two branches above the noise
floor, and ``pair`` tells which pair it is of."""

_MOST_PAIRS = 120  # of contributors whose cosines are sent for every row: 16 contributors
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Columns:
    """What each column holds, in this order: a norm for each contributor, :data:`FIXED`, shares, cosines.

    Attributes:
        contributors: Their norms. Branches first.
        deltas: Contributors of the delta: their shares.
        branches: How many of the contributors are branches.
    """

    contributors: tuple[str, ...]
    deltas: tuple[str, ...]
    branches: int

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Pairs of contributors whose cosines stand in the last columns; none where there are too many."""
        found = list(combinations(range(len(self.contributors)), 2))
        return found if len(found) <= _MOST_PAIRS else []

    def named(self) -> dict[str, object]:
        """Give the columns as JSON."""
        return {
            "contributors": list(self.contributors),
            "deltas": list(self.deltas),
            "branches": self.branches,
            "fixed": list(FIXED),
            "pairs": [list(pair) for pair in self.pairs],
        }


def columns_of(steps: Iterable[Step], parameters: Iterable[ParamStep]) -> Columns:
    """Find the columns that hold all that these parameters received in these steps."""
    lanes = tuple(dict.fromkeys(b for step in steps for b in step.branches))
    seen: dict[str, None] = {}
    moved: dict[str, None] = {}
    for p in parameters:
        seen |= dict.fromkeys((*p.contributors, *p.absent))
        if p.delta is not None:
            moved |= dict.fromkeys(p.delta.contributors)
    mine = [b for b in lanes if b in seen] + [n for n in seen if n not in lanes and n not in RESERVED]
    order = (*mine, *(r for r in RESERVED if r in seen))
    deltas = [n for n in order if n in moved] + [n for n in moved if n not in order]
    return Columns(order, tuple(deltas), len(mine))


def measured(parameters: Sequence[ParamStep], members: Numbers, columns: Columns, floor: float) -> Numbers:
    """Measure every row of a step.

    Args:
        parameters: What happened to each parameter in the step.
        members: Which of them each row stands for. Shape ``[R, P]``.
        columns: What to tell.
        floor: Norm below which a contribution is taken for rounding, so that its angles mean nothing.

    Returns:
        Shape ``[R, columns]``; ``nan`` where there is nothing to tell: an absent branch has no norm, while
        zeros that arrived have the norm 0.
    """
    grams, there, totals = _gradients(parameters, columns.contributors)
    c = len(columns.contributors)
    gram = (members @ grams.reshape(len(parameters), c * c)).reshape(len(members), c, c)
    norms = np.sqrt(np.maximum(np.diagonal(gram, axis1=1, axis2=2), 0.0))
    norms[members @ there == 0] = np.nan
    total = np.sqrt(members @ totals**2)
    total[members.sum(axis=1) == 0] = np.nan
    cosines = _cosines(gram, norms)
    least, pair = _least(cosines, norms, columns, floor)
    fixed = [total, _cancellation(norms, total, columns.contributors), least, pair]
    fixed += _moves(parameters, members)
    residual = np.where(members > 0, [p.residual for p in parameters], -np.inf).max(axis=1, initial=-np.inf)
    fixed.append(np.where(np.isneginf(residual), np.nan, residual))
    pairs = [cosines[:, i, j] for i, j in columns.pairs]
    shares = _shares(parameters, members, columns.deltas)
    return np.column_stack([norms, *fixed, shares, *pairs])


def _gradients(parameters: Sequence[ParamStep], names: tuple[str, ...]) -> tuple[Numbers, Numbers, Numbers]:
    """Gram matrices ``[P, C, C]``, who arrived ``[P, C]``, and the norms of the totals ``[P]``."""
    place = {name: i for i, name in enumerate(names)}
    grams = np.zeros((len(parameters), len(names), len(names)))
    there = np.zeros((len(parameters), len(names)))
    for k, p in enumerate(parameters):
        rows = [place[name] for name in p.contributors]
        there[k, rows] = 1.0
        if rows:
            grams[k][np.ix_(rows, rows)] = p.gram
    return grams, there, np.array([p.total_norm for p in parameters])


def _cosines(gram: Numbers, norms: Numbers) -> Numbers:
    scale = norms[:, :, None] * norms[:, None, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(scale > 0.0, np.clip(gram / scale, -1.0, 1.0), np.nan)


def _cancellation(norms: Numbers, total: Numbers, names: tuple[str, ...]) -> Numbers:
    summing = [i for i, name in enumerate(names) if name not in BESIDE_THE_TOTAL]
    effort = np.nansum(norms[:, summing], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(effort > 0.0, np.clip(1.0 - total / effort, 0.0, 1.0), np.nan)


def _least(cosines: Numbers, norms: Numbers, columns: Columns, floor: float) -> tuple[Numbers, Numbers]:
    """The smallest cosine between two branches above the noise, and which pair it is of."""
    b = columns.branches
    pairs = list(combinations(range(b), 2))
    if not pairs:
        none = np.full(len(norms), np.nan)
        return none, none
    heard = norms > floor
    found = np.column_stack([np.where(heard[:, i] & heard[:, j], cosines[:, i, j], np.inf) for i, j in pairs])
    found[np.isnan(found)] = np.inf
    which = found.argmin(axis=1)
    least = found[np.arange(len(found)), which]
    known = np.isfinite(least)
    everyone = list(combinations(range(len(columns.contributors)), 2))
    place = np.array([everyone.index(pair) for pair in pairs], dtype=float)
    return np.where(known, least, np.nan), np.where(known, place[which], np.nan)


def _moves(parameters: Sequence[ParamStep], members: Numbers) -> list[Numbers]:
    """The norm of the delta of every row, and that norm as a fraction of the weight's."""
    moves = np.array([np.nan if p.delta is None else p.delta.norm for p in parameters])
    sizes = np.array([np.nan if p.delta is None else p.delta.parameter_norm for p in parameters])
    known = ~np.isnan(moves)
    norm = np.sqrt(members[:, known] @ moves[known] ** 2)
    size = np.sqrt(members[:, known] @ sizes[known] ** 2)
    none = members[:, known].sum(axis=1) == 0
    norm[none] = size[none] = np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        return [norm, norm / size]


def _shares(parameters: Sequence[ParamStep], members: Numbers, names: tuple[str, ...]) -> Numbers:
    """The share of each contributor in the delta of every row. Shape ``[R, D]``."""
    place = {name: i for i, name in enumerate(names)}
    rows = np.zeros((len(parameters), len(names)))  # a gram's row sums add up over parameters, as grams do
    there = np.zeros((len(parameters), len(names)))
    for k, p in enumerate(parameters):
        if p.delta is not None:
            at = [place[name] for name in p.delta.contributors]
            rows[k, at] = p.delta.gram.sum(axis=1)
            there[k, at] = 1.0
    with np.errstate(invalid="ignore", divide="ignore"):  # inf and nan in a run that diverged
        sums = members @ rows
        whole = sums.sum(axis=1, keepdims=True)
        shares = np.where(whole > 0.0, sums / whole, np.nan)
    shares[members @ there == 0] = np.nan
    return shares
