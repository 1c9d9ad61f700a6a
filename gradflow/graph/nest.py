"""The boxes of all views at once, nested: what a page needs to open and close them by itself.

A tree. Its leaves are autograd nodes and parameters (or the smallest boxes, if there are too many); around
them stand the boxes of ever fewer levels of modules, and around equal neighbours a box that stands for all.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from gradflow.graph.collapse import View, boxes, merged_edges
from gradflow.graph.data import Edge, Node
from gradflow.graph.fold import Run, runs
from gradflow.graph.graph import Graph
from gradflow.graph.values import measured

__all__ = ["MOST_LEAVES", "Nest", "nest"]

MOST_LEAVES = 5000

_Key = tuple[str, ...]


@dataclass(slots=True)
class Nest:
    """Nested boxes.

    Attributes:
        boxes: What each box shows; a parent stands before its children.
        parents: Position of each box's parent; -1 at the top.
        edges: Edges between leaves, by their positions.
        opened: Positions of the boxes that are open in the view it was made from.
    """

    boxes: list[Node] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    edges: list[tuple[int, int, Edge]] = field(default_factory=list)
    opened: list[int] = field(default_factory=list)


def nest(graph: Graph, *, most: int = MOST_LEAVES) -> Nest:
    """Nest the boxes of all views of a graph.

    Args:
        graph: A graph or a view; which boxes are open follows from its overview.
        most: How many leaves to go down to.
    """
    whole = graph.whole
    levels = _levels(whole, most)
    tree = _Tree()
    leaf = {
        node.id: tree.add(_place(node, levels, goes_down=len(whole.nodes) <= most)) for node in whole.nodes
    }
    found, position = tree.nest()
    at = {node: position[place] for node, place in leaf.items()}
    edges = whole.edges
    if graph.step is not None:
        edges = measured(edges, whole.parameters, whole.branches, graph.step)
    for edge in merged_edges(edges, {node: str(place) for node, place in at.items()}):
        found.edges.append((int(edge.source), int(edge.target), edge))
    found.opened = _opened(found, at, _shown_as(graph.overview()))
    return found


@dataclass(slots=True)
class _Level:
    """The boxes of one depth, by the id of what they hold; what each began with; boxes around equals."""

    box_of: dict[str, Node]
    start_of: dict[str, str]
    run_of: dict[str, tuple[str, Node]]


def _levels(whole: Graph, most: int) -> list[_Level]:
    """Give the levels from one box a branch down to the deepest, or the last that is small enough."""
    paths = {path for node in whole.nodes for path, _ in node.calls}
    deepest = max((path.count(".") + 1 for path in paths if path), default=0)
    found: list[_Level] = []
    for depth in range(deepest + 1):
        view = View(depth)
        drawn, place = boxes(whole.nodes, whole.edges, view)
        if found and len(drawn) > most:
            break
        by_id = {box.id: box for box in drawn}
        start_of = {
            box: node for node, box in place.items()
        }  # the last in topological order is the first made
        level = _Level({node: by_id[box] for node, box in place.items()}, start_of, {})
        for number, run in enumerate(runs(drawn, view)):
            if all(len({(node.kind, node.branch) for node in unit}) == len(unit) for unit in run):
                level.run_of |= _around(run, number)
        found.append(level)
    return found


def _around(run: Run, number: int) -> dict[str, tuple[str, Node]]:
    """Give the box around a run for each node in it, one for each kind and branch."""
    by_branch = len({unit[0].branch for unit in run}) == 1
    found: dict[str, tuple[str, Node]] = {}
    for unit in run:
        for node, first in zip(unit, run[0], strict=True):
            name = f"{number}|{node.kind}|{node.branch if by_branch else ''}"
            shown = replace(first, repeats=len(run), step=None, branch=first.branch if by_branch else None)
            found[node.id] = name, shown
    return found


def _place(node: Node, levels: list[_Level], *, goes_down: bool) -> list[tuple[_Key, Node]]:
    """Give the boxes around a node, the outermost first, and the node itself.

    What joined a box goes where the box goes, also if it would stand elsewhere among fewer boxes.
    """
    place: list[tuple[_Key, Node]] = [(("leaf", node.id), node)] if goes_down else []
    inside = node.id
    for depth, level in reversed(list(enumerate(levels))):
        box = level.box_of[inside]
        inside = level.start_of[box.id]
        place.append((("box", str(depth), box.id), box))
        if box.id in level.run_of:
            name, run = level.run_of[box.id]
            place.append((("run", str(depth), name), run))
    return place[::-1]


@dataclass(slots=True)
class _Tree:
    """Grows from places, then loses every box that holds but one other."""

    keys: list[_Key] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    kids: list[dict[_Key, int]] = field(default_factory=list)
    top: dict[_Key, int] = field(default_factory=dict)

    def add(self, place: list[tuple[_Key, Node]]) -> int:
        """Add a node and the boxes around it; gives the position of the innermost."""
        at = -1
        for key, node in place:
            kids = self.top if at < 0 else self.kids[at]
            if key not in kids:
                kids[key] = len(self.keys)
                self.keys.append(key)
                self.nodes.append(node)
                self.parents.append(at)
                self.kids.append({})
            at = kids[key]
        return at

    def nest(self) -> tuple[Nest, list[int]]:
        """Give the boxes that are worth a box, and the new position of each."""
        stands_for = list(range(len(self.keys)))  # a lone leaf is drawn as the box around it
        is_gone = [False] * len(self.keys)
        for at, kids in enumerate(self.kids):
            if len(kids) == 1:
                (kid,) = kids.values()
                if self.keys[kid][0] == "leaf" and self.keys[at][0] == "box":
                    stands_for[kid], is_gone[kid] = at, True
                else:
                    is_gone[at] = True
        found, position = Nest(), [-1] * len(self.keys)
        for at, node in enumerate(self.nodes):
            if not is_gone[at]:
                outer = self.parents[at]
                while outer >= 0 and is_gone[outer]:
                    outer = self.parents[outer]
                position[at] = len(found.boxes)
                found.boxes.append(node)
                found.parents.append(position[outer] if outer >= 0 else -1)
        return found, [position[stands_for[at]] for at in range(len(self.keys))]


def _shown_as(view: Graph) -> dict[str, str]:
    """Give the box of a view that each node of the whole graph is in."""
    whole = view.whole
    if view.view is None or (view.view.depth is None and not view.view.fold):
        return {node.id: node.id for node in whole.nodes}
    drawn, place = boxes(whole.nodes, whole.edges, view.view)
    if view.view.fold:
        same = {
            n.id: s.id for run in runs(drawn, view.view) for u in run for n, s in zip(u, run[0], strict=True)
        }
        place = {node: same.get(box, box) for node, box in place.items()}
    return place


def _opened(found: Nest, at: dict[str, int], shown: dict[str, str]) -> list[int]:
    """Give the boxes whose content is told apart in a view."""
    first: dict[int, str] = {}
    several: set[int] = set()
    for node, box in shown.items():
        place = at[node]
        while place >= 0:
            if first.setdefault(place, box) != box:
                several.add(place)
            place = found.parents[place]
    return sorted(several)
