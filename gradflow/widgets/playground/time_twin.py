"""An unrolled cell where no kernel runs: a still picture, and its numbers."""

from __future__ import annotations

import math
from typing import Any

from gradflow.render.story import Table
from gradflow.render.theme import PALETTE, number
from gradflow.widgets.playground import still
from gradflow.widgets.twin import Twin, standing_alone

__all__ = ["twin"]

_LEFT, _RIGHT, _TOP, _FLOOR, _ZERO = 52, 712, 40, 244, 264
_MATRIX = {"input": "U, the input matrix", "recurrent": "W, the recurrent matrix"}


def twin(view: dict[str, Any]) -> Twin:  # as time_view.view gives it
    """Draw what the view tells."""
    said = f"A {view['cell']} cell over {view['length']} time steps. {view['headline']}"
    drawn = still.picture(720, 326, said, *_titles(view), _ruler(view), *_bars(view), _law(view))
    return Twin(standing_alone(drawn), said, _table(view))


def _titles(view: dict[str, Any]) -> list[str]:
    """What is drawn, and what the axes are."""
    told = f"Norm of what each time step contributes to {_MATRIX[view['matrix']]} (log scale)"
    law = "dashes: one factor of the spectral radius for each step back"
    return [
        still.words(_LEFT, 20, told, size=12, weight=600),
        still.words(_LEFT, 318, law),
        still.words(_RIGHT, 318, "time step", anchor="end"),
    ]


def _height(view: dict[str, Any], value: float) -> float:
    low, high = map(float, view["decades"])
    return _FLOOR - (math.log10(value) - low) / (high - low) * (_FLOOR - _TOP)


def _middle(view: dict[str, Any], i: int) -> float:
    length: int = view["length"]
    return _LEFT + (i + 0.5) * (_RIGHT - _LEFT) / length


def _ruler(view: dict[str, Any]) -> str:
    low, high = view["decades"]
    drawn = []
    for power in range(low, high + 1, math.ceil((high - low) / 7)):
        y = _height(view, 10.0**power)
        drawn.append(still.element("path", d=f"M{_LEFT} {y:.1f} H{_RIGHT}", stroke="var(--gf-faint)"))
        drawn.append(still.words(_LEFT - 6, y + 4, f"1e{power}", anchor="end"))
    return "".join([*drawn, still.words(_LEFT - 6, _ZERO + 4, "zero", anchor="end")])


def _bars(view: dict[str, Any]) -> list[str]:
    half, every = 0.36 * (_RIGHT - _LEFT) / view["length"], math.ceil(view["length"] / 20)
    drawn = []
    for i, norm in enumerate(view["norms"]):
        x = _middle(view, i)
        if norm:
            y = _height(view, norm)
            size = max(1.0, _FLOOR - y)
            drawn.append(still.element("rect", x=x - half, y=y, width=2 * half, height=size, fill=PALETTE[0]))
        else:
            drawn.append(still.element("circle", cx=x, cy=_ZERO, r=4, fill="none", stroke=PALETTE[0]))
        if (view["length"] - 1 - i) % every == 0:
            drawn.append(still.words(x, 290, str(i + 1), size=10, anchor="middle"))
    return drawn


def _law(view: dict[str, Any]) -> str:
    points = [(_middle(view, i), _height(view, v)) for i, v in enumerate(view["powers"]) if v > 1e-300]
    return still.polyline(points, stroke="var(--gf-ink)", stroke_width=1.3, stroke_dasharray="5 3")


def _table(view: dict[str, Any]) -> Table:
    last = view["norms"][-1]
    rows = tuple((str(i + 1), number(n), number(n / last)) for i, n in enumerate(view["norms"]))
    title = f"What each time step contributes to {_MATRIX[view['matrix']]}"
    return Table(("time step", "norm", "of the last"), rows, title)
