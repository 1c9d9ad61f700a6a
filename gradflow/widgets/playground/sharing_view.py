"""What the picture of shared and copied encoders needs, as numbers and words: a dict of what JSON knows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradflow.render.theme import number
from gradflow.widgets.playground.sharing_model import Moment, Sharing
from gradflow.widgets.playground.sharing_state import BRANCHES, MODES, MOST_STEPS

__all__ = ["headline", "spread", "updates", "view"]

_ROOMS = (
    1.5,
    2.0,
    3.0,
    5.0,
    8.0,
    12.0,
    20.0,
    50.0,
)  # half the side of the plane: the first with room for all


def view(sharing: Sharing) -> dict[str, Any]:
    """Give all that the picture shows."""
    state, moment = sharing.state, sharing.moment
    outlines = {b: _outline(w) for b, w in moment.weights.items()}
    corners = [corner for outline in outlines.values() for corner in outline]
    return {
        **state,
        "most": MOST_STEPS,
        "weights": {b: w.tolist() for b, w in moment.weights.items()},
        "outlines": outlines,
        "spots": {b: z.tolist() for b, z in sharing.spots.items()},
        "room": _room([*corners, *sharing.spots.values()]),
        "curves": {mode: _curves(sharing, mode) for mode in MODES},
        "updates": updates(moment, shared=state["mode"] == "shared"),
        "loss": moment.loss,
        "drift": moment.drift,
        "spread": spread(sharing),
        "headline": headline(sharing),
    }


def updates(moment: Moment, *, shared: bool) -> list[dict[str, Any]]:
    """Tell, for each weight there is, what the last update was made of: norms, by branch.

    None stands for a branch that is absent there; before the first update, all are None.
    """
    rows = []
    for i, owner in enumerate(("",) if shared else BRANCHES):
        seen = None if moment.step is None else moment.step["weight" if shared else f"{i}.weight"]
        norms = {} if seen is None else seen.norms
        rows.append(
            {
                "weight": f"W of {owner}" if owner else "W",
                "owner": owner,
                "parts": {b: norms.get(b) for b in BRANCHES},
                "sum": None if seen is None else seen.total_norm,
                "moved": None if seen is None or seen.delta is None else seen.delta.norm,
            }
        )
    return rows


def spread(sharing: Sharing) -> float:
    """Give how far apart one and the same input lands: the largest distance between its embeddings."""
    spots = np.array(list(sharing.spots.values()))
    return float(np.linalg.norm(spots[:, None] - spots[None], axis=-1).max())


def headline(sharing: Sharing) -> str:
    """Tell the main number and what is to be seen in it."""
    state, drift = sharing.state, sharing.moment.drift
    said = f"Step {state['steps']}, loss {number(sharing.moment.loss)}."
    if state["mode"] == "shared":
        return f"{said} One weight, moved by the sum of three contributions: nothing can drift apart."
    if not drift:
        start = "The copies are equal at the start." if not state["steps"] else "The copies stay equal"
        if not state["steps"]:
            return f"{said} {start}"
        return f"{said} {start}: each moves by the mean of the three contributions.{_paces(sharing)}"
    lands = number(spread(sharing))
    return f"{said} The copies have drifted {number(drift)} apart: one input lands up to {lands} from itself."


def _paces(sharing: Sharing) -> str:
    """Compare how far the averaged copies and the shared encoder have come."""
    steps = sharing.state["steps"]
    ways = []
    for mode in ("averaged", "shared"):
        moments = sharing.trainings[mode].moments
        ways.append(float(np.linalg.norm(moments[steps].weights["anchor"] - moments[0].weights["anchor"])))
    if not ways[1]:
        return ""
    return f" They came {number(ways[0])} from the start, the shared encoder {number(ways[1])}."


def _curves(sharing: Sharing, mode: str) -> dict[str, list[float]]:
    moments = sharing.trainings[mode].moments[: MOST_STEPS + 1]
    return {"loss": [m.loss for m in moments], "drift": [m.drift for m in moments]}


def _outline(weight: Any) -> list[list[float]]:  # an array [2, 2]
    """The corners of what the unit square becomes."""
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=np.float64)
    corners: list[list[float]] = (square @ weight.T).tolist()
    return corners


def _room(points: Any) -> float:  # pairs
    most = max(abs(float(v)) for point in points for v in point)
    return next((room for room in _ROOMS if most <= 0.95 * room), math.ceil(1.1 * most))
