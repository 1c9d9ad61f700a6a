"""Where a gradient goes: from the lanes of the branches into each shared weight, Σ, the optimizer, Δ.

Each lane is one branch's way back through the same modules. Each shared weight stands once, in the middle,
with one arrow in per branch. Everything is placed in inches; the boxes of a row stand like stairs,
so that no arrow runs over another lane's box.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.patches import Circle, FancyArrow, FancyBboxPatch, Rectangle

from gradflow import findings
from gradflow.record import Contributions, Delta
from gradflow.recording import Step
from gradflow.render.picture import new_figure, tell
from gradflow.render.rows import Row, largest, rows
from gradflow.render.story import share_words
from gradflow.render.theme import Theme, applied, number, percent, short, signed, style

__all__ = ["flow"]

_LANE, _LABEL, _WEIGHT, _SUM, _OPTIMIZER, _DELTA = 1.16, 0.84, 1.62, 1.62, 0.86, 1.5  # widths, inches
_MARGIN, _GAP, _HEAD, _FOOT, _CAPTION = 0.2, 0.3, 1.12, 0.62, 0.44
_STAIR, _LEAST_ROW = 0.25, 0.86
_BOX = (0.94, 0.185)
_SHARE_LETTERS = 25  # so many fit under the bar of a delta
_WIDEST_PT, _THINNEST_PT = 9.0, 0.9


@dataclass(frozen=True, slots=True)
class Lane:
    """One contributor's column."""

    name: str
    colour: str
    letter: str
    dash: tuple[float, ...]
    reserved: bool


def flow(
    step: Step, *, by: str = "module", most: int = 9, fig: FigureBase | None = None, theme: str = "light"
) -> FigureBase:
    """Draw how each branch's gradient reaches each shared weight, and what the optimizer made of the sum.

    The width of an arrow grows with the square root of the norm written on it. A dotted arrow carries exact
    zeros (a dead hinge); a broken one with a cross is absent. Two branches that pull against each other are
    named under the sum with their cosine.

    Args:
        step: The step.
        by: ``"module"`` for one row per module, or ``"parameter"``.
        most: Most rows; a deeper model is collapsed to modules of less depth, and the title says so.
        fig: A figure or subfigure to draw in; by default a new one of the size that is needed.
        theme: ``"light"`` or ``"dark"``.

    Returns:
        The figure drawn in.
    """
    shown, what = _rows(step, by, most)
    with applied(theme) as look:
        plan = _Plan(step, shown, look)
        canvas = fig if fig is not None else new_figure(plan.width, plan.height)
        ax = canvas.add_axes((0, 0, 1, 1))
        ax.set(xlim=(0, plan.width), ylim=(plan.height, 0))
        ax.set_axis_off()
        plan.draw(ax, what)
    tell(canvas, _told(step, shown))
    return canvas


def _rows(step: Step, by: str, most: int) -> tuple[tuple[Row, ...], str]:
    shown, what = rows(step, most=most, by=by)
    if by == "module" and len(shown) < min(3, len(step)):  # one wrapping module: look inside it
        shown, what = rows(step, most=10**9, by=by)
    if len(shown) > most:
        what = f"the {most} largest of {len(shown)} {what}"
        shown = largest(shown, most)
    return shown, what


def _lanes(step: Step, shown: Sequence[Row]) -> list[Lane]:
    seen = dict.fromkeys(name for row in shown for name in row.data.contributors if name != "edited")
    others = [n for n in seen if n not in step.branches and any(row.data.norms.get(n) for row in shown)]
    found = []
    for name in (*step.branches, *others):
        how = style(name, step.branches)
        found.append(Lane(name, how.colour, how.letter, how.dash, name not in step.branches))
    return found


class _Plan:
    """Where everything stands, in inches from the top left corner, and how it is drawn."""

    def __init__(self, step: Step, shown: Sequence[Row], look: Theme) -> None:
        self.step, self.shown, self.look = step, shown, look
        self.lanes = _lanes(step, shown)
        self.moved = any(row.data.delta for row in shown)
        self.row_height = max(_LEAST_ROW, _STAIR * len(self.lanes) + 0.22)
        self.weight_left = _MARGIN + _LANE * max(1, len(self.lanes)) + _LABEL
        self.sum_left = self.weight_left + _WEIGHT + 0.12
        self.optimizer_left = self.sum_left + _SUM
        right = self.optimizer_left + (_OPTIMIZER + 0.12 + _DELTA if self.moved else 0.0)
        self.width = right + _MARGIN
        self.bottom = _HEAD + self.row_height * len(shown)
        self.height = self.bottom + _FOOT + _CAPTION
        self.floor = findings.noise_floor(step)
        norms = [v for row in shown for v in (*row.data.norms.values(), row.data.total_norm)]
        self.largest = max((v for v in norms if math.isfinite(v)), default=0.0) or 1.0

    def draw(self, ax: Axes, what: str) -> None:
        """Draw heads, lanes, rows, loss and optimizer."""
        self.text(
            ax, _MARGIN, 0.24, f"How the gradient reaches each shared weight, step {self.step.index}", 11.5
        )
        muted = self.look.muted
        self.text(ax, _MARGIN, 0.47, f"Rows are {what}. The gradient flows back from the loss.", 8.5, muted)
        for i, lane in enumerate(self.lanes):
            self.lane(ax, i, lane)
        self.heads(ax)
        self.loss(ax)
        for r, row in enumerate(self.shown):
            self.row(ax, _HEAD + self.row_height * (r + 0.5), row)
        if self.moved:
            self.optimizer(ax)
        self.caption(ax)

    def text(
        self,
        ax: Axes,
        x: float,
        y: float,
        words: str,
        size: float = 8.0,
        colour: str = "",
        ha: Literal["left", "center", "right"] = "left",
        *,
        bold: bool = False,
    ) -> None:
        """Write, centred on ``y``."""
        drawn = ax.text(x, y, words, ha=ha, va="center", fontsize=size, color=colour or self.look.ink)
        drawn.set(fontweight="bold" if bold else "normal", parse_math=False, zorder=6)

    def heads(self, ax: Axes) -> None:
        """What stands in each column."""
        y = _HEAD - 0.26
        heads = [
            (self.weight_left + _WEIGHT / 2, "shared weight"),
            (self.sum_left + _SUM / 2 + 0.05, "sum Σ"),
        ]
        if self.moved:
            heads.append((self.optimizer_left + _OPTIMIZER + 0.12 + _DELTA / 2, "delta Δ"))
        for x, words in heads:
            self.text(ax, x, y, words, 9, ha="center", bold=True)

    def lane(self, ax: Axes, i: int, lane: Lane) -> None:
        """A tinted column with the branch's name, and the way back along its middle."""
        left = _MARGIN + _LANE * i
        top, length = _HEAD - 0.4, self.bottom - _HEAD + 0.48
        hatch = "///" if lane.reserved else ""
        tint = Rectangle(
            (left + 0.03, top), _LANE - 0.06, length, fc=lane.colour, ec="none", alpha=0.10, lw=0
        )
        bar = Rectangle((left + 0.03, top - 0.06), _LANE - 0.06, 0.06, fc=lane.colour, ec="none", hatch=hatch)
        ax.add_patch(tint)
        ax.add_patch(bar)
        name = short(lane.name, 13)
        words = name if lane.reserved or lane.letter == name else f"{name}  {lane.letter}"
        self.text(
            ax, left + _LANE / 2, _HEAD - 0.26, words, 9 if len(words) < 13 else 7.5, ha="center", bold=True
        )
        if not lane.reserved:
            x = left + _LANE / 2
            line = (0, lane.dash) if lane.dash else "-"
            there = any(lane.name in row.data.contributors for row in self.shown)
            end = _HEAD - 0.06 if there else self.bottom
            ax.plot([x, x], [self.bottom + 0.12, end], color=lane.colour, lw=1.3, ls=line, zorder=1)
            ax.plot(x, end - 0.02, marker="^" if there else "x", ms=5, color=lane.colour, zorder=1)

    def loss(self, ax: Axes) -> None:
        """One loss under all lanes."""
        wide = _LANE * max(1, sum(not lane.reserved for lane in self.lanes)) - 0.12
        value = self.step.scalars.get("loss")
        words = "loss" if value is None else f"loss {number(value)}"
        self.box(ax, _MARGIN + 0.06, self.bottom + 0.12, wide, 0.28, self.look.ink)
        self.text(ax, _MARGIN + 0.06 + wide / 2, self.bottom + 0.26, words, 9, ha="center", bold=True)

    def box(
        self, ax: Axes, x: float, y: float, width: float, height: float, colour: str, *, ls: str = "-"
    ) -> None:
        """A box with round corners."""
        shape = FancyBboxPatch((x, y), width, height, "round,pad=0,rounding_size=0.05", ec=colour, lw=1.3)
        shape.set(facecolor=self.look.paper, linestyle=ls, zorder=3)
        ax.add_patch(shape)

    def row(self, ax: Axes, y: float, row: Row) -> None:
        """One shared weight: the boxes of its lanes, an arrow from each, the sum and the delta."""
        for i, lane in enumerate(self.lanes):
            self.arrival(ax, y + _STAIR * (i - (len(self.lanes) - 1) / 2), i, lane, row)
        high = max(0.5, _STAIR * (len(self.lanes) - 1) + 0.3)
        self.box(ax, self.weight_left, y - high / 2, _WEIGHT, high, self.look.ink)
        middle = self.weight_left + _WEIGHT / 2
        self.text(ax, middle, y - 0.09, short(row.name, 18), 8.5, ha="center", bold=True)
        self.text(ax, middle, y + 0.1, _detail(row), 7.5, self.look.muted, ha="center")
        self.total(ax, y, row.data)
        if row.data.delta is not None:
            self.delta(ax, y, row.data.delta)

    def arrival(self, ax: Axes, y: float, i: int, lane: Lane, row: Row) -> None:
        """The module's box in one lane, and the arrow from it into the weight."""
        left = _MARGIN + _LANE * i + (_LANE - _BOX[0]) / 2
        norm = row.data.norms.get(lane.name)
        if norm is None and lane.reserved:
            return
        if not lane.reserved:
            self.box(ax, left, y - _BOX[1] / 2, *_BOX, lane.colour, ls=":" if norm is None else "-")
            self.text(ax, left + _BOX[0] / 2, y, short(row.name, 14), 7, ha="center")
        start, end = left + (_BOX[0] if not lane.reserved else _BOX[0] / 2), self.weight_left - 0.02
        at = self.weight_left - _LABEL / 2 - 0.06
        if norm is None:
            ax.plot([start, at - 0.3], [y, y], color=lane.colour, lw=1, ls=(0, (1, 2)), zorder=2)
            self.text(ax, at, y, "× absent", 7.5, ha="center")
        elif norm == 0.0:
            ax.plot([start, end - 0.06], [y, y], color=lane.colour, lw=1.2, ls=(0, (1, 1.6)), zorder=2)
            ax.plot(end - 0.05, y, marker=">", ms=4, mfc=self.look.paper, mec=lane.colour, zorder=4)
            self.label(ax, at, y, "0 zeros")
        else:
            self.arrow(ax, (start, end), y, norm, lane.colour)
            self.label(ax, at, y, number(norm))

    def label(self, ax: Axes, x: float, y: float, words: str) -> None:
        """A number on an arrow."""
        drawn = ax.text(x, y, words, ha="center", va="center", fontsize=7.5, color=self.look.ink, zorder=6)
        drawn.set_bbox({"facecolor": self.look.paper, "edgecolor": "none", "pad": 0.8, "alpha": 0.88})

    def arrow(self, ax: Axes, ends: tuple[float, float], y: float, norm: float, colour: str) -> None:
        """A horizontal arrow whose width tells the norm."""
        wide = (_THINNEST_PT + (_WIDEST_PT - _THINNEST_PT) * math.sqrt(min(1.0, norm / self.largest))) / 72
        head = wide + 0.07
        shape = FancyArrow(
            ends[0], y, ends[1] - ends[0], 0, width=wide, head_width=head, head_length=0.09,
            length_includes_head=True, fc=colour, ec="none", zorder=2,
        )  # fmt: skip
        ax.add_patch(shape)

    def total(self, ax: Axes, y: float, data: Contributions) -> None:
        """The sum: a disc, its norm, what cancels, and the strongest conflict."""
        left = self.sum_left
        self.arrow(ax, (left - 0.12, left + 0.06), y, data.total_norm, self.look.ink)
        ax.add_patch(Circle((left + 0.19, y), 0.13, fc=self.look.paper, ec=self.look.ink, lw=1.6, zorder=4))
        self.text(ax, left + 0.19, y, "Σ", 10, ha="center", bold=True)
        self.arrow(ax, (left + 0.32, self.optimizer_left - 0.02), y, data.total_norm, self.look.ink)
        self.text(ax, left + 0.4, y - 0.17, f"‖Σ‖ {number(data.total_norm)}", 8.5)
        self.text(ax, left + 0.4, y + 0.155, f"{percent(data.cancellation)} cancels", 7.5, self.look.muted)
        fight = _conflict(data, self.step.branches, self.floor)
        if fight is None:
            return
        value, a, b = fight
        how = {lane.name: lane.letter for lane in self.lanes}
        strong = -value >= findings.CONFLICT
        ink = self.look.alarm if strong else self.look.muted
        drawn = ax.text(
            left + 0.42, y + 0.315, f"{how[a]}↔{how[b]} cos {signed(value)}", fontsize=7.5, color=ink
        )
        drawn.set(va="center", fontweight="bold" if strong else "normal", zorder=6)
        if strong:
            drawn.set_bbox({"facecolor": self.look.paper, "edgecolor": ink, "pad": 1.6, "linewidth": 1.1})

    def optimizer(self, ax: Axes) -> None:
        """One optimizer beside all rows."""
        high = self.bottom - _HEAD
        self.box(ax, self.optimizer_left, _HEAD, _OPTIMIZER, high, self.look.ink)
        deltas = [row.data.delta for row in self.shown if row.data.delta]
        rules = dict.fromkeys(d.rule for d in deltas if d.rule)
        middle = self.optimizer_left + _OPTIMIZER / 2
        words = list(rules)[:2] or ["optimizer"]
        for i, rule in enumerate(words):
            self.text(ax, middle, _HEAD + high / 2 + 0.2 * i, short(rule, 10), 9, ha="center", bold=True)

    def delta(self, ax: Axes, y: float, delta: Delta) -> None:
        """The delta: its norm, and a bar of its shares."""
        left = self.optimizer_left + _OPTIMIZER
        self.text(ax, left + 0.22, y - 0.17, f"‖Δ‖ {number(delta.norm)}", 8.5)
        ax.plot([left, left + 0.15], [y, y], color=self.look.ink, lw=1.2, zorder=2)
        ax.plot(left + 0.14, y, marker=">", ms=5, color=self.look.ink, zorder=3)
        self.shares(ax, left + 0.22, y, delta)
        words = [share_words(delta, self.step.branches, most=n) for n in (3, 2, 1)]
        fitting = next((w for w in words if len(w) <= _SHARE_LETTERS), words[-1])
        self.text(ax, left + 0.22, y + 0.2, fitting, 7, self.look.muted)

    def shares(self, ax: Axes, left: float, y: float, delta: Delta) -> None:
        """Stacked magnitudes of the shares; those against the delta are hatched."""
        shares = {n: v for n, v in delta.shares.items() if math.isfinite(v) and v}
        whole = sum(abs(v) for v in shares.values())
        x, wide = left, _DELTA - 0.28
        for name, value in shares.items():
            how = style(name, self.step.branches)
            part = wide * abs(value) / whole
            bar = Rectangle((x, y - 0.055), part, 0.11, fc=how.colour, ec=self.look.paper, lw=0.4)
            bar.set(hatch="xxxx" if value < 0 else how.hatch, zorder=3)
            ax.add_patch(bar)
            x += part

    def caption(self, ax: Axes) -> None:
        """How to read it."""
        lines = ["Arrows widen with the square root of the norm on them."]
        if self.moved:
            how = "crossed where a share is negative; an accounting, not a counterfactual"
            lines.append(f"Bars: shares of Δ in %, {how}.")
        for i, words in enumerate(lines):
            self.text(ax, _MARGIN, self.bottom + _FOOT + 0.02 + 0.17 * i, words, 7.5, self.look.muted)


def _detail(row: Row) -> str:
    """What the box of a weight holds."""
    if len(row.members) > 3:
        return f"{len(row.members)} parameters"
    if len(row.members) > 1:
        return short(", ".join(p.fqn.removeprefix(row.name + ".") for p in row.members), 24)
    (p,) = row.members
    shape = "×".join(map(str, p.shape)) or "scalar"
    last = p.fqn.removeprefix(row.name + ".")
    return f"[{shape}]" if last == p.fqn else f"{last} [{shape}]"


def _conflict(data: Contributions, branches: Sequence[str], floor: float) -> tuple[float, str, str] | None:
    """The two branches that pull against each other most; none where all go together or are mere noise."""
    audible = [b for b in branches if data.norms.get(b, 0.0) > floor]
    found = [(data.cosine(a, b), a, b) for a, b in combinations(audible, 2)]
    worst = min(found, default=None)
    return worst if worst is not None and worst[0] < 0 else None


def _told(step: Step, shown: Sequence[Row]) -> str:
    floor = findings.noise_floor(step)
    said = []
    for row in shown:
        parts = [
            f"{b} absent" if b not in row.data.norms else f"{b} {number(row.data.norms[b])}"
            for b in step.branches
        ]
        fight = _conflict(row.data, step.branches, floor)
        words = f", {fight[1]} against {fight[2]} (cosine {signed(fight[0])})" if fight else ""
        said.append(f"{row.name}: {', '.join(parts)}, sum {number(row.data.total_norm)}{words}")
    return (
        f"Flow of the gradient in step {step.index}, norm of each branch's contribution. {'; '.join(said)}."
    )
