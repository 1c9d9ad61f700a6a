"""Marking the nodes of a graph, and planting hooks on those that read a parameter or a stem.

A mark tells which call made a node and in which branch. It is decided once, when the node is first
seen; who else reads the node is added later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd.graph import Node

from gradflow.capture import branches
from gradflow.capture.calls import Call, Mark, Window
from gradflow.capture.stems import Crossing, Stem
from gradflow.capture.walk import (
    ease_release,
    fresh_nodes,
    is_cast_of_leaf,
    is_leaf_node,
    is_view_or_cast,
    leaf_of,
    mark_of,
    put_mark,
    upstream,
)

__all__ = ["Edge", "Marker", "Sink", "add_reader"]


class Edge:
    """A use that a hook was planted for: an edge from a marked node into a watched parameter."""

    __slots__ = ("mark", "node", "param", "slot")

    def __init__(self, mark: Mark, node: str, slot: int, param: int) -> None:
        self.mark, self.node, self.slot, self.param = mark, node, slot, param


class Sink(Protocol):
    """What planted hooks report to."""

    def knows(self, leaf: Tensor) -> bool:
        """Tell whether a leaf is watched."""

    def key(self, leaf: Tensor) -> int:
        """Give the key of the watched parameter that a leaf is, or stands in for."""

    def window(self) -> Window:
        """Give the window that a call beginning now belongs to."""

    def latest_window(self) -> Window:
        """Give the window whose backward is running."""

    def hook(self, edges: list[Edge], crossings: list[Crossing]) -> Callable[..., None]:
        """Give the hook for a node with these uses, which reads these stems."""

    def guard(self, stem: Stem) -> Callable[..., None]:
        """Give the pre-hook for a node that branches meet at."""

    def fail(self, error: Exception) -> None:
        """Take note of a failure of ours; the user's training goes on."""


class Marker:
    """Marks nodes and plants hooks on them.

    Args:
        key: Key of this recorder's marks in ``node.metadata``.
        sink: What the planted hooks report to.
        splits_trunks: Whether what branches read from outside any branch is split, and not only weights.

    Attributes:
        splits_trunks: As given.
    """

    def __init__(self, key: str, sink: Sink, *, splits_trunks: bool) -> None:
        self.key = key
        self._sink = sink
        self.splits_trunks = splits_trunks

    def mark_fresh(
        self, roots: list[Node], window: Window, call: Call | None, inputs: set[Node] | None
    ) -> None:
        """Mark what is new behind ``roots`` as made in ``call``, which read ``inputs`` (None: anything)."""
        fresh = fresh_nodes(roots, self.key)
        ease_release(fresh[::-1])
        for node in fresh:
            mark = Mark(window, call, call.branch if call is not None else None)
            mark.origins = self.origins(upstream(node), call)
            if torch._C._current_graph_task_id() == -1:
                self._place_node(node, mark)
            self.mark(node, mark, inputs)

    def mark(self, node: Node, mark: Mark, inputs: set[Node] | None) -> None:
        """Put a mark on a node, and a hook if it reads a watched parameter or a stem.

        Args:
            node: The node; what lies behind it is marked already.
            mark: Its mark.
            inputs: Nodes that its call took as inputs; None where anything may be read.
        """
        put_mark(node, self.key, mark)
        mark.is_stem_candidate = self._could_be_stem(node, mark)
        edges: list[Edge] = []
        crossings: list[Crossing] = []
        for slot, (child, output) in enumerate(node.next_functions):
            if child is None:
                continue
            if is_leaf_node(child):
                if self._sink.knows(leaf_of(child)):
                    edges.append(Edge(mark, node.name(), slot, self._sink.key(leaf_of(child))))
            else:
                self._cross(child, mark, inputs)
                stem = self._stem(child, mark)
                if stem is not None:
                    crossings.append(Crossing(mark, slot, stem, output))
        if edges or crossings:
            node.register_hook(self._sink.hook(edges, crossings))

    def origins(self, nodes: Iterator[Node] | list[Node], call: Call | None) -> frozenset[Mark]:
        """Marks that nodes derive from, looking through the stretch they are made in."""
        running = set(call.chain()) if call is not None else set()
        found: list[frozenset[Mark]] = []
        for node in nodes:
            mark = mark_of(node, self.key)
            if mark is None:
                continue
            is_same_stretch = mark.call is None or mark.call in running
            found.append(mark.origins if is_same_stretch else frozenset([mark]))
        if len(found) == 1:
            return found[0]
        return frozenset().union(*found)

    def guarded(self, node: Node, *, is_split: bool = True) -> Stem:
        """Give the stem that a node is, with a pre-hook on it."""
        mark = mark_of(node, self.key)
        assert mark is not None, "a stem is marked before it is guarded"
        if mark.stem is None:
            mark.stem = Stem(mark)
        stem = mark.stem
        if is_split and not stem.leaves:
            self._survey(node, stem)
        if not stem.is_guarded:
            stem.is_guarded = True
            node.register_prehook(self._sink.guard(stem))
        return stem

    def read_by(self, nodes: list[Node], call: Call) -> None:
        """Tell what lies behind nodes, outside any branch, that a call of a branch reads it.

        From now on each edge inside that stretch is known, so that whatever else reads it shows.
        """
        for node in nodes:
            for inside in self.spread(node, lambda m: m.branch is None and add_reader(m.readers, call)):
                self._know_edges(inside)

    def _know_edges(self, node: Node) -> None:
        mark = mark_of(node, self.key)
        if mark is None or mark.has_known_edges or mark.is_unplaced:
            return
        mark.has_known_edges = True
        crossings: list[Crossing] = []
        for slot, (child, output) in enumerate(node.next_functions):
            below = None if child is None or is_leaf_node(child) else mark_of(child, self.key)
            if child is None or below is None or not _is_open(below):
                continue
            is_known = below.stem is not None and below.is_stem_candidate  # its readers were all noted
            below.stem = below.stem or Stem(below)
            self._met(child, below.stem, is_trunk=True)
            if not is_known:
                crossings.append(Crossing(mark, slot, below.stem, output))
        if crossings:
            node.register_hook(self._sink.hook([], crossings))

    def open_to_outside(self, node: Node) -> None:
        """Tell what lies behind a node that something outside every known branch reads it too."""
        start = mark_of(node, self.key)
        is_open = start is not None and start.branch is None

        def visit(mark: Mark) -> bool:
            inside = mark.branch is None if is_open else mark.is_stem_candidate
            return inside and add_reader(mark.reach, mark.window.outside)

        self.spread(node, visit)

    def _survey(self, node: Node, stem: Stem) -> None:
        """Find what is split with a stem: of a trunk, what lies outside any branch like itself."""
        region, leaves = set[Mark](), dict[int, Tensor]()

        def visit(mark: Mark) -> bool:
            if mark in region or (stem.is_trunk and (mark.branch is not None or mark.is_unplaced)):
                return False
            region.add(mark)
            return True

        for inside in self.spread(node, visit):
            for child, _ in inside.next_functions:
                if child is not None and is_leaf_node(child) and self._sink.knows(leaf_of(child)):
                    leaves[id(leaf_of(child))] = leaf_of(child)
        stem.leaves, stem.size = list(leaves.values()), len(region)
        stem.region = region if stem.is_trunk else None

    def spread(self, start: Node, visit: Callable[[Mark], bool]) -> list[Node]:
        """Visit marks from a node towards the leaves, as far as ``visit`` says it is news; give the nodes."""
        stack, news = [start], []
        while stack:
            node = stack.pop()
            mark = mark_of(node, self.key)
            if mark is not None and visit(mark):
                news.append(node)
                stack.extend(upstream(node))
        return news

    def _place_node(self, node: Node, mark: Mark) -> None:
        """Decide the branch of a node by the stretch it was made in, where that is inside its call."""
        number = node._sequence_nr()
        closed = branches.closed_stretch(number)
        context = branches.current()
        if closed is not None:
            mark.is_unplaced = closed != mark.branch
            mark.branch = closed if closed == mark.branch else None
            mark.window.contexts[closed] = None
        elif (
            context is not None
            and (mark.call is None or mark.call.context is not context)
            and branches.is_inside(number)
        ):
            mark.branch = context.name

    def _stem(self, node: Node, reader: Mark) -> Stem | None:
        """Give the stem that a node is to one that reads it; guard it once branches may meet there."""
        mark = mark_of(node, self.key)
        if mark is None:
            return None
        is_trunk = reader.branch is not None and _is_open(mark)
        if not is_trunk and not mark.is_stem_candidate:
            return None
        if mark.stem is None:
            mark.stem = Stem(mark)
        if is_trunk or mark.reach or is_cast_of_leaf(node):
            return self._met(node, mark.stem, is_trunk=is_trunk)
        return mark.stem

    def _met(self, node: Node, stem: Stem, *, is_trunk: bool) -> Stem:
        stem.is_met = True
        stem.is_trunk |= is_trunk
        return self.guarded(node, is_split=self.splits_trunks or stem.mark.is_stem_candidate)

    def _could_be_stem(self, node: Node, mark: Mark) -> bool:
        """Tell whether a node makes a weight out of weights, which several branches may then read."""
        if mark.call is not None and not all(call.takes_data for call in mark.call.chain()):
            return True
        if not is_view_or_cast(node):
            return False
        child = node.next_functions[0][0]
        if child is None or is_leaf_node(child):
            return child is not None
        behind = mark_of(child, self.key)
        return behind is not None and behind.is_stem_candidate

    def _cross(self, child: Node, reader: Mark, inputs: set[Node] | None) -> None:
        """Take note that a node reads another stretch around the inputs of its call: a cached weight."""
        mark = mark_of(child, self.key)
        if mark is None or mark.call is reader.call:
            return
        if not mark.is_stem_candidate and (inputs is None or child in inputs):
            return
        call = reader.call or reader.window.glue
        if mark.call is not None and call in mark.call.chain():
            return
        if mark.branch is None or mark.branch != call.branch:
            self.spread(child, lambda m: add_reader(m.reach, call))


def _is_open(mark: Mark) -> bool:
    """Tell whether a node lies outside any named branch."""
    return mark.branch is None and not mark.is_unplaced


def add_reader(calls: set[Call], call: Call) -> bool:
    """Add a call unless it, or one of the same named branch, is there; tell whether it was news."""
    if call in calls or (call.branch is not None and any(c.branch == call.branch for c in calls)):
        return False
    calls.add(call)
    return True
