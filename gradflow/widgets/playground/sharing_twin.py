"""Shared and copied encoders where no kernel runs: a still picture, and its numbers."""

from __future__ import annotations

from typing import Any

from gradflow.render.story import Table
from gradflow.render.theme import number, style
from gradflow.widgets.playground import still
from gradflow.widgets.playground.sharing_state import BRANCHES, MODES
from gradflow.widgets.twin import Twin, standing_alone

__all__ = ["twin"]

_DASHES = {"anchor": "none", "positive": "7 3", "negative": "2 3"}
_LINES = {"shared": "none", "copied": "6 3", "averaged": "2 2.5"}
_LEFT, _RIGHT, _TOP, _BOTTOM = 400, 708, 60, 300


def twin(view: dict[str, Any]) -> Twin:  # as sharing_view.view gives it
    """Draw what the view tells."""
    said = f"Encoders {view['mode']}. {view['headline']}"
    drawn = still.picture(720, 356, said, _squares(view), _drift(view))
    return Twin(standing_alone(drawn), said, _table(view), BRANCHES)


def _squares(view: dict[str, Any]) -> str:
    at = still.plane(view["room"])
    shown = BRANCHES[:1] if view["mode"] == "shared" else BRANCHES
    outlines = [
        still.polyline(
            [at(corner) for corner in view["outlines"][b]],
            closed=True,
            stroke="var(--gf-ink)" if len(shown) == 1 else style(b, BRANCHES).colour,
            stroke_width=2,
            stroke_dasharray=_DASHES[b],
        )
        for b in shown
    ]
    marks = [still.mark(b, at(view["spots"][b]), BRANCHES) for b in reversed(BRANCHES)]
    title = still.words(0, 16, "The unit square and one input, after W", size=12, weight=600)
    return title + still.element(
        "svg", still.grid(view["room"]), *outlines, *marks, width=320, height=320, y=26
    )


def _drift(view: dict[str, Any]) -> str:
    curves = {mode: view["curves"][mode]["drift"] for mode in MODES}
    length = max(1, max(len(curve) for curve in curves.values()) - 1)
    most = max(1e-9, *(v for curve in curves.values() for v in curve))
    across, up = (_RIGHT - _LEFT) / length, (_BOTTOM - _TOP) / most
    lines = [
        still.polyline(
            [(_LEFT + across * i, _BOTTOM - up * v) for i, v in enumerate(curve)],
            stroke="var(--gf-ink)" if mode == view["mode"] else "var(--gf-muted)",
            stroke_width=2.8 if mode == view["mode"] else 1.4,
            stroke_dasharray=_LINES[mode],
        )
        for mode, curve in curves.items()
    ]
    axes = still.polyline([(_LEFT, _TOP), (_LEFT, _BOTTOM), (_RIGHT, _BOTTOM)], stroke="var(--gf-muted)")
    return "".join(
        [
            still.words(352, 16, "Drift: largest distance between two weights", size=12, weight=600),
            axes,
            *lines,
            still.words(_LEFT - 5, _TOP + 4, number(most), anchor="end"),
            still.words(_LEFT - 5, _BOTTOM, "0", anchor="end"),
            still.words(_RIGHT, _BOTTOM + 16, f"step {length}", anchor="end"),
            still.words(352, 340, "line: shared · dashes: copied · dots: averaged"),
        ]
    )


def _table(view: dict[str, Any]) -> Table:
    rows = tuple(
        (row["weight"], *(_said(row["parts"][b]) for b in BRANCHES), _said(row["sum"]), _said(row["moved"]))
        for row in view["updates"]
    )
    title = f"Norms in the update that led to step {view['steps']}"
    return Table(("weight", *BRANCHES, "‖W.grad‖", "‖Δ‖"), rows, title)


def _said(value: float | None) -> str:
    return "absent" if value is None else number(value)
