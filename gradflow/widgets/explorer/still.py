"""The explorer where no kernel runs: the flow of one step as a small SVG, and its numbers.

Written by hand, not by a plotting package: a notebook is saved with every widget's picture in it, so this one
is a few kilobytes, and showing a widget waits for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import combinations

from gradflow.findings import noise_floor
from gradflow.record import BESIDE_THE_TOTAL
from gradflow.recording import Step
from gradflow.render.rows import Row, largest, rows
from gradflow.render.story import ACCOUNTING, share_words, step_table
from gradflow.render.theme import number, percent, short, signed, style
from gradflow.widgets.twin import Twin, standing_alone

__all__ = ["still"]

_MOST = 10  # rows
_LANE, _LABEL, _BOX, _SUM, _DELTA, _EDGE, _TOP = 34, 64, 190, 170, 170, 14, 54
_STAIR, _WIDEST = 13, 9


def still(step: Step) -> Twin:
    """Draw a step's flow: one lane for each branch, one row for each module, the sum, the delta."""
    shown, what = rows(step, most=_MOST, by="auto")
    if len(shown) > _MOST:
        shown, what = largest(shown, _MOST), f"the {_MOST} largest of {len(shown)} {what}"
    picture = _Picture(step, shown)
    svg = picture.draw(f"Flow of the gradient in step {step.index}; rows are {what}")
    words = "; ".join(picture.told(row) for row in shown)
    return Twin(svg, f"Step {step.index}. {words}.", step_table(step, most=12), step.branches)


class _Picture:
    """Where everything stands, in pixels."""

    def __init__(self, step: Step, shown: Sequence[Row]) -> None:
        self.step, self.shown = step, shown
        seen = dict.fromkeys(n for row in shown for n in (*row.data.contributors, *row.data.absent))
        self.lanes = [n for n in (*step.branches, *(s for s in seen if s not in step.branches)) if n in seen]
        self.lanes = [n for n in self.lanes if n not in BESIDE_THE_TOTAL]
        self.left = _EDGE + _LANE * len(self.lanes) + _LABEL
        self.high = max(48, _STAIR * len(self.lanes) + 14)
        self.floor = noise_floor(step)
        norms = [v for row in shown for v in row.data.norms.values() if math.isfinite(v)]
        self.most = max(norms, default=0.0) or 1.0
        self.parts: list[str] = []

    def draw(self, title: str) -> str:
        width = self.left + _BOX + _SUM + _DELTA
        bottom = _TOP + self.high * len(self.shown)
        self.text((_EDGE, 16), title, bold=True)
        heads = ((0, "shared weight"), (_BOX + 30, "sum Σ"), (_BOX + _SUM + 6, "delta Δ"))
        for x, words in heads:
            self.text((self.left + x, 40), words, bold=True)
        for i, name in enumerate(self.lanes):
            self.lane(_EDGE + _LANE * (i + 0.5), name, bottom)
        for k, row in enumerate(self.shown):
            self.row(_TOP + self.high * (k + 0.5), row)
        loss = self.step.scalars.get("loss")
        self.text((_EDGE, bottom + 24), "loss" if loss is None else f"loss {number(loss)}", bold=True)
        if any(row.data.delta for row in self.shown):
            self.text((_EDGE, bottom + 44), ACCOUNTING, size=10, muted=True)
        size = f'viewBox="0 0 {width} {bottom + 54:.0f}" width="{width}"'
        body = "".join(self.parts)
        font = 'font-family="system-ui, sans-serif" role="img"'
        return standing_alone(f"<svg {size} {font}><title>{escape(title)}</title>{body}</svg>")

    def told(self, row: Row) -> str:
        """A row in words."""
        data = row.data
        parts = [f"{b} {'absent' if b in data.absent else number(data.norms[b])}" for b in self.lanes
                 if b in data.absent or b in data.norms]  # fmt: skip
        return f"{row.name}: {', '.join(parts)}, sum {number(data.total_norm)}"

    def text(
        self, at: tuple[float, float], words: str, *, size: int = 12, bold: bool = False, muted: bool = False,
        middle: bool = False,
    ) -> None:  # fmt: skip
        x, y = at
        anchor = ' text-anchor="middle"' if middle else ""
        ink = "--gf-muted" if muted else "--gf-ink"
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{700 if bold else 400}"{anchor} '
            f'fill="var({ink})">{escape(words)}</text>'
        )

    def lane(self, x: float, name: str, bottom: float) -> None:
        look = style(name, self.step.branches)
        dash = " ".join(f"{1.6 * on:g}" for on in look.dash)
        self.parts.append(
            f'<path d="M{x:g} {_TOP - 6}V{bottom + 8:g}" stroke="{look.colour}" stroke-width="1.6" '
            f'stroke-dasharray="{dash}"/>'
        )
        self.text((x, 40), short(look.letter, 4), bold=True, middle=True)

    def row(self, y: float, row: Row) -> None:
        data, high = row.data, self.high - 10
        for i, name in enumerate(self.lanes):
            at = y + _STAIR * (i - (len(self.lanes) - 1) / 2)
            self.arrival(_EDGE + _LANE * (i + 0.5), at, name, data.norms.get(name), name in data.absent)
        self.parts.append(
            f'<rect x="{self.left}" y="{y - high / 2:.1f}" width="{_BOX}" height="{high}" rx="6" '
            'fill="var(--gf-panel)" stroke="var(--gf-ink)"/>'
        )
        self.text((self.left + 10, y - 2), short(row.name, 24), bold=True)
        count = "parameter" if len(row.members) == 1 else f"{len(row.members)} parameters"
        self.text((self.left + 10, y + 13), count, size=10, muted=True)
        right = self.left + _BOX
        self.arrow(right + 1, right + 24, y, data.total_norm, "var(--gf-ink)")
        self.text((right + 30, y - 6), f"‖Σ‖ {number(data.total_norm)}")
        self.text((right + 30, y + 8), f"{percent(data.cancellation)} cancels", size=10, muted=True)
        self.text((right + 30, y + 20), self.conflict(row), size=10, muted=True)
        if data.delta is not None:
            self.text((right + _SUM + 6, y - 6), f"‖Δ‖ {number(data.delta.norm)}")
            self.text(
                (right + _SUM + 6, y + 8),
                f"{share_words(data.delta, self.step.branches)} %",
                size=10,
                muted=True,
            )

    def conflict(self, row: Row) -> str:
        """The two branches that pull against each other most, if any do."""
        heard = [b for b in self.step.branches if row.data.norms.get(b, 0.0) > self.floor]
        found = min(((row.data.cosine(a, b), a, b) for a, b in combinations(heard, 2)), default=(0.0, "", ""))
        if not found[0] < 0:
            return ""
        letters = "↔".join(style(name, self.step.branches).letter for name in found[1:])
        return f"{letters} cos {signed(found[0])}"

    def arrival(self, x: float, y: float, name: str, norm: float | None, is_absent: bool) -> None:
        colour, end = style(name, self.step.branches).colour, self.left - 2
        if norm is None and not is_absent:
            return
        if norm:
            self.arrow(x, end, y, norm, colour)
        else:
            self.parts.append(
                f'<path d="M{x:g} {y:.1f}H{end - 4 if norm == 0 else end - 60}" stroke="{colour}" '
                'stroke-dasharray="1 2"/>'
            )
        words = "absent ×" if norm is None else "0 zeros" if norm == 0.0 else number(norm)
        wide = 6.2 * len(words)
        self.parts.append(
            f'<rect x="{end - 34 - wide / 2:.1f}" y="{y - 5.5:.1f}" width="{wide:.1f}" height="11" '
            'fill="var(--gf-paper)" opacity="0.86"/>'
        )
        self.text((end - 34, y + 3.5), words, size=10, middle=True)

    def arrow(self, x: float, end: float, y: float, norm: float, colour: str) -> None:
        if not norm > 0:
            return
        half = (0.9 + _WIDEST * math.sqrt(min(1.0, norm / self.most))) / 2
        head, wing = end - 8, half + 3
        self.parts.append(
            f'<path fill="{colour}" d="M{x:.1f} {y - half:.1f}H{head:.1f}V{y - wing:.1f}L{end:.1f} {y:.1f}'
            f'L{head:.1f} {y + wing:.1f}V{y + half:.1f}H{x:.1f}Z"/>'
        )
