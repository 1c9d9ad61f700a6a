"""Which branches of a graph run side by side, and which boxes stand in one row."""

from __future__ import annotations

from gradflow.graph.data import Node
from gradflow.graph.graph import Graph
from gradflow.record import RESERVED

__all__ = ["parallel_branches", "rows"]

_MOST_LANES = 12


def parallel_branches(graph: Graph) -> tuple[str, ...]:
    """Give the branches to draw as lanes: of which none leads into another.

    Time steps lead into one another, so they are no lanes; a head over two lanes leads into both, so the two
    are lanes and it is none. Fewer than two make no lanes.
    """
    of = {node.id: node.branch for node in graph.nodes if node.kind not in ("parameter", "input")}
    names = [name for name in graph.branches if name not in RESERVED and name in set(of.values())]
    if not 2 <= len(names) <= _MOST_LANES:
        return ()
    reach = {name: {name} for name in names}
    ways = {(of.get(e.source), of.get(e.target)) for e in graph.edges if not e.is_loop}
    for _ in names:
        for source, target in ways:
            if source in reach and target in reach:
                reach[source] |= reach[target]
    rivals = {a: {b for b in names if b != a and (b in reach[a] or a in reach[b])} for a in names}
    while any(rivals.values()):
        worst = max(rivals, key=lambda name: (len(rivals[name]), names.index(name)))
        del rivals[worst]
        for others in rivals.values():
            others.discard(worst)
    return tuple(rivals) if len(rivals) > 1 else ()


def rows(graph: Graph, lanes: tuple[str, ...]) -> list[list[Node]]:
    """Give the boxes of one module in several lanes, which are drawn in one row.

    Only boxes that stand equally far from the top of their lane, so that rows never contradict each other.
    """
    lane = {node.id: node.branch for node in graph.nodes if node.branch in lanes}
    level = dict.fromkeys(lane, 0)
    below: dict[str, list[str]] = {}
    for edge in graph.edges:
        if not edge.is_loop and edge.source in lane and lane.get(edge.target) == lane[edge.source]:
            below.setdefault(edge.source, []).append(edge.target)
    for node in graph.nodes:  # in topological order
        for target in below.get(node.id, ()):
            level[target] = max(level[target], level[node.id] + 1)
    found: dict[tuple[str, str, int], list[Node]] = {}
    for node in graph.nodes:
        if node.id in lane:
            found.setdefault((node.kind, node.name, level[node.id]), []).append(node)
    return [row for row in found.values() if 1 < len(row) == len({node.branch for node in row})]
