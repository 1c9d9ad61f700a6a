"""Drawing equal things once: repeated blocks of a network ("×16") and long runs of equal time steps.

A run of siblings ``layer3.1``, ``layer3.2``, ... is folded when they hold the same boxes with the same
operations and parameters of the same sizes, in every branch. A run of time steps is folded when it is long
and each step holds the same boxes. The first of a run stands for all; what leads from one to the next
becomes a loop.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import replace

from gradflow.graph.collapse import View, merged_edges, on_cycles
from gradflow.graph.data import Edge, Node, owner_path

__all__ = ["LONG_RUN", "Run", "folded", "runs"]

LONG_RUN = 6
"""Longer runs of equal time steps are folded; shorter ones are drawn out, a branch each."""

_SHORTEST_RUN = 3

Run = list[list[Node]]
"""Equal units in forward order, their nodes in one order."""


def folded(nodes: list[Node], edges: list[Edge], view: View) -> tuple[list[Node], list[Edge]]:
    """Fold equal blocks and long runs of equal time steps.

    Args:
        nodes: Nodes of a view, in topological order.
        edges: Its edges.
        view: Says whether to fold, and what to leave unfolded.

    Returns:
        Nodes and edges; a node that stands for several has ``repeats`` above 1.
    """
    if not view.fold:
        return nodes, edges
    place = {node.id: node.id for node in nodes}
    unit: dict[str, tuple[int, int]] = {}
    for number, run in enumerate(runs(nodes, view)):
        tried, turns = dict(place), dict(unit)
        for turn, one in enumerate(run):
            tried |= {node.id: shown.id for node, shown in zip(one, run[0], strict=True)}
            turns |= {node.id: (number, turn) for node in one}
        if _is_acyclic(edges, tried, turns):  # else something outside the run stands between its units
            place, unit = tried, turns
    if not unit:
        return nodes, edges
    members: dict[str, list[Node]] = {}
    for node in nodes:
        members.setdefault(place[node.id], []).append(node)
    shown = [_one(members[node.id], node) for node in nodes if node.id in members]
    loops = [edge for edge in edges if _is_loop(edge, unit)]
    kept = [edge for edge in edges if not _is_loop(edge, unit)]
    back = [replace(edge, is_loop=True) for edge in merged_edges(loops, place)]
    return shown, merged_edges(kept, place) + back


def _is_acyclic(edges: list[Edge], place: dict[str, str], unit: dict[str, tuple[int, int]]) -> bool:
    ways: dict[str, set[str]] = {shown: set() for shown in place.values()}
    for edge in edges:
        if not _is_loop(edge, unit) and place[edge.source] != place[edge.target]:
            ways[place[edge.source]].add(place[edge.target])
    return not on_cycles(ways)


def runs(nodes: list[Node], view: View) -> list[Run]:
    """Give the runs of equals in a view: time steps, then blocks, the outermost first; none overlap."""
    found: list[Run] = []
    seen: set[str] = set()
    for run in (*_step_runs(nodes, view), *_block_runs(nodes, view)):
        inside = {node.id for unit in run for node in unit}
        if not inside & seen:
            seen |= inside
            found.append(run)
    return found


def _is_loop(edge: Edge, unit: dict[str, tuple[int, int]]) -> bool:
    """Tell whether an edge leads from one unit of a run to another."""
    here, there = unit.get(edge.source), unit.get(edge.target)
    return here is not None and there is not None and here[0] == there[0] and here[1] != there[1]


def _one(found: list[Node], shown: Node) -> Node:
    if len(found) == 1:
        return shown
    return replace(
        shown,
        branch=shown.branch if len({node.branch for node in found}) == 1 else None,
        step=None,
        names=tuple(dict.fromkeys(name for node in found for name in node.names)),
        members=sum(node.members for node in found),
        numel=sum(node.numel for node in found),
        repeats=len(found),
    )


def _step_runs(nodes: list[Node], view: View) -> Iterator[Run]:
    """Give the long runs of equal time steps in each lane."""
    steps_of: dict[str | None, set[int]] = {}
    for node in nodes:
        if node.step is not None:
            steps_of.setdefault(node.branch, set()).add(node.step)
    lanes: dict[str | None, dict[int, list[Node]]] = {}
    for node in nodes:
        if node.step is not None:
            lane = node.branch if len(steps_of[node.branch]) > 1 else None
            lanes.setdefault(lane, {}).setdefault(node.step, []).append(node)
    for units in lanes.values():
        if not any(_path(node) in view.unfolded for unit in units.values() for node in unit):
            yield from _runs(
                ((step, "", unit) for step, unit in units.items()), LONG_RUN + 1, by_branch=False
            )


def _block_runs(nodes: list[Node], view: View) -> Iterator[Run]:
    """Give the runs of equal siblings, the outermost first."""
    families: dict[str, dict[int, list[Node]]] = {}
    for node in nodes:
        parts = _path(node).split(".")
        for level, part in enumerate(parts):
            if part.isdigit():
                family = ".".join(parts[:level])
                families.setdefault(family, {}).setdefault(int(part), []).append(node)
    for family in sorted(families, key=lambda path: (path.count("."), path)):
        if family not in view.unfolded:
            units = ((i, f"{family}.{i}".lstrip("."), unit) for i, unit in families[family].items())
            yield from _runs(units, _SHORTEST_RUN, by_branch=True)


def _runs(units: Iterable[tuple[int, str, list[Node]]], shortest: int, *, by_branch: bool) -> Iterator[Run]:
    """Give the runs of neighbours that look the same."""
    run: Run = []
    looks: Hashable = None
    for _, home, unit in sorted(units, key=lambda one: one[0]):
        keyed = sorted(((_looks(node, home, by_branch), i) for i, node in enumerate(unit)))
        look = tuple(key for key, _ in keyed)
        if look != looks:
            if len(run) >= shortest:
                yield run
            run, looks = [], look
        run.append([unit[i] for _, i in keyed])
    if len(run) >= shortest:
        yield run


def _looks(node: Node, home: str, by_branch: bool) -> tuple[str, ...]:
    """Give all that makes a node equal to one in another unit, as strings, which sort."""
    name = node.name if node.kind == "op" else _inside(node.name, home)
    inside = _inside(_path(node), home)
    branch = node.branch or "" if by_branch else ""
    sizes = str((node.members, node.numel, node.shape if node.kind == "parameter" else None, len(node.names)))
    return node.kind, inside, name, branch, sizes, *node.ops


def _inside(name: str, home: str) -> str:
    return name.removeprefix(home) if home else name


def _path(node: Node) -> str:
    if node.kind == "parameter":
        return owner_path(node.name) if node.members == 1 else node.name
    return node.name if node.kind == "module" else node.path
