"""Pieces of still pictures of the playgrounds: SVG as text, in the theme's colours.

Neutral colours are ``var(--gf-ink)`` and so on, which ``twin.standing_alone`` defines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from gradflow.render.theme import ink_on, style

__all__ = ["Point", "arrow", "element", "grid", "mark", "picture", "plane", "polyline", "words"]

Point = Sequence[float]
_SIDE = 320


def element(name: str, *inside: str, **attributes: str | float) -> str:
    """Write an element; underscores in the names of attributes stand for hyphens.

    Example:
        >>> element("rect", x=1, stroke_width=2.5)
        '<rect x="1" stroke-width="2.5"></rect>'
    """
    told = "".join(f' {key.replace("_", "-")}="{_written(value)}"' for key, value in attributes.items())
    return f"<{name}{told}>{''.join(inside)}</{name}>"


def picture(width: int, height: int, title: str, *inside: str) -> str:
    """Write a picture of a size in pixels, with its title for those who do not see it."""
    box = f"0 0 {width} {height}"
    font = "system-ui, sans-serif"
    return element(
        "svg",
        element("title", escape(title)),
        *inside,
        viewBox=box,
        width=width,
        height=height,
        role="img",
        font_family=font,
    )


def words(
    x: float, y: float, said: str, *, size: float = 11, anchor: str = "start", weight: int = 400
) -> str:
    """Write a line of text."""
    ink = "var(--gf-ink)"
    return element(
        "text", escape(said), x=x, y=y, font_size=size, text_anchor=anchor, font_weight=weight, fill=ink
    )


def plane(room: float) -> Callable[[Point], tuple[float, float]]:
    """Give the map from a square plane, ``room`` to each side, to a picture 320 pixels wide."""
    return lambda point: (_SIDE / 2 * (1 + point[0] / room), _SIDE / 2 * (1 - point[1] / room))


def grid(room: float) -> str:
    """Draw the axes of a plane and the frame around it."""
    half = _SIDE / 2
    axes = element("path", d=f"M0 {half} H{_SIDE} M{half} 0 V{_SIDE}", stroke="var(--gf-faint)")
    frame = element("rect", width=_SIDE, height=_SIDE, fill="none", stroke="var(--gf-faint)")
    return axes + frame + words(_SIDE - 4, half - 4, f"{room:g}", size=10, anchor="end")


def mark(branch: str, at: Point, branches: Sequence[str], condition: str = "pulls") -> str:
    """Draw a branch's mark: filled, or hollow where it gets zeros, or dashed where it is absent."""
    look, (x, y) = style(branch, branches), at
    filled = condition == "pulls"
    how: dict[str, str | float] = {
        "fill": look.colour if filled else "var(--gf-paper)",
        "stroke": "var(--gf-paper)" if filled else look.colour,
        "stroke_width": 2,
        "stroke_dasharray": "3 2.5" if condition == "absent" else "none",
    }
    drawn = {
        "s": lambda: element("rect", x=x - 9, y=y - 9, width=18, height=18, **how),
        "^": lambda: element("path", d=f"M{x} {y - 14} L{x + 14} {y + 10} L{x - 14} {y + 10} Z", **how),
    }.get(look.marker, lambda: element("circle", cx=x, cy=y, r=10, **how))()
    ink = ink_on(look.colour) if filled else "var(--gf-ink)"
    down = 6 if look.marker == "^" else 4
    letter = element(
        "text", look.letter, x=x, y=y + down, font_size=12, font_weight=700, text_anchor="middle", fill=ink
    )
    said = words(x, y - 18, condition, size=10.5, anchor="middle") if not filled else ""
    return drawn + letter + said


def arrow(start: Point, end: Point, colour: str) -> str:
    """Draw an arrow, or nothing where it would be too short to see."""
    (x, y), (u, v) = start, end
    length = math.hypot(u - x, v - y)
    if length < 1.5:
        return ""
    a, b, head = (u - x) / length, (v - y) / length, min(9.0, 0.7 * length)
    p, q, half = u - a * head, v - b * head, 0.45 * head
    tip = f"M{u:.1f} {v:.1f} L{p - b * half:.1f} {q + a * half:.1f} L{p + b * half:.1f} {q - a * half:.1f} Z"
    return element(
        "path", d=f"M{x:.1f} {y:.1f} L{p:.1f} {q:.1f} {tip}", stroke=colour, fill=colour, stroke_width=3
    )


def polyline(points: Sequence[Point], *, closed: bool = False, **attributes: str | float) -> str:
    """Draw lines through points."""
    steps = " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return element("path", d=f"M{steps}{' Z' if closed else ''}", fill="none", **attributes)


def _written(value: str | float) -> str:
    return escape(value) if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
