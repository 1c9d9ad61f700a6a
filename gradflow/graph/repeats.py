"""Which modules of a bare autograd graph are used several times, and which of them feed themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from gradflow.graph.data import parent_path
from gradflow.graph.skeleton import Key, Skeleton, Uses, common_path

__all__ = ["recurrent_keys", "repeated_keys", "repeated_paths", "unit_name"]


def repeated_keys(uses: Uses) -> set[Key]:
    """Give what is used more than once."""
    return {key for key, count in Counter(uses.keys.values()).items() if count > 1}


def repeated_paths(every: Iterable[Key], repeated: set[Key]) -> set[str]:
    """Give the paths of modules that are called again whenever anything in them is.

    Example:
        >>> a, b, out = ("cell.a", (0,)), ("cell.b", (1,)), ("out", (2,))
        >>> sorted(repeated_paths([a, b, out], {a, b}))
        ['cell', 'cell.a', 'cell.b']
    """
    once = {outer for path, _ in set(every) - repeated for outer in chain(path)}
    found = {outer for path, _ in repeated for outer in chain(path)} - once
    unit = common_path(path for path, _ in repeated)
    return found - set(chain(unit)[:-1]) if unit in found else found


def unit_name(paths: set[str], repeated: set[Key], first: str, skeleton: Skeleton) -> str:
    """Name what is repeated: the module common to all of it, or the outermost one around its first use."""
    unit = common_path(path for path, _ in repeated)
    if unit not in paths:
        unit = next((outer for outer in chain(first) if outer in paths), first)
    while unit in skeleton.lists:
        unit = parent_path(unit)
    return unit or skeleton.home


def chain(path: str) -> list[str]:
    """Give a module path and those around it, the model (``""``) first.

    Example:
        >>> chain("layer1.0")
        ['', 'layer1', 'layer1.0']
    """
    found = [path]
    while found[-1]:
        found.append(parent_path(found[-1]))
    return found[::-1]


def recurrent_keys(skeleton: Skeleton, uses: Uses, repeated: set[Key]) -> set[Key]:
    """Give the repeated keys that feed themselves.

    All uses of a key are taken as one vertex; what then lies on a cycle (or between two) is left when
    vertices that nothing feeds, or that feed nothing, are taken away again and again.
    """
    vertex: list[int] = list(range(len(skeleton)))
    first: dict[Key, int] = {}
    for at, key in uses.keys.items():
        if key in repeated:
            vertex[at] = first.setdefault(key, at)
    down: dict[int, list[int]] = {}
    up: dict[int, list[int]] = {}
    for at, kids in enumerate(skeleton.children):
        for kid in kids:
            if kid >= 0 and uses.has_data[at] and uses.has_data[kid]:
                down.setdefault(vertex[at], []).append(vertex[kid])
                up.setdefault(vertex[kid], []).append(vertex[at])
    left = _peeled(_peeled(set(down) & set(up), up, down), down, up)
    return {key for key, at in first.items() if at in left}


def _peeled(left: set[int], into: dict[int, list[int]], out: dict[int, list[int]]) -> set[int]:
    """Take away, again and again, what nothing that is left leads into."""
    degree = {at: sum(one in left for one in into[at]) for at in left}
    ready = [at for at in left if not degree[at]]
    while ready:
        at = ready.pop()
        left.discard(at)
        for one in out[at]:
            if one in degree:
                degree[one] -= 1
                if not degree[one]:
                    ready.append(one)
    return left
