"""Who moved the weights where they ended? Cumulative displacement along the run's final displacement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradflow.displacement import Displacement, displacement
from gradflow.recording import Recording
from gradflow.render.picture import axes_of, legend_below, tell
from gradflow.render.story import ACCOUNTING
from gradflow.render.theme import Theme, applied, number, percent, short, style

__all__ = ["race"]


def race(recording: Recording, where: str = "", *, ax: Axes | None = None, theme: str = "light") -> Axes:
    """Draw how far each contributor had moved the weights, step by step, along the way they went in the end.

    Each line is the sum of one contributor's parts so far, projected on the run's final displacement; the
    lines add up to the bold one, which ends at that displacement's length. A line that ends below 0 belongs
    to a contributor that pulled the weights back. The legend tells the share of the final displacement, and
    how much of the path length remained as net displacement.

    An accounting under a frozen preconditioner, not what the branch alone would have done.

    Args:
        recording: A recording whose tensors were kept for these parameters; ``recording[-100:]`` for its
            last hundred steps.
        where: FQN or module path; ``""`` is the whole model.
        ax: Axes to draw in; by default new ones.
        theme: ``"light"`` or ``"dark"``.

    Returns:
        The axes drawn in.

    Raises:
        NotKeptError: tensors were not kept; path lengths alone are told by ``displacement(recording).path``.
        NoSuchParameterError: neither a parameter nor a module of that name.
        InvalidArgumentError: no optimizer moved anything there.
    """
    run = displacement(recording, where)
    lines = run.race  # says what is missing before anything is drawn
    called = where or "the whole model"
    with applied(theme) as look:
        ax = axes_of(ax, 7.4, 3.6 + 0.18 * len(lines))
        keys = [_line(ax, run, name, lines[name]) for name in run.contributors]
        keys.append(_sum_line(ax, run, look))
        ax.axhline(0, color=look.muted, lw=0.8, zorder=1)
        ax.set_title(f"Whose way did {short(called, 40)} go?")
        ax.set_ylabel("come along the final displacement,\nin units of the weight")
        ax.set_xlabel(_step_label(run))
        ax.grid(lw=0.6)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        legend_below(ax, keys, note=ACCOUNTING)
    tell(ax, _told(run, called))
    return ax


def _line(ax: Axes, run: Displacement, name: str, values: np.ndarray) -> Artist:
    """One contributor, from 0 before the first step."""
    how = style(name, run.branches)
    place, count = run.contributors.index(name), len(run.contributors)
    apart = max(1, len(values) // 10)
    (line,) = ax.plot(
        [run.steps[0] - 1, *run.steps],
        [0.0, *values],
        color=how.colour,
        ls=(0, how.dash) if how.dash else "-",
        marker=how.marker,
        markevery=(1 + place * apart // count, apart),
        label=f"{short(name, 18)}: {percent(run.shares[name])}, net {_kept(run, name)} of its path",
        zorder=3,
    )
    return line


def _kept(run: Displacement, name: str) -> str:
    """What is left of a path, as a fraction of it."""
    return percent(run.net[name] / run.path[name]) if run.path[name] else "–"


def _sum_line(ax: Axes, run: Displacement, look: Theme) -> Artist:
    assert run.trail is not None
    x = [run.steps[0] - 1, *run.steps]
    kept = percent(run.distance / run.whole_path) if run.whole_path else "–"
    label = f"Σ, the weights: net {kept} of their path"
    (line,) = ax.plot(x, [0.0, *run.trail.progress], color=look.ink, lw=2.8, label=label, zorder=2)
    return line


def _step_label(run: Displacement) -> str:
    return f"step ({run.unwatched} between were not recorded)" if run.unwatched else "step"


def _told(run: Displacement, called: str) -> str:
    ends = [_contributor_words(run, name) for name in run.contributors]
    return (
        f"How far each contributor moved {called} along its final displacement of {number(run.distance)}, "
        f"steps {run.steps[0]} to {run.steps[-1]}: {_listed(ends)}. {ACCOUNTING}"
    )


def _contributor_words(run: Displacement, name: str) -> str:
    return (
        f"{name} {percent(run.shares[name])} "
        f"(net displacement {number(run.net[name])}, path {number(run.path[name])})"
    )


def _listed(said: Sequence[str]) -> str:
    return "; ".join(said)
