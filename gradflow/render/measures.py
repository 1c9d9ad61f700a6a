"""One step at a glance: how large each contribution is everywhere, and how they point to one another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from gradflow import findings
from gradflow.record import Contributions
from gradflow.recording import Step
from gradflow.render.picture import axes_of, legend_below, tell
from gradflow.render.rows import Row, largest, measured, rows
from gradflow.render.theme import DIVERGING, Theme, applied, number, short, signed, style

__all__ = ["contributions", "cosines"]

_MOST_ROWS = 30
_ROW_IN = 0.235  # height of one row
_NAME_LENGTH = 34


def contributions(
    step: Step,
    *,
    by: str = "auto",
    top: int | None = None,
    ax: Axes | None = None,
    theme: str = "light",
) -> Axes:
    """Draw the norm of every branch's contribution to every parameter, with the norm of their sum.

    Rows are in the model's order. More than thirty parameters are summed by module, and the title says so.
    The axis is logarithmic; zeros and absent branches have places of their own at its left.

    Args:
        step: The step.
        by: ``"auto"``, ``"parameter"`` or ``"module"``.
        top: Show only so many rows: those with the largest contributions.
        ax: Axes to draw in; by default new ones.
        theme: ``"light"`` or ``"dark"``.

    Returns:
        The axes drawn in.
    """
    shown, what = rows(step, most=_MOST_ROWS, by=by)
    every = len(shown)
    if top is not None and top < every:
        shown = largest(shown, top)
    with applied(theme) as look:
        ax = axes_of(ax, 7.4, 1.5 + _ROW_IN * len(shown))
        order = _contributors(shown, step.branches)
        spots = _dots(ax, shown, order, step.branches, look)
        _dot_axis(ax, spots)
        keys = _keys(order, step.branches, look)
        noise = findings.NOISE_FLOOR * spots[1]
        if noise > spots[0]:
            ax.axvspan(ax.get_xlim()[0], noise, color=look.panel, zorder=0)
            keys.append(Patch(color=look.panel, label="may be mere rounding"))
        legend_below(ax, keys)
        ax.set_yticks(range(len(shown)), [short(row.name, _NAME_LENGTH) for row in shown])
        ax.set_ylim(len(shown) - 0.4, -0.6)
        ax.grid(axis="x", lw=0.6)
        ax.set_xlabel("norm of the contribution, in gradient units (log scale)")
        few = "" if len(shown) == every else f", the {len(shown)} largest of {every}"
        ax.set_title(f"Contributions by branch, step {step.index}: {what}{few}")
    tell(ax, _contributions_told(step, shown, order, what + few))
    return ax


def _contributors(shown: Sequence[Row], branches: Sequence[str]) -> list[str]:
    seen = dict.fromkeys(name for row in shown for name in (*row.data.contributors, *row.data.absent))
    return [b for b in branches if b in seen] + [name for name in seen if name not in branches]


def _dots(
    ax: Axes, shown: Sequence[Row], order: Sequence[str], branches: Sequence[str], look: Theme
) -> tuple[float, float, bool, bool]:
    """Draw the markers; give the range of the positive norms, and whether zeros and absences occur."""
    values = [v for row in shown for v in (*row.data.norms.values(), row.data.total_norm)]
    positive = [v for v in values if v > 0 and math.isfinite(v)] or [1.0]
    low, high = 10 ** (math.log10(min(positive)) - 0.15), 10 ** (math.log10(max(positive)) + 0.15)
    step_out = (high / low) ** 0.06
    zero, gone = low / step_out, low / step_out**2.4
    for y, row in enumerate(shown):
        norms = row.data.norms
        inside = [v for v in norms.values() if v > 0] or [math.nan]
        ax.plot([min(inside), max(inside)], [y, y], color=look.faint, lw=2, zorder=1)
        for i, name in enumerate(order):
            at = y + 0.34 * (i - (len(order) - 1) / 2) / max(len(order) - 1, 1)
            dot = style(name, branches)
            if name in row.data.absent:
                ax.plot(gone, at, ls="", marker="x", ms=5, mew=1.6, color=dot.colour, zorder=3)
            elif name in norms:
                full = norms[name] > 0
                face = dot.colour if full else look.paper
                x = norms[name] if full else zero
                ax.plot(x, at, ls="", marker=dot.marker, ms=5.5, mfc=face, mec=dot.colour, zorder=3)
        total = row.data.total_norm or zero
        ax.plot([total, total], [y - 0.38, y + 0.38], color=look.ink, lw=2, zorder=2)
    zeros = any(v == 0 for row in shown for v in (*row.data.norms.values(), row.data.total_norm))
    return low, high, zeros, any(row.data.absent for row in shown)


def _dot_axis(ax: Axes, spots: tuple[float, float, bool, bool]) -> None:
    """A logarithmic axis with ``0`` and ``absent`` at its left end where they occur."""
    low, high, zeros, absences = spots
    out = (high / low) ** 0.06
    ax.set_xscale("log")
    ax.set_xlim(low / out**3.4 if absences else low / out**2 if zeros else low, high)
    ticks = _decades(low, high)
    plain = ticks[0] >= 1e-3 and ticks[-1] <= 1e3
    labels = [f"{t:g}" if plain else f"1e{math.log10(t):.0f}" for t in ticks]
    for there, place, words in ((zeros, low / out, "zero"), (absences, low / out**2.4, "absent")):
        if there:
            ticks, labels = [place, *ticks], [words, *labels]
    ax.set_xticks(ticks, labels)
    ax.minorticks_off()


def _decades(low: float, high: float) -> list[float]:
    """At most seven round numbers between two norms."""
    first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
    if last - first >= 2:
        return [10.0**e for e in range(first, last + 1, max(1, math.ceil((last - first) / 6)))]
    every = [m * 10.0**e for e in range(first - 1, last + 1) for m in (1, 2, 5)]
    return [v for v in every if low <= v <= high][:7] or [math.sqrt(low * high)]


def _keys(order: Sequence[str], branches: Sequence[str], look: Theme) -> list[Artist]:
    """What the markers mean."""
    keys: list[Artist] = []
    for name in order:
        dot = style(name, branches)
        keys.append(Line2D([], [], ls="", marker=dot.marker, color=dot.colour, label=short(name, 22)))
    keys.append(Line2D([], [], ls="", marker="|", ms=10, mew=2, color=look.ink, label="Σ, their sum"))
    return keys


def _contributions_told(step: Step, shown: Sequence[Row], order: Sequence[str], what: str) -> str:
    ends = []
    for name in order:
        there = [(row.data.norms[name], row.name) for row in shown if name in row.data.norms]
        if not there:
            ends.append(f"{name} is absent everywhere")
        else:
            most, where = max(there)
            ends.append(f"{name} is largest at {where} ({number(most)})")
    return f"Norms of the contributions in step {step.index}, {what} ({len(shown)} rows): {'; '.join(ends)}."


def cosines(step: Step, where: str = "", *, ax: Axes | None = None, theme: str = "light") -> Axes:
    """Draw the cosine between every two contributions to a parameter, a layer or the whole model.

    A cosine that does not exist, because a contribution is zero or absent, is hatched.

    Args:
        step: The step.
        where: FQN or module path; ``""`` is the whole model.
        ax: Axes to draw in; by default new ones.
        theme: ``"light"`` or ``"dark"``.

    Returns:
        The axes drawn in.

    Raises:
        NoSuchParameterError: neither a parameter nor a module of that name.
    """
    data, called = measured(step, where)
    seen = (*data.contributors, *data.absent)
    names = [b for b in step.branches if b in seen] + [n for n in data.contributors if n not in step.branches]
    matrix = np.array([[_cosine(data, a, b) for b in names] for a in names]).reshape(len(names), len(names))
    with applied(theme) as look:
        ax = axes_of(ax, 2.7 + 0.72 * len(names), 1.7 + 0.62 * len(names))
        image = ax.imshow(matrix, cmap=DIVERGING, vmin=-1, vmax=1, aspect="auto")
        _cosine_cells(ax, matrix, look)
        told = [short(n, 14) + (" (absent)" if n in data.absent else "") for n in names]
        letter = [style(n, step.branches).letter for n in names]
        both = [f"{t}  {x}" if x != n else t for t, x, n in zip(told, letter, names, strict=True)]
        ax.set_yticks(range(len(names)), both)
        ax.set_xticks(range(len(names)), letter)
        ax.tick_params(length=0, pad=7)
        _edge_strips(ax, [style(n, step.branches).colour for n in names])
        if np.isnan(matrix).any():
            ax.set_xlabel("hatched: no cosine\n(one is zero or absent)", color=look.muted, fontsize=8)
        ax.spines[:].set_visible(False)
        bar = ax.figure.colorbar(image, ax=ax, ticks=[-1, 0, 1], fraction=0.05)
        bar.ax.set_yticklabels(["−1 against", "0", "+1 along"])
        bar.outline.set_visible(False)
        ax.set_title(f"Cosines, {short(called, 30)}\nstep {step.index}")
    tell(ax, _cosines_told(matrix, names, called, step.index))
    return ax


def _cosine(data: Contributions, a: str, b: str) -> float:
    return math.nan if a in data.absent or b in data.absent else data.cosine(a, b)


def _cosine_cells(ax: Axes, matrix: np.ndarray, look: Theme) -> None:
    """Numbers in the cells; a hatched cell where there is no cosine."""
    for (r, c), value in np.ndenumerate(matrix):
        if math.isnan(value):
            box = Rectangle((c - 0.5, r - 0.5), 1, 1, fc=look.panel, ec=look.muted, hatch="///", lw=0)
            ax.add_patch(box)
            continue
        ink = "#000000" if abs(value) < 0.6 else "#ffffff"
        ax.text(c, r, signed(value), ha="center", va="center", color=ink, fontsize=9)


def _edge_strips(ax: Axes, colours: Sequence[str]) -> None:
    """The branches' colours along the left and the lower edge."""
    end = len(colours) - 0.5
    for i, colour in enumerate(colours):
        for corner, size in (((-0.58, i - 0.5), (0.06, 1)), ((i - 0.5, end + 0.02), (1, 0.06))):
            ax.add_patch(Rectangle(corner, *size, fc=colour, ec="none", clip_on=False))


def _cosines_told(matrix: np.ndarray, names: Sequence[str], called: str, index: int) -> str:
    pairs = [
        f"{names[i]} and {names[j]} {signed(matrix[i, j]) if not math.isnan(matrix[i, j]) else 'undefined'}"
        for i in range(len(names))
        for j in range(i + 1, len(names))
    ]
    said = ", ".join(pairs) or "one contributor only"
    return f"Cosines between the contributions to {called}, step {index}: {said}."
