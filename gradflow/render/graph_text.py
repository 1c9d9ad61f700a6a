"""A graph in a terminal: one line per box, a column per branch, and the parameters it uses."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from gradflow.graph.data import Edge, Node
from gradflow.graph.graph import Graph
from gradflow.render import theme
from gradflow.render.labels import lines_of, operations, prefix_of, title
from gradflow.render.parallel import parallel_branches

__all__ = ["heading", "text"]

_MOST_LINES = 40
_WIDEST = 72


def text(graph: Graph) -> str:
    """Tell a graph in lines of text.

    Example:
        >>> from gradflow.graph import Edge, Node
        >>> loss, layer = Node("0", "loss", "loss"), Node("1", "module", "fc", branch="left")
        >>> print(text(Graph((loss, layer), (Edge("0", "1", branch="left"),), (), ("left",))))
        backward graph: 2 nodes, 0 parameters, 1 branch (left)
          loss
          fc (left)
    """
    shown = graph.overview()
    lines = [heading(graph), *(f"note: {note}" for note in graph.notes)]
    if len(shown.nodes) < len(graph.nodes):
        lines.append(
            f"seen as {len(shown.nodes)} boxes; graph.expand(module) opens one, graph.save(path) draws"
        )
    return "\n".join(lines + _Table(shown).lines())


def heading(graph: Graph) -> str:
    """Say in one line how large a graph is and which branches it has."""
    whole = graph.whole
    uses = sum(len(p.uses) for p in graph.parameters)
    names = ", ".join(graph.branches[:6]) + (", …" if len(graph.branches) > 6 else "")
    guess = ", inferred" if any(node.inferred for node in whole.nodes) else ""
    branches = f", {_many(len(graph.branches), 'branch', 'branches')} ({names}{guess})" if names else ""
    used = f" used {uses} times" if uses else ""
    return (
        f"backward graph: {_many(len(whole.nodes), 'node', 'nodes')}, "
        f"{_many(len(graph.parameters), 'parameter', 'parameters')}{used}{branches}"
    )


def _many(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


@dataclass(slots=True)
class _Table:
    graph: Graph
    lanes: tuple[str, ...] = ()
    prefix: str = ""
    nodes: dict[str, Node] = field(default_factory=dict)
    uses: dict[str, list[Edge]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        self.lanes = parallel_branches(self.graph)
        self.prefix = prefix_of(self.graph)
        self.nodes = {node.id: node for node in self.graph.nodes}
        for edge in self.graph.edges:
            if self.nodes[edge.target].kind == "parameter":
                self.uses.setdefault(edge.source, []).append(edge)
        rows = [self._row(row) for row in self._rows()]
        head = [["", *self.lanes, ""]] if self.lanes else []
        widths = [min(_WIDEST, max(map(len, column))) for column in zip(*head, *rows, strict=True)]
        drawn = [
            "  " + "  ".join(_fit(*cell) for cell in zip(row, widths, strict=True)) for row in head + rows
        ]
        extra = len(drawn) - _MOST_LINES
        shown = [line.rstrip() for line in drawn]
        return shown if extra <= 0 else [*shown[:_MOST_LINES], f"  … and {extra} lines more"]

    def _rows(self) -> list[list[Node]]:
        """Give the boxes of one module in several lanes together."""
        rows: dict[tuple[str, ...], list[Node]] = {}
        seen: Counter[tuple[str, ...]] = Counter()
        for node in self.graph.nodes:
            if node.kind in ("parameter", "input"):
                continue
            key: tuple[str, ...] = (node.id,)
            if node.branch in self.lanes:
                same = (node.kind, node.name, str(node.branch))
                key = (node.kind, node.name, str(seen[same]))
                seen[same] += 1
            rows.setdefault(key, []).append(node)
        return list(rows.values())

    def _row(self, row: list[Node]) -> list[str]:
        first = row[0]
        by_lane = {node.branch: node for node in row}
        cells = [self._cell(by_lane[lane]) if lane in by_lane else "" for lane in self.lanes]
        targets = dict.fromkeys(edge.target for node in row for edge in self.uses.get(node.id, ()))
        used = "; ".join(", ".join(lines_of(self.nodes[target], self.prefix)) for target in targets)
        name = title(first, self.prefix)
        if first.branch not in (None, first.name, *self.lanes):
            name += f" ({first.branch})"
        return [name, *cells, f"→ {used}" if used else operations(first)]

    def _cell(self, node: Node) -> str:
        norms = [edge.norm for edge in self.uses.get(node.id, ()) if edge.norm is not None]
        return "●" if not norms else theme.number(math.hypot(*norms))


def _fit(text: str, width: int) -> str:
    return theme.short(text, width).ljust(width)
