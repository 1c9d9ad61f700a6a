"""Embeddings in the plane, each with an arrow to where the loss pulls or pushes it.

Takes arrays, not records: the gradient that reaches an embedding belongs to no parameter.

Shapes: ``B`` branches, ``N`` points of each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch
from numpy.typing import ArrayLike, NDArray

from gradflow.errors import InvalidArgumentError, ShapeError
from gradflow.render.picture import axes_of, legend_below, tell
from gradflow.render.theme import Theme, applied, number, short, style

__all__ = ["plane"]

_LONGEST = 0.22  # the longest arrow, as a fraction of the picture's side
_MARGIN = 0.14  # room around the points, as a fraction of the side
_LETTERED = 0.1  # distance between points from which a letter has room, as a fraction of the side
_MOST_PAIRED = 16  # triplets whose points are joined by lines
_GRID = 400  # points to a side at which the dead zone is worked out
_WHERE = "gradflow.plot.plane"


def plane(
    points: ArrayLike,
    gradients: ArrayLike | None = None,
    labels: Sequence[str] = ("anchor", "positive", "negative"),
    *,
    margin: float | None = None,
    squared: bool = False,
    ax: Axes | None = None,
    theme: str = "light",
) -> Axes:
    """Draw embeddings in the plane, and where gradient descent would move each.

    An arrow points along the *negative* gradient; all are drawn at one scale, which the axis label tells. A
    hollow marker has no gradient. With a margin, the zone in which a negative is far enough from
    every anchor drawn is shaded: there the hinge is 0 and nothing moves (a dead triplet).

    Args:
        points: Embeddings. Shape ``[B, 2]`` for one of each branch, or ``[B, N, 2]``.
        gradients: Gradients of the loss at these points, of the same shape; None for no arrows.
        labels: Names of the branches. With a margin: those of anchor, positive and negative, in this order.
        margin: Margin of ``max(0, d(a, p) - d(a, n) + margin)``, in units of the distance.
        squared: True where the loss compares squared distances.
        ax: Axes to draw in; by default new ones.
        theme: ``"light"`` or ``"dark"``.

    Returns:
        The axes drawn in.

    Raises:
        ShapeError: the points are not in the plane, or gradients or labels do not go with them.
        InvalidArgumentError: a margin, but not three branches; or a point that is not finite.

    Example:
        >>> ax = plane([[0, 0], [1, 0], [0, 2]], labels=("anchor", "positive", "negative"), margin=0.5)
        >>> ax.get_label().partition(". ")[2]
        'Shaded: negatives that are far enough, where the hinge gives no gradient (1 of 1).'
    """
    spots, slopes = _checked(points, gradients, labels)
    if margin is not None and len(spots) != 3:
        raise InvalidArgumentError(
            f"margin={margin} with {len(spots)} branches",
            where=_WHERE,
            do="pass anchors, positives and negatives, in this order, or leave the margin out",
        )
    radii = None if margin is None else _radii(spots, margin, squared=squared)
    with applied(theme) as look:
        ax = axes_of(ax, 5.4, 5.9)
        side = _limits(ax, spots)
        keys = [_dots(ax, spots[i], slopes, i, labels) for i in range(len(spots))]
        _letters(ax, spots, slopes, labels, side)
        _pairs(ax, spots, look)
        if radii is not None:
            keys.append(_dead_zone(ax, spots[0], radii, look))
        scale = _arrows(ax, spots, slopes, labels, side)
        ax.set_aspect("equal", adjustable="datalim")
        ax.set_xlim(*ax.get_xlim(), auto=True)  # fixed limits would be warned of, as the aspect moves them
        ax.set_ylim(*ax.get_ylim(), auto=True)
        ax.set_title("Where each embedding is pulled and pushed" if scale else "Embeddings in the plane")
        ax.set_xlabel(f"arrows: −gradient × {number(scale)}" if scale else "")
        if slopes is not None and not np.abs(slopes).sum(axis=-1).all():
            words = "hollow: no gradient"
            keys.append(Line2D([], [], ls="", marker="o", mfc="none", mec=look.ink, label=words))
        legend_below(ax, keys)
    tell(ax, _told(spots, slopes, labels, radii))
    return ax


def _checked(
    points: ArrayLike, gradients: ArrayLike | None, labels: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Both as ``[B, N, 2]``."""
    spots = np.asarray(points, dtype=np.float64)
    slopes = None if gradients is None else np.asarray(gradients, dtype=np.float64)
    if spots.ndim not in (2, 3) or spots.shape[-1] != 2 or not spots.size:
        raise ShapeError(
            f"points of shape {spots.shape} are not points in the plane",
            where=_WHERE,
            do="pass [B, 2] or [B, N, 2]; project wider embeddings to two dimensions first",
        )
    if slopes is not None and slopes.shape != spots.shape:
        raise ShapeError(
            f"gradients of shape {slopes.shape} for points of shape {spots.shape}",
            where=_WHERE,
            do="pass one gradient for each point, in the same order",
        )
    if len(labels) != len(spots):
        raise ShapeError(
            f"{len(labels)} labels for {len(spots)} branches",
            where=_WHERE,
            do="pass one label for each branch",
        )
    if not np.isfinite(spots).all() or not (slopes is None or np.isfinite(slopes).all()):
        raise InvalidArgumentError("a point or gradient is not finite", where=_WHERE, do="leave it out")
    shape = (len(spots), -1, 2)
    return spots.reshape(shape), None if slopes is None else slopes.reshape(shape)


def _radii(spots: NDArray[np.float64], margin: float, *, squared: bool) -> NDArray[np.float64]:
    """How far from each anchor a negative must be to be far enough. Shape ``[N]``."""
    near: NDArray[np.float64] = np.linalg.norm(spots[1] - spots[0], axis=-1)
    return np.sqrt(np.maximum(near**2 + margin, 0.0)) if squared else np.maximum(near + margin, 0.0)


def _limits(ax: Axes, spots: NDArray[np.float64]) -> float:
    """A square around all points with room for arrows; gives its side."""
    low, high = spots.min(axis=(0, 1)), spots.max(axis=(0, 1))
    side = float((high - low).max()) * (1 + 2 * (_MARGIN + _LONGEST / 2)) or 1.0
    middle = (low + high) / 2
    ax.set_xlim(middle[0] - side / 2, middle[0] + side / 2)
    ax.set_ylim(middle[1] - side / 2, middle[1] + side / 2)
    return side


def _dots(
    ax: Axes, spots: NDArray[np.float64], slopes: NDArray[np.float64] | None, i: int, labels: Sequence[str]
) -> Artist:
    how = style(labels[i], labels)
    moved = np.ones(len(spots), dtype=bool) if slopes is None else np.abs(slopes[i]).sum(axis=-1) > 0
    size = 9 if len(spots) == 1 else 7
    for chosen, face in ((moved, how.colour), (~moved, "none")):
        dots = spots[chosen]
        ax.plot(dots[:, 0], dots[:, 1], ls="", marker=how.marker, ms=size, mfc=face, mec=how.colour, zorder=4)
    return Line2D([], [], ls="", marker=how.marker, color=how.colour, label=short(labels[i], 22))


def _letters(
    ax: Axes,
    spots: NDArray[np.float64],
    slopes: NDArray[np.float64] | None,
    labels: Sequence[str],
    side: float,
) -> None:
    """Letters beside the points, where there is one of each and they stand apart."""
    if spots.shape[1] > 1:
        return
    flat = spots[:, 0]
    apart = np.linalg.norm(flat[:, None] - flat[None], axis=-1) + np.eye(len(flat)) * side
    if apart.min() < _LETTERED * side:
        return
    for i, name in enumerate(labels):
        slope = np.zeros(2) if slopes is None else slopes[i, 0]
        size = float(np.hypot(*slope))
        away = slope / size if size else np.array([0.0, 1.0])  # from the arrow
        letter = ax.annotate(
            style(name, labels).letter,
            (flat[i, 0], flat[i, 1]),
            (13 * away[0], 13 * away[1]),
            textcoords="offset points",
        )
        letter.set(ha="center", va="center", fontsize=10, fontweight="bold", clip_on=True, zorder=5)


def _pairs(ax: Axes, spots: NDArray[np.float64], look: Theme) -> None:
    """Thin lines from each first point, the anchor, to those that go with it."""
    if spots.shape[1] <= _MOST_PAIRED:
        for others in spots[1:]:
            for (x, y), (u, v) in zip(spots[0], others, strict=True):
                ax.plot([x, u], [y, v], color=look.muted, lw=0.7, ls=(0, (1, 2)), zorder=1)


def _arrows(
    ax: Axes,
    spots: NDArray[np.float64],
    slopes: NDArray[np.float64] | None,
    labels: Sequence[str],
    side: float,
) -> float:
    """Arrows along the negative gradient; gives their scale, 0 if there are none."""
    longest = 0.0 if slopes is None else float(np.linalg.norm(slopes, axis=-1).max())
    if slopes is None or not longest:
        return 0.0
    scale = _round(_LONGEST * side / longest)
    for i, name in enumerate(labels):
        reach = -scale * slopes[i]
        keep = np.abs(reach).sum(axis=-1) > 0
        (x, y), (u, v) = spots[i][keep].T, reach[keep].T
        colour = style(name, labels).colour
        ax.quiver(x, y, u, v, color=colour, angles="xy", scale_units="xy", scale=1, width=0.007, zorder=3)
    return scale


def _round(value: float) -> float:
    """Round down to 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return power * max(m for m in (1, 2, 5) if m * power <= value * (1 + 1e-12))


def _dead_zone(ax: Axes, anchors: NDArray[np.float64], radii: NDArray[np.float64], look: Theme) -> Artist:
    """Shade what is outside every circle, and draw the circles."""
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    more = right - left  # an aspect of 1 may widen the view
    x, y = np.linspace(left - more, right + more, _GRID), np.linspace(low - more, high + more, _GRID)
    beyond = np.full((_GRID, _GRID), np.inf)
    for (u, v), radius in zip(anchors, radii, strict=True):
        beyond = np.minimum(beyond, np.hypot(x[None, :] - u, y[:, None] - v) - radius)
        edge = Circle((u, v), radius, fill=False, ec=look.muted, lw=0.9, ls=(0, (4, 3)), zorder=1)
        ax.add_patch(edge)
    if (beyond >= 0).any():
        ax.contourf(x, y, beyond, levels=[0, np.inf], colors=[look.muted], alpha=0.22, zorder=0)
    words = "dead zone: a negative here gets no gradient"
    return Patch(facecolor=look.muted, alpha=0.3, edgecolor=look.muted, label=words)


def _told(
    spots: NDArray[np.float64],
    slopes: NDArray[np.float64] | None,
    labels: Sequence[str],
    radii: NDArray[np.float64] | None,
) -> str:
    said = f"{spots.shape[1]} of each in the plane: {', '.join(labels)}"
    if slopes is not None:
        sizes = np.linalg.norm(slopes, axis=-1).mean(axis=1)
        each = ", ".join(f"{name} {number(float(size))}" for name, size in zip(labels, sizes, strict=True))
        said += f"; arrows along the negative gradient, of mean norm {each}"
    if radii is None:
        return said + "."
    dead = int((np.linalg.norm(spots[2] - spots[0], axis=-1) >= radii).sum())
    zone = "Shaded: negatives that are far enough, where the hinge gives no gradient"
    return f"{said}. {zone} ({dead} of {len(radii)})."
