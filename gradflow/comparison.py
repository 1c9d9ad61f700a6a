"""Two recordings side by side, in numbers: what differs between two runs.

Steps of two runs need not belong together, so that each run is summed up first: medians over its steps.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import TypeVar

from gradflow.errors import NoSuchStepError
from gradflow.findings import Findings, of_recording
from gradflow.findings.branches import is_finite
from gradflow.record import Contributions, Delta
from gradflow.recording import Recording, Step

__all__ = ["MOST_STEPS", "Comparison", "Measure", "Run", "compare"]

Key = TypeVar("Key", bound=Hashable)

MOST_STEPS = 400
"""Steps of a run that are read; of more, every so-many-th, and the heading says so."""

_MOST_PAIRS = 6


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure of both runs.

    Attributes:
        name: What is measured.
        kind: ``"size"`` (a norm; compared by ratio), ``"fraction"`` (compared by difference), ``"cosine"``
            or ``"scalar"`` (a number that was logged).
        a: Its value in the first run; ``nan`` where it has none.
        b: Its value in the second run.
    """

    name: str
    kind: str
    a: float
    b: float

    @property
    def change(self) -> float:
        """``b / a`` for a size, else ``b − a``; ``nan`` where one is missing, or a size is 0."""
        if self.kind != "size":
            return self.b - self.a
        return self.b / self.a if self.a else math.nan


@dataclass(frozen=True, slots=True)
class Run:
    """One recording summed up: medians over the steps without NaN or Inf in which a gradient arrived.

    Attributes:
        name: What the run is called.
        steps: How many steps were recorded.
        every: One in so many of them was read.
        parameters: FQNs of the parameters.
        branches: Names of the branches, in the order of their lanes.
        scalars: First and last value of each logged scalar.
        total: Norm of the sum, in gradient units.
        norms: Norm of each contribution, in gradient units.
        cosines: Cosine between the contributions of each pair of branches; empty of more than six pairs.
        smallest: The smallest cosine between two branches.
        cancellation: Part of the effort that cancels.
        relative: Norm of the delta over that of the weights; ``nan`` without an optimizer.
        shares: Share of each contributor in the delta.
        findings: What is wrong or worth seeing in it.
    """

    name: str
    steps: int
    every: int
    parameters: tuple[str, ...]
    branches: tuple[str, ...]
    scalars: Mapping[str, tuple[float, float]]
    total: float
    norms: Mapping[str, float]
    cosines: Mapping[tuple[str, str], float]
    smallest: float
    cancellation: float
    relative: float
    shares: Mapping[str, float]
    findings: Findings


@dataclass(frozen=True, slots=True, repr=False)
class Comparison:
    """Two runs side by side.

    Attributes:
        where: FQN or module path; empty for the whole model.
        a: The first run.
        b: The second run.
    """

    where: str
    a: Run
    b: Run

    @property
    def branches(self) -> tuple[str, ...]:
        """Branches of both runs, those of the first in front."""
        return tuple(dict.fromkeys((*self.a.branches, *self.b.branches)))

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Every measure that at least one of the runs has."""
        return tuple(m for m in self._all() if not (math.isnan(m.a) and math.isnan(m.b)))

    def _all(self) -> Iterator[Measure]:
        a, b, gone = self.a, self.b, (math.nan, math.nan)
        for name in _either(a.scalars, b.scalars):
            for i, when in enumerate(("first", "last")):
                yield Measure(
                    f"{name}, {when}", "scalar", a.scalars.get(name, gone)[i], b.scalars.get(name, gone)[i]
                )
        yield Measure("norm of Σ", "size", a.total, b.total)
        for name in _either(a.norms, b.norms):
            yield _of(f"norm of {name}", "size", a.norms, b.norms, name)
        for pair in _either(a.cosines, b.cosines):
            yield _of(f"cosine {pair[0]}, {pair[1]}", "cosine", a.cosines, b.cosines, pair)
        yield Measure("smallest cosine", "cosine", a.smallest, b.smallest)
        yield Measure("cancels", "fraction", a.cancellation, b.cancellation)
        yield Measure("‖Δ‖ / ‖θ‖", "size", a.relative, b.relative)
        for name in _either(a.shares, b.shares):
            yield _of(f"share of Δ: {name}", "fraction", a.shares, b.shares, name)

    def __repr__(self) -> str:
        from gradflow.render import text

        return text.comparison(self)

    def _repr_html_(self) -> str:
        from gradflow.render import html

        return html.comparison(self)


def compare(
    a: Recording, b: Recording, where: str = "", *, names: tuple[str, str] = ("a", "b")
) -> Comparison:
    """Compare two recordings.

    Args:
        a: The first run.
        b: The second run; its branches and parameters may be others.
        where: FQN or module path; ``""`` compares whole models. A run without such a place has gaps.
        names: What the runs are called.

    Returns:
        The comparison; printed, a table of both.

    Raises:
        NoSuchStepError: a recording is empty.
        NoSuchParameterError: neither run has a parameter or module of that name.

    Example:
        >>> import numpy as np
        >>> from gradflow.record import ParamStep
        >>> def run(size):
        ...     gram = size**2 * np.eye(2)
        ...     w = ParamStep(("x", "y"), gram, size * 2**0.5, fqn="w", names=("w",), shape=(2,))
        ...     return Recording([Step(0, {"w": w}, ("x", "y"))])
        >>> [(m.name, m.a, m.b, m.change) for m in compare(run(1.0), run(3.0)).measures][1]
        ('norm of x', 1.0, 3.0, 3.0)
    """
    runs = [_Reader(recording, where, name) for recording, name in zip((a, b), names, strict=True)]
    if where and not any(run.models for run in runs):
        runs[1].steps[-1].layer(where)  # says what there is
    return Comparison(where, runs[0].run(), runs[1].run())


class _Reader:
    """A run while it is being summed up."""

    def __init__(self, recording: Recording, where: str, name: str) -> None:
        if not len(recording):
            raise NoSuchStepError(
                f"the recording {name!r} is empty",
                where="gradflow compare",
                do="train a step while it is being watched",
            )
        self._name, self._recording = name, recording
        self._every = max(1, math.ceil(len(recording) / MOST_STEPS))
        begin = (len(recording) - 1) % self._every
        self.steps = [recording[i] for i in range(begin, len(recording), self._every)]
        sound = [step for step in self.steps if len(step) and all(is_finite(p) for p in step)]
        self.models = [there for step in sound if (there := _there(step, where)) is not None]

    def run(self) -> Run:
        branches = tuple(dict.fromkeys(b for step in self.steps for b in step.branches))
        contributors = _either(*(model.contributors for model in self.models))
        pairs = [(x, y) for x, y in combinations(branches, 2) if x in contributors and y in contributors]
        told = pairs if len(pairs) <= _MOST_PAIRS else []
        return Run(
            name=self._name,
            steps=len(self._recording),
            every=self._every,
            parameters=tuple(dict.fromkeys(fqn for step in self.steps for fqn in step.params)),
            branches=branches,
            scalars=_ends(self.steps),
            total=_middle(m.total_norm for m in self.models),
            norms={n: _middle(m.norms.get(n, math.nan) for m in self.models) for n in contributors},
            cosines={pair: _middle(_cosine(m, *pair) for m in self.models) for pair in told},
            smallest=_middle(_smallest(m, pairs) for m in self.models),
            cancellation=_middle(m.cancellation for m in self.models),
            relative=_middle(d.relative for d in self._deltas),
            shares=self._shares(),
            findings=of_recording(self._recording),
        )

    @property
    def _deltas(self) -> list[Delta]:
        return [model.delta for model in self.models if model.delta is not None]

    def _shares(self) -> dict[str, float]:
        each = [delta.shares for delta in self._deltas]
        return {n: _middle(shares.get(n, math.nan) for shares in each) for n in _either(*each)}


def _middle(values: Iterable[float]) -> float:
    """Median of what is known; ``nan`` if nothing is."""
    known = [value for value in values if not math.isnan(value)]
    return median(known) if known else math.nan


def _there(step: Step, where: str) -> Contributions | None:
    """A parameter or a layer of a step; None where it has no such place."""
    if any(where in p.names for p in step):
        return step[where]
    inside = not where or any(name.startswith(where + ".") for p in step for name in p.names)
    return step.layer(where) if inside else None


def _cosine(model: Contributions, x: str, y: str) -> float:
    return model.cosine(x, y) if x in model.contributors and y in model.contributors else math.nan


def _smallest(model: Contributions, pairs: Iterable[tuple[str, str]]) -> float:
    known = [value for pair in pairs if not math.isnan(value := _cosine(model, *pair))]
    return min(known, default=math.nan)


def _ends(steps: list[Step]) -> dict[str, tuple[float, float]]:
    ends: dict[str, tuple[float, float]] = {}
    for step in steps:
        for name, value in step.scalars.items():
            ends[name] = (ends.get(name, (value, value))[0], value)
    return ends


def _either(*known: Iterable[Key]) -> list[Key]:
    """Give what is in any of several collections, each once, in order."""
    return list(dict.fromkeys(key for keys in known for key in keys))


def _of(name: str, kind: str, a: Mapping[Key, float], b: Mapping[Key, float], key: Key) -> Measure:
    return Measure(name, kind, a.get(key, math.nan), b.get(key, math.nan))
