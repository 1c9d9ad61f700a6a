"""Marking the nodes of a graph, and planting hooks on those that read a parameter or a stem.

A mark tells which call made a node and in which branch. It is decided once, when the node is first
seen; who else reads the node is added later.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd.graph import Node

from gradflow.capture import branches
from gradflow.capture.calls import Call, Mark, Window, joined, origins_in
from gradflow.capture.release import DEEP, break_chain
from gradflow.capture.stems import Crossing, Stem
from gradflow.capture.walk import (
    Slots,
    fresh_nodes,
    is_cast_of_leaf,
    is_leaf_node,
    is_view_or_cast,
    leaf_of,
    mark_of,
    put_mark,
    upstream,
)

__all__ = ["Edge", "Marker", "Sink"]


class Edge:
    """A use that a hook was planted for: an edge from a marked node into a watched parameter."""

    __slots__ = ("mark", "node", "param", "slot")

    def __init__(self, mark: Mark, node: str, slot: int, param: int) -> None:
        self.mark, self.node, self.slot, self.param = mark, node, slot, param


class Sink(Protocol):
    """What planted hooks report to."""

    def key(self, leaf: Tensor) -> int | None:
        """Give the key of the watched parameter that a leaf is, or stands in for; None for any other leaf."""

    def window(self) -> Window:
        """Give the window that a call beginning now belongs to."""

    def latest_window(self) -> Window:
        """Give the window whose backward is running."""

    def hook(self, edges: Sequence[Edge], crossings: Sequence[Crossing]) -> Callable[..., None]:
        """Give the hook for a node with these uses, which reads these stems."""

    def guard(self, stem: Stem) -> Callable[..., None]:
        """Give the pre-hook for a node that branches meet at."""

    def fence(self, mark: Mark) -> Callable[..., tuple[None, ...] | None]:
        """Give the pre-hook for a node that stretches outside any branch border on."""

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
        has_open_views: Whether a view of a weight was made outside any branch where the user's code has it at
            hand, so that it may be read anywhere.
    """

    def __init__(self, key: str, sink: Sink, *, splits_trunks: bool) -> None:
        self.key = key
        self._sink = sink
        self.splits_trunks = splits_trunks
        self.has_open_views = False

    def mark_fresh(
        self, roots: list[Node], window: Window, call: Call | None, inputs: Collection[Node] | None
    ) -> None:
        """Mark what is new behind ``roots`` as made in ``call``, which read ``inputs`` (None: anything)."""
        fresh = fresh_nodes(roots, self.key)
        if not fresh:
            return
        branch = None if call is None else call.branch
        is_in_forward = torch._C._current_graph_task_id() == -1
        is_plain = not is_in_forward or branches.is_plain()
        for node, slots in fresh:
            mark = Mark(window, call, branch)
            if not is_plain:
                self._place_node(node, mark)
            self.mark(node, mark, inputs, slots, is_derived=True)

    def mark(
        self,
        node: Node,
        mark: Mark,
        inputs: Collection[Node] | None,
        slots: Slots,
        *,
        is_derived: bool = False,
    ) -> None:
        """Put a mark on a node, and a hook if it reads a watched parameter or a stem.

        Args:
            node: The node; what lies behind it is marked already.
            mark: Its mark.
            inputs: Nodes that its call took as inputs; None where anything may be read.
            slots: Where its inputs lead.
            is_derived: Whether the origins of the mark are those of its inputs.
        """
        call, branch, reads_weight = mark.call, mark.branch, False
        edges: list[Edge] = []
        crossings: list[Crossing] = []
        for slot, (child, output) in enumerate(slots):
            if child is None:
                continue
            if is_leaf_node(child):
                reads_weight = True
                edges += self._uses(child, mark, node, slot)
                continue
            below = mark_of(child, self.key)
            if below is None:
                continue
            if below.depth >= mark.depth:
                mark.depth = below.depth + 1
            reads_weight |= below.is_stem_candidate and not _is_made_with(below, mark)
            if is_derived:
                mark.origins = joined(mark.origins, origins_in(mark.window, call, below))
            is_inner = below.call is call and branch is None and not below.is_stem_candidate
            if not is_inner and self._reads(child, below, mark, inputs):
                crossings.append(Crossing(mark, slot, below, output))
        is_weight = reads_weight and len(slots) == 1 and is_view_or_cast(node)
        if is_weight or _may_make_weights(call):
            mark.is_stem_candidate, mark.is_weight = True, is_weight
            self.has_open_views |= branch is None and not (call is not None and call.is_torchs)
        self._put(node, mark, slots)
        if edges or crossings:
            node.register_hook(self._sink.hook(edges, crossings or ()))  # mostly none: an object less to hold

    def _uses(self, leaf: Node, mark: Mark, node: Node, slot: int) -> tuple[Edge, ...]:
        """Give the use that an edge from a node into a leaf is, where the leaf is a watched parameter."""
        param = self._sink.key(leaf_of(leaf))
        return () if param is None else (Edge(mark, node.name(), slot, param),)

    def _put(self, node: Node, mark: Mark, slots: Slots) -> None:
        """Put a mark on a node, and break the chain that the node is the end of, where it has grown long."""
        if mark.depth > DEEP:
            mark.depth = 0
            break_chain(node, slots)
        put_mark(node, self.key, mark)

    def reads_watched(self, cast: Node) -> bool:
        """Tell whether the leaf that a node casts is watched."""
        leaf = cast.next_functions[0][0]
        return leaf is not None and self._sink.key(leaf_of(leaf)) is not None

    def guarded(self, node: Node, *, is_split: bool = True) -> Stem:
        """Give the stem that a node is, with a pre-hook on it."""
        mark = mark_of(node, self.key)
        assert mark is not None, "a stem is marked before it is guarded"
        if mark.stem is None:
            mark.stem = Stem(mark)
        stem = mark.stem
        stem.is_split |= is_split
        if not stem.is_guarded:
            stem.is_guarded = True
            node.register_prehook(self._sink.guard(stem))
        return stem

    def read_by(self, nodes: list[Node], call: Call) -> None:
        """Tell what lies behind nodes, outside any branch, that a call of a branch reads it.

        The nodes are gates: when a backward comes to one, it is time to look who else reads that stretch,
        unless trunks are split, for then it may also come from elsewhere first.
        """

        def visit(mark: Mark) -> bool:
            if mark.branch is not None or not mark.add_reader(call):
                return False
            mark.is_gated = True
            return True

        for node in nodes:
            mark = mark_of(node, self.key)
            if mark is None or _is_read_by_several(mark) or not self.spread(node, visit):
                continue  # nothing that was not known
            if self.splits_trunks:
                self.look_behind(node)
            else:
                self.guarded(node, is_split=False).is_gate = True

    def look_behind(self, gate: Node) -> None:
        """Know from now on each edge of the stretch behind a gate, so that whatever else reads it shows."""
        seen = set[Mark]()

        def visit(mark: Mark) -> bool:
            if mark in seen or mark.branch is not None or mark.has_known_edges:
                return False
            seen.add(mark)
            return True

        for inside in self.spread(gate, visit):
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
            is_known = below.is_noted and below.is_stem_candidate  # its readers were all noted
            below.is_noted = True
            self._met(child, below, is_trunk=True)
            if not is_known:
                crossings.append(Crossing(mark, slot, below, output))
        if crossings:
            node.register_hook(self._sink.hook((), crossings))

    def open_to_outside(self, node: Node) -> None:
        """Tell what lies behind a node that something outside every known branch reads it too."""
        start = mark_of(node, self.key)
        is_open = start is not None and start.branch is None

        def visit(mark: Mark) -> bool:
            inside = mark.branch is None if is_open else mark.is_stem_candidate
            return inside and mark.add_reach(mark.window.outside)

        self.spread(node, visit)

    def survey(self, node: Node, stem: Stem) -> None:
        """Find what is split with a stem: of a trunk, what lies outside any branch like itself."""
        region, leaves = set[Mark](), dict[int, Tensor]()

        def visit(mark: Mark) -> bool:
            if mark in region or (stem.is_trunk and (mark.branch is not None or mark.is_unplaced)):
                return False
            region.add(mark)
            return True

        for inside in self.spread(node, visit):
            for child, _ in inside.next_functions:
                if child is None:
                    continue
                if not is_leaf_node(child):
                    self._fence(child, region)
                elif self._sink.key(leaf_of(child)) is not None:
                    leaves[id(leaf_of(child))] = leaf_of(child)
        stem.leaves, stem.size = list(leaves.values()), len(region)
        stem.region = region if stem.is_trunk else None

    def _fence(self, node: Node, region: set[Mark]) -> None:
        """Keep what is sent through a stretch from coming back into it by way of a branch that it reads."""
        mark = mark_of(node, self.key)
        if mark is not None and mark not in region and not mark.is_fenced:
            mark.is_fenced = True
            node.register_prehook(self._sink.fence(mark))

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

    def _reads(self, node: Node, mark: Mark, reader: Mark, inputs: Collection[Node] | None) -> bool:
        """Take note that one node reads another; tell whether what it sends there is to be known."""
        if mark.call is not reader.call:
            self._cross(node, mark, reader, inputs)
        return (mark.is_stem_candidate or reader.branch is not None) and self._notes(node, mark, reader)

    def _notes(self, node: Node, mark: Mark, reader: Mark) -> bool:
        """Tell whether to note who reads a node, for branches may meet there; guard it once they may."""
        is_trunk = reader.branch is not None and _is_open(mark)
        if not is_trunk and not mark.is_stem_candidate:
            return False
        is_read_again, mark.is_noted = mark.is_noted, True
        if is_trunk or mark.reach or is_read_again or is_cast_of_leaf(node):
            self._met(node, mark, is_trunk=is_trunk)
        return True

    def _met(self, node: Node, mark: Mark, *, is_trunk: bool) -> None:
        stem = mark.stem = mark.stem or Stem(mark)
        stem.is_met = True
        stem.is_trunk |= is_trunk
        self.guarded(node, is_split=self.splits_trunks or mark.is_stem_candidate)

    def _cross(self, child: Node, mark: Mark, reader: Mark, inputs: Collection[Node] | None) -> None:
        """Take note that a node reads another stretch around the inputs of its call: a cached weight."""
        is_stem_candidate = mark.is_stem_candidate and not _is_made_with(mark, reader)
        if not is_stem_candidate and (inputs is None or child in inputs):
            return
        call = reader.call or reader.window.glue
        if mark.call is not None and mark.call.is_inside(call):
            return
        if mark.branch is None or mark.branch != call.branch:
            self.spread(child, lambda m: m.add_reach(call))


def _is_read_by_several(mark: Mark) -> bool:
    """Tell whether several named branches read a node, so that it and all behind it is shared."""
    return len({call.branch for call in mark.readers if call.recomputes is None} - {None}) > 1


def _may_make_weights(call: Call | None) -> bool:
    """Tell whether a call, or one around it, has no tensor among its arguments."""
    return call is not None and call.maker is not None


def _is_made_with(mark: Mark, reader: Mark) -> bool:
    """Tell whether one call without a tensor among its arguments made both, and a node is no weight to it."""
    if mark.is_weight or mark.call is None or reader.call is None:
        return False
    return mark.call.maker is not None and mark.call.maker is reader.call.maker


def _is_open(mark: Mark) -> bool:
    """Tell whether a node lies outside any named branch."""
    return mark.branch is None and not mark.is_unplaced
