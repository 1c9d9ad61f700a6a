"""Where a gradient goes: from the lanes of the branches into each shared weight, Σ, the optimizer, Δ.

Each lane is one branch's way back through the same modules. Each shared weight stands once, in the middle,
with one arrow in per branch.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import FigureBase

from gradflow import findings
from gradflow.recording import Step
from gradflow.render.lanes import Diagram, strongest_conflict
from gradflow.render.picture import new_figure, tell
from gradflow.render.rows import Row, largest, rows
from gradflow.render.theme import applied, number, signed

__all__ = ["flow"]


def flow(
    step: Step, *, by: str = "module", most: int = 9, fig: FigureBase | None = None, theme: str = "light"
) -> FigureBase:
    """Draw how each branch's gradient reaches each shared weight, and what the optimizer made of the sum.

    The width of an arrow grows with the square root of the norm written on it. A dotted arrow carries exact
    zeros (a dead hinge); a broken one with a cross is absent. Two branches that pull against each other are
    named under the sum with their cosine.

    Args:
        step: The step.
        by: ``"module"`` for one row per module, or ``"parameter"``.
        most: Most rows; a deeper model is collapsed to modules of less depth, and the title says so.
        fig: A figure or subfigure to draw in; by default a new one of the size that is needed.
        theme: ``"light"`` or ``"dark"``.

    Returns:
        The figure drawn in.
    """
    shown, what = _rows(step, by, most)
    with applied(theme) as look:
        diagram = Diagram(step, shown, look)
        canvas = fig if fig is not None else new_figure(diagram.width, diagram.height)
        diagram.draw(canvas.add_axes((0, 0, 1, 1)), what)
    tell(canvas, _told(step, shown))
    return canvas


def _rows(step: Step, by: str, most: int) -> tuple[tuple[Row, ...], str]:
    shown, what = rows(step, most=most, by=by)
    if by == "module" and len(shown) < min(3, len(step)):  # one wrapping module: look inside it
        shown, what = rows(step, most=10**9, by=by)
    if len(shown) > most:
        what = f"the {most} largest of {len(shown)} {what}"
        shown = largest(shown, most)
    return shown, what


def _told(step: Step, shown: Sequence[Row]) -> str:
    floor = findings.noise_floor(step)
    said = []
    for row in shown:
        parts = [
            f"{b} absent" if b not in row.data.norms else f"{b} {number(row.data.norms[b])}"
            for b in step.branches
        ]
        fight = strongest_conflict(row.data, step.branches, floor)
        words = f", {fight[1]} against {fight[2]} (cosine {signed(fight[0])})" if fight else ""
        said.append(f"{row.name}: {', '.join(parts)}, sum {number(row.data.total_norm)}{words}")
    return (
        f"Flow of the gradient in step {step.index}, norm of each branch's contribution. {'; '.join(said)}."
    )
