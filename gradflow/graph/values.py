"""Putting a recorded step's numbers on a view: contributions on the arrows, Σ and Δ on the parameters."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from gradflow.graph.data import Edge, Node, Parameter

__all__ = ["Sum", "measured", "records_of", "summed", "valued"]

_MOST_CHAINS = 1

Step = Any  # a gradflow.recording.Step; not imported, since graph and record know nothing of each other


@dataclass(frozen=True, slots=True)
class Sum:
    """What a step recorded of the parameters of one node.

    Attributes:
        norms: Norm of each contribution, by contributor.
        total: Norm of what the parameters received.
        delta: How far they moved; None without an optimizer.
        rule: Name of the rule that split the delta.
    """

    norms: dict[str, float]
    total: float
    delta: float | None
    rule: str


def valued(
    nodes: list[Node], edges: list[Edge], branches: tuple[str, ...], step: Step
) -> tuple[list[Node], list[Edge]]:
    """Give the nodes and edges with the numbers of a step.

    Where a view has a single parameter box, its Σ, the optimizer and its Δ also become nodes.

    Args:
        nodes: Nodes of a view.
        edges: Its edges.
        branches: Branches of the graph. If they are named otherwise than the step's, as many of both are
            taken to be the same in order.
        step: A :class:`gradflow.recording.Step`.
    """
    records = records_of(step)
    sums = {node.id: found for node in nodes if (found := summed(node, records)) is not None}
    names = _translation(branches, step.branches)
    uses = Counter((edge.target, edge.branch) for edge in edges)
    shown = [replace(node, values=_values(sums[node.id])) if node.id in sums else node for node in nodes]
    drawn = [_edge(edge, sums, names, uses[edge.target, edge.branch]) for edge in edges]
    if sums and len(sums) <= _MOST_CHAINS:
        shown = [replace(node, values=()) for node in shown]
        for extra, links in _chains(sums):
            shown += [node for node in extra if node not in shown]
            drawn += links
    return shown, drawn


def records_of(step: Step) -> dict[str, Any]:
    """Give what a step recorded of each parameter, by each of its names."""
    return {name: p for p in step.parameters.values() for name in (p.fqn, *p.names)}


def measured(
    edges: tuple[Edge, ...], parameters: tuple[Parameter, ...], branches: tuple[str, ...], step: Step
) -> tuple[Edge, ...]:
    """Give the edges of a whole graph with the norms that a step recorded for single uses.

    A use is known by its parameter, branch, module call, operation and input; where several are alike, none
    is given a norm.
    """
    records = records_of(step)
    names = _translation(branches, step.branches)
    norms: dict[tuple[str, str, int], float] = {}
    for parameter in parameters:
        record = records.get(parameter.fqn)
        known = Counter() if record is None else Counter(map(_use_key, record.uses))
        single = (
            {} if record is None else {_use_key(u): u.norm for u in record.uses if known[_use_key(u)] == 1}
        )
        for use in parameter.uses:
            norm = single.get((names.get(use.branch), use.call, use.op, use.index))
            if norm is not None:
                norms[use.node, parameter.id, use.index] = norm
    return tuple(
        replace(edge, norm=norms.get((edge.source, edge.target, edge.index), edge.norm)) for edge in edges
    )


def _use_key(use: Any) -> tuple[str | None, str, str, int]:  # a gradflow.record.Use
    return use.branch, use.call, use.node, use.index


def summed(node: Node, records: dict[str, Any]) -> Sum | None:
    """Add up what was recorded of the parameters of a node: norms of their contributions side by side."""
    found = {id(records[name]): records[name] for name in node.names if name in records}
    if node.kind != "parameter" or not found:
        return None
    norms: dict[str, float] = {}
    for record in found.values():
        for name, norm in record.norms.items():
            norms[name] = math.hypot(norms.get(name, 0.0), norm)
    deltas = [record.delta for record in found.values() if record.delta is not None]
    return Sum(
        norms=norms,
        total=math.hypot(*(record.total_norm for record in found.values())),
        delta=math.hypot(*(delta.norm for delta in deltas)) if deltas else None,
        rule=deltas[0].rule if deltas else "",
    )


def _translation(branches: tuple[str, ...], recorded: tuple[str, ...]) -> dict[str | None, str]:
    """Give the step's name of each branch of the graph."""
    names: dict[str | None, str] = {name: name for name in branches}
    if not set(branches) & set(recorded) and len(branches) == len(recorded):
        names = dict(zip(branches, recorded, strict=True))
    if len(recorded) == 1:
        names[None] = recorded[0]
    return names


def _edge(edge: Edge, sums: dict[str, Sum], names: dict[str | None, str], several: int) -> Edge:
    """Put a branch's contribution on its arrow into a parameter, if it is the branch's only one."""
    known = sums.get(edge.target)
    if known is None or several > 1:
        return edge
    norm = known.norms.get(names.get(edge.branch, ""), edge.norm)
    return edge if norm is None else replace(edge, norm=norm)


def _values(one: Sum) -> tuple[tuple[str, float], ...]:
    return (("Σ", one.total), *([("Δ", one.delta)] if one.delta is not None else []))


def _chains(sums: dict[str, Sum]) -> Iterator[tuple[list[Node], list[Edge]]]:
    """Give what follows each parameter: the sum, the optimizer (one for all), the delta."""
    for number, (target, one) in enumerate(sums.items()):
        total = Node(f"sum {number}", "sum", "sum of the contributions", values=(("Σ", one.total),))
        if one.delta is None:
            yield [total], [Edge(target, total.id)]
            continue
        optimizer = Node("optimizer", "optimizer", one.rule or "optimizer")
        delta = Node(f"delta {number}", "delta", "delta of the weights", values=(("Δ", one.delta),))
        links = [Edge(target, total.id), Edge(total.id, optimizer.id), Edge(optimizer.id, delta.id)]
        yield [total, optimizer, delta], links
