"""Repetitions in a row in a bare autograd graph: the time steps of a recurrent cell, a block applied again.

The rule, in each lane: take the modules used most often (or once less: a first step without a state). They
repeat in a row if the uses of one of them all lie on one way from the loss down, and if at least half of the
uses of the lane are theirs. The k-th use of each in the forward pass then belongs to step k, as does what
follows it up to the next use; what comes before any use takes the step of what it feeds.
"""

from __future__ import annotations

from dataclasses import dataclass

from gradflow.graph.lanes import Lanes
from gradflow.graph.repeats import repeated_paths, unit_name
from gradflow.graph.skeleton import Key, Skeleton, Uses

__all__ = ["Steps", "find_steps"]

_MOST_TRIED = 8


@dataclass(slots=True)
class Steps:
    """The repetitions in a graph.

    Attributes:
        of: Step of each node by position, from 0; None outside any.
        repeated: Paths of the modules that are called once in each step.
        names: Names of the steps where they are the branches, that is, where there are no lanes.
    """

    of: list[int | None]
    repeated: frozenset[str] = frozenset()
    names: tuple[str, ...] = ()


def find_steps(skeleton: Skeleton, uses: Uses, lanes: Lanes, paths: list[str | None]) -> Steps:
    """Find the repetitions in every lane."""
    found = Steps([None] * len(skeleton))
    lane_uses: dict[int, list[int]] = {}
    for at in uses.keys:
        lane_uses.setdefault(lanes.of[at], []).append(at)
    keys: set[Key] = set()
    made = {at: (skeleton.order[at], -at) for at in uses.keys}
    for inside in lane_uses.values():
        repeated = _repeated(skeleton, uses, inside)
        if _repeat_in_a_row(skeleton, lanes, repeated):
            _number(found.of, repeated)
            keys.update(repeated)
    if keys:
        _fill(skeleton, uses, lanes, paths, found.of)
        found.repeated = frozenset(repeated_paths(uses.keys.values(), keys))
        if not lanes.names:
            first = min((at for at, key in uses.keys.items() if key in keys), key=made.__getitem__)
            name = unit_name(set(found.repeated), keys, uses.owner[first], skeleton)
            count = 1 + max(step for step in found.of if step is not None)
            found.names = tuple(f"{name}#{i}" for i in range(count))
    return found


def _repeated(skeleton: Skeleton, uses: Uses, inside: list[int]) -> dict[Key, list[int]]:
    """Give the uses of the modules used most often, in forward order, unless others prevail."""
    by_key: dict[Key, list[int]] = {}
    for at in sorted(inside, key=lambda at: (skeleton.order[at], -at)):
        by_key.setdefault(uses.keys[at], []).append(at)
    most = max(map(len, by_key.values()))
    repeated = {key: ats for key, ats in by_key.items() if len(ats) >= max(2, most - 1)}
    return repeated if 2 * sum(map(len, repeated.values())) >= len(inside) else {}


def _repeat_in_a_row(skeleton: Skeleton, lanes: Lanes, repeated: dict[Key, list[int]]) -> bool:
    return any(_is_chain(skeleton, lanes, ats) for ats in list(repeated.values())[:_MOST_TRIED])


def _is_chain(skeleton: Skeleton, lanes: Lanes, uses: list[int]) -> bool:
    """Tell whether all these uses lie on one way from the loss down."""
    lane, here = lanes.of[uses[0]], set(uses)
    longest = [0] * len(skeleton)
    for at in range(min(uses), len(skeleton)):
        if lanes.of[at] != lane:
            continue
        longest[at] += at in here
        for kid in skeleton.children[at]:
            if kid >= 0 and longest[kid] < longest[at]:
                longest[kid] = longest[at]
    return max(longest[at] for at in uses) == len(uses)


def _number(of: list[int | None], repeated: dict[Key, list[int]]) -> None:
    most = max(map(len, repeated.values()))
    for ats in repeated.values():
        for step, at in enumerate(ats, start=most - len(ats)):
            of[at] = step


def _fill(
    skeleton: Skeleton, uses: Uses, lanes: Lanes, paths: list[str | None], of: list[int | None]
) -> None:
    """Give steps to what lies between the uses, not to modules used once and what follows them."""
    is_past = [False] * len(skeleton)
    for at in reversed(range(len(skeleton))):
        kids = [
            k for k in skeleton.children[at] if k >= 0 and lanes.of[k] == lanes.of[at] and uses.has_data[k]
        ]
        below = [step for kid in kids if (step := of[kid]) is not None]
        is_past[at] = any(is_past[kid] for kid in kids) or (
            at in uses.keys and of[at] is None and bool(below)
        )
        is_between = of[at] is None and paths[at] is not None and at not in uses.keys
        if is_between and below and not is_past[at]:
            of[at] = max(below)
    for at, kids in enumerate(skeleton.children):
        step = of[at]
        if step is None:
            continue
        for kid in kids:
            if (
                kid >= 0
                and kid not in uses.keys
                and kid not in skeleton.leaves
                and lanes.of[kid] == lanes.of[at]
            ):
                known = of[kid]
                of[kid] = step if known is None else min(step, known)
