"""Two runs side by side: each run a column, with the same axes, so that heights can be compared by eye."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gradflow.errors import InvalidArgumentError, did_you_mean
from gradflow.recording import Recording
from gradflow.render.picture import loose_figure, tell
from gradflow.render.theme import Theme, applied, number, short
from gradflow.render.timeline import Line, line_of, names_of, norm_lines, scale_norms, smallest_cosines

__all__ = ["compare"]

_WIDTH_IN, _NORMS_IN, _OTHER_IN = 9.6, 2.9, 1.5
_KEY_LETTERS = 96  # how many letters of keys stand in one row of the legend


def compare(
    a: Recording,
    b: Recording,
    where: str = "",
    *,
    names: tuple[str, str] = ("a", "b"),
    scalar: str | None = None,
    theme: str = "light",
) -> Figure:
    """Draw two runs side by side: the norms of the contributions, how they agree, and a scalar.

    Above, the norm of each branch's contribution and of their sum over the steps; below, the smallest cosine
    between two branches (under 0 two of them pull against each other). Both columns have the same axes.

    Args:
        a: The first run, on the left.
        b: The second run, on the right; its branches and steps may be others.
        where: FQN or module path; ``""`` is the whole model.
        names: What the runs are called.
        scalar: Name of a scalar kept with ``flow.log``, such as ``"loss"``, for a row of its own.
        theme: ``"light"`` or ``"dark"``.

    Returns:
        The figure.

    Raises:
        NoSuchStepError: a recording is empty.
        NoSuchParameterError: a run has neither a parameter nor a module of that name.
        InvalidArgumentError: no such scalar in either run.
    """
    lines = _lines(a, b, where)
    _check(lines, scalar)
    rows = 3 if scalar else 2
    heights = [_NORMS_IN, *([_OTHER_IN] * (rows - 1))]
    with applied(theme) as look:
        fig = loose_figure(_WIDTH_IN, sum(heights) + 1.3)
        grid = fig.subplots(rows, 2, sharex="all", sharey="row", height_ratios=heights, squeeze=False)
        keys = _norms(grid[0], lines, look)
        _cosines(grid[1], lines, look)
        if scalar:
            _scalars(grid[2], lines, scalar, look)
        for ax, line, name in zip(grid[0], lines, names, strict=True):
            ax.set_title(f"{short(name, 30)}{line.thinned}")
        for ax in grid[-1]:
            ax.set_xlabel("step")
            ax.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
        for ax in grid.flat:
            ax.grid(lw=0.6)
        fig.suptitle(f"Contributions to {short(lines[0].called, 44)}, side by side")
        _legend(fig, keys)
    tell(fig, _told(lines, names))
    return fig


def _lines(a: Recording, b: Recording, where: str) -> tuple[Line, Line]:
    """Both runs, with the branches of both, so that a branch looks the same in either column."""
    first, second = line_of(a, where), line_of(b, where)
    both = tuple(dict.fromkeys((*first.branches, *second.branches)))
    return replace(first, branches=both), replace(second, branches=both)


def _check(lines: Sequence[Line], scalar: str | None) -> None:
    known = dict.fromkeys(name for line in lines for step in line.steps for name in step.scalars)
    if scalar is not None and scalar not in known:
        raise InvalidArgumentError(
            f"no scalar {scalar!r} was kept with either run",
            where="gradflow.plot.compare",
            do=f"keep it with flow.log({scalar}=...); {did_you_mean(scalar, known)}",
        )


def _norms(axes: Sequence[Axes], lines: Sequence[Line], look: Theme) -> list[Artist]:
    """Draw the norms in both columns, on one scale; give one key for each contributor of either."""
    keys: dict[str, Artist] = {}
    for ax, line in zip(axes, lines, strict=True):
        drawn, _ = norm_lines(ax, line, names_of(line), look)
        for key in drawn:
            keys.setdefault(str(key.get_label()).removesuffix(" (absent)"), key)
    values = [line.norms(name) for line in lines for name in names_of(line)]
    scale_norms(axes[0], np.concatenate([*values, *(line.totals for line in lines)]))
    axes[0].set_ylabel("norm, in gradient units")
    last = "Σ, their sum"
    return [key for label, key in keys.items() if label != last] + [keys[last]]


def _cosines(axes: Sequence[Axes], lines: Sequence[Line], look: Theme) -> None:
    for ax, line in zip(axes, lines, strict=True):
        values = smallest_cosines(line)
        ax.axhline(0, color=look.muted, lw=0.8)
        ax.fill_between(line.x, np.minimum(values, 0), 0, color=look.ink, alpha=0.16, lw=0)
        ax.plot(line.x, values, color=look.ink, lw=1.6)
    axes[0].set_ylim(-1.06, 1.06)
    axes[0].set_yticks([-1, 0, 1], ["−1", "0", "+1"])
    axes[0].set_ylabel("smallest cosine\nof two branches")


def _scalars(axes: Sequence[Axes], lines: Sequence[Line], scalar: str, look: Theme) -> None:
    for ax, line in zip(axes, lines, strict=True):
        values = [step.scalars.get(scalar, math.nan) for step in line.steps]
        ax.plot(line.x, values, color=look.ink, lw=1.6, ls=(0, (4, 1.5)))
    axes[0].set_ylabel(scalar)


def _legend(fig: Figure, keys: Sequence[Artist]) -> None:
    letters = sum(len(str(key.get_label())) + 8 for key in keys)
    rows = max(1, math.ceil(letters / _KEY_LETTERS))
    fig.legend(handles=list(keys), loc="outside lower center", ncols=math.ceil(len(keys) / rows))


def _told(lines: Sequence[Line], names: Sequence[str]) -> str:
    parts = [_column(line, name) for line, name in zip(lines, names, strict=True)]
    return f"Two runs side by side, {lines[0].called}. {' '.join(parts)}"


def _column(line: Line, name: str) -> str:
    ends = [_ends(line.norms(branch), branch) for branch in names_of(line)]
    fights = int((smallest_cosines(line) < 0).sum())
    return (
        f"{name}, steps {line.x[0]} to {line.x[-1]}: {'; '.join([*ends, _ends(line.totals, 'sum')])}. "
        f"In {fights} of the {len(line.steps)} steps shown two branches pull against each other."
    )


def _ends(values: np.ndarray, name: str) -> str:
    there = values[np.isfinite(values)]
    return f"{name} from {number(there[0])} to {number(there[-1])}" if there.size else f"{name} absent"
