"""The terms of ``anchor + positive + negative = sum -> delta`` as plain data, for figures and for widgets.

No plotting package is loaded here. Shapes: ``R``, ``K`` are the rows and columns of the cells shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gradflow.record import BESIDE_THE_TOTAL, ParamStep
from gradflow.render.theme import Style, number, style
from gradflow.render.views import View, view

__all__ = ["Panel", "panels"]


@dataclass(frozen=True, slots=True)
class Panel:
    """One term of the equation.

    Attributes:
        sign: What stands before it: ``"+"``, ``"="``, ``"→"`` or nothing.
        name: What stands above it.
        under: What stands below it.
        cells: Values shown, shape ``[R, K]``; ``None`` for a term with nothing to show.
        limit: The colour scale reaches from ``-limit`` to ``limit``.
        look: Colours of its frame; ``None`` for the sum and the delta.
        empty: What an empty panel says, such as ``"absent"``.
        kernel: Rows and columns of one convolution kernel, to draw lines between them.
    """

    sign: str
    name: str
    under: str
    cells: NDArray[np.float64] | None
    limit: float
    look: Style | None = None
    empty: str = ""
    kernel: tuple[int, int] = (0, 0)


def panels(p: ParamStep, branches: Sequence[str]) -> tuple[list[Panel], View]:
    """Give the terms of the equation, in order, and which entry each of their cells shows.

    Args:
        p: A parameter whose tensors were kept.
        branches: Branches in the order of their lanes.

    Raises:
        NotKeptError: its tensors were not kept.
    """
    shown = view(sum((np.abs(p.contribution(name)) for name in p.contributors), np.zeros(p.shape)))
    summing = [name for name in p.contributors if name not in BESIDE_THE_TOTAL]
    cells = {name: shown.of(p.contribution(name)) for name in p.contributors}
    total = shown.of(p.total)
    limit = _limit([*cells.values(), total])
    order = [b for b in branches if b in summing or b in p.absent]
    order += [name for name in (*summing, *p.absent) if name not in order]
    found: list[Panel] = []
    for name in order:
        sign, look = ("+" if found else ""), style(name, branches)
        if name in p.absent:
            found.append(Panel(sign, name, "no gradient arrived", None, limit, look, "absent"))
        else:
            said = _norm_words(p.norms[name])
            found.append(Panel(sign, name, said, cells[name], limit, look))
    found.append(Panel("=", "Σ  sum", f"‖Σ‖ = {number(p.total_norm)}", total, limit))
    for name in BESIDE_THE_TOTAL:
        if name in cells:
            said = _norm_words(p.norms[name])
            found.append(Panel("+", name, said, cells[name], limit, style(name, branches)))
    return [replace(panel, kernel=shown.kernel) for panel in (*found, *_delta_panel(p, shown))], shown


def _delta_panel(p: ParamStep, shown: View) -> list[Panel]:
    if p.delta is None:
        return []
    said = f"‖Δ‖ = {number(p.delta.norm)}"
    if p.delta.tensor is None:
        return [Panel("→", "Δ  delta", said, None, 1.0, None, "not kept")]
    cells = shown.of(p.delta.tensor)
    return [Panel("→", "Δ  delta", said, cells, _limit([cells]))]


def _norm_words(norm: float) -> str:
    return "‖·‖ = 0 (zeros arrived)" if norm == 0.0 else f"‖·‖ = {number(norm)}"


def _limit(arrays: Sequence[NDArray[np.float64]]) -> float:
    """The largest finite magnitude; 1 where everything is zero."""
    finite = [np.abs(a[np.isfinite(a)]) for a in arrays]
    return max((float(a.max()) for a in finite if a.size), default=0.0) or 1.0
