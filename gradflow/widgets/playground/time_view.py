"""What the picture of an unrolled cell needs, as numbers and words: a dict of what JSON knows."""

from __future__ import annotations

import math
from typing import Any

from gradflow.render.theme import number
from gradflow.widgets.playground.time_model import Time
from gradflow.widgets.playground.time_state import MOST_STEPS

__all__ = ["decades", "fading", "headline", "view"]


def view(time: Time) -> dict[str, Any]:
    """Give all that the picture shows."""
    norms, state = time.norms.tolist(), time.state
    seen = time.step[f"{state['matrix']}.weight"]
    powers = [state["radius"] ** back for back in range(state["length"] - 1, -1, -1)]
    return {
        **state,
        "most": MOST_STEPS,
        "norms": norms,
        "powers": [norms[-1] * power for power in powers],
        "decades": decades([*norms, *(norms[-1] * p for p in powers)]),
        "sum": seen.total_norm,
        "residual": seen.residual,
        "fading": fading(norms),
        "headline": headline(time),
    }


def decades(values: list[float]) -> list[int]:
    """Give the powers of ten at the bottom and top of a logarithmic axis with room for all but zeros.

    Example:
        >>> decades([0.0, 0.002, 1.0])
        [-3, 1]
    """
    logs = [math.log10(v) for v in values if v > 1e-300]
    low = min([0.0, *logs])
    high = max([0.0, *logs])
    return [math.floor(low - 1e-9), max(1, math.ceil(high + 1e-9))]


def fading(norms: list[float]) -> float | None:
    """Give the factor by which a contribution changes with each step back; None if there is none.

    It is the geometric mean, from the last step back to the first that contributes anything.

    Example:
        >>> fading([0.0, 0.25, 0.5, 1.0])
        0.5
    """
    first = next((i for i, norm in enumerate(norms) if norm > 0), len(norms))
    back = len(norms) - 1 - first
    if back <= 0 or not norms[-1]:
        return None
    return float((norms[first] / norms[-1]) ** (1 / back))


def headline(time: Time) -> str:
    """Tell the main number and what is to be seen in it."""
    norms, state = time.norms.tolist(), time.state
    first = next((i for i, norm in enumerate(norms) if norm > 0), len(norms) - 1)
    if first == len(norms) - 1:
        return f"Only the last of {len(norms)} steps contributes: nothing comes back further."
    ratio, factor = norms[first] / norms[-1], fading(norms)
    assert factor is not None, "an earlier step contributes"
    word = (
        "vanishing" if factor < 0.95 else "exploding" if factor > 1.05 else "neither vanishing nor exploding"
    )
    zero = (
        " Step 1 contributes exactly zero to this matrix: it meets h = 0."
        if state["matrix"] == "recurrent"
        else ""
    )
    return (
        f"Step {first + 1} contributes {number(ratio)} times what step {len(norms)} does; "
        f"× {number(factor)} for each step back: {word}.{zero}"
    )
