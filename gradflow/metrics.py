r"""Norm, cosine, conflict, cancellation and share: pure functions of a Gram matrix.

The Gram matrix of ``C`` contributions :math:`g_1 \dots g_C` to one parameter holds their inner
products, :math:`G_{ij} = \langle g_i, g_j \rangle`. All the measures follow from it, and Gram
matrices of several parameters add up to the one of the layer or the model they make.

Shapes: ``C`` is the number of contributions; ``gram`` is ``[C, C]`` float64 in squared gradient units.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gradflow.errors import ShapeError

__all__ = ["Gram", "cancellation", "conflict", "cosine", "norms", "shares", "total_norm"]

Gram = NDArray[np.float64]


def _checked(gram: Gram, caller: str) -> Gram:
    gram = np.asarray(gram, dtype=np.float64)
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1]:
        raise ShapeError(
            f"a Gram matrix is square, this one has shape {gram.shape}",
            where=f"gradflow.metrics.{caller}",
            do="pass the inner products [C, C] of the contributions",
        )
    return gram


def norms(gram: Gram) -> NDArray[np.float64]:
    """Give the norm of each contribution.

    Returns:
        Shape ``[C]``, in gradient units.

    Example:
        >>> norms(np.array([[4.0, 0.0], [0.0, 9.0]])).tolist()
        [2.0, 3.0]
    """
    return np.sqrt(np.maximum(np.diagonal(_checked(gram, "norms")), 0.0))


def total_norm(gram: Gram) -> float:
    """Give the norm of the sum of the contributions.

    Note:
        When they nearly cancel, few digits survive here. Records keep the norm of the total
        itself; use that where there is one.

    Example:
        >>> total_norm(np.array([[9.0, 0.0], [0.0, 16.0]]))
        5.0
    """
    return math.sqrt(max(float(_checked(gram, "total_norm").sum()), 0.0))


def cosine(gram: Gram, i: int, j: int) -> float:
    """Give the cosine of the angle between contributions ``i`` and ``j``.

    Returns:
        A unitless number in ``[-1, 1]``; ``nan`` if either contribution is zero.

    Example:
        >>> cosine(np.array([[1.0, -2.0], [-2.0, 4.0]]), 0, 1)
        -1.0
    """
    gram = _checked(gram, "cosine")
    scale = math.sqrt(max(gram[i, i], 0.0)) * math.sqrt(max(gram[j, j], 0.0))
    if scale == 0.0:
        return math.nan
    value = float(gram[i, j]) / scale
    return value if math.isnan(value) else min(1.0, max(-1.0, value))


def conflict(gram: Gram, i: int, j: int) -> float:
    """Tell how much contributions ``i`` and ``j`` pull against each other: ``max(0, -cosine)``.

    Returns:
        A unitless number in ``[0, 1]``; ``nan`` if either contribution is zero.

    Note:
        "Conflicting gradients" are those of negative cosine: Yu et al. 2020, arXiv:2001.06782.

    Example:
        >>> conflict(np.array([[1.0, -0.5], [-0.5, 1.0]]), 0, 1)
        0.5
        >>> conflict(np.array([[1.0, 0.5], [0.5, 1.0]]), 0, 1)
        0.0
    """
    value = cosine(_checked(gram, "conflict"), i, j)
    return value if math.isnan(value) else max(0.0, -value)


def cancellation(gram: Gram, total: float | None = None) -> float:
    r"""Give the share of the contributors' effort that their sum throws away.

    Computes :math:`1 - \lVert \sum_b g_b \rVert / \sum_b \lVert g_b \rVert`: 0 when all pull the
    same way, 1 when they annul one another.

    Args:
        gram: Inner products of the contributions. Shape ``[C, C]``.
        total: Norm of the sum, where it is known better than the Gram matrix tells it.

    Returns:
        A unitless number in ``[0, 1]``; ``nan`` if every contribution is zero.

    Note:
        Our own definition.

    Example:
        >>> cancellation(np.array([[1.0, -1.0], [-1.0, 1.0]]))
        1.0
    """
    gram = _checked(gram, "cancellation")
    effort = float(norms(gram).sum())
    if effort == 0.0:
        return math.nan
    value = 1.0 - (total_norm(gram) if total is None else total) / effort
    return value if math.isnan(value) else min(1.0, max(0.0, value))


def shares(gram: Gram) -> NDArray[np.float64]:
    r"""Give the share of each contribution in the sum: :math:`\langle g_b, s \rangle / \lVert s \rVert^2`.

    The projection of each contribution on the sum :math:`s`; a contributor that pulls against
    the sum has a negative share, and another one then more than 1.

    Returns:
        Shape ``[C]``, unitless, summing to 1; ``nan`` everywhere if the sum is zero.

    Example:
        >>> shares(np.array([[9.0, 0.0], [0.0, 16.0]])).tolist()
        [0.36, 0.64]
    """
    gram = _checked(gram, "shares")
    with np.errstate(invalid="ignore", over="ignore"):  # inf in a run that diverged: its shares are nan
        rows = gram.sum(axis=1)
        whole = rows.sum()
        return rows / whole if whole > 0.0 else np.full(len(rows), math.nan)
