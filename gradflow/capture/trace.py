"""From a loss to its graph: ``gradflow.trace(loss, model)``.

Reads the autograd graph that the user's own forward pass left behind; never runs another forward. Where the
forward ran inside ``gradflow.watch(...)``, nodes carry marks and labels are exact; elsewhere modules and
branches are worked out from the graph (:mod:`gradflow.graph.infer`) and marked as inferred.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import Node as AutogradNode

from gradflow.capture import graph_walk
from gradflow.capture.calls import Mark
from gradflow.capture.graph_walk import Leaf, Norms, Walk
from gradflow.capture.labels import Labeller
from gradflow.errors import InvalidArgumentError
from gradflow.graph import Edge, Graph, Node, Parameter, Use
from gradflow.graph.infer import Labels, infer
from gradflow.record import RESERVED

__all__ = ["labels", "trace"]

Calls = tuple[tuple[str, int], ...]


_NO_STEPS = "a fused recurrent kernel is one node, without time steps; {} around the forward shows them"
_HIDDEN = {
    "CheckpointFunctionBackward": "what a reentrant checkpoint runs again in the backward is not in the "
    "graph yet; checkpoint(..., use_reentrant=False) shows it",
    "CompiledFunctionBackward": "a compiled part is one node; trace before torch.compile to look inside",
    "RnnLayerBackward": _NO_STEPS.format("torch.backends.mkldnn.flags(enabled=False)"),
    "CudnnRnnBackward": _NO_STEPS.format("torch.backends.cudnn.flags(enabled=False)"),
}


def trace(
    loss: torch.Tensor | Sequence[torch.Tensor],
    model: nn.Module | Sequence[nn.Module] | None = None,
    *,
    branches: Sequence[str] | None = None,
    norms: bool = False,
    saved: bool = False,
) -> Graph:
    """Read the backward graph of a loss.

    Args:
        loss: The tensor that ``backward`` is, or was, called on; or several.
        model: The module whose parameters and paths to name; or several. Without it parameters are numbered.
        branches: Names for the paths found by counting, in forward order; recorded names stand.
        norms: Measure the norm of the gradient on every edge. Runs one backward (not a forward) that
            accumulates nothing: no ``.grad`` changes; tensor hooks of yours do fire.
        saved: List the tensors that each node keeps for the backward pass. Packed ones are left alone.

    Returns:
        The whole graph, one node per autograd node; ``graph.collapse()`` folds it, drawing does so by itself.

    Raises:
        InvalidArgumentError: the loss has no graph; ``branches`` do not fit; or ``norms`` are asked for and
            the loss is not a scalar, or a backward has freed its graph.

    Example:
        >>> layer = torch.nn.Linear(3, 2)
        >>> graph = trace(layer(torch.ones(1, 3)).sum() + layer(torch.ones(1, 3)).sum(), layer)
        >>> graph.branches
        ('Linear#0', 'Linear#1')
        >>> [(p.fqn, len(p.uses)) for p in graph.parameters]
        [('weight', 2), ('bias', 2)]
    """
    losses = [loss] if isinstance(loss, torch.Tensor) else list(loss)
    walk = graph_walk.walk_from(losses)
    names = graph_walk.names_in(model)
    leaves = graph_walk.leaves_of(walk, names)
    known, is_recorded = _recorded(infer(graph_walk.skeleton_of(walk, names, leaves)), walk)
    if not is_recorded:
        known = _renamed(known, branches)
    measured = graph_walk.measure(losses, walk) if norms else {}
    return _Builder(walk, leaves, known, not is_recorded, measured, saved).graph()


def labels(node: AutogradNode, labeller: Labeller) -> tuple[str, Calls] | None:
    """Give what was recorded when a node was made: its contributor, and the calls around it, outermost first.

    The one place that knows how capture marks nodes. None if nobody watched.
    """
    mark = _mark(node)
    if mark is None:
        return None
    calls = mark.call.chain() if mark.call is not None else ()
    return labeller.of_mark(mark), tuple((call.path, call.index) for call in calls)[::-1]


def _mark(node: AutogradNode) -> Mark | None:
    metadata: dict[str, Any] = node.metadata  # type: ignore[assignment]  # the stub takes it for a method
    return next((mark for mark in metadata.values() if isinstance(mark, Mark)), None)


def _recorded(inferred: Labels, walk: Walk) -> tuple[Labels, bool]:
    """Replace inferred labels by recorded ones, if there are any; tell whether there are."""
    labeller = Labeller()
    found = [labels(node, labeller) for node in walk.nodes]
    if not any(found):
        return inferred, False
    branch: list[str | None] = []
    for one, guess in zip(found, inferred.branch, strict=True):
        is_loss = one is None or (one[0] == "unclaimed" and not one[1])
        fallback = guess if guess == "unclaimed" else None
        branch.append(fallback if one is None or is_loss else one[0])
    windows = dict.fromkeys(mark.window for node in walk.nodes if (mark := _mark(node)) is not None)
    named = dict.fromkeys(name for window in windows for name in labeller.labels(window).branches)
    seen = dict.fromkeys(name for name in branch if name is not None and name not in RESERVED)
    extra = dict.fromkeys(name for name in RESERVED if name in branch)
    calls: list[Calls] = [() if one is None else one[1] for one in found]
    return Labels(calls, branch, inferred.step, tuple(named | seen | extra)), True


def _renamed(labels: Labels, branches: Sequence[str] | None) -> Labels:
    """Give the branches found by counting the user's names."""
    if branches is None:
        return labels
    if len(labels.paths) != len(branches):
        raise InvalidArgumentError(
            f"branches={tuple(branches)!r} are {len(branches)} names for {len(labels.paths)} paths",
            where="gradflow.trace",
            do=f"found: {', '.join(labels.paths) or 'a single path'}; gradflow.branch() names them exactly",
        )
    new: dict[str | None, str] = dict(zip(labels.paths, branches, strict=True))
    return replace(
        labels,
        branch=[None if name is None else new.get(name, name) for name in labels.branch],
        branches=tuple(new.get(name, name) for name in labels.branches),
    )


def _notes(names: Counter[str]) -> Iterator[str]:
    """Tell what nodes of some kinds hide."""
    for mark, hidden in _HIDDEN.items():
        count = sum(number for name, number in names.items() if mark in name)
        if count:
            yield f"{count} × {mark}: {hidden}"


@dataclass(slots=True)
class _Builder:
    """Makes the plain graph from all that was found out."""

    walk: Walk
    leaves: dict[int, Leaf]
    labels: Labels
    is_inferred: bool
    norms: Norms
    saved: bool

    def graph(self) -> Graph:
        nodes = tuple(self._node(at) for at in range(len(self.walk.nodes)))
        notes = tuple(_notes(Counter(node.name for node in nodes)))
        parameters = tuple(self._parameters())
        return Graph(nodes, tuple(self._edges()), parameters, self.labels.branches, notes=notes)

    def _node(self, at: int) -> Node:
        node, leaf = self.walk.nodes[at], self.leaves.get(at)
        shape = self.walk.shapes[at]
        if leaf is not None:
            return Node(
                id=str(at),
                kind="parameter" if leaf.is_parameter else "input",
                name=leaf.names[0],
                shape=shape,
                names=leaf.names,
                numel=0 if shape is None else math.prod(shape),
            )
        return Node(
            id=str(at),
            kind="op",
            name=node.name(),
            calls=self.labels.calls[at],
            branch=self.labels.branch[at],
            step=self.labels.step[at],
            shape=shape,
            inferred=self.is_inferred,
            saved=graph_walk.saved_tensors(node) if self.saved else (),
        )

    def _edges(self) -> Iterator[Edge]:
        branch = self.labels.branch
        for at, kids in enumerate(self.walk.inputs):
            for slot, kid in enumerate(kids):
                if kid >= 0:
                    mine, others = branch[at], branch[kid]
                    lane = mine if kid in self.leaves or others in (None, "shared") else others
                    yield Edge(str(at), str(kid), slot, lane, self.norms.get((at, slot)))

    def _parameters(self) -> Iterator[Parameter]:
        uses: dict[int, list[Use]] = {at: [] for at, leaf in self.leaves.items() if leaf.is_parameter}
        nodes = self.walk.nodes
        for at in sorted(range(len(nodes)), key=lambda at: (graph_walk.made(nodes[at]), -at)):
            for slot, kid in enumerate(self.walk.inputs[at]):
                if kid in uses:
                    uses[kid].append(self._use(at, slot))
        for at, found in sorted(uses.items(), key=lambda item: self.leaves[item[0]].rank):
            names = self.leaves[at].names
            yield Parameter(str(at), names[0], names, self.walk.shapes[at] or (), tuple(found))

    def _use(self, at: int, slot: int) -> Use:
        calls = self.labels.calls[at]
        call = f"{calls[-1][0]}#{calls[-1][1]}" if calls else ""
        return Use(
            str(at),
            slot,
            self.walk.nodes[at].name(),
            call,
            self.labels.branch[at],
            self.norms.get((at, slot)),
        )
