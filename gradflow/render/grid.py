"""Lanes as columns, modules as rows: where everything stands in a picture that is as regular as that.

Used where every lane has one box a row (an encoder called three times, a Siamese network, heads on a trunk),
which general layouts draw unevenly. Shared parameters stand in the middle, half a row below the boxes that
use them; arrows run sideways in the gaps between rows, never under a box. Everything else is left to `dot`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from gradflow.graph.data import Edge, Node
from gradflow.graph.graph import Graph
from gradflow.render.curves import (
    ARROW_HEAD,
    LABEL_WIDTH,
    TITLE_CHARACTER,
    Box,
    Point,
    Route,
    bend,
    downwards,
    label_beside,
    text_width,
)
from gradflow.render.grid_plan import Plan, plan

__all__ = ["Grid", "grid"]

Lines = dict[str, list[str]]

_GAP = 28.0  # between rows, and between columns
_PADDING = 9.0  # of a lane, around its boxes
_LINE = 19.0  # between neighbouring arrows into one parameter
_HEADER = 26.0  # for the name of a lane, from the upper end of its frame
_FAN = 22.0  # more room where arrows fan out to the lanes, or in from them
_MARGIN = 6.0  # around the whole


@dataclass(slots=True)
class Grid:
    """A finished layout, in points, x to the right, y down.

    Attributes:
        boxes: Where each node stands, by id.
        lanes: Where each lane lies, by branch.
        routes: The way of each edge, in the order of the graph's edges.
        width: Of the whole.
        height: Of the whole.
    """

    boxes: dict[str, Box]
    lanes: dict[str, Box]
    routes: list[Route]
    width: float
    height: float


def grid(graph: Graph, lanes: tuple[str, ...], lines: Lines) -> Grid | None:
    """Lay a view out as a grid; None if it is not as regular as that.

    Args:
        graph: A view.
        lanes: Its parallel branches, see :func:`gradflow.render.parallel.parallel_branches`.
        lines: The text of each box, by id.
    """
    found = plan(graph, lanes)
    return None if found is None else _Layout(found, lines, lanes).grid()


@dataclass(slots=True)
class _Layout:
    plan: Plan
    lines: Lines
    lanes: tuple[str, ...]
    boxes: dict[str, Box] = field(default_factory=dict)
    frames: dict[str, Box] = field(default_factory=dict)
    y: float = 0.0  # lower end of what was placed so far
    pitch: float = 0.0  # from one row of the lanes to the next
    centre: float = 0.0  # of the middle column
    merges: bool = False  # whether all lanes lead down into one parameter

    @property
    def left_lanes(self) -> tuple[str, ...]:
        """Lanes to the left of the middle, the outermost first."""
        return self.lanes[: (len(self.lanes) + 1) // 2]

    @property
    def right_lanes(self) -> tuple[str, ...]:
        """Lanes to the right of the middle, the outermost first."""
        return self.lanes[len(self.left_lanes) :][::-1]

    def grid(self) -> Grid:
        """Place everything, from the loss down."""
        self.merges = self._is_one_row()
        across = self._columns()
        axis = (min(across.values()) + max(across.values())) / 2
        self.centre = axis if self.merges else self.centre
        self._stack(self.plan.above, axis)
        self._rows(across)
        self._parameters()
        self.y = max(box.bottom for box in (*self.frames.values(), *self.boxes.values())) + _GAP
        self.y += _FAN if self.plan.below else 0.0
        self._stack(self.plan.below, axis)
        if self.plan.chain and not self.plan.below:
            self.y = self.boxes[self._shared()[0].id].bottom + _GAP
        self._stack(self.plan.chain, self.centre)
        self._beside()
        routes = [self._route(edge) for edge in self.plan.graph.edges]
        return self._moved_to_origin(routes)

    def _shared(self) -> list[Node]:
        return [node for nodes in self.plan.middle.values() for node in nodes]

    def _is_one_row(self) -> bool:
        """Tell whether there is but one row, and one parameter that all lanes share: the classic picture."""
        shared = [node for nodes in self.plan.middle.values() for node in nodes]
        return (
            len(shared) == 1 and not self.plan.below and all(len(n) == 1 for n in self.plan.inside.values())
        )

    def _size(self, node: Node) -> tuple[float, float]:
        lines = self.lines[node.id]
        wide = text_width(lines)
        if node.kind == "sum":
            return wide + 14.0, wide + 14.0
        tall = 14.0 + 11.0 * (len(lines) - 1) + (18.0 if node.kind == "parameter" else 10.0)
        entering = sum(edge.target == node.id for edge in self.plan.graph.edges) / 2
        return wide + 20.0, max(
            tall, entering * self._line(node.id) + 8.0 if node.kind == "parameter" else 0.0
        )

    def _lane_width(self) -> float:
        boxes = [self._size(node)[0] for nodes in self.plan.inside.values() for node in nodes]
        return max(*boxes, *(TITLE_CHARACTER * len(lane) for lane in self.lanes)) + 2 * _PADDING

    def _columns(self) -> dict[str, float]:
        """Give the middle of each lane; sets that of the middle column."""
        wide = self._lane_width()
        held = [self._size(node)[0] for nodes in self.plan.middle.values() for node in nodes]
        room = self._room()
        if self.merges:
            held, room = [], _GAP * 0.3
        across: dict[str, float] = {}
        x = 0.0
        for lane in self.left_lanes:
            across[lane] = x + wide / 2
            x += wide + _GAP * 0.6
        x += -_GAP * 0.6 + room
        self.centre = x + max(held, default=0.0) / 2
        x += max(held, default=0.0) + room
        for lane in reversed(self.right_lanes):
            across[lane] = x + wide / 2
            x += wide + _GAP * 0.6
        return across

    def _stack(self, nodes: list[Node], x: float) -> None:
        """Place nodes below one another."""
        for node in nodes:
            width, height = self._size(node)
            self.boxes[node.id] = Box(x, self.y + height / 2, width, height)
            self.y += height + _GAP

    def _rows(self, across: dict[str, float]) -> None:
        inside = self.plan.inside
        tall = max(self._size(node)[1] for nodes in inside.values() for node in nodes)
        crossing = max(map(len, self.plan.middle.values()), default=0) * (len(self.left_lanes) - 1)
        held = (*self.plan.middle.values(), *self.plan.outside.values())
        stacks = [sum(self._size(node)[1] + 10.0 for node in nodes) for nodes in held]
        self.pitch = max(tall + max(_GAP, self._line() * crossing + 12.0), *stacks, 0.0)
        top = self.y + (_FAN if self.plan.above else 0.0)
        for lane, nodes in inside.items():
            for row, node in enumerate(nodes):
                y = top + _HEADER + tall / 2 + row * self.pitch
                self.boxes[node.id] = Box(across[lane], y, self._size(node)[0], self._size(node)[1])
            height = _HEADER + tall + (len(nodes) - 1) * self.pitch + _PADDING
            self.frames[lane] = Box(across[lane], top + height / 2, self._lane_width(), height)
        self.y = top + _HEADER + tall / 2

    def _parameters(self) -> None:
        """Place parameters half a row below their users: shared ones in the middle, others outside."""
        if self.merges:
            self.y = max(frame.bottom for frame in self.frames.values()) + _GAP + _FAN
            self._stack(self._shared(), self.centre)
            return
        for row, nodes in self.plan.middle.items():
            self._column(nodes, row, lambda width: self.centre)
        for (lane, row), nodes in self.plan.outside.items():
            frame, room = self.frames[lane], self._room()
            is_left = lane in self.left_lanes
            edge = frame.left - room if is_left else frame.right + room
            side = -0.5 if is_left else 0.5
            self._column(nodes, row, partial(_beside, edge, side))

    def _column(self, nodes: list[Node], row: float, across: Callable[[float], float]) -> None:
        """Place parameters of one row below one another."""
        sizes = [self._size(node) for node in nodes]
        y = self.y + (row + 0.5) * self.pitch - sum(height + 10.0 for _, height in sizes) / 2
        for node, (width, height) in zip(nodes, sizes, strict=True):
            self.boxes[node.id] = Box(across(width), y + 5.0 + height / 2, width, height)
            y += height + 10.0

    def _room(self) -> float:
        """Give the room for arrows into a parameter from the side."""
        return _GAP + (LABEL_WIDTH if any(edge.norm is not None for edge in self.plan.graph.edges) else 6.0)

    def _beside(self) -> None:
        """Place the parameters of boxes outside the lanes to the right of them."""
        room = self._room()
        for user, nodes in self.plan.beside.items():
            x = self.boxes[user].right + room
            for node in nodes:
                width, height = self._size(node)
                self.boxes[node.id] = Box(x + width / 2, self.boxes[user].y, width, height)
                x += width + _GAP

    def _route(self, edge: Edge) -> Route:
        source, target = self.boxes[edge.source], self.boxes[edge.target]
        if self.merges and self._shared()[0].id == edge.target:
            return self._merging(edge, source, target)
        for nodes in self.plan.middle.values():
            for place, node in enumerate(nodes):
                if node.id == edge.target:
                    return self._sideways(edge, place, len(nodes))
        beside = (*self.plan.beside.values(), *self.plan.outside.values())
        if any(edge.target == node.id for nodes in beside for node in nodes):
            ahead = 1.0 if target.x > source.x else -1.0
            tip = (target.x - ahead * target.width / 2, target.y)
            start = (source.x + ahead * source.width / 2, source.y)
            return Route(bend(start, (tip[0] - ahead * ARROW_HEAD, tip[1])), tip, label_beside(tip, ahead))
        if edge.target in self._ends(0):
            return downwards(source, target, straight_from=min(f.top for f in self.frames.values()) - 10.0)
        if edge.source in self._ends(-1):
            return downwards(source, target, straight_to=target.top - _GAP - _FAN)
        return downwards(source, target)

    def _entry(self, edge: Edge, side: tuple[str, ...]) -> float:
        """Tell which of the arrows from one side this is, counted from the middle one: by row, then lane."""

        def place(one: Edge) -> tuple[int, int, str]:
            return self.plan.row[one.source], -side.index(self._lane_of(one)), one.source

        into = [one for one in self.plan.graph.edges if one.target == edge.target]
        order = sorted(place(one) for one in into if self._lane_of(one) in side)
        return order.index(place(edge)) - (len(order) - 1) / 2

    def _merging(self, edge: Edge, source: Box, target: Box) -> Route:
        """Lead an arrow down into the one parameter that all lanes share."""
        lane, last = self._lane_of(edge), len(self.lanes) - 1
        apart = min(36.0, target.width / (last + 2))
        tip = (target.x + (self.lanes.index(lane) - last / 2) * apart, target.top)
        below = Box(tip[0], target.y, target.width, target.height)
        route = downwards(source, below, straight_to=self.frames[lane].bottom)
        outwards = -1.0 if source.x < target.x else 1.0
        label = (source.x + outwards * (LABEL_WIDTH / 2 + 4.0), self.frames[lane].bottom + 12.0)
        return Route(route.points, tip, label)

    def _lane_of(self, edge: Edge) -> str:
        """Give the lane that an edge comes from."""
        return next(
            lane for lane, nodes in self.plan.inside.items() if any(one.id == edge.source for one in nodes)
        )

    def _ends(self, which: int) -> set[str]:
        """Give the first or last box of each lane."""
        return {nodes[which].id for nodes in self.plan.inside.values()}

    def _sideways(self, edge: Edge, place: int, stacked: int) -> Route:
        """Lead an arrow from a lane into a parameter in the middle, through the gap below the row."""
        source, target = self.boxes[edge.source], self.boxes[edge.target]
        lane = next(
            lane for lane, nodes in self.plan.inside.items() if any(n.id == edge.source for n in nodes)
        )
        is_left = lane in self.left_lanes
        side = self.left_lanes if is_left else self.right_lanes
        rank, last = len(side) - 1 - side.index(lane), len(side) - 1
        line = self._line(edge.target)
        entry = target.y + self._entry(edge, side) * line
        start = (source.right if is_left else source.left, source.y)
        tip = (target.left if is_left else target.right, entry)
        ahead = 1.0 if is_left else -1.0
        end = (tip[0] - ahead * ARROW_HEAD, entry)
        label = label_beside(tip, ahead, from_below=source.y > entry)
        if not rank:
            return Route(bend(start, end), tip, label)
        bus = entry
        if stacked > 1:
            slot = place * last + rank - 1
            bus = source.y + self.pitch / 2 + (slot - (stacked * last - 1) / 2) * line
        inner = [self.frames[one] for one in side[side.index(lane) + 1 :]]
        enter = inner[0].left if is_left else inner[0].right
        leave = inner[-1].right if is_left else inner[-1].left
        points = (
            bend(start, (enter, bus)) + bend((enter, bus), (leave, bus))[1:] + bend((leave, bus), end)[1:]
        )
        return Route(points, tip, label)

    def _line(self, target: str = "") -> float:
        """Give the distance of neighbouring arrows: more where numbers stand between them, or two do."""
        if all(edge.norm is None for edge in self.plan.graph.edges):
            return _LINE * 0.55
        rows = {
            self.plan.row[e.source]
            for e in self.plan.graph.edges
            if e.target == target and e.source in self.plan.row
        }
        return _LINE * 1.5 if len(rows) > 1 else _LINE

    def _moved_to_origin(self, routes: list[Route]) -> Grid:
        ends = [*self.boxes.values(), *self.frames.values()]
        x = min(box.left for box in ends) - _MARGIN
        y = min(box.top for box in ends) - _MARGIN
        width = max(box.right for box in ends) - x + _MARGIN
        height = max(box.bottom for box in ends) - y + _MARGIN

        def moved(point: Point) -> Point:
            return point[0] - x, point[1] - y

        def placed(box: Box) -> Box:
            return Box(*moved((box.x, box.y)), box.width, box.height)

        return Grid(
            boxes={key: placed(box) for key, box in self.boxes.items()},
            lanes={key: placed(box) for key, box in self.frames.items()},
            routes=[Route(tuple(map(moved, r.points)), moved(r.tip), moved(r.label)) for r in routes],
            width=width,
            height=height,
        )


def _beside(edge: float, side: float, width: float) -> float:
    """Give the middle of a box that stands beside an edge: left of it for a negative side."""
    return edge + side * width
