"""Modules, branches and time steps of a backward graph, worked out from the graph alone.

For a loss that nobody watched: autograd nodes do not tell which module made them, but parameters do.
The rules, in order, all of them deterministic:

- A node that combines a parameter with data is a *use*, and belongs to the module that holds the parameter.
  So do the casts and transposes in between. A tied parameter counts for the module whose kind does such
  operations (``EmbeddingBackward0`` for an ``Embedding``).
- Lanes are found by :mod:`gradflow.graph.lanes`, time steps by :mod:`gradflow.graph.steps`.
- A node without parameters belongs to the module around the use before it in the forward pass. Where values
  meet, it belongs to the module common to them; a value that skips over a module (a residual connection)
  is not counted.
- What follows the last use, up to the first loss function, scalar or meeting of lanes, still belongs to
  the model; what follows that is the loss.

What this cannot see: calls of modules without parameters (a ``Dropout``, a ``Flatten``), whether a function
was called at the end of a module or just after it, two names of one module, and branches that share an
input which requires a gradient. Inside ``gradflow.watch`` or with ``gradflow.branch`` names are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

from gradflow.graph.lanes import HEAD, NONE, SHARED, Lanes, find_lanes
from gradflow.graph.paths import find_paths
from gradflow.graph.repeats import chain
from gradflow.graph.skeleton import Skeleton, Uses, find_uses
from gradflow.graph.steps import Steps, find_steps

__all__ = ["Labels", "infer"]

Calls = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Labels:
    """What is known of each node, by position.

    Attributes:
        calls: Module calls the node was made in, outermost first; empty outside any.
        branch: Branch of the node; None if it belongs to none.
        step: Which repetition it is part of; None outside any.
        branches: Names of all branches, in forward order.
        paths: Those of them that were found by counting: the lanes, or the time steps.
    """

    calls: list[Calls]
    branch: list[str | None]
    step: list[int | None]
    branches: tuple[str, ...]
    paths: tuple[str, ...] = ()


def infer(skeleton: Skeleton) -> Labels:
    """Work out what can be known of each node from the graph alone."""
    uses = find_uses(skeleton)
    lanes = find_lanes(skeleton, uses)
    paths = find_paths(skeleton, uses, lanes)
    steps = find_steps(skeleton, uses, lanes, paths)
    branch = _branches(skeleton, uses, lanes, steps)
    ranked = [*lanes.names, *([lanes.head] if lanes.head else [])] or list(steps.names)
    seen = set(branch)
    return Labels(
        calls=_calls(lanes, paths, steps),
        branch=branch,
        step=list(steps.of),
        branches=tuple(name for name in dict.fromkeys([*ranked, "shared", "unclaimed"]) if name in seen),
        paths=lanes.names or steps.names,
    )


def _branches(skeleton: Skeleton, uses: Uses, lanes: Lanes, steps: Steps) -> list[str | None]:
    special: dict[int, str | None] = {NONE: None, SHARED: "shared", HEAD: lanes.head}
    branch: list[str | None] = []
    for at in range(len(skeleton)):
        lane, step = lanes.of[at], steps.of[at]
        if at in skeleton.leaves:
            branch.append(None)
        elif not uses.has_data[at] and not uses.is_under[at]:
            branch.append("unclaimed")
        elif lanes.names:
            branch.append(lanes.names[lane] if lane >= 0 else special[lane])
        else:
            branch.append(steps.names[step] if steps.names and step is not None else None)
    return branch


def _calls(lanes: Lanes, paths: list[str | None], steps: Steps) -> list[Calls]:
    """Number the calls of each module, in forward order, and give each node the calls around it."""
    places = [
        None
        if path is None
        else (path, max(lanes.of[at], NONE), -1 if (step := steps.of[at]) is None else step)
        for at, path in enumerate(paths)
    ]
    spots: dict[str, set[tuple[int, int]]] = {}
    for place in set(places):
        if place is not None:
            for outer in chain(place[0]):
                spots.setdefault(outer, set()).add(_spot(outer, place, lanes, steps))
    ranks = {path: {spot: i for i, spot in enumerate(sorted(found))} for path, found in spots.items()}
    known: dict[tuple[str, int, int] | None, Calls] = {None: ()}
    for place in places:
        if place is not None and place not in known:
            known[place] = tuple(
                (outer, ranks[outer][_spot(outer, place, lanes, steps)]) for outer in chain(place[0])
            )
    return [known[place] for place in places]


def _spot(path: str, place: tuple[str, int, int], lanes: Lanes, steps: Steps) -> tuple[int, int]:
    """Tell which call of a module a place is in: an outer module's calls span several lanes or steps."""
    _, lane, step = place
    in_lane = lanes.names and _holds(lanes.repeated, path)
    return lane if in_lane else NONE, step if _holds(steps.repeated, path) else -1


def _holds(repeated: frozenset[str], path: str) -> bool:
    """Tell whether a module is called again and again, or lies in one that is."""
    return any(outer in repeated for outer in chain(path))
