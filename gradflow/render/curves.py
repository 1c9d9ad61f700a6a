"""Boxes, and the curves of arrows between them.

Coordinates are points, x to the right, y down; boxes are given by their centres.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "ARROW_HEAD",
    "LABEL_WIDTH",
    "TEXT_CHARACTER",
    "TITLE_CHARACTER",
    "Box",
    "Point",
    "Route",
    "bend",
    "downwards",
    "label_beside",
    "text_width",
]

Point = tuple[float, float]

ARROW_HEAD = 8.0  # its length
LABEL_WIDTH = 34.0  # of a number on an arrow
TITLE_CHARACTER, TEXT_CHARACTER = 6.4, 5.0  # widths of a character of the first line of a box, and of others


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle by its centre and size."""

    x: float
    y: float
    width: float
    height: float

    @property
    def left(self) -> float:
        """X of the left side."""
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        """X of the right side."""
        return self.x + self.width / 2

    @property
    def top(self) -> float:
        """Y of the upper side."""
        return self.y - self.height / 2

    @property
    def bottom(self) -> float:
        """Y of the lower side."""
        return self.y + self.height / 2


@dataclass(frozen=True, slots=True)
class Route:
    """The way of an arrow.

    Attributes:
        points: Control points of cubic curves up to the head: 1 + 3k of them.
        tip: Where the head ends.
        label: Centre of what is written on it.
    """

    points: tuple[Point, ...]
    tip: Point
    label: Point


def text_width(lines: list[str]) -> float:
    """Estimate the width of the text of a box; boxes grow if it is wider."""
    title = TITLE_CHARACTER * len(lines[0])
    return max(title, *(TEXT_CHARACTER * len(line) for line in lines[1:]), LABEL_WIDTH)


def bend(start: Point, end: Point) -> tuple[Point, ...]:
    """Give a curve that leaves and arrives level."""
    middle = (start[0] + end[0]) / 2
    return start, (middle, start[1]), (middle, end[1]), end


def label_beside(tip: Point, ahead: float, *, from_below: bool = False) -> Point:
    """Give the place of a number beside an arrow that arrives level: below it, or above if it rose there."""
    return tip[0] - ahead * (ARROW_HEAD + 8.0 + LABEL_WIDTH / 2), tip[1] + (-9.0 if from_below else 9.0)


def downwards(
    source: Box, target: Box, *, straight_from: float | None = None, straight_to: float | None = None
) -> Route:
    """Lead an arrow from one box to one below it: a curve, straight from a height on, or up to one."""
    start, end = (source.x, source.bottom), (target.x, target.top - ARROW_HEAD)
    upper = (source.x, max(source.bottom, straight_to or source.bottom))
    lower = (target.x, min(end[1], straight_from or end[1]))
    middle = (upper[1] + lower[1]) / 2
    bend = ((upper[0], middle), (lower[0], middle), lower)
    points = (*_straight(start, upper), *bend, *_straight(lower, end)[1:])
    return Route(points, (target.x, target.top), ((start[0] + end[0]) / 2 + LABEL_WIDTH / 2, middle))


def _straight(start: Point, end: Point) -> tuple[Point, ...]:
    """Give a straight line as a curve; nothing but its start if it has no length."""
    return (start,) if start == end else (start, start, end, end)
