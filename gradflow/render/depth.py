"""How large is each branch's gradient at each depth? One line for every branch, from input to output.

The picture known from many forums as "plot_grad_flow", where one line of mean magnitudes tells whether
gradients vanish or explode; here each branch has its own, beside the sum that the weights receive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import rcParams
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gradflow.errors import InvalidArgumentError
from gradflow.findings import noise_floor
from gradflow.recording import Step
from gradflow.render.picture import axes_of, legend_below, tell
from gradflow.render.rows import Row, rows
from gradflow.render.theme import applied, number, short, style

__all__ = ["profile"]

_MOST_ROWS = 40
_NAME_LENGTH = 34
_MEASURES = {"norm": "norm, in gradient units", "rms": "root mean square of the entries,\nin gradient units"}


def profile(
    step: Step, *, by: str = "auto", measure: str = "rms", ax: Axes | None = None, theme: str = "light"
) -> Axes:
    """Draw the size of each branch's gradient by depth, from the first layer to the last.

    A line that falls towards the left vanishes on its way back. Zeros and absences leave a gap in a line,
    as a logarithm has no place for them; the legend says how many.

    Args:
        step: The step.
        by: ``"auto"``, ``"parameter"`` or ``"module"``; depth is the model's order of its parameters.
        measure: ``"rms"``, which layers of different sizes can be compared by, or ``"norm"``.
        ax: Axes to draw in; by default new ones.
        theme: ``"light"`` or ``"dark"``.

    Returns:
        The axes drawn in.

    Raises:
        InvalidArgumentError: no such ``measure`` or ``by``.
        NoSuchParameterError: the step has no parameters.
    """
    if measure not in _MEASURES:
        raise InvalidArgumentError(
            f"measure={measure!r}",
            where="gradflow.plot.profile",
            do=f"known: {', '.join(map(repr, _MEASURES))}",
        )
    shown, what = rows(step, most=_MOST_ROWS, by=by)
    names = _names(shown, step.branches)
    with applied(theme) as look:
        ax = axes_of(ax, 7.4, 3.9 + _tall_pt(shown) / 72)
        keys = [_line(ax, step, shown, name, measure) for name in names]
        totals = [_sized(row.data.total_norm, row, measure) for row in shown]
        keys += ax.plot(_positive(totals), color=look.ink, lw=2.6, label="Σ, their sum", zorder=2)
        keys += _rounding_marks(ax, step, shown, names, measure)
        _axis(ax, [*totals, *(v for n in names for v in _values(shown, n, measure))])
        ax.set_xticks(range(len(shown)), [short(row.name, _NAME_LENGTH) for row in shown], rotation=90)
        ax.tick_params(axis="x", labelsize=8 if len(shown) <= 24 else 7)
        ax.set_xlim(-0.6, len(shown) - 0.4)
        ax.set_ylabel(_MEASURES[measure])
        ax.set_title(f"Gradient by depth, step {step.index}: {what}, input on the left")
        ax.grid(lw=0.6)
        legend_below(ax, keys, offset_pt=14 + _tall_pt(shown))
    tell(ax, _told(step, shown, names, measure))
    return ax


def _names(shown: Sequence[Row], branches: Sequence[str]) -> list[str]:
    seen = dict.fromkeys(name for row in shown for name in (*row.data.contributors, *row.data.absent))
    return [b for b in branches if b in seen] + [name for name in seen if name not in branches]


def _tall_pt(shown: Sequence[Row]) -> float:
    """About how much room the upright names take."""
    return 5.2 * max(len(short(row.name, _NAME_LENGTH)) for row in shown)


def _sized(norm: float, row: Row, measure: str) -> float:
    """A norm, or the root mean square over the row's entries."""
    entries = sum(math.prod(p.shape) for p in row.members)
    return norm if measure == "norm" else norm / math.sqrt(entries) if entries else math.nan


def _values(shown: Sequence[Row], name: str, measure: str) -> list[float]:
    return [_sized(row.data.norms.get(name, math.nan), row, measure) for row in shown]


def _positive(values: Sequence[float]) -> np.ndarray:
    return np.array([v if v > 0 else math.nan for v in values])


def _line(ax: Axes, step: Step, shown: Sequence[Row], name: str, measure: str) -> Artist:
    how, values = style(name, step.branches), _values(shown, name, measure)
    zeros, gone = sum(v == 0 for v in values), sum(math.isnan(v) for v in values)
    counts = [f"{n} {words}" for n, words in ((zeros, "zero"), (gone, "absent")) if n]
    label = short(name, 22) + (f" ({', '.join(counts)})" if counts else "")
    dash = (0, how.dash) if how.dash else "-"
    (line,) = ax.plot(_positive(values), color=how.colour, ls=dash, marker=how.marker, label=label, zorder=3)
    return line


def _axis(ax: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis where sizes differ much."""
    there = [v for v in values if math.isfinite(v) and v > 0]
    if there and max(there) > 20 * min(there):
        ax.set_yscale("log")
    else:
        ax.set_ylim(0, 1.08 * max(there, default=1.0))


def _rounding_marks(
    ax: Axes, step: Step, shown: Sequence[Row], names: Sequence[str], measure: str
) -> list[Artist]:
    """Hollow markers where a contribution may be mere rounding; gives their key."""
    floor, found = noise_floor(step), False
    for name in names:
        norms = [row.data.norms.get(name, 0.0) for row in shown]
        faint = [i for i, norm in enumerate(norms) if 0 < norm <= floor]
        values, how = _values(shown, name, measure), style(name, step.branches)
        hollow = {"mfc": rcParams["axes.facecolor"], "mec": how.colour, "zorder": 4}
        ax.plot(faint, [values[i] for i in faint], ls="", marker=how.marker, **hollow)
        found = found or bool(faint)
    if not found:
        return []
    words = "hollow: may be mere rounding"
    return [Line2D([], [], ls="", marker="o", mfc="none", mec=rcParams["text.color"], label=words)]


def _told(step: Step, shown: Sequence[Row], names: Sequence[str], measure: str) -> str:
    ends = []
    for name in names:
        there = [(v, row.name) for v, row in zip(_values(shown, name, measure), shown, strict=True) if v > 0]
        if there:
            first, last = there[0], there[-1]
            ends.append(f"{name} {number(first[0])} at {first[1]}, {number(last[0])} at {last[1]}")
        else:
            ends.append(f"{name} nowhere above zero")
    what = "Norm" if measure == "norm" else "Root mean square"
    return f"{what} of each branch's gradient by depth, step {step.index}: {'; '.join(ends)}."
