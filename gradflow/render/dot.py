"""A graph as DOT text, the language of Graphviz: the same for every run, ready for any Graphviz.

A view as regular as lanes side by side gets the places of :mod:`gradflow.render.grid` (and
``layout=nop2``, which keeps them); every other view is left to the layout of `dot`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from gradflow.graph.data import Edge, Node
from gradflow.graph.graph import Graph
from gradflow.render import theme as themes
from gradflow.render.curves import Box, Route, text_width
from gradflow.render.grid import Grid, grid
from gradflow.render.paint import FONTS, Fixed, Paint, escaped
from gradflow.render.parallel import rows

__all__ = ["to_dot"]

_HUB = 8  # more arrows than this into one parameter make `dot` explode: each use then gets its own proxy
_INCH = 72.0


def to_dot(graph: Graph, *, theme: str = "light", details: bool = True, fixed: Fixed | None = None) -> str:
    """Write a graph as DOT.

    Args:
        graph: A graph or a view of one; drawn as it is.
        theme: ``"light"`` or ``"dark"``.
        details: Whether boxes tell operations, shapes and sizes, or their names alone.
        fixed: What stays as it is from picture to picture of a sequence.

    Example:
        >>> from gradflow.graph import Edge, Node
        >>> print(to_dot(Graph((Node("0", "op", "SumBackward0"),), (), ())).splitlines()[0])
        digraph gradflow {
    """
    paint = Paint(graph, themes.find(theme), details, fixed)
    found = grid(graph, paint.lanes, {node.id: paint.room(node) for node in graph.nodes})
    body = _Free(paint).lines() if found is None else _Placed(paint, found).lines()
    return "\n".join(["digraph gradflow {", *("  " + line for line in body), "}", ""])


def _defaults(paint: Paint, *graph: str) -> Iterator[str]:
    look, font = paint.look, f'fontname="{FONTS}"'
    yield f'graph [{", ".join(graph)}, bgcolor="{look.paper}", {font},'
    yield f'  fontsize=12, fontcolor="{look.ink}", tooltip="gradient flow"]'
    yield f'node [shape=box, style="rounded,filled", fillcolor="{look.paper}", color="{look.muted}",'
    yield f'  {font}, fontsize=11, fontcolor="{look.ink}", margin="0.12,0.06", height=0.3]'
    yield f'edge [color="{look.muted}", arrowsize=0.6, {font}, fontsize=9, fontcolor="{look.muted}"]'


@dataclass(slots=True)
class _Placed:
    """Writes a view whose places are known; DOT counts y upwards."""

    paint: Paint
    grid: Grid

    def lines(self) -> Iterator[str]:
        size = f'bb="0,0,{self.grid.width:.1f},{self.grid.height:.1f}"'
        yield from _defaults(self.paint, "layout=nop2", "outputorder=edgesfirst", size)
        for number, (lane, box) in enumerate(self.grid.lanes.items()):
            yield from self._lane(number, lane, box)
        for node in self.paint.graph.nodes:
            yield self._node(node)
        for edge, route in zip(self.paint.graph.edges, self.grid.routes, strict=True):
            yield self.paint.edge(edge, self.paint.ids[edge.target], *self._way(route))

    def _lane(self, number: int, lane: str, box: Box) -> Iterator[str]:
        colour = self.paint.colour(lane)
        corners = f"{box.left:.1f},{self._up(box.bottom):.1f},{box.right:.1f},{self._up(box.top):.1f}"
        yield f"subgraph cluster_{number} {{"
        yield f'  graph [bb="{corners}", style="rounded,filled", color="{colour}1c", label=""]'
        yield (
            f'  lane{number} [label="{escaped(lane)}", pos="{box.x:.1f},{self._up(box.top):.1f}", '
            f'width=0.1, height=0.25, fontsize=12, fontcolor="{self.paint.legible(lane)}", '
            f'color="{self.paint.look.paper}", '
            f'margin="0.08,0.02", class="lane", tooltip="{escaped(lane)}"]'
        )
        yield "}"

    def _node(self, node: Node) -> str:
        box = self.grid.boxes[node.id]
        place = f'pos="{box.x:.1f},{self._up(box.y):.1f}"'
        size = f"width={box.width / _INCH:.3f}, height={box.height / _INCH:.3f}"
        return self.paint.node(node, place, size)

    def _way(self, route: Route) -> tuple[str, ...]:
        points = " ".join(f"{x:.1f},{self._up(y):.1f}" for x, y in route.points)
        tip, label = route.tip, route.label
        return (
            f'pos="e,{tip[0]:.1f},{self._up(tip[1]):.1f} {points}"',
            f'lp="{label[0]:.1f},{self._up(label[1]):.1f}"',
        )

    def _up(self, y: float) -> float:
        return self.grid.height - y


@dataclass(slots=True)
class _Free:
    """Writes a view for `dot` to lay out."""

    paint: Paint
    hubs: dict[str, Node] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        paint, graph = self.paint, self.paint.graph
        uses = Counter(edge.target for edge in graph.edges if edge.target in paint.parameters)
        self.hubs = {node.id: node for node in graph.nodes if uses[node.id] > _HUB}
        yield from _defaults(paint, "rankdir=TB", "newrank=true", "nodesep=0.3", "ranksep=0.4")
        for lane in paint.lanes:
            yield from self._lane(lane)
        for node in graph.nodes:
            if node.branch not in paint.lanes:
                yield paint.node(node, *self._still(node))
        yield from self._rows()
        yield from self._column()
        for number, edge in enumerate(graph.edges):
            if edge.target in self.hubs:
                yield paint.proxy(edge, self.hubs[edge.target], f"p{number}")
                yield paint.edge(edge, f"p{number}")
            else:
                weight = () if edge.target in paint.parameters else ("weight=8",)
                yield paint.edge(edge, paint.ids[edge.target], *weight)

    def _lane(self, lane: str) -> Iterator[str]:
        colour, number = self.paint.colour(lane), self.paint.lanes.index(lane)
        yield f"subgraph cluster_{number} {{"
        yield f'  graph [label="{escaped(lane)}", fontcolor="{self.paint.legible(lane)}", color="{colour}1c",'
        yield '    style="rounded,filled", labelloc=b, margin=10]'  # at the top, arrows would cross the name
        for node in self.paint.graph.nodes:
            if node.branch == lane:
                yield "  " + self.paint.node(node, f'group="{number}"', *self._still(node))
        yield "}"

    def _still(self, node: Node) -> tuple[str, ...]:
        """Give a box the size it has in every picture of a sequence."""
        if self.paint.fixed is None:
            return ()
        return (f"width={(text_width(self.paint.room(node)) + 20) / _INCH:.3f}",)

    def _rows(self) -> Iterator[str]:
        """Keep the boxes of one module in one row, the lanes in their order."""
        lanes = self.paint.lanes
        for row in rows(self.paint.graph, lanes):
            row.sort(key=lambda node: lanes.index(node.branch or ""))
            ids = [self.paint.ids[node.id] for node in row]
            yield f"{{ rank=same; {' -> '.join(ids)} [style=invis] }}"

    def _column(self) -> Iterator[str]:
        """Keep the parameters that several lanes share in one column."""
        users: dict[str, set[str | None]] = {}
        for edge in self.paint.graph.edges:
            users.setdefault(edge.target, set()).add(edge.branch)
        lanes = set(self.paint.lanes)
        shared = [
            self.paint.ids[edge.target]
            for edge in self._top_down()
            if edge.target in self.paint.parameters - self.hubs.keys() and len(users[edge.target] & lanes) > 1
        ]
        if len(set(shared)) > 1:
            yield f"{' -> '.join(dict.fromkeys(shared))} [style=invis, weight=4]"

    def _top_down(self) -> list[Edge]:
        place = {node.id: i for i, node in enumerate(self.paint.graph.nodes)}
        return sorted(self.paint.graph.edges, key=lambda edge: place[edge.source])
