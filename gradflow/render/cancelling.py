"""Where and when do the branches cancel? Layers down, steps across."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from gradflow.errors import NoSuchParameterError
from gradflow.findings import noise_floor
from gradflow.recording import Recording, Step
from gradflow.render.picture import axes_of, legend_below, tell
from gradflow.render.rows import rows
from gradflow.render.theme import SEQUENTIAL, Theme, applied, ink_on, percent, short
from gradflow.render.timeline import Line, line_of

__all__ = ["cancellation"]

_MOST_ROWS = 30
_ROW_IN = 0.235
_MOST_NUMBERS = 12  # columns up to which the cells carry their numbers


def cancellation(
    recording: Recording, where: str = "", *, by: str = "auto", ax: Axes | None = None, theme: str = "light"
) -> Axes:
    """Draw which fraction of the branches' effort cancels in the sum, by layer and step.

    0 % where all branches pull the same way, 100 % where they annul one another. Cells are hatched where
    there is nothing to cancel: no contribution came, or all are mere rounding.

    Args:
        recording: The recording.
        where: FQN or module path, to show only what lies under it; ``""`` is the whole model.
        by: ``"auto"``, ``"parameter"`` or ``"module"``.
        ax: Axes to draw in; by default new ones.
        theme: ``"light"`` or ``"dark"``.

    Returns:
        The axes drawn in.

    Raises:
        NoSuchStepError: the recording is empty.
        NoSuchParameterError: neither a parameter nor a module of that name.

    Note:
        Cancellation is our own measure: :func:`gradflow.metrics.cancellation`.
    """
    line = line_of(recording, where)
    names, values, what = _map(line, where, by)
    with applied(theme) as look:
        ax = axes_of(ax, 7.4, 1.8 + _ROW_IN * len(names))
        image = ax.imshow(values, cmap=SEQUENTIAL, vmin=0, vmax=1, aspect="auto", interpolation="none")
        ax.set_facecolor(look.panel)
        _hatch(ax, values, look)
        _numbers(ax, values)
        ax.set_yticks(range(len(names)), [short(name, 34) for name in names])
        every = max(1, math.ceil(len(line.steps) / 10))
        ax.set_xticks(range(0, len(line.steps), every), [str(i) for i in line.x[::every]])
        ax.set_xlabel("step")
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        bar = ax.figure.colorbar(image, ax=ax, ticks=[0, 0.5, 1], fraction=0.05, pad=0.02)
        bar.ax.set_yticklabels(["0 %, all one way", "50 %", "100 %, all lost"])
        bar.outline.set_visible(False)
        ax.set_title(f"How much cancels: {what} by step{line.thinned}")
    tell(ax, _told(line, names, values, what))
    return ax


def _map(line: Line, where: str, by: str) -> tuple[list[str], NDArray[np.float64], str]:
    """Names of the rows, cancellation by row and step, and what the rows are."""
    found, whats = [], dict[str, None]()
    for step in line.steps:
        inside = _under(step, where)
        cells, what = _cells(inside, step, by) if len(inside) else ({}, "")
        found.append(cells)
        whats[what] = None
    names = list(dict.fromkeys(name for cells in found for name in cells))
    if not names:
        raise NoSuchParameterError(
            "no gradient was recorded in any step",
            where="gradflow.plot.cancellation",
            do="look at recording.last.findings",
        )
    values = np.array([[cells.get(name, math.nan) for cells in found] for name in names])
    inside_words = f" of {short(where, 30)}" if where else ""
    return names, values, f"{next(w for w in whats if w)}{inside_words}"


def _under(step: Step, where: str) -> Step:
    inside = {f: p for f, p in step.parameters.items() if any(_is_under(n, where) for n in (f, *p.names))}
    return Step(step.index, inside, step.branches)


def _is_under(fqn: str, where: str) -> bool:
    return not where or fqn == where or fqn.startswith(where + ".")


def _cells(inside: Step, whole: Step, by: str) -> tuple[dict[str, float], str]:
    shown, what = rows(inside, most=_MOST_ROWS, by=by)
    floor = noise_floor(whole)
    return {
        row.name: row.data.cancellation if max(row.data.norms.values(), default=0.0) > floor else math.nan
        for row in shown
    }, what


def _hatch(ax: Axes, values: NDArray[np.float64], look: Theme) -> None:
    """Mark the cells that have no number."""
    if not np.isnan(values).any():
        return
    for r, row in enumerate(np.isnan(values)):
        edges = np.flatnonzero(np.diff([False, *row, False]))
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            gone = Rectangle(
                (start - 0.5, r - 0.5), end - start, 1, fc=look.panel, ec=look.muted, hatch="////"
            )
            gone.set_linewidth(0)
            ax.add_patch(gone)
    key = Patch(
        facecolor=look.panel, edgecolor=look.muted, hatch="////", label="nothing to cancel, or mere rounding"
    )
    legend_below(ax, [key])


def _numbers(ax: Axes, values: NDArray[np.float64]) -> None:
    """Percentages in the cells where they have room."""
    if values.shape[1] > _MOST_NUMBERS:
        return
    image = ax.get_images()[0]
    for (r, c), value in np.ndenumerate(values):
        if not math.isnan(value):
            red, green, blue, _ = image.to_rgba(value, bytes=True)  # type: ignore[arg-type, unused-ignore]
            ink = ink_on(f"#{red:02x}{green:02x}{blue:02x}")
            ax.text(c, r, f"{100 * value:.0f}", ha="center", va="center", color=ink, fontsize=7.5)


def _told(line: Line, names: Sequence[str], values: NDArray[np.float64], what: str) -> str:
    means = [(_mean(row), name) for name, row in zip(names, values, strict=True)]
    there = [pair for pair in means if not math.isnan(pair[0])]
    said = f"Cancellation by {what}, steps {line.x[0]} to {line.x[-1]}. "
    if not there:
        return said + "Nothing to cancel anywhere."
    most, least = max(there), min(there)
    return said + (
        f"On average {percent(_mean(values.ravel()))} of the contributions cancels; "
        f"most at {most[1]} ({percent(most[0])}), least at {least[1]} ({percent(least[0])})."
    )


def _mean(values: NDArray[np.float64]) -> float:
    there = values[np.isfinite(values)]
    return float(there.mean()) if there.size else math.nan
