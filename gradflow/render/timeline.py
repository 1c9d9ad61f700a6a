"""How contributions and their conflicts go over the steps of a recording."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from gradflow.errors import InvalidArgumentError, NoSuchStepError, did_you_mean
from gradflow.record import Contributions
from gradflow.recording import Recording, Step
from gradflow.render.picture import axes_of, legend_below, tell
from gradflow.render.rows import measured
from gradflow.render.theme import Theme, applied, number, short, style

__all__ = ["Line", "history", "line_of", "names_of", "norm_lines", "scale_norms", "smallest_cosines"]

_MOST_STEPS = 400  # more are thinned evenly, and the title says so


@dataclass(frozen=True, slots=True)
class Line:
    """The steps drawn, and what was measured in them; ``None`` where the place took no part."""

    steps: tuple[Step, ...]
    data: tuple[Contributions | None, ...]
    branches: tuple[str, ...]
    called: str
    every: int

    @property
    def thinned(self) -> str:
        """What the title says of steps that are not drawn; empty if all are."""
        return f", one step in {self.every}" if self.every > 1 else ""

    @property
    def x(self) -> NDArray[np.int64]:
        """Numbers of the steps."""
        return np.array([s.index for s in self.steps])

    @property
    def totals(self) -> NDArray[np.float64]:
        """Norm of the sum at each step; ``nan`` where the place took no part."""
        return np.array([d.total_norm if d else math.nan for d in self.data])

    def norms(self, name: str) -> NDArray[np.float64]:
        """Norm of one contribution at each step; ``nan`` where it is absent."""
        return np.array([d.norms.get(name, math.nan) if d else math.nan for d in self.data])


def history(
    recording: Recording,
    where: str = "",
    *,
    shade: str | None = "conflict",
    scalar: str | None = None,
    ax: Axes | None = None,
    theme: str = "light",
) -> Axes:
    """Draw the norm of each branch's contribution over the steps, and of their sum.

    Args:
        recording: The recording.
        where: FQN or module path; ``""`` is the whole model.
        shade: ``"conflict"`` shades the steps in which two branches pull against each other, the darker
            the more; ``"cosine"`` draws the smallest cosine between two branches below; ``None`` neither.
        scalar: Name of a scalar kept with ``flow.log``, such as ``"loss"``, to draw on an axis of its own.
        ax: Axes to draw in; by default new ones.
        theme: ``"light"`` or ``"dark"``.

    Returns:
        The axes drawn in.

    Raises:
        NoSuchStepError: the recording is empty.
        NoSuchParameterError: neither a parameter nor a module of that name.
        InvalidArgumentError: no such ``shade`` or ``scalar``.
    """
    line = line_of(recording, where)
    _check(line.steps[-1].scalars, shade, scalar)
    names = names_of(line)
    with applied(theme) as look:
        ax = axes_of(ax, 7.4, 3.9)
        keys, values = norm_lines(ax, line, names, look)
        scale_norms(ax, values)
        if shade == "conflict":
            keys += _conflict_shade(ax, line, look)
        if scalar:
            keys += _scalar_line(ax, line, scalar, look)
        keys += _skipped_marks(ax, line, look)
        ax.set_title(f"Contributions to {short(line.called, 44)}{line.thinned}")
        ax.set_ylabel("norm, in gradient units")
        ax.set_xlabel("step")
        ax.grid(lw=0.6)
        _whole_steps(ax, line)
        if shade == "cosine":
            _cosine_strip(ax, line, look)
        legend_below(ax, keys)
    tell(ax, _history_told(line, names))
    return ax


def _check(known: Mapping[str, float], shade: str | None, scalar: str | None) -> None:
    if shade not in ("conflict", "cosine", None):
        raise InvalidArgumentError(
            f"shade={shade!r}", where="gradflow.plot.history", do="known: 'conflict', 'cosine', None"
        )
    if scalar is not None and scalar not in known:
        raise InvalidArgumentError(
            f"no scalar {scalar!r} was kept with the last step",
            where="gradflow.plot.history",
            do=f"keep it with flow.log({scalar}=...); {did_you_mean(scalar, known)}",
        )


def line_of(recording: Recording, where: str) -> Line:
    """Read the steps of a recording, thinned evenly where there are very many.

    Raises:
        NoSuchStepError: the recording is empty.
        NoSuchParameterError: neither a parameter nor a module of that name.
    """
    if not len(recording):
        raise NoSuchStepError(
            "the recording is empty", where="gradflow.plot", do="train a step while it is being watched"
        )
    every = max(1, math.ceil(len(recording) / _MOST_STEPS))
    steps = tuple(recording[i] for i in range((len(recording) - 1) % every, len(recording), every))
    data = tuple(_there(step, where) for step in steps)
    if where and not any(data):
        measured(
            next((step for step in reversed(steps) if len(step)), steps[-1]), where
        )  # says what there is
    called = where or "the whole model"
    branches = tuple(dict.fromkeys(b for step in steps for b in step.branches))
    return Line(steps, data, branches, called, every)


def _there(step: Step, where: str) -> Contributions | None:
    inside = not where or any(n == where or n.startswith(where + ".") for p in step for n in p.names)
    return measured(step, where)[0] if inside and step.parameters else None


def names_of(line: Line) -> list[str]:
    """Give the contributors of all steps: branches in the order of their lanes, then the others."""
    seen = dict.fromkeys(name for d in line.data if d for name in (*d.contributors, *d.absent))
    return [b for b in line.branches if b in seen] + [name for name in seen if name not in line.branches]


def norm_lines(
    ax: Axes, line: Line, names: Sequence[str], look: Theme
) -> tuple[list[Artist], NDArray[np.float64]]:
    """Draw one line for each contributor and one for the sum; gaps where a branch is absent.

    Returns:
        Keys for a legend, the sum last, and all values that were drawn.
    """
    keys: list[Artist] = []
    apart = max(1, len(line.steps) // 12)
    for i, name in enumerate(names):
        how, values = style(name, line.branches), line.norms(name)
        label = short(name, 22) + (" (absent)" if np.isnan(values).all() else "")
        keys += ax.plot(
            line.x,
            values,
            color=how.colour,
            ls=(0, how.dash) if how.dash else "-",
            marker=how.marker,
            markevery=(i * apart // max(1, len(names)), apart),
            label=label,
            zorder=3,
        )
    keys += ax.plot(line.x, line.totals, color=look.ink, lw=2.6, label="Σ, their sum", zorder=2)
    return keys, np.concatenate([line.totals, *(line.norms(name) for name in names)])


def scale_norms(ax: Axes, values: NDArray[np.float64]) -> None:
    """Make the axis of norms logarithmic where they span a hundredfold and none is zero."""
    positive = values[np.isfinite(values) & (values > 0)]
    if positive.size and positive.max() > 100 * positive.min() and not (values == 0).any():
        ax.set_yscale("log")
    else:
        ax.set_ylim(bottom=-0.03 * (positive.max() if positive.size else 1.0))


def smallest_cosines(line: Line) -> NDArray[np.float64]:
    """Give the smallest cosine between two branches at each step; ``nan`` where there is none."""
    found = []
    for data in line.data:
        there = [b for b in line.branches if data and b in data.contributors]
        pairs = [data.cosine(a, b) for a, b in combinations(there, 2)] if data else []
        found.append(min((c for c in pairs if not math.isnan(c)), default=math.nan))
    return np.array(found)


def _bands(line: Line) -> list[tuple[float, float]]:
    """Where each step begins and ends on the axis: halfway to its neighbours."""
    x = line.x.astype(float)
    if len(x) == 1:
        return [(x[0] - 0.5, x[0] + 0.5)]
    middles = (x[1:] + x[:-1]) / 2
    ends = [x[0] - (middles[0] - x[0]), *middles, x[-1] + (x[-1] - middles[-1])]
    return list(pairwise(ends))


def _conflict_shade(ax: Axes, line: Line, look: Theme) -> list[Artist]:
    strengths = np.maximum(0.0, -np.nan_to_num(smallest_cosines(line)))
    for (left, right), strength in zip(_bands(line), strengths, strict=True):
        if strength > 0:
            ax.axvspan(left, right, color=look.ink, alpha=0.22 * strength, lw=0, zorder=0)
    if not strengths.any():
        return []
    most = f"conflict, as strong as the shade (at most {strengths.max():.2f})"
    return [Patch(facecolor=look.ink, alpha=0.15, label=most)]


def _cosine_strip(ax: Axes, line: Line, look: Theme) -> None:
    """A strip above the axes in the colours of the smallest cosine."""
    bands = _bands(line)
    edges = [bands[0][0], *(right for _, right in bands)]
    strip = ax.inset_axes((0, 0.955, 1, 0.045), sharex=ax)
    strip.pcolormesh(edges, [0, 1], smallest_cosines(line)[None, :], cmap="RdBu_r", vmin=-1, vmax=1)
    strip.set_axis_off()
    ax.set_xlabel("step   (strip at the top: smallest cosine, blue −1 … red +1)")


def _scalar_line(ax: Axes, line: Line, scalar: str, look: Theme) -> list[Artist]:
    other = ax.twinx()
    values = [step.scalars.get(scalar, math.nan) for step in line.steps]
    keys = other.plot(line.x, values, color=look.muted, lw=1.2, ls=(0, (1, 1)), label=f"{scalar} (right)")
    other.set_ylabel(scalar, color=look.muted)
    other.spines["right"].set_visible(True)
    return list(keys)


def _skipped_marks(ax: Axes, line: Line, look: Theme) -> list[Artist]:
    skipped = [step.index for step in line.steps if step.skipped]
    for x in skipped:
        ax.axvline(x, color=look.alarm, lw=1, ls=(0, (2, 2)), zorder=1)
    return [Line2D([], [], color=look.alarm, lw=1, ls=(0, (2, 2)), label="skipped step")] if skipped else []


def _whole_steps(ax: Axes, line: Line) -> None:
    ax.set_xlim(_bands(line)[0][0], _bands(line)[-1][1])
    ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))


def _history_told(line: Line, names: Sequence[str]) -> str:
    ends = []
    for name in names:
        values = line.norms(name)
        there = values[np.isfinite(values)]
        ends.append(
            f"{name} from {number(there[0])} to {number(there[-1])}" if there.size else f"{name} absent"
        )
    cosines = smallest_cosines(line)
    fights = int((cosines < 0).sum())
    return (
        f"Norms of the contributions to {line.called}, steps {line.x[0]} to {line.x[-1]}: {'; '.join(ends)}. "
        f"In {fights} of the {len(cosines)} steps shown two branches pull against each other."
    )
