"""Independent paths in a bare autograd graph: the lanes of a picture.

The rule, worked out from the graph alone (see :mod:`gradflow.graph.infer` for what it cannot see):

1. A module used several times makes lanes. Take all that lies between two such uses (or is one): its
   connected parts, without the parameters, are the lanes. Three calls of an encoder give three parts,
   however the encoder is built inside. Where modules feed themselves (a recurrent cell), only these count:
   the time steps of one sequence are connected, two sequences make two parts.
2. Where no module is used twice, the uses nearest to the loss make lanes if they are independent towers
   (nothing below is common), or meet only in scalars, as the losses of several heads do.
3. What lies above exactly one lane, or below exactly one, joins it. What lies below several is shared.
   A module used once above several lanes (a head over two embeddings) is a lane of its own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from gradflow.graph.repeats import recurrent_keys, repeated_keys, repeated_paths, unit_name
from gradflow.graph.skeleton import Key, Skeleton, Uses, common_path

__all__ = ["HEAD", "NONE", "SHARED", "Lanes", "find_lanes"]

NONE, SHARED, HEAD = -1, -2, -3
"""Lanes of nodes that belong to no single one: the loss, what lies below several, a head above several."""

_MOST_ROOTS = 64
_MOST_PEELED = 8


@dataclass(slots=True)
class Lanes:
    """The lanes of a graph.

    Attributes:
        of: Lane of each node by position, or ``NONE``, ``SHARED``, ``HEAD``.
        names: Names of the lanes, in forward order; empty when there are none.
        repeated: Paths of the modules that are called once in each lane.
        head: Name of the lane of the modules above several lanes.
    """

    of: list[int]
    names: tuple[str, ...] = ()
    repeated: frozenset[str] = frozenset()
    head: str = ""


def find_lanes(skeleton: Skeleton, uses: Uses) -> Lanes:
    """Find the lanes, and the lane of every node."""
    repeated = repeated_keys(uses)
    anchors = recurrent_keys(skeleton, uses, repeated) or repeated
    own = _parts(skeleton, uses, anchors) if repeated else _towers(skeleton, uses)
    parts = _by_part(own)
    if len(parts) < 2:
        return Lanes([NONE] * len(skeleton))
    ranked = sorted(parts, key=lambda part: _made(skeleton, uses, parts[part]))
    number = {part: rank for rank, part in enumerate(ranked)}
    of = _spread(skeleton, uses, [number.get(part, NONE) for part in own])
    return _named(skeleton, uses, of, [parts[part] for part in ranked])


def _by_part(own: list[int]) -> dict[int, list[int]]:
    parts: dict[int, list[int]] = {}
    for at, part in enumerate(own):
        if part >= 0:
            parts.setdefault(part, []).append(at)
    return parts


def _made(skeleton: Skeleton, uses: Uses, part: list[int]) -> tuple[int, int]:
    """Tell when a part was first used in the forward pass."""
    return min((skeleton.order[at], -at) for at in part if at in uses.keys)


def _parts(skeleton: Skeleton, uses: Uses, anchors: set[Key]) -> list[int]:
    """Number the connected parts between uses of these modules."""
    above = {at for at, key in uses.keys.items() if key in anchors}
    below = set(above)
    for at in reversed(range(len(skeleton))):
        if at not in above and any(kid in above for kid in skeleton.children[at]):
            above.add(at)
    for at, kids in enumerate(skeleton.children):
        if at in below:
            below.update(kid for kid in kids if kid >= 0)
    middle = {at for at in above & below if uses.has_data[at]}
    parent = {at: at for at in middle}
    for at in middle:
        for kid in skeleton.children[at]:
            if kid in middle:
                parent[_find(parent, at)] = _find(parent, kid)
    return [_find(parent, at) if at in middle else NONE for at in range(len(skeleton))]


def _find(parent: dict[int, int], at: int) -> int:
    while parent[at] != at:
        parent[at] = parent[parent[at]]
        at = parent[at]
    return at


def _towers(skeleton: Skeleton, uses: Uses) -> list[int]:
    """Number the heads: uses nearest to the loss, with what only one of them leads to.

    Below a single use (a scale on the logits, a head over both) independent towers may stand too, if most of
    the uses are theirs.
    """
    roots = [at for at in sorted(uses.keys) if not uses.is_under[at]]
    removed: set[int] = set()
    while len(roots) == 1 and len(removed) < _MOST_PEELED:
        removed.update(roots)
        roots = _next_uses(skeleton, uses, removed)
    none = [NONE] * len(skeleton)
    if not 2 <= len(roots) <= _MOST_ROOTS:
        return none
    seen = _reached(skeleton, uses, roots)
    counts = [seen[at].bit_count() for at in uses.keys]
    if max(counts) > 1 and (removed or not _meet_in_scalars(skeleton, roots)):
        return none
    if removed and 2 * sum(count == 1 for count in counts) < len(counts):
        return none
    return [mask.bit_length() - 1 if mask.bit_count() == 1 else NONE for mask in seen]


def _next_uses(skeleton: Skeleton, uses: Uses, removed: set[int]) -> list[int]:
    """Give the uses that lie below no use but the removed ones."""
    is_under = [False] * len(skeleton)
    for at, kids in enumerate(skeleton.children):
        if is_under[at] or (at in uses.keys and at not in removed):
            for kid in kids:
                if kid >= 0:
                    is_under[kid] = True
    return [at for at in sorted(uses.keys) if not is_under[at] and at not in removed]


def _reached(skeleton: Skeleton, uses: Uses, roots: list[int]) -> list[int]:
    """Tell for each node from which roots one gets there, a bit for each."""
    seen = [0] * len(skeleton)
    for bit, root in enumerate(roots):
        seen[root] = 1 << bit
    for at, kids in enumerate(skeleton.children):
        if seen[at]:
            for kid in kids:
                if kid >= 0 and uses.has_data[kid]:
                    seen[kid] |= seen[at]
    return seen


def _meet_in_scalars(skeleton: Skeleton, roots: list[int]) -> bool:
    masks = [0] * len(skeleton)
    tops = {root: 1 << bit for bit, root in enumerate(roots)}
    for at in reversed(range(len(skeleton))):
        kids = [masks[kid] for kid in skeleton.children[at] if kid >= 0]
        masks[at] = tops.get(at, 0)
        for mask in kids:
            masks[at] |= mask
        is_join = masks[at].bit_count() > 1 and masks[at] not in kids
        if is_join and at not in tops and skeleton.numels[at] != 1:
            return False
    return True


def _spread(skeleton: Skeleton, uses: Uses, own: list[int]) -> list[int]:
    """Give every node a lane, from the lanes of those above and below it."""
    up, of = list(own), list(own)
    for at in reversed(range(len(skeleton))):
        if own[at] < 0:
            found = {up[kid] for kid in skeleton.children[at] if kid >= 0 and up[kid] != NONE}
            up[at] = NONE if not found else found.pop() if len(found) == 1 else HEAD
            is_loss = up[at] == HEAD and not uses.is_in_model(at)
            of[at] = NONE if is_loss else up[at]
    down = [NONE] * len(skeleton)
    for at, kids in enumerate(skeleton.children):
        if up[at] == NONE:
            of[at] = down[at]
        for kid in kids:
            if kid >= 0 and of[at] != NONE:
                down[kid] = of[at] if down[kid] in (NONE, of[at]) else SHARED
    return of


def _named(skeleton: Skeleton, uses: Uses, of: list[int], parts: list[list[int]]) -> Lanes:
    """Name the lanes: by what only they use, if each has something, else as calls of one module."""
    repeated = repeated_keys(uses)
    paths = repeated_paths(uses.keys.values(), repeated)
    held = [{key for at, key in uses.keys.items() if of[at] == lane} for lane in range(len(parts))]
    again = [keys & repeated for keys in held]
    has_own = all(keys - repeated for keys in held)
    if again[0] and all(keys == again[0] for keys in again) and not has_own:
        first = min((at for at in parts[0] if at in uses.keys), key=lambda at: (skeleton.order[at], -at))
        name = unit_name(paths, again[0], uses.owner[first], skeleton)
        names = tuple(f"{name}#{i}" for i in range(len(parts)))
    else:
        names = _distinct([_only(uses, of, lane) or skeleton.home for lane in range(len(parts))])
    return Lanes(of, names, frozenset(paths), _head(skeleton, uses, of))


def _only(uses: Uses, of: list[int], lane: int) -> str:
    """Name a lane by the modules that are used in no other."""
    outside = {key for at, key in uses.keys.items() if of[at] != lane}
    inside: set[Key] = {key for at, key in uses.keys.items() if of[at] == lane}
    return common_path(path for path, _ in (inside - outside or inside))


def _distinct(names: list[str]) -> tuple[str, ...]:
    counts, seen = Counter(names), Counter[str]()
    given = []
    for name in names:
        given.append(f"{name}#{seen[name]}" if counts[name] > 1 else name)
        seen[name] += 1
    return tuple(given)


def _head(skeleton: Skeleton, uses: Uses, of: list[int]) -> str:
    inside = [at for at in uses.keys if of[at] == HEAD]
    if not inside:
        return ""
    first = min(inside, key=lambda at: (skeleton.order[at], -at))
    return common_path(uses.owner[at] for at in inside) or uses.owner[first] or skeleton.home
