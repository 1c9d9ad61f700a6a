"""Whose delta is it? The shares of the contributors in what the optimizer did."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from gradflow.errors import InvalidArgumentError
from gradflow.record import RESERVED, Contributions
from gradflow.recording import Recording, Step
from gradflow.render.picture import axes_of, legend_below, tell
from gradflow.render.rows import measured, rows
from gradflow.render.story import ACCOUNTING
from gradflow.render.theme import Style, Theme, applied, ink_on, percent, short, style
from gradflow.render.timeline import line_of

__all__ = ["deltas"]

_MOST_ROWS = 24
_LETTERED = 24  # most bars whose pieces carry letters
_LETTER_ROOM = 0.09  # share from which a piece has room for its letter
_PATTERNS = ("", "//", "..", "\\\\", "xx", "++", "oo")  # of branches, by position
_WIDEST = 3.0  # bars that reach further are cut off there and carry their length in words


@dataclass(frozen=True, slots=True)
class Bars:
    """What is drawn: one stacked bar for each label."""

    labels: tuple[str, ...]
    shares: tuple[dict[str, float], ...]
    branches: tuple[str, ...]
    what: str
    sideways: bool

    @property
    def names(self) -> list[str]:
        """Contributors that occur, branches first."""
        seen = {name for s in self.shares for name in s}
        return [n for n in (*self.branches, *RESERVED) if n in seen]


def deltas(
    source: Recording | Step,
    where: str = "",
    *,
    by: str = "auto",
    ax: Axes | None = None,
    theme: str = "light",
) -> Axes:
    """Draw which contributor each delta is credited to: over the steps, or over the parameters of one step.

    The shares of a delta sum to 1; a contributor that pulled against the delta has a negative one, drawn
    to the other side of 0. They are an accounting under a frozen preconditioner, not what the branch alone
    would have done.

    Args:
        source: A recording (bars over steps) or a step (bars over parameters or modules).
        where: FQN or module path; ``""`` is the whole model.
        by: For a step: ``"auto"``, ``"parameter"`` or ``"module"``.
        ax: Axes to draw in; by default new ones.
        theme: ``"light"`` or ``"dark"``.

    Returns:
        The axes drawn in.

    Raises:
        InvalidArgumentError: nothing was moved by an optimizer there.
    """
    bars = _of_step(source, where, by) if isinstance(source, Step) else _of_recording(source, where)
    if not any(bars.shares):
        raise InvalidArgumentError(
            f"no optimizer moved {where or 'the model'} there",
            where="gradflow.plot.deltas",
            do="pass the optimizer: gradflow.watch(model, optimizer)",
        )
    with applied(theme) as look:
        ax = axes_of(ax, 7.4, 1.5 + 0.25 * len(bars.labels) if bars.sideways else 3.7)
        _stacks(ax, bars, look)
        (_sideways_axes if bars.sideways else _upright_axes)(ax, bars)
        ax.set_title(f"Whose delta, {bars.what}")
        keys = [_key(name, bars, look) for name in bars.names]
        legend_below(ax, keys, note=ACCOUNTING)
    tell(ax, _told(bars))
    return ax


def _of_step(step: Step, where: str, by: str) -> Bars:
    if where:
        measured(step, where)  # says which names there are, if this is none
        inside = {p.fqn: p for p in step if any(n == where or n.startswith(where + ".") for n in p.names)}
        step = replace(step, parameters=inside)
    shown, what = rows(step, most=_MOST_ROWS, by=by)
    what = f"step {step.index}: {what}" + (f" in {short(where, 30)}" if where else "")
    labels = tuple(short(row.name, 34) for row in shown)
    return Bars(labels, tuple(_shares(row.data) for row in shown), step.branches, what, sideways=True)


def _of_recording(recording: Recording, where: str) -> Bars:
    line = line_of(recording, where)
    what = f"{short(line.called, 44)}{line.thinned}"
    labels = tuple(str(i) for i in line.x)
    return Bars(labels, tuple(_shares(d) for d in line.data), line.branches, what, sideways=False)


def _shares(data: Contributions | None) -> dict[str, float]:
    """Shares of one delta; none where nothing moved."""
    found = data.delta.shares if data and data.delta else {}
    return {} if any(math.isnan(v) for v in found.values()) else found


def _stacks(ax: Axes, bars: Bars, look: Theme) -> None:
    """Stacked bars: positive shares to one side of 0, negative ones to the other."""
    places = np.arange(len(bars.shares))
    ahead, back = np.zeros(len(places)), np.zeros(len(places))
    thick = 0.74 if bars.sideways or len(places) <= 60 else 1.0
    for name in bars.names:
        values = np.array([s.get(name, 0.0) for s in bars.shares])
        start = np.where(values >= 0, ahead, back)
        how = style(name, bars.branches)
        draw = ax.barh if bars.sideways else ax.bar
        drawn = draw(
            places, values, thick, start, facecolor=how.colour, hatch=_pattern(name, bars), label=name
        )
        for bar in drawn:
            bar.set(edgecolor=look.paper, linewidth=0.5 if thick < 1 else 0.0)
        if name in bars.branches and _lettered(bars):
            _letter(ax, how, start, values, sideways=bars.sideways)
        ahead, back = ahead + np.maximum(values, 0), back + np.minimum(values, 0)
    (ax.axvline if bars.sideways else ax.axhline)(0, color=look.ink, lw=0.9)
    (ax.axvline if bars.sideways else ax.axhline)(1, color=look.muted, lw=0.9, ls=(0, (3, 3)))
    ends = max(-_WIDEST, min(0.0, back.min()) * 1.04), min(_WIDEST, max(1.0, ahead.max()) * 1.04)
    (ax.set_xlim if bars.sideways else ax.set_ylim)(*ends)
    cut = int(((ahead > _WIDEST) | (back < -_WIDEST)).sum())
    words = "share of the delta" + (f" ({cut} bars go on)" if cut else "")
    axis = ax.xaxis if bars.sideways else ax.yaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: percent(value)))
    axis.set_label_text(words)


def _letter(
    ax: Axes, how: Style, start: NDArray[np.float64], values: NDArray[np.float64], *, sideways: bool
) -> None:
    """Write a branch's letter in its pieces, so that colour is not all that tells them apart."""
    for place, (begin, value) in enumerate(zip(start, values, strict=True)):
        middle = begin + value / 2
        if abs(value) >= _LETTER_ROOM and abs(middle) < _WIDEST:
            x, y = (middle, place) if sideways else (place, middle)
            text = ax.text(x, y, how.letter, ha="center", va="center", fontsize=7.5, fontweight="bold")
            text.set(color=ink_on(how.colour), clip_on=True)


def _sideways_axes(ax: Axes, bars: Bars) -> None:
    ax.set_yticks(range(len(bars.labels)), bars.labels)
    ax.set_ylim(len(bars.labels) - 0.4, -0.6)


def _upright_axes(ax: Axes, bars: Bars) -> None:
    every = max(1, math.ceil(len(bars.labels) / 10))
    ax.set_xticks(range(0, len(bars.labels), every), bars.labels[::every])
    ax.set_xlim(-0.6, len(bars.labels) - 0.4)
    ax.set_xlabel("step")


def _key(name: str, bars: Bars, look: Theme) -> Patch:
    how = style(name, bars.branches)
    label = short(name, 22) + (f" ({how.letter})" if name in bars.branches and _lettered(bars) else "")
    return Patch(facecolor=how.colour, hatch=_pattern(name, bars), edgecolor=look.paper, label=label)


def _lettered(bars: Bars) -> bool:
    return len(bars.labels) <= _LETTERED


def _pattern(name: str, bars: Bars) -> str:
    """The hatch of a piece; where bars are too many for letters, each branch has one of its own."""
    if name not in bars.branches or _lettered(bars):
        return style(name, bars.branches).hatch
    return _PATTERNS[bars.branches.index(name) % len(_PATTERNS)]


def _told(bars: Bars) -> str:
    there = [s for s in bars.shares if s]
    means = [f"{name} {percent(sum(s.get(name, 0.0) for s in there) / len(there))}" for name in bars.names]
    return (
        f"Shares of the delta, {bars.what} ({len(there)} bars). On average: {', '.join(means)}. {ACCOUNTING}"
    )
