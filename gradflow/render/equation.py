"""The picture of this project: ``anchor + positive + negative = sum -> delta``, as heat-maps.

What is on it is worked out first, as plain data (:mod:`gradflow.render.panels`), and then drawn.
Where each thing stands is reckoned in inches, so that texts keep clear of each other at any number of panels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import FigureBase

from gradflow.record import Delta, ParamStep
from gradflow.recording import Step
from gradflow.render.heatmaps import Sheet, numbered, power_of_ten, size_of
from gradflow.render.panels import Panel, panels
from gradflow.render.picture import new_figure, tell
from gradflow.render.story import ACCOUNTING, sum_words
from gradflow.render.theme import applied, number, percent
from gradflow.render.views import View

__all__ = ["equation"]

_PER_ROW = 5


def equation(step: Step, fqn: str, *, fig: FigureBase | None = None, theme: str = "light") -> FigureBase:
    """Draw ``anchor + positive + negative = sum -> delta`` of one parameter as heat-maps.

    Contributions and sum share one colour scale, symmetric about 0, so that they can be compared by eye;
    the delta has a scale of its own. A branch that never arrived is an empty panel that says so.

    Args:
        step: A step whose tensors were kept for this parameter.
        fqn: Name of the parameter.
        fig: A figure or subfigure to draw in; by default a new one of the size that is needed.
        theme: ``"light"`` or ``"dark"``.

    Returns:
        The figure drawn in.

    Raises:
        NoSuchParameterError: no parameter of that name.
        NotKeptError: its tensors were not kept.

    Example:
        >>> import numpy as np
        >>> from gradflow.record import ParamStep
        >>> g = {"query": np.array([1.0, 2.0]), "key": np.array([-1.0, 0.5])}
        >>> w = ParamStep(("query", "key"), np.array([[5.0, 0.0], [0.0, 1.25]]), 2.5, fqn="w", names=("w",),
        ...               shape=(2,), tensors=g, total_tensor=np.array([0.0, 2.5]))
        >>> fig = equation(Step(0, {"w": w}, ("query", "key")), "w")
        >>> fig.get_label()
        'w, step 0: query (norm 2.24) + key (norm 1.12) = sum (norm 2.5). 25 % of the contributions cancels.'
    """
    p = step[fqn]
    terms, shown = panels(p, step.branches)
    rows = _in_rows(terms)
    with applied(theme) as look:
        width, height, caption = size_of(rows, _caption(p, shown, rows))
        canvas = fig if fig is not None else new_figure(width, height)
        shape = "×".join(map(str, p.shape)) or "scalar"
        title = (p.fqn, f"[{shape}], step {step.index}")
        Sheet(canvas, width, height, look).draw(title, rows, caption)
    tell(canvas, _told(p, step.index, rows))
    return canvas


def _in_rows(panels: list[Panel]) -> list[list[Panel]]:
    """Rows of at most five panels; ``= sum -> delta`` stays together."""
    cut = next(i for i, panel in enumerate(panels) if panel.sign == "=")
    terms, tail = panels[:cut], panels[cut:]
    rows = [terms[i : i + _PER_ROW] for i in range(0, len(terms), _PER_ROW)] or [[]]
    if len(rows[-1]) + len(tail) <= _PER_ROW:
        return [*rows[:-1], rows[-1] + tail]
    return [*rows, tail]


def _caption(p: ParamStep, shown: View, rows: Sequence[Sequence[Panel]]) -> str:
    """What the reader should know of the view, the check of the sum, and the optimizer."""
    said = [shown.sentence, *_factor_words([panel for row in rows for panel in row])]
    said.append(sum_words(p))
    if p.scale != 1.0:
        said.append(f"the optimizer read {number(p.scale)} × Σ (clipping or loss scaling)")
    if p.delta is not None:
        said.extend(_delta_words(p.delta))
    text = ". ".join(s[0].upper() + s[1:] for s in said if s)
    return text + "."


def _factor_words(panels: Sequence[Panel]) -> list[str]:
    """Which power of ten the numbers in the cells are multiples of."""
    powers = {}
    for panel in filter(numbered, panels):
        assert panel.cells is not None
        power = power_of_ten(panel.limit, panel.cells.shape[1])
        powers["Δ" if panel.sign == "→" else "contributions and Σ"] = power
    return [f"numbers in {which} are multiples of 1e{power}" for which, power in powers.items() if power]


def _delta_words(delta: Delta) -> list[str]:
    rule = delta.rule or "the optimizer"
    said = [f"{rule} moved the weight by {number(100 * delta.relative)} % of its norm"]
    shares = [f"{name} {percent(share)}" for name, share in delta.shares.items()]
    if delta.rule and not math.isnan(sum(delta.shares.values())):
        said.append(f"credited to {', '.join(shares)}. {ACCOUNTING.removesuffix('.')}")
    return said


def _told(p: ParamStep, index: int, rows: Sequence[Sequence[Panel]]) -> str:
    """The picture in words, for those who do not see it."""
    terms = []
    for panel in (panel for row in rows for panel in row):
        if panel.sign in ("=", "→"):
            continue
        norm = "absent" if panel.name in p.absent else f"norm {number(p.norms[panel.name])}"
        terms.append(f"{panel.name} ({norm})")
    text = f"{p.fqn}, step {index}: {' + '.join(terms)} = sum (norm {number(p.total_norm)})."
    if not math.isnan(p.cancellation):
        text += f" {percent(p.cancellation)} of the contributions cancels."
    if p.delta is not None:
        text += f" The optimizer moved the weight by {number(p.delta.norm)}."
    return text
