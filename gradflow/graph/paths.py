"""The module path of every node of a bare autograd graph (the rules stand in :mod:`gradflow.graph.infer`)."""

from __future__ import annotations

from gradflow.graph.data import parent_path
from gradflow.graph.lanes import NONE, Lanes
from gradflow.graph.skeleton import Skeleton, Uses, common_path

__all__ = ["find_paths"]

_LOSSES = ("Loss", "LogSoftmax", "CrossEntropy")


def find_paths(skeleton: Skeleton, uses: Uses, lanes: Lanes) -> list[str | None]:
    """Give the module path of each node; None for what belongs to the loss."""
    paths: list[str | None] = [None] * len(skeleton)
    around: list[str] = [""] * len(skeleton)  # the module around, where a node's own is a single operation
    value = list(range(len(skeleton)))  # the node that made the value which others only reshape or activate
    fed: dict[int, str] = {}  # the module that first takes a value
    for at in reversed(range(len(skeleton))):
        if at in skeleton.leaves:
            continue
        kids = [kid for kid in skeleton.children[at] if kid >= 0 and uses.has_data[kid]]
        if at in uses.owner:
            is_penalty = not (uses.has_data[at] or uses.is_under[at])
            paths[at] = None if is_penalty else uses.owner[at]
        elif _is_in_model(skeleton, uses, lanes, at) and all(paths[kid] is not None for kid in kids):
            paths[at] = _meeting([(around[kid], fed.get(value[kid])) for kid in kids])
            if len({lanes.of[kid] for kid in kids}) > 1 and paths[at] in lanes.repeated:
                paths[at] = parent_path(paths[at] or "")  # lanes meet outside of what they are calls of
        path = paths[at]
        if path is not None:
            around[at] = parent_path(path) if at in uses.owner and path in skeleton.single_ops else path
            if len(kids) == 1 and at not in uses.owner:
                value[at] = value[kids[0]]
            else:
                for kid in kids:
                    fed.setdefault(value[kid], path)
    _from_above(skeleton, uses, paths)
    return paths


def _is_in_model(skeleton: Skeleton, uses: Uses, lanes: Lanes, at: int) -> bool:
    if uses.is_under[at]:
        return True
    if lanes.names and lanes.of[at] == NONE:
        return False
    if any(mark in skeleton.names[at] for mark in _LOSSES):
        return False
    return skeleton.numels[at] != 1 or any(
        kid >= 0 and skeleton.numels[kid] == 1 for kid in skeleton.children[at]
    )


def _meeting(values: list[tuple[str, str | None]]) -> str:
    """Give the module in which values meet: common to all but those that skip over it.

    Args:
        values: The module around each value, and the one that first took it.
    """
    best = common_path(around for around, _ in values)
    for i, (_, taken_by) in enumerate(values):
        for j, (around, _) in enumerate(values):
            inner = best if taken_by is None or i == j else common_path((around, taken_by))
            if len(inner) > len(best):
                best = inner
    return best


def _from_above(skeleton: Skeleton, uses: Uses, paths: list[str | None]) -> None:
    """Place what comes before any use (data that requires a gradient) with what it feeds."""
    for at, kids in enumerate(skeleton.children):
        for kid in kids:
            if kid < 0 or paths[kid] != "" or not uses.has_data[kid] or kid in uses.owner:
                continue
            if not any(one >= 0 and uses.has_data[one] for one in skeleton.children[kid]):
                paths[kid] = paths[at] or ""
