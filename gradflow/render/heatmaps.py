"""Heat-maps with their names, signs and colour bars, set out on a sheet in inches.

The drawing half of :mod:`gradflow.render.equation`; it knows panels, not records.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import FigureBase
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from gradflow.render.panels import Panel
from gradflow.render.theme import DIVERGING, Theme, number, short

__all__ = ["Sheet", "numbered", "power_of_ten", "size_of"]

_SIDE, _GAP, _MARGIN = 1.72, 0.46, 0.22  # inches: a panel, the sign before it, the edge of the figure
_NAME, _NORM, _ROW_GAP = 0.30, 0.24, 0.22  # above and below a panel, and between rows of panels
_TITLE, _BARS, _LINE = 0.56, 0.62, 0.17
_OUT = 0.022  # how far a frame stands off its panel, as a fraction of it
_NUMBERED = 8  # rows and columns up to which the cells carry their numbers
_PLAIN = 5  # columns up to which numbers have room to be written plainly
_LETTERS_PER_INCH = 17.2  # of the caption


def size_of(rows: Sequence[Sequence[Panel]], caption: str) -> tuple[float, float, list[str]]:
    """Give the width and height in inches that the rows need, and the caption folded to that width."""
    width = max(3.6, *(2 * _MARGIN + len(row) * (_SIDE + _GAP) for row in rows))
    folded = textwrap.wrap(caption, width=int((width - 2 * _MARGIN) * _LETTERS_PER_INCH))
    height = _TITLE + len(rows) * (_NAME + _SIDE + _NORM + _ROW_GAP) + _BARS + _LINE * len(folded) + _MARGIN
    return width, height, folded


class Sheet:
    """Draws on a figure whose places are given in inches from its top left corner."""

    def __init__(self, fig: FigureBase, width: float, height: float, look: Theme) -> None:
        self.fig, self.width, self.height, self.look = fig, width, height, look

    def draw(self, title: tuple[str, str], rows: Sequence[Sequence[Panel]], said: Sequence[str]) -> None:
        """Draw title, panels, colour bars and caption from top to bottom."""
        name = short(title[0], int(self.width * 9))
        self.text((_MARGIN, 0.20), name, size=11, bold=True, centred=False)
        self.text((_MARGIN, 0.41), title[1], colour=self.look.muted, centred=False)
        top = _TITLE
        for row in rows:
            for column, panel in enumerate(row):
                left = _MARGIN + _GAP * (column + 1) - 0.1 + _SIDE * column
                self.panel(panel, left, top)
            top += _NAME + _SIDE + _NORM + _ROW_GAP
        self.bars([panel for row in rows for panel in row], top)
        for line, words in enumerate(said):
            y = top + _BARS + _LINE * line + 0.05
            self.text((_MARGIN, y), words, size=8, colour=self.look.muted, centred=False)

    def text(
        self,
        at: tuple[float, float],
        words: str,
        *,
        size: float = 9,
        colour: str = "",
        bold: bool = False,
        centred: bool = True,
    ) -> None:
        """Write around ``at``, or from there to the right; in inches from the top left corner."""
        ha: Literal["left", "center"] = "center" if centred else "left"
        text = self.fig.text(at[0] / self.width, 1 - at[1] / self.height, words, va="center", ha=ha)
        text.set(fontsize=size, color=colour or self.look.ink, fontweight="bold" if bold else "normal")
        text.set_parse_math(False)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes at a place in inches."""
        box = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        ax = self.fig.add_axes(box)
        ax.set(xticks=[], yticks=[])
        return ax

    def panel(self, panel: Panel, left: float, top: float) -> None:
        """One term: its sign, name, heat-map and norm."""
        middle = left + _SIDE / 2
        if panel.sign:
            y = top + _NAME + _SIDE / 2
            self.text((left - _GAP / 2 + 0.02, y), panel.sign, size=17)
        self.text((middle, top + _NAME / 2), short(panel.name, 22), size=9.5, bold=True)
        self.text((middle, top + _NAME + _SIDE + _NORM / 2 + 0.03), panel.under, size=8.5)
        ax = self.axes(left, top + _NAME, _SIDE, _SIDE)
        _framed(ax, panel, self.look)
        if panel.cells is None or panel.cells.size == 0:
            ax.set_facecolor(self.look.panel)
            words = panel.empty or "no entries"
            ax.text(0.5, 0.5, words, ha="center", va="center", transform=ax.transAxes, fontsize=11)
        else:
            _heat_map(ax, panel, self.look)

    def bars(self, panels: Sequence[Panel], top: float) -> None:
        """The colour bars: one for contributions and sum, one for the delta."""
        scales = [("contributions and sum, in gradient units", panels[0].limit)]
        if panels[-1].sign == "→" and panels[-1].cells is not None:
            scales.append(("delta, in units of the weight", panels[-1].limit))
        room = (self.width - 2 * _MARGIN) / len(scales)
        for i, (words, limit) in enumerate(scales):
            length = min(2.6, room - 0.5)
            left = _MARGIN + 0.25 if i == 0 else self.width - _MARGIN - 0.25 - length
            ax = self.axes(left, top + 0.02, length, 0.11)
            norm = Normalize(-limit, limit)
            bar = self.fig.colorbar(ScalarMappable(norm, DIVERGING), cax=ax, orientation="horizontal")
            bar.set_ticks([-limit, 0, limit], labels=[f"−{number(limit)}", "0", number(limit)])
            bar.outline.set_linewidth(0.5)
            ax.set_xlabel(words, fontsize=8, labelpad=1)
            ax.tick_params(labelsize=8, length=2, pad=1.5)


def _framed(ax: Axes, panel: Panel, look: Theme) -> None:
    """A frame in the colour and dash of the branch; ink for the sum and the delta."""
    for side in ax.spines.values():
        side.set_visible(False)
    colour = panel.look.colour if panel.look else look.ink
    dash = panel.look.dash if panel.look else ()
    line = (0, (1.5, 1.5)) if panel.cells is None else (0, dash) if dash else "solid"
    frame = Rectangle(
        (-_OUT, -_OUT), 1 + 2 * _OUT, 1 + 2 * _OUT, transform=ax.transAxes, fill=False, ec=colour, lw=2.4
    )
    frame.set(linestyle=line, clip_on=False, zorder=5)
    ax.add_patch(frame)


def _heat_map(ax: Axes, panel: Panel, look: Theme) -> None:
    assert panel.cells is not None
    ax.set_facecolor(look.panel)
    scale = Normalize(-panel.limit, panel.limit)
    ax.imshow(panel.cells, cmap=DIVERGING, norm=scale, aspect="auto", interpolation="none")
    rows, columns = panel.cells.shape
    if panel.kernel[0]:
        for r in range(panel.kernel[0], rows, panel.kernel[0]):
            ax.axhline(r - 0.5, color=look.paper, lw=0.9)
        for c in range(panel.kernel[1], columns, panel.kernel[1]):
            ax.axvline(c - 0.5, color=look.paper, lw=0.9)
    if numbered(panel):
        _numbers(ax, panel.cells, panel.limit)


def numbered(panel: Panel) -> bool:
    """Tell whether the cells carry their numbers."""
    return panel.cells is not None and 0 < max(panel.cells.shape) <= _NUMBERED


def _numbers(ax: Axes, cells: NDArray[np.float64], limit: float) -> None:
    """Write each cell's value in it, in a size that fits."""
    rows, columns = cells.shape
    power = power_of_ten(limit, columns)
    before = math.floor(math.log10(limit)) - power  # digits of the largest number before its point, less one
    decimals = 1 if columns > _PLAIN else max(0, (2 if columns == 1 else 1) - before)
    texts = [[_cell(value / 10.0**power, decimals) for value in row] for row in cells]
    longest = max(len(words) for row in texts for words in row)
    size = min(9.0, _SIDE * 72 / columns * 0.86 / (0.62 * longest), _SIDE * 72 / rows * 0.6)
    colours = matplotlib.colormaps[DIVERGING](Normalize(-limit, limit)(cells))
    for r, row in enumerate(texts):
        for c, words in enumerate(row):
            bright = float(colours[r, c, :3] @ (0.299, 0.587, 0.114)) > 0.55
            ink = "#000000" if bright else "#ffffff"
            ax.text(c, r, words, ha="center", va="center", fontsize=size, color=ink)


def power_of_ten(limit: float, columns: int) -> int:
    """Power of ten that the numbers in the cells are multiples of; 0 where they are written plainly.

    Many columns leave room for ``−1.2`` only, so there the largest number gets one digit before the point.
    """
    power = math.floor(math.log10(limit))
    if columns <= _PLAIN:
        return 0 if -2 <= power <= 3 else power
    return power + (round(limit / 10.0**power, 1) >= 10.0)  # 9.97 would be written 10.0


def _cell(value: float, decimals: int) -> str:
    if not math.isfinite(value):
        return f"{value:.0f}".replace("-", "−")
    words = f"{value:.{decimals}f}"
    return words.lstrip("-") if float(words) == 0.0 else words.replace("-", "−")
