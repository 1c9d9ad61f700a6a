"""What the picture of the embedding plane needs, as numbers and words: a dict of what JSON knows.

The page draws it and computes nothing; a static picture and the tests read the same.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradflow.render.theme import number, percent
from gradflow.widgets.playground.losses import LOSSES
from gradflow.widgets.playground.plane_model import Outcome, Plane
from gradflow.widgets.playground.plane_state import BRANCHES

__all__ = ["condition", "entries", "headline", "is_dead", "view"]

_ROOMS = (2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 50.0)  # half the side of a plane: the first with room for all
_ARROWS = {"triplet": 0.4, "contrastive": 0.25, "infonce": 0.8}  # length of an arrow, of that of its gradient
_ENTRIES = ((0, 0), (0, 1), (1, 0), (1, 1))


def view(plane: Plane) -> dict[str, Any]:
    """Give all that the picture shows."""
    outcome, state = plane.outcome, plane.state
    embeddings = {b: z.tolist() for b, z in outcome.embeddings.items()}
    return {
        **{name: state[name] for name in ("loss", "stopped", "optimizer", "rate", "steps", "weight")},
        "knob": LOSSES[state["loss"]].knob,
        "amount": state[LOSSES[state["loss"]].knob],
        "inputs": state["points"],
        "embeddings": embeddings,
        "pulls": {b: pull.tolist() for b, pull in outcome.pulls.items()},
        "arrow_scale": _ARROWS[state["loss"]],
        "radius": outcome.radius,
        "trail": {b: [spots[b] for spots in plane.trail] for b in BRANCHES},
        "rooms": [_room(state["points"].values()), _room(embeddings.values())],
        "can_place": plane.can_place,
        "conditions": {b: condition(outcome, b) for b in BRANCHES},
        "entries": entries(outcome),
        "shares": _shares(outcome),
        "residual": None if outcome.seen is None else outcome.seen.residual,
        "is_dead": is_dead(outcome),
        "value": outcome.loss,
        "written": outcome.written,
        "headline": headline(plane),
    }


def condition(outcome: Outcome, branch: str) -> str:
    """Tell how a branch stands: it ``"pulls"``, is ``"zero"`` (it arrived with zeros), or ``"absent"``."""
    seen = outcome.seen
    if seen is None or branch not in seen.contributors:
        return "absent"
    return "pulls" if seen.norms[branch] > 0 else "zero"


def entries(outcome: Outcome) -> list[dict[str, Any]]:
    """Give, for each entry of the matrix, every branch's contribution, their sum, and the update.

    None stands for what does not exist: what an absent branch brings, the update when no step is made.
    """
    seen = outcome.seen
    made = []
    for i, j in _ENTRIES:
        parts = {
            b: float(seen.contribution(b)[i, j]) if seen and b in seen.contributors else None
            for b in BRANCHES
        }
        total = None if seen is None else float(seen.total[i, j])
        moved = None if seen is None or seen.delta is None else seen.delta.tensor
        made.append(
            {
                "name": f"W[{i},{j}]",
                "parts": parts,
                "sum": total,
                "update": None if moved is None else float(moved[i, j]),
            }
        )
    return made


def headline(plane: Plane) -> str:
    """Tell the main number and what is to be seen in it, in one or two short sentences."""
    outcome = plane.outcome
    said = f"Loss {number(outcome.loss)}."
    if outcome.seen is None:
        return f"{said} Every branch is stopped: nothing reaches the weight, and nothing can be learnt."
    if is_dead(outcome):
        zeros = _listed([b for b in BRANCHES if condition(outcome, b) == "zero"])
        return f"{said} The hinge is dead, the negative is far enough: zeros from {zeros}.{_gone(plane)}"
    if not outcome.seen.total_norm:
        return f"{said} The gradient is zero."
    return f"{said} {_lost(outcome)}{_gone(plane)}"


def is_dead(outcome: Outcome) -> bool:
    """Tell whether the negative lies in the zone where the hinge gives no gradient."""
    if outcome.radius is None:
        return False
    apart = outcome.embeddings["negative"] - outcome.embeddings["anchor"]
    return bool(np.hypot(*apart) >= outcome.radius)


def _lost(outcome: Outcome) -> str:
    seen = outcome.seen
    assert seen is not None
    lost = "" if math.isnan(seen.cancellation) else f"; {percent(seen.cancellation)} of the effort cancels"
    return f"The sum has norm {number(seen.total_norm)}{lost}."


def _gone(plane: Plane) -> str:
    absent = [b for b in BRANCHES if condition(plane.outcome, b) == "absent"]
    return f" Absent: {_listed(absent)} (stop-gradient)." if absent else ""


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names) or "nobody"


def _shares(outcome: Outcome) -> dict[str, float | None]:
    """Whose the update is, by the optimizer's own accounting; empty where nothing moves."""
    seen = outcome.seen
    if seen is None or seen.delta is None or not seen.delta.norm:
        return {}
    return dict(seen.delta.shares)


def _room(points: Any) -> float:  # the values of a dict of pairs
    most = max(abs(v) for point in points for v in point)
    return next((room for room in _ROOMS if most <= 0.92 * room), 1.1 * most)
