"""Which term of the loss came along which branch? The branch × term table of one parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from gradflow.errors import InvalidArgumentError
from gradflow.record import ParamStep, TermTable
from gradflow.recording import Step
from gradflow.render.picture import axes_of, tell
from gradflow.render.theme import SEQUENTIAL, Theme, applied, ink_on, number, percent, short, style

__all__ = ["terms"]

_SUM = "Σ"


def terms(step: Step, fqn: str, *, ax: Axes | None = None, theme: str = "light") -> Axes:
    """Draw the norm of what each term of the loss sent along each branch into one parameter.

    The last column and row are the sums: under the norm of a sum stands how much cancelled in it, such as a
    pull and a push that meet in the anchor. A cell that holds exact zeros is hatched.

    Args:
        step: A step whose loss had named terms.
        fqn: Name of the parameter.
        ax: Axes to draw in; by default new ones.
        theme: ``"light"`` or ``"dark"``.

    Returns:
        The axes drawn in.

    Raises:
        NoSuchParameterError: no parameter of that name.
        InvalidArgumentError: no term of the loss was named.
    """
    p = step[fqn]
    if p.terms is None:
        raise InvalidArgumentError(
            f"no term of the loss was named in step {step.index}",
            where=f"gradflow.plot.terms(step, {fqn!r})",
            do='name one where the loss is computed: pull = gradflow.branch.term("pull", pull)',
        )
    table, lost = _sums(p, p.terms)
    with applied(theme) as look:
        ax = axes_of(ax, 2.6 + 1.05 * table.shape[1], 1.5 + 0.52 * len(table))
        cells = ax.imshow(table, cmap=SEQUENTIAL, vmin=0, vmax=table.max() or 1.0, aspect="auto")
        _cells(ax, table, lost, look)
        _labels(ax, p.terms, step.branches, look)
        bar = ax.figure.colorbar(cells, ax=ax, fraction=0.05, pad=0.03)
        bar.set_label("norm, in gradient units")
        bar.outline.set_visible(False)
        ax.set_title(f"{short(p.fqn, 36)}, step {step.index}:\nwhich term came along which branch")
    tell(ax, _told(p, p.terms, step.index))
    return ax


def _sums(p: ParamStep, told: TermTable) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Norms with a column and a row of sums, and how much cancels in each sum; ``nan`` for no sum."""
    rows = [told.along(name) for name in told.contributors]
    by_term = told.by_term
    norms = np.block(
        [
            [told.norms, np.array([[row.total_norm] for row in rows])],
            [np.array([by_term.norms[t] for t in told.terms]), np.array([p.total_norm])],
        ]
    )
    lost = np.full(norms.shape, math.nan)
    lost[:-1, -1] = [row.cancellation for row in rows]
    lost[-1, :-1] = _lost(norms[:-1, :-1].sum(axis=0), norms[-1, :-1])
    lost[-1, -1] = _lost(norms[:-1, :-1].sum(), norms[-1, -1])
    return norms, lost


def _lost(effort: NDArray[np.float64], total: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cancellation, from the effort and what is left of it."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.minimum(1.0, np.maximum(0.0, 1 - np.asarray(total) / np.asarray(effort)))


def _cells(ax: Axes, table: NDArray[np.float64], lost: NDArray[np.float64], look: Theme) -> None:
    image = ax.get_images()[0]
    for (r, c), value in np.ndenumerate(table):
        if value == 0:
            ax.add_patch(Rectangle((c - 0.5, r - 0.5), 1, 1, fc=look.panel, ec=look.muted, hatch="///", lw=0))
            box = {"fc": look.panel, "ec": "none", "pad": 1.5}
            ax.text(c, r, "0", ha="center", va="center", fontsize=9, bbox=box)
            continue
        red, green, blue, _ = image.to_rgba(float(value), bytes=True)  # type: ignore[arg-type, unused-ignore]
        words = number(float(value))
        if not math.isnan(lost[r, c]):
            words += f"\n{percent(float(lost[r, c]))} cancels"
        text = ax.text(c, r, words, ha="center", va="center", fontsize=8.5 if "\n" in words else 9)
        text.set_color(ink_on(f"#{red:02x}{green:02x}{blue:02x}"))


def _labels(ax: Axes, told: TermTable, branches: Sequence[str], look: Theme) -> None:
    """Names at both sides, the branches' colours at the left, and lines before the sums."""
    names, columns = told.contributors, [short(t, 11) for t in told.terms]
    rows = [f"{short(n, 18)}  {style(n, branches).letter}" if n in branches else n for n in names]
    ax.set_yticks(range(len(rows) + 1), [*rows, f"{_SUM} branches"])
    ax.set_xticks(range(len(columns) + 1), [*columns, f"{_SUM} terms"])
    ax.tick_params(axis="x", length=0)
    ax.tick_params(axis="y", length=0, pad=11)
    ax.spines[:].set_visible(False)
    for i, name in enumerate(names):
        strip = Rectangle((-0.022, i - 0.5), 0.012, 1, transform=ax.get_yaxis_transform(), clip_on=False)
        strip.set(facecolor=style(name, branches).colour, edgecolor="none")
        ax.add_patch(strip)
    ax.axhline(len(rows) - 0.5, color=look.paper, lw=3)
    ax.axvline(len(columns) - 0.5, color=look.paper, lw=3)


def _told(p: ParamStep, told: TermTable, index: int) -> str:
    rows = []
    for name, norms in zip(told.contributors, told.norms, strict=True):
        each = ", ".join(f"{t} {number(float(v))}" for t, v in zip(told.terms, norms, strict=True))
        rows.append(f"{name}: {each}, {percent(told.along(name).cancellation)} cancels")
    return f"Norm of each term of the loss along each branch into {p.fqn}, step {index}. {'; '.join(rows)}."
