"""Extra passes through stems: what each branch sends into one goes through it on its own.

A pass runs inside the user's backward, just before that goes through the stem itself. While one is under way,
the hooks behind the stem know for whom it is (:attr:`Passes.split`).
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node

from gradflow.capture.calls import Mark
from gradflow.capture.labels import Labeller
from gradflow.capture.marking import Marker
from gradflow.capture.stems import INNER, SHARED, UNCLAIMED, Crossing, Stem, send_through
from gradflow.capture.walk import is_cast_of_leaf

__all__ = ["Passes", "Split"]

_A_CAST = 4  # a stem of so few nodes costs nothing worth telling


class Split(NamedTuple):
    """A pass through a stem that is under way: in which thread, inside which backward, and for whom."""

    thread: int
    task: int
    name: str
    is_term: bool
    region: set[Mark] | None


class Passes:
    """Sends what branches bring to stems through them, one by one.

    Args:
        marker: Knows what lies behind a stem.
        labeller: Knows whose a node is.

    Attributes:
        count: Passes in this step.
        nodes: Through how many nodes they went.
    """

    def __init__(self, marker: Marker, labeller: Labeller) -> None:
        self._marker, self._labeller = marker, labeller
        self._split: Split | None = None
        self.count = self.nodes = 0

    @property
    def split(self) -> Split | None:
        """The pass that is under way in this thread; None while there is none.

        What another thread sends meanwhile is none of its business: a pass runs in the thread that began it.
        """
        split = self._split
        return None if split is None or split.thread != threading.get_ident() else split

    def forget(self) -> None:
        """A step is over."""
        self.count = self.nodes = 0

    def enter(self, task: int, crossing: Crossing, cotangent: Tensor | None) -> None:
        """Take in what one reader sends into a stem."""
        stem = crossing.read.stem
        if cotangent is None or stem is None or not stem.is_guarded:
            return
        reader, contributor = crossing.reader, self.contributor(crossing.reader)
        if self._marker.splits_trunks or reader.is_stem_candidate:  # then it is split where it came in
            is_inner = stem.is_trunk and reader.branch is None and contributor != UNCLAIMED
            contributor = INNER if is_inner or contributor == SHARED else contributor
        stem.enter(task, contributor, crossing.output, cotangent)

    def divide(self, task: int, stem: Stem, arriving: tuple[Tensor | None, ...]) -> None:
        """Send what each branch brings through the stem, just before the user's backward goes through it."""
        node = torch._C._current_autograd_node()
        stem.casts = {}  # what is there came in a backward that an exception ended
        if stem.is_gate and self._is_settled(stem):
            stem.forget()
            return
        if stem.is_gate:
            stem.is_gate = False
            self._marker.look_behind(node)
        elif self._is_known(stem) and stem.is_explained(task, arriving):
            stem.forget()
            return
        sent = stem.leave(task, arriving)
        is_explicit = self._labeller.labels(stem.mark.window).is_explicit
        if UNCLAIMED in sent and not stem.rows and (is_explicit or not stem.is_trunk):
            self._marker.open_to_outside(node)  # somebody beside the branches
        is_whole = sent.pop(INNER, None) is None or self._marker.splits_trunks
        is_apart = bool(sent) and sent.keys() != {SHARED} and is_whole
        try:
            if stem.is_split and is_apart and self._is_met(node, stem, is_explicit=is_explicit):
                self._send(node, stem, sent, task)
            if stem.terms:
                self._send(node, stem, stem.through_terms(arriving), task, are_terms=True)
        finally:
            stem.forget_region()

    def contributor(self, mark: Mark) -> str:
        """Give whose a node is that the running backward came to."""
        found = self._labeller.of_mark(mark)
        came_by_its_gate = mark.has_known_edges or not mark.is_gated or found == SHARED
        if came_by_its_gate or not self._labeller.labels(mark.window).is_explicit:
            return found
        mark.add_reach(mark.window.outside)  # somebody beside the branch that reads it
        return self._labeller.of_mark(mark)

    def _is_known(self, stem: Stem) -> bool:
        """Tell whether it is all the same what the contributors sent into a stem, if only all was theirs."""
        return stem.is_met and not (stem.is_split or stem.rows or stem.terms)

    def _is_settled(self, gate: Stem) -> bool:
        """Tell whether all behind a gate is shared, whoever else reads it, and nothing split there."""
        if gate.is_split or gate.rows or gate.terms or self._marker.has_open_views:
            return False
        is_own_run = gate.mark.call is None or gate.mark.call.recomputes is None
        return is_own_run and self._labeller.of_mark(gate.mark) == SHARED

    def _is_met(self, node: Node, stem: Stem, *, is_explicit: bool) -> bool:
        """Tell whether branches meet at a stem, or may at what lies behind it."""
        if self._labeller.of_mark(stem.mark) == SHARED:
            return True
        if not (is_explicit and stem.is_trunk):
            return False
        self._marker.survey(node, stem)
        return stem.size > 1

    def _send(
        self,
        node: Node,
        stem: Stem,
        sent: dict[str, dict[int, Tensor]],
        task: int,
        *,
        are_terms: bool = False,
    ) -> None:
        if is_cast_of_leaf(node) and not are_terms:
            if self._marker.reads_watched(node):  # then the hook on the node sees to it, for that runs next
                stem.casts = {name: by_output[0] for name, by_output in sent.items()}
            return
        if not stem.size:
            self._marker.survey(node, stem)
        if not stem.leaves:
            return
        region = None if are_terms else stem.region

        def begin(name: str) -> None:
            self._split = Split(threading.get_ident(), task, name, are_terms, region)

        try:
            send_through(node, stem, sent, begin)
        finally:
            self._split = None
        if stem.size > _A_CAST:
            self.count += len(sent)
            self.nodes += len(sent) * stem.size

    def fence(self, mark: Mark, arriving: tuple[Tensor | None, ...]) -> tuple[None, ...] | None:
        """Keep a pass from a node outside its stretch: give what the node gets instead, if anything."""
        split = self.split
        if split is None or split.region is None or mark in split.region:
            return None
        return (None,) * len(arriving)
