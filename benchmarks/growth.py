"""How cost grows: sweeps over one size at a time, and the slope in log-log."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

import gradflow
from benchmarks.nets import Job, Optimize, chain, lstm, sgd
from benchmarks.page import Row, Table
from benchmarks.steps import on_one_model
from benchmarks.timing import Spread, Times, Variant, Work, interleave

__all__ = ["PICTURE", "SWEEPS", "Curve", "Sweep", "drawn", "slope", "table"]

PICTURE = Path(__file__).parent / "growth.svg"
_LINEAR = 1.1  # a slope of 1, and what timing may add to it
_WIDTH = 64

Works = Mapping[str, Work | Variant]


@dataclass(frozen=True)
class Sweep:
    """A size that grows while all others stay.

    Attributes:
        what: Grows, in words.
        sizes: In rising order.
        works: Gives, for a size, what is measured ("plain", and "watched" with "floor", or "traced"), and
            what to close.
        rounds: How many.
    """

    what: str
    sizes: tuple[int, ...]
    works: Callable[[int], tuple[Works, list[gradflow.Recorder]]]
    rounds: int = 21


@dataclass
class Curve:
    """What a sweep found: seconds by size, of what watching or tracing adds and of the plain step.

    Attributes:
        what: Grew, in words.
        sizes: In rising order.
        extra: What watching, or tracing, adds.
        plain: The plain step.
        floor: What the floor adds; empty where nothing is watched.
    """

    what: str
    sizes: list[int] = field(default_factory=list)
    extra: list[Times] = field(default_factory=list)
    plain: list[Times] = field(default_factory=list)
    floor: list[Times] = field(default_factory=list)

    def milliseconds(self, times: Sequence[Times]) -> list[float]:
        """Give the median CPU time at each size."""
        return [1e3 * Spread.of(one.cpu).median for one in times]


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Fit the exponent of a power law.

    Example:
        >>> round(slope([1, 2, 4], [3, 12, 48]), 6)
        2.0
    """
    kept = [(x, y) for x, y in zip(sizes, values, strict=True) if y > 0]
    if len(kept) < 2:
        return float("nan")
    x, y = np.log(np.array(kept, dtype=float).T)
    return float(np.polyfit(x, y, 1)[0])


def measured(sweep: Sweep, scale: float = 1.0) -> Curve:
    """Run a sweep, all its sizes in every round: what slows the machine for a while bends no curve."""
    variants: dict[str, Work | Variant] = {}
    flows: list[gradflow.Recorder] = []
    for size in sweep.sizes:
        works, more = sweep.works(size)
        variants |= {f"{name} {size}": work for name, work in works.items()}
        flows += more
    times = interleave(variants, rounds=max(2, round(sweep.rounds * scale)), warm=1)
    for flow in flows:
        flow.close()
    curve = Curve(sweep.what)
    for size in sweep.sizes:
        plain, watched = times[f"plain {size}"], times.get(f"watched {size}")
        curve.sizes.append(size)
        curve.plain.append(plain)
        if watched is None:
            curve.extra.append(times[f"traced {size}"])
        else:
            curve.extra.append(watched.minus(plain))
            curve.floor.append(times[f"floor {size}"].minus(plain))
    return curve


def table(scale: float = 1.0, sweeps: Sequence[Sweep] | None = None, picture: Path = PICTURE) -> Table:
    """Run all sweeps, draw them, and tell the slopes."""
    curves = [measured(sweep, scale) for sweep in (SWEEPS if sweeps is None else sweeps)]
    drawn(curves, picture)
    rows = [_row(curve) for curve in curves]
    return Table(
        "How cost grows",
        "CPU time that watching adds to a step (for the size of the graph: that `gradflow.trace` and "
        "`collapse` take), while one size grows: the exponent of size, fitted to the three largest sizes "
        "(1: linear; the target leaves 0.1 to timing). The fit over all sizes, which constants bend, and the "
        "exponents of the plain step and of what the floor of a whole step adds stand beside it.",
        rows,
        "exponent",
        ("sizes", "ms added", "over all sizes", "plain", "floor"),
        (f"![Log-log curves of what is added against each size]({picture.name})",),
    )


def _row(curve: Curve) -> Row:
    added, plain = curve.milliseconds(curve.extra), curve.milliseconds(curve.plain)
    floor = _exponents(curve.sizes, curve.floor) if curve.floor else None
    more = (
        f"{curve.sizes[0]} … {curve.sizes[-1]}",
        f"{added[0]:.2f} … {added[-1]:.2f}",
        f"{slope(curve.sizes, added):.2f}",
        f"{slope(curve.sizes[-3:], plain[-3:]):.2f}",
        "–" if floor is None else str(floor),
    )
    found = _exponents(curve.sizes, curve.extra)
    return Row(curve.what, found, target=_LINEAR, more=more, floor=floor)


def _exponents(sizes: Sequence[int], times: Sequence[Times]) -> Spread:
    """Fit the exponent of the three largest sizes in each round."""
    rounds = zip(*(one.cpu for one in times[-3:]), strict=True)
    return Spread.of([slope(sizes[-3:], values) for values in rounds])


def drawn(curves: Sequence[Curve], path: Path) -> None:
    """Draw all curves in one SVG: filled circles for what is added, hollow squares for the plain step."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings = {
        "svg.hashsalt": "gradflow",
        "font.size": 8,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with mpl.rc_context(settings):
        figure = Figure(figsize=(9.6, 5.6), layout="constrained")
        axes = figure.subplots(2, -(-len(curves) // 2), squeeze=False).flat
        for ax, curve in zip(axes, curves, strict=False):
            _panel(ax, curve)
        for ax in list(axes)[len(curves) :]:
            ax.set_axis_off()
        figure.axes[0].legend(frameon=False, fontsize=7, loc="upper left")
        figure.savefig(path, format="svg", metadata={"Date": None, "Title": "How the cost of watching grows"})


def _panel(ax: object, curve: Curve) -> None:
    added, plain = curve.milliseconds(curve.extra), curve.milliseconds(curve.plain)
    x = np.array(curve.sizes, dtype=float)
    error = np.array([_reach(times) for times in curve.extra]).T
    look = {"color": "#0072B2", "marker": "o", "capsize": 2, "label": "added (quartiles)"}
    ax.errorbar(x, added, yerr=error, **look)
    ax.plot(x, plain, color="#6b6f75", marker="s", ls="--", mfc="none", label="plain")
    if curve.floor:
        look = {"color": "#b35c00", "marker": "^", "ls": "-.", "mfc": "none", "label": "floor"}
        ax.plot(x, curve.milliseconds(curve.floor), **look)
    ax.plot(x, added[-1] * x / x[-1], color="#0b0b0b", ls=":", lw=1, label="linear")
    ax.set(xscale="log", yscale="log", xlabel=curve.what, ylabel="CPU ms")
    ax.set_xticks(x, [_short(size) for size in curve.sizes])
    ax.minorticks_off()
    ax.set_title(f"exponent {slope(x[-3:], added[-3:]):.2f}", fontsize=8, loc="left")


def _short(size: int) -> str:
    """Write 65536 as 64 Ki."""
    for power, letter in ((2, "Mi"), (1, "Ki")):
        if size >= 1024**power and size % 1024**power == 0:
            return f"{size // 1024**power} {letter}"
    return str(size)


def _reach(times: Times) -> tuple[float, float]:
    spread = Spread.of(times.cpu).times(1e3)
    return spread.median - spread.low, spread.high - spread.median


def _trained(build: Callable[[Optimize], Job]) -> tuple[dict[str, Variant], list[gradflow.Recorder]]:
    return on_one_model(build(sgd))


def _depth(size: int) -> tuple[Works, list[gradflow.Recorder]]:
    return _trained(chain(size, _WIDTH, 32, 2))


def _elements(size: int) -> tuple[Works, list[gradflow.Recorder]]:
    return _trained(chain(4, math.isqrt(size), 32, 2))


def _branches(size: int) -> tuple[Works, list[gradflow.Recorder]]:
    return _trained(chain(4, _WIDTH, 32, size))


def _uses(size: int) -> tuple[Works, list[gradflow.Recorder]]:
    return _trained(lstm(size, as_paths=False))


def _steps(size: int) -> tuple[Works, list[gradflow.Recorder]]:
    ways, flows = _trained(chain(4, _WIDTH, 32, 2))
    return {name: replace(way, work=partial(_repeat, way.work, size)) for name, way in ways.items()}, flows


def _repeat(work: Work, times: int) -> None:
    for _ in range(times):
        work()


def _graph(size: int) -> tuple[Works, list[gradflow.Recorder]]:
    layer = torch.nn.Linear(8, 8)

    def forward() -> torch.Tensor:
        x = layer(torch.ones(1, 8))
        for _ in range(size):
            x = x + 1.0
        return x.sum()

    loss = forward()
    return {"plain": forward, "traced": lambda: gradflow.trace(loss, layer).collapse()}, []


SWEEPS = (
    Sweep("depth: layers", (10, 20, 40, 80, 160), _depth),
    Sweep("branches: calls", (2, 4, 8, 16, 32, 64), _branches),
    Sweep("uses: time steps of one path", (10, 20, 40, 80, 160), _uses),
    Sweep("elements of each weight", tuple(4**n for n in range(6, 11)), _elements),
    Sweep("steps, with last=1", (10, 20, 40, 80, 160), _steps, rounds=7),
    Sweep("graph size: nodes", (500, 1000, 2000, 4000, 8000), _graph),
)
