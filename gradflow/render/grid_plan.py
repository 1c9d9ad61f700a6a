"""Who stands where in a picture of lanes as columns and modules as rows, if it is as regular as that.

The coordinates follow in :mod:`gradflow.render.grid`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gradflow.graph.data import Edge, Node
from gradflow.graph.graph import Graph

__all__ = ["Plan", "plan"]

_CHAIN = ("sum", "optimizer", "delta")
_ABOVE, _BELOW, _PARAMETER = "\0above", "\0below", "\0parameter"  # no branch is called that


@dataclass(slots=True)
class Plan:
    """Rows of nodes above the lanes, in each lane, and below; parameters by the row of their users.

    Attributes:
        graph: The view.
        above: What leads to several lanes, one a row.
        inside: The boxes of each lane, one a row.
        below: What several lanes lead to, one a row.
        middle: Parameters of boxes in lanes, by row; by the mean of the rows of all its users, if several.
        outside: Parameters that only the outermost lane of a side uses, by the lane and row.
        beside: Parameters of a box outside the lanes, by its id.
        chain: The sum, the optimizer and the delta after the one parameter.
        row: Row of each node within its column, by id.
    """

    graph: Graph
    above: list[Node] = field(default_factory=list)
    inside: dict[str, list[Node]] = field(default_factory=dict)
    below: list[Node] = field(default_factory=list)
    middle: dict[float, list[Node]] = field(default_factory=dict)
    outside: dict[tuple[str, int], list[Node]] = field(default_factory=dict)
    beside: dict[str, list[Node]] = field(default_factory=dict)
    chain: list[Node] = field(default_factory=list)
    row: dict[str, int] = field(default_factory=dict)


def plan(graph: Graph, lanes: tuple[str, ...]) -> Plan | None:
    """Tell who stands where; None if the view is not regular enough for a grid."""
    if len(lanes) < 2 or any(edge.is_loop for edge in graph.edges):
        return None
    column = _columns(graph, lanes)
    found = Plan(graph, inside={lane: [] for lane in lanes})
    ends = (lanes[0], lanes[-1])
    lists = {_ABOVE: found.above, _BELOW: found.below, **found.inside}
    for node in graph.nodes:
        if node.kind in _CHAIN:
            found.chain.append(node)
        elif node.kind != "parameter":
            if node.id not in column:
                return None
            lists[column[node.id]].append(node)
    for nodes in lists.values():
        found.row |= {node.id: i for i, node in enumerate(nodes)}
    fits = all(found.inside.values()) and all(_joins_neighbours(edge, column, found) for edge in graph.edges)
    return found if fits and _place_parameters(found, column, ends) else None


def _columns(graph: Graph, lanes: tuple[str, ...]) -> dict[str, str]:
    """Give the column of each node that has one."""
    targets: dict[str, list[str]] = {}
    sources: dict[str, list[str]] = {}
    for edge in graph.edges:
        targets.setdefault(edge.source, []).append(edge.target)
        sources.setdefault(edge.target, []).append(edge.source)
    column: dict[str, str] = {}
    for node in graph.nodes:
        if node.kind == "parameter":
            column[node.id] = _PARAMETER
        elif node.branch in lanes and node.kind not in _CHAIN:
            column[node.id] = node.branch or ""
    for node in reversed(graph.nodes):
        if node.id not in column and any(column.get(t) in (*lanes, _ABOVE) for t in targets.get(node.id, ())):
            column[node.id] = _ABOVE
    for node in graph.nodes:
        if node.id not in column and any(column.get(s) in (*lanes, _BELOW) for s in sources.get(node.id, ())):
            column[node.id] = _BELOW
    return column


def _joins_neighbours(edge: Edge, column: dict[str, str], found: Plan) -> bool:
    here, there = column.get(edge.source), column.get(edge.target)
    if here is None or there is None or _PARAMETER in (here, there):
        return True
    up, down = found.row[edge.source], found.row[edge.target]
    if here == there:
        return down == up + 1
    if here == _ABOVE:
        return there in found.inside and up == len(found.above) - 1 and down == 0
    return here in found.inside and there == _BELOW and up == len(found.inside[here]) - 1 and down == 0


def _place_parameters(found: Plan, column: dict[str, str], ends: tuple[str, str]) -> bool:
    """Put each parameter into the middle; what only one box uses beside it, if there is room."""
    is_spread = False
    users: dict[str, set[str]] = {}
    for edge in found.graph.edges:
        users.setdefault(edge.target, set()).add(edge.source)
    for node in found.graph.nodes:
        if node.kind != "parameter":
            continue
        using = users.get(node.id, set())
        rows = {found.row[one] for one in using}
        if using and all(column[one] in found.inside for one in using):
            used_in = {column[one] for one in using}
            if len(rows) == 1 and len(used_in) == 1 and used_in <= set(ends):
                found.outside.setdefault((used_in.pop(), rows.pop()), []).append(node)
            else:
                is_spread |= len(rows) > 1
                middle = sum(rows) / len(rows) - 0.5 * (len(rows) > 1)
                found.middle.setdefault(middle, []).append(node)
        elif len(using) == 1 and next(iter(using)) not in found.beside:
            found.beside.setdefault(next(iter(using)), []).append(node)
        else:
            return False
    held = sum(map(len, found.middle.values()))
    fits = not is_spread or (held == 1 and len(found.inside) == 2)  # else arrows would cross a lane
    return fits and (not found.chain or held == 1)
