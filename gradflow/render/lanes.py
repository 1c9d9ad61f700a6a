"""The drawing half of :mod:`gradflow.render.flow`: lanes, shared weights, sums and deltas, set out in inches.

The boxes of a row stand like stairs, so that no arrow runs over another lane's box.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrow, FancyBboxPatch, Rectangle

from gradflow import findings
from gradflow.record import BESIDE_THE_TOTAL, Contributions, Delta
from gradflow.recording import Step
from gradflow.render.rows import Row
from gradflow.render.story import ACCOUNTING, share_words
from gradflow.render.theme import Theme, number, percent, short, signed, style

__all__ = ["Diagram", "strongest_conflict"]

Point = tuple[float, float]

_LANE, _LABEL, _WEIGHT, _SUM, _OPTIMIZER, _DELTA = 1.16, 0.84, 1.62, 1.62, 0.86, 1.5  # widths, inches
_MARGIN, _GAP, _HEAD, _FOOT, _CAPTION = 0.2, 0.3, 1.12, 0.62, 0.61
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


def _lanes(step: Step, shown: Sequence[Row]) -> list[Lane]:
    seen = dict.fromkeys(
        name for row in shown for name in row.data.contributors if name not in BESIDE_THE_TOTAL
    )
    others = [n for n in seen if n not in step.branches and any(row.data.norms.get(n) for row in shown)]
    found = []
    for name in (*step.branches, *others):
        how = style(name, step.branches)
        found.append(Lane(name, how.colour, how.letter, how.dash, name not in step.branches))
    return found


class Diagram:
    """Where everything stands, in inches from the top left corner, and how it is drawn."""

    ax: Axes

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
        """Draw heads, lanes, rows, loss and optimizer; ``what`` says what the rows are."""
        self.ax = ax
        ax.set(xlim=(0, self.width), ylim=(self.height, 0))
        ax.set_axis_off()
        self.text(
            (_MARGIN, 0.24), f"How the gradient reaches each shared weight, step {self.step.index}", 11.5
        )
        muted = self.look.muted
        self.text((_MARGIN, 0.47), f"Rows are {what}. The gradient flows back from the loss.", 8.5, muted)
        for i, lane in enumerate(self.lanes):
            self.lane(i, lane)
        self.heads()
        self.loss()
        for r, row in enumerate(self.shown):
            self.row(_HEAD + self.row_height * (r + 0.5), row)
        if self.moved:
            self.optimizer()
        self.caption()

    def text(
        self,
        at: Point,
        words: str,
        size: float = 8.0,
        colour: str = "",
        *,
        centred: bool = False,
        bold: bool = False,
    ) -> None:
        """Write from ``at`` to the right, or around it; ``at`` is at half the height of the letters."""
        drawn = self.ax.text(*at, words, va="center", ha="center" if centred else "left", fontsize=size)
        drawn.set(color=colour or self.look.ink, fontweight="bold" if bold else "normal")
        drawn.set(parse_math=False, zorder=6)

    def heads(self) -> None:
        """What stands in each column."""
        y = _HEAD - 0.26
        heads = [
            (self.weight_left + _WEIGHT / 2, "shared weight"),
            (self.sum_left + _SUM / 2 + 0.05, "sum Σ"),
        ]
        if self.moved:
            heads.append((self.optimizer_left + _OPTIMIZER + 0.12 + _DELTA / 2, "delta Δ"))
        for x, words in heads:
            self.text((x, y), words, 9, centred=True, bold=True)

    def lane(self, i: int, lane: Lane) -> None:
        """A tinted column with the branch's name, and the way back along its middle."""
        left = _MARGIN + _LANE * i
        top, length = _HEAD - 0.4, self.bottom - _HEAD + 0.48
        hatch = "///" if lane.reserved else ""
        tint = Rectangle(
            (left + 0.03, top), _LANE - 0.06, length, fc=lane.colour, ec="none", alpha=0.10, lw=0
        )
        bar = Rectangle((left + 0.03, top - 0.06), _LANE - 0.06, 0.06, fc=lane.colour, ec="none", hatch=hatch)
        self.ax.add_patch(tint)
        self.ax.add_patch(bar)
        name = short(lane.name, 13)
        is_told = lane.reserved or name.split()[-1:] == [lane.letter]  # as in "view 1"
        words = name if is_told else f"{name}  {lane.letter}"
        self.text(
            (left + _LANE / 2, _HEAD - 0.26), words, 9 if len(words) < 13 else 7.5, centred=True, bold=True
        )
        if not lane.reserved:
            x = left + _LANE / 2
            line = (0, lane.dash) if lane.dash else "-"
            there = any(lane.name in row.data.contributors for row in self.shown)
            end = _HEAD - 0.06 if there else self.bottom
            self.ax.plot([x, x], [self.bottom + 0.12, end], color=lane.colour, lw=1.3, ls=line, zorder=1)
            self.ax.plot(x, end - 0.02, marker="^" if there else "x", ms=5, color=lane.colour, zorder=1)

    def loss(self) -> None:
        """One loss under all lanes."""
        wide = _LANE * max(1, sum(not lane.reserved for lane in self.lanes)) - 0.12
        value = self.step.scalars.get("loss")
        words = "loss" if value is None else f"loss {number(value)}"
        self.box((_MARGIN + 0.06, self.bottom + 0.12), (wide, 0.28), self.look.ink)
        self.text((_MARGIN + 0.06 + wide / 2, self.bottom + 0.26), words, 9, centred=True, bold=True)

    def box(self, corner: Point, size: Point, colour: str, *, ls: str = "-") -> None:
        """A box with round corners, from its upper left one."""
        shape = FancyBboxPatch(corner, *size, "round,pad=0,rounding_size=0.05", ec=colour, lw=1.3)
        shape.set(facecolor=self.look.paper, linestyle=ls, zorder=3)
        self.ax.add_patch(shape)

    def row(self, y: float, row: Row) -> None:
        """One shared weight: the boxes of its lanes, an arrow from each, the sum and the delta."""
        for i, lane in enumerate(self.lanes):
            self.arrival(y + _STAIR * (i - (len(self.lanes) - 1) / 2), i, lane, row)
        high = max(0.5, _STAIR * (len(self.lanes) - 1) + 0.3)
        self.box((self.weight_left, y - high / 2), (_WEIGHT, high), self.look.ink)
        middle = self.weight_left + _WEIGHT / 2
        self.text((middle, y - 0.09), short(row.name, 18), 8.5, centred=True, bold=True)
        self.text((middle, y + 0.1), _detail(row), 7.5, self.look.muted, centred=True)
        self.total(y, row.data)
        if row.data.delta is not None:
            self.delta(y, row.data.delta)

    def arrival(self, y: float, i: int, lane: Lane, row: Row) -> None:
        """The module's box in one lane, and the arrow from it into the weight."""
        left = _MARGIN + _LANE * i + (_LANE - _BOX[0]) / 2
        norm = row.data.norms.get(lane.name)
        if norm is None and lane.reserved:
            return
        if not lane.reserved:
            self.box((left, y - _BOX[1] / 2), _BOX, lane.colour, ls=":" if norm is None else "-")
            self.text((left + _BOX[0] / 2, y), short(row.name, 14), 7, centred=True)
        start, end = left + (_BOX[0] if not lane.reserved else _BOX[0] / 2), self.weight_left - 0.02
        at = self.weight_left - _LABEL / 2 - 0.06
        if norm is None:
            self.ax.plot([start, at - 0.3], [y, y], color=lane.colour, lw=1, ls=(0, (1, 2)), zorder=2)
            self.text((at, y), "× absent", 7.5, centred=True)
        elif norm == 0.0:
            self.ax.plot([start, end - 0.06], [y, y], color=lane.colour, lw=1.2, ls=(0, (1, 1.6)), zorder=2)
            self.ax.plot(end - 0.05, y, marker=">", ms=4, mfc=self.look.paper, mec=lane.colour, zorder=4)
            self.label((at, y), "0 zeros")
        else:
            self.arrow((start, end), y, norm, lane.colour)
            self.label((at, y), number(norm))

    def label(self, at: Point, words: str) -> None:
        """A number on an arrow."""
        drawn = self.ax.text(
            *at, words, ha="center", va="center", fontsize=7.5, color=self.look.ink, zorder=6
        )
        drawn.set_bbox({"facecolor": self.look.paper, "edgecolor": "none", "pad": 0.8, "alpha": 0.88})

    def arrow(self, ends: Point, y: float, norm: float, colour: str) -> None:
        """A horizontal arrow whose width tells the norm."""
        wide = (_THINNEST_PT + (_WIDEST_PT - _THINNEST_PT) * math.sqrt(min(1.0, norm / self.largest))) / 72
        head = wide + 0.07
        shape = FancyArrow(
            ends[0], y, ends[1] - ends[0], 0, width=wide, head_width=head, head_length=0.09,
            length_includes_head=True, fc=colour, ec="none", zorder=2,
        )  # fmt: skip
        self.ax.add_patch(shape)

    def total(self, y: float, data: Contributions) -> None:
        """The sum: a disc, its norm, what cancels, and the strongest conflict."""
        left = self.sum_left
        self.arrow((left - 0.12, left + 0.06), y, data.total_norm, self.look.ink)
        self.ax.add_patch(
            Circle((left + 0.19, y), 0.13, fc=self.look.paper, ec=self.look.ink, lw=1.6, zorder=4)
        )
        self.text((left + 0.19, y), "Σ", 10, centred=True, bold=True)
        self.arrow((left + 0.32, self.optimizer_left - 0.02), y, data.total_norm, self.look.ink)
        self.text((left + 0.4, y - 0.17), f"‖Σ‖ {number(data.total_norm)}", 8.5)
        self.text((left + 0.4, y + 0.155), f"{percent(data.cancellation)} cancels", 7.5, self.look.muted)
        fight = strongest_conflict(data, self.step.branches, self.floor)
        if fight is None:
            return
        value, a, b = fight
        how = {lane.name: lane.letter for lane in self.lanes}
        strong = -value >= findings.CONFLICT
        ink = self.look.alarm if strong else self.look.muted
        drawn = self.ax.text(
            left + 0.42, y + 0.315, f"{how[a]}↔{how[b]} cos {signed(value)}", fontsize=7.5, color=ink
        )
        drawn.set(va="center", fontweight="bold" if strong else "normal", zorder=6)
        if strong:
            drawn.set_bbox({"facecolor": self.look.paper, "edgecolor": ink, "pad": 1.6, "linewidth": 1.1})

    def optimizer(self) -> None:
        """One optimizer beside all rows."""
        high = self.bottom - _HEAD
        self.box((self.optimizer_left, _HEAD), (_OPTIMIZER, high), self.look.ink)
        deltas = [row.data.delta for row in self.shown if row.data.delta]
        rules = dict.fromkeys(d.rule for d in deltas if d.rule)
        middle = self.optimizer_left + _OPTIMIZER / 2
        words = list(rules)[:2] or ["optimizer"]
        for i, rule in enumerate(words):
            self.text((middle, _HEAD + high / 2 + 0.2 * i), short(rule, 10), 9, centred=True, bold=True)

    def delta(self, y: float, delta: Delta) -> None:
        """The delta: its norm, and a bar of its shares."""
        left = self.optimizer_left + _OPTIMIZER
        self.text((left + 0.22, y - 0.17), f"‖Δ‖ {number(delta.norm)}", 8.5)
        self.ax.plot([left, left + 0.15], [y, y], color=self.look.ink, lw=1.2, zorder=2)
        self.ax.plot(left + 0.14, y, marker=">", ms=5, color=self.look.ink, zorder=3)
        self.shares(left + 0.22, y, delta)
        words = [share_words(delta, self.step.branches, most=n) for n in (3, 2, 1)]
        fitting = next((w for w in words if len(w) <= _SHARE_LETTERS), words[-1])
        self.text((left + 0.22, y + 0.2), fitting, 7, self.look.muted)

    def shares(self, left: float, y: float, delta: Delta) -> None:
        """Stacked magnitudes of the shares; those against the delta are hatched."""
        shares = {n: v for n, v in delta.shares.items() if math.isfinite(v) and v}
        whole = sum(abs(v) for v in shares.values())
        x, wide = left, _DELTA - 0.28
        for name, value in shares.items():
            how = style(name, self.step.branches)
            part = wide * abs(value) / whole
            bar = Rectangle((x, y - 0.055), part, 0.11, fc=how.colour, ec=self.look.paper, lw=0.4)
            bar.set(hatch="xxxx" if value < 0 else how.hatch, zorder=3)
            self.ax.add_patch(bar)
            x += part

    def caption(self) -> None:
        """How to read it."""
        lines = ["Arrows widen with the square root of the norm on them."]
        if self.moved:
            lines += ["Bars: shares of Δ in %, crossed where a share is negative.", ACCOUNTING]
        for i, words in enumerate(lines):
            self.text((_MARGIN, self.bottom + _FOOT + 0.02 + 0.17 * i), words, 7.5, self.look.muted)


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


def strongest_conflict(
    data: Contributions, branches: Sequence[str], floor: float
) -> tuple[float, str, str] | None:
    """The two branches that pull against each other most; none where all go together or are mere noise."""
    audible = [b for b in branches if data.norms.get(b, 0.0) > floor]
    found = [(data.cosine(a, b), a, b) for a, b in combinations(audible, 2)]
    worst = min(found, default=None)
    return worst if worst is not None and worst[0] < 0 else None
