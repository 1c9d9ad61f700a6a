"""Folding the nodes of a graph into the module calls that made them.

The rules. A node belongs to the box of the module call it was made in, cut at the depth asked for (deeper
where a module is opened). What a module does between its own submodules, and modules without parameters (a
ReLU, a pooling), join the box before them in the forward pass, unless values of several boxes meet there (a
residual sum): that is a small box of its own. Boxes never span two branches. Parameters join into one box
per module; those tied across the same modules (``a = b``) into one of their own. What lies outside any module
call is the loss.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from gradflow.graph.data import PLUMBING, Edge, Node, owner_path, short_op
from gradflow.graph.repeats import chain

__all__ = ["View", "boxes", "collapsed", "in_order", "merged_edges", "on_cycles", "visible_path"]


_PARAMETERS, _TIED = "parameters of ", " = "


@dataclass(frozen=True, slots=True)
class View:
    """What of a graph is shown: plain data that can be printed, kept and replayed.

    Attributes:
        depth: How many levels of modules are told apart; None shows every node.
        opened: Paths of modules shown one level deeper than that.
        fold: Whether equal blocks, and long runs of equal time steps, are drawn once.
        unfolded: Paths of modules whose repetition is drawn out all the same.
    """

    depth: int | None = 1
    opened: frozenset[str] = frozenset()
    fold: bool = True
    unfolded: frozenset[str] = frozenset()


def visible_path(path: str, view: View) -> str:
    """Give the module that stands for ``path`` in a view.

    Example:
        >>> visible_path("layer1.0.conv1", View(depth=1))
        'layer1'
        >>> visible_path("layer1.0.conv1", View(depth=1, opened=frozenset({"layer1"})))
        'layer1.0'
    """
    if view.depth is None:
        return path
    parts = path.split(".") if path else []
    size = min(view.depth, len(parts))
    while size < len(parts) and ".".join(parts[:size]) in view.opened:
        size += 1
    return ".".join(parts[:size])


def collapsed(nodes: tuple[Node, ...], edges: tuple[Edge, ...], view: View) -> tuple[list[Node], list[Edge]]:
    """Fold nodes into module calls.

    Args:
        nodes: Every node, in topological order from the loss.
        edges: Every edge.
        view: What to show.

    Returns:
        Nodes and edges of the view, the nodes in the order of the first that each stands for.
    """
    drawn, place = boxes(nodes, edges, view)
    by_id = {node.id: node for node in drawn}
    merged = merged_edges(edges, place)
    return drawn, [_in_lane(edge, by_id[edge.source], by_id[edge.target]) for edge in merged]


def boxes(nodes: tuple[Node, ...], edges: tuple[Edge, ...], view: View) -> tuple[list[Node], dict[str, str]]:
    """Give the boxes of a view, and the id of the box that each node is in."""
    members: dict[str, list[Node]] = {}
    for node, group in zip(nodes, _Grouping(nodes, edges, view).groups(), strict=True):
        members.setdefault(group, []).append(node)
    drawn = [_merged(group, found, view) for group, found in members.items()]
    place = {node.id: box.id for box, found in zip(drawn, members.values(), strict=True) for node in found}
    return drawn, place


def _in_lane(edge: Edge, source: Node, target: Node) -> Edge:
    """Give an edge between boxes the branch of the box nearer to the parameters, if that has one."""
    if target.kind in ("parameter", "input"):
        return edge
    none = (None, "shared", "unclaimed")
    branch = source.branch if target.branch in none else target.branch
    return replace(edge, branch=branch)


@dataclass(slots=True)
class _Grouping:
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    view: View
    kids: list[list[int]] = field(default_factory=list)
    containers: set[str] = field(default_factory=set)
    holders: set[str] = field(default_factory=set)
    of: list[str] = field(default_factory=list)
    part: list[int] = field(default_factory=list)

    def groups(self) -> list[str]:
        """Give the group of every node, by position."""
        at = {node.id: i for i, node in enumerate(self.nodes)}
        self.kids = [[] for _ in self.nodes]
        for edge in self.edges:
            self.kids[at[edge.source]].append(at[edge.target])
        owners = {owner_path(name) for node in self.nodes if node.kind == "parameter" for name in node.names}
        self.holders = {outer for path in owners for outer in chain(path)}
        paths = owners | {node.path for node in self.nodes if node.calls}
        self.containers = {outer for path in paths for outer in chain(path)[:-1]}
        self.of = [""] * len(self.nodes)
        for i in reversed(range(len(self.nodes))):
            self.of[i] = self._group(i)
        self._part_cycles()
        return self.of

    def _group(self, i: int) -> str:
        node = self.nodes[i]
        if node.kind == "parameter":
            return self._parameter_group(node)
        if self.view.depth is None or node.kind != "op":
            return node.id
        if not node.calls:
            return f"loss@{node.branch or ''}"
        path = visible_path(node.path, self.view)
        if path not in self.holders or (path in self.containers and self._is_open(path, node.path)):
            return self._before(i)
        if path in self.view.opened and path == node.path:
            return node.id
        return f"{path}#{dict(node.calls).get(path, 0)}@{node.branch or ''}"

    def _is_open(self, path: str, own: str) -> bool:
        """Tell whether a module's submodules are shown, so that what it does itself has no box."""
        if path != own or self.view.depth is None:
            return False
        depth = path.count(".") + 1 if path else 0
        return depth < self.view.depth or path in self.view.opened

    def _before(self, i: int) -> str:
        """Give the group before a node in the forward pass, or one of its own where several meet."""
        node = self.nodes[i]
        if any(self.nodes[kid].kind == "parameter" for kid in self.kids[i]):
            return node.id
        before = [self.nodes[kid] for kid in self.kids[i] if self.nodes[kid].kind == "op"]
        found = {self.of[kid] for kid in self.kids[i] if self.nodes[kid].kind == "op"}
        same = all(kid.branch == node.branch for kid in before)
        passes = node.branch in (None, "unclaimed") or short_op(node.name) in PLUMBING
        return found.pop() if len(found) == 1 and (same or passes) else node.id

    def _parameter_group(self, node: Node) -> str:
        paths = {visible_path(owner_path(name), self.view) for name in node.names}
        if self.view.depth is None or paths & self.view.opened or " " in node.name:
            return node.id
        return _PARAMETERS + _TIED.join(sorted(paths))

    def _part_cycles(self) -> None:
        """Take apart groups that lead into one another: into connected parts, then into single nodes."""
        for name in (self._connected_part, lambda i: self.nodes[i].id):
            ways: dict[str, set[str]] = {group: set() for group in self.of}
            for i, kids in enumerate(self.kids):
                ways[self.of[i]].update(self.of[kid] for kid in kids if self.of[kid] != self.of[i])
            wrong = on_cycles(ways)
            if not wrong:
                return
            self.of = [name(i) if group in wrong else group for i, group in enumerate(self.of)]

    def _connected_part(self, i: int) -> str:
        """Name the part of its group that a node is connected with."""
        if not self.part:
            self.part = list(range(len(self.nodes)))
            for at, kids in enumerate(self.kids):
                for kid in kids:
                    if self.of[kid] == self.of[at]:
                        self.part[self._root(kid)] = self._root(at)
        return f"{self.of[i]}/{self._root(i)}"

    def _root(self, i: int) -> int:
        while self.part[i] != i:
            self.part[i] = self.part[self.part[i]]
            i = self.part[i]
        return i


def on_cycles(ways: dict[str, set[str]]) -> set[str]:
    """Give what is left when vertices that nothing leads into, or that lead nowhere, are taken away."""
    back: dict[str, set[str]] = {group: set() for group in ways}
    for group, targets in ways.items():
        for target in targets:
            back[target].add(group)
    left = set(ways)
    for into, out in ((back, ways), (ways, back)):
        degree = {group: len(into[group] & left) for group in left}
        ready = [group for group, count in degree.items() if not count]
        while ready:
            group = ready.pop()
            left.discard(group)
            for target in out[group] & left:
                degree[target] -= 1
                if not degree[target]:
                    ready.append(target)
    return left


def _merged(group: str, found: list[Node], view: View) -> Node:
    """Make one node of several; ``found`` is in topological order, so its last was made first."""
    top, start = found[0], found[-1]
    if start.id == group:  # an operation of its own, and what joined it
        return (
            start if len(found) == 1 else replace(start, shape=top.shape, members=len(found), ops=_ops(found))
        )
    if top.kind == "parameter":
        return _merged_parameters(group, found)
    is_loss = not start.calls
    path = visible_path(start.path, view)
    steps = {node.step for node in found if node.step is not None}
    return Node(
        id=group,
        kind="loss" if is_loss else "module",
        name=("outside the model" if top.branch == "unclaimed" else "loss") if is_loss else path,
        calls=tuple(call for call in start.calls if call[0] in (path, "") or path.startswith(call[0] + ".")),
        branch=start.branch,  # what joined it may belong to none
        step=steps.pop() if len(steps) == 1 else None,
        shape=top.shape,
        inferred=any(node.inferred for node in found),
        members=len(found),
        ops=_ops(found),
        saved=tuple(saved for node in found for saved in node.saved),
    )


def _ops(found: list[Node]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(short_op(node.name) for node in reversed(found)))


def _merged_parameters(group: str, found: list[Node]) -> Node:
    names = tuple(name for node in found for name in node.names)
    if len(found) == 1:
        return found[0]
    return Node(
        id=group,
        kind="parameter",
        name=group.removeprefix(_PARAMETERS),
        names=names,
        members=len(found),
        numel=sum(node.numel for node in found),
    )


def merged_edges(edges: Iterable[Edge], place: dict[str, str]) -> list[Edge]:
    """Draw edges between groups once, and leave out those inside a group.

    Args:
        edges: The edges.
        place: Group of each node, by id.
    """
    between: dict[tuple[str, str], list[Edge]] = {}
    for edge in edges:
        ends = place[edge.source], place[edge.target]
        if ends[0] != ends[1]:
            between.setdefault(ends, []).append(edge)
    return [_one_edge(ends, several) for ends, several in between.items()]


def _one_edge(ends: tuple[str, str], several: list[Edge]) -> Edge:
    first = several[0]
    if len(several) == 1:
        return replace(first, source=ends[0], target=ends[1])
    branches = {edge.branch for edge in several}
    return Edge(
        source=ends[0],
        target=ends[1],
        index=-1,
        branch=first.branch if len(branches) == 1 else None,
        norm=_joint_norm(several),
        members=sum(edge.members for edge in several),
    )


def _joint_norm(several: list[Edge]) -> float | None:
    """Give the norm of all gradients together; None where they add up in one place (their angle decides)."""
    norms = [edge.norm for edge in several if edge.norm is not None]
    is_apart = len({edge.target for edge in several}) == len(several)
    return math.hypot(*norms) if is_apart and len(norms) == len(several) else None


def in_order(nodes: list[Node], edges: Iterable[Edge]) -> list[Node]:
    """Put nodes into topological order from the loss, otherwise as they stand; loops do not count."""
    place = {node.id: i for i, node in enumerate(nodes)}
    below: list[list[int]] = [[] for _ in nodes]
    waiting = [0] * len(nodes)
    for edge in edges:
        if not edge.is_loop:
            below[place[edge.source]].append(place[edge.target])
            waiting[place[edge.target]] += 1
    ready = [i for i, count in enumerate(waiting) if not count]
    found: list[int] = []
    while ready:
        at = heapq.heappop(ready)
        found.append(at)
        for target in below[at]:
            waiting[target] -= 1
            if not waiting[target]:
                heapq.heappush(ready, target)
    return [nodes[i] for i in found]
