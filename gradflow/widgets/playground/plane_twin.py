"""The embedding plane where no kernel runs: a still picture, and its numbers."""

from __future__ import annotations

from typing import Any

from gradflow.render.story import Table
from gradflow.render.theme import number, style
from gradflow.widgets.playground import still
from gradflow.widgets.playground.plane_state import BRANCHES
from gradflow.widgets.twin import Twin, standing_alone

__all__ = ["twin"]

_ROWS = (*BRANCHES, "sum", "update")
_LETTERS = {"sum": "Σ", "update": "Δ"}


def twin(view: dict[str, Any]) -> Twin:  # as plane_view.view gives it
    """Draw what the view tells."""
    said = f"Embedding plane, {view['loss']} loss. {view['headline']} Loss = {view['written']}."
    drawn = still.picture(720, 356, said, _embeddings(view), _bars(view))
    return Twin(standing_alone(drawn), said, _table(view), BRANCHES)


def _embeddings(view: dict[str, Any]) -> str:
    room, places, scale = view["rooms"][1], view["embeddings"], view["arrow_scale"]
    at = still.plane(room)
    arrows = [
        still.arrow(
            at(places[b]),
            at([z + scale * v for z, v in zip(places[b], pull, strict=True)]),
            style(b, BRANCHES).colour,
        )
        for b, pull in view["pulls"].items()
    ]
    marks = [still.mark(b, at(places[b]), BRANCHES, view["conditions"][b]) for b in BRANCHES]
    inside = still.element("svg", still.grid(room), _zone(view), *arrows, *marks, width=320, height=320, y=26)
    return still.words(0, 16, "Embeddings z = W x", size=12, weight=600) + inside


def _zone(view: dict[str, Any]) -> str:
    """Where the hinge is dead: all but a circle around the anchor."""
    if view["radius"] is None:
        return ""
    x, y = still.plane(view["rooms"][1])(view["embeddings"]["anchor"])
    r = 160 * view["radius"] / view["rooms"][1]
    ring = f"M{x - r} {y} a{r} {r} 0 1 0 {2 * r} 0 a{r} {r} 0 1 0 {-2 * r} 0 Z"
    shade = still.element(
        "path",
        d=f"M0 0 H320 V320 H0 Z {ring}",
        fill="var(--gf-muted)",
        fill_opacity=0.22,
        fill_rule="evenodd",
    )
    return shade + still.element(
        "path", d=ring, fill="none", stroke="var(--gf-muted)", stroke_dasharray="5 4"
    )


def _bars(view: dict[str, Any]) -> str:
    title = still.words(352, 16, "What each path brings to each weight", size=12, weight=600)
    sizes = {row: [abs(_value(e, row) or 0.0) for e in view["entries"]] for row in _ROWS}
    most = max(max(sizes[row]) for row in _ROWS if row != "update")
    cells = []
    for k, entry in enumerate(view["entries"]):
        x, y = 352 + 188 * (k % 2), 30 + 150 * (k // 2)
        cells.append(still.words(x, y + 12, entry["name"], weight=600))
        for i, row in enumerate(_ROWS):
            whole = max(sizes["update"]) if row == "update" else most
            cells.append(_bar(row, _value(entry, row), whole, (x, y + 22 + 20 * i)))
    return title + "".join(cells)


def _bar(row: str, value: float | None, most: float, at: tuple[float, float]) -> str:
    (x, y), zero = at, at[0] + 66
    letter = still.words(x, y + 10, _LETTERS.get(row) or style(row, BRANCHES).letter)
    said = still.words(x + 176, y + 10, _said(row, value), anchor="end")
    width = 48 * abs(value) / most if value and most else 0.0
    fill = {"sum": "var(--gf-ink)", "update": "none"}.get(row) or style(row, BRANCHES).colour
    edge = "var(--gf-ink)" if row == "update" else "none"
    left = zero - width if value and value < 0 else zero
    drawn = still.element("rect", x=left, y=y, width=width, height=11, fill=fill, stroke=edge)
    axis = still.element("path", d=f"M{zero} {y - 4} v20", stroke="var(--gf-muted)", stroke_width=0.8)
    return letter + axis + (drawn if width else "") + said


def _value(entry: dict[str, Any], row: str) -> float | None:
    found: float | None = entry["parts"][row] if row in BRANCHES else entry[row]
    return found


def _said(row: str, value: float | None) -> str:
    if value is None:
        return "absent" if row in BRANCHES else "none"
    return number(value).replace("-", "−", 1) if value < 0 else number(value)


def _table(view: dict[str, Any]) -> Table:
    rows = tuple((e["name"], *(_said(row, _value(e, row)) for row in _ROWS)) for e in view["entries"])
    return Table(("weight", *BRANCHES, "sum", "update"), rows, "What each path brings to each weight")
