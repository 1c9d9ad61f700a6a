"""Steps and recordings: what happened to every parameter, step by step, and sums over layers.

A :class:`Step` reaches from one ``optimizer.step()`` to the next; a :class:`Recording` is the
sequence of steps, in memory or read from a file on demand.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from gradflow.errors import NoSuchParameterError, NoSuchStepError, did_you_mean, need
from gradflow.metrics import Gram
from gradflow.record import RESERVED, Contributions, Delta, Finding, ParamStep

if TYPE_CHECKING:
    import pandas as pd

    from gradflow.comparison import Comparison
    from gradflow.findings import Findings

__all__ = ["Recording", "Step"]


@dataclass(frozen=True, slots=True, repr=False)
class Step:
    """Everything recorded from one ``optimizer.step()`` to the next.

    Attributes:
        index: Number of the step since watching began, from 0; unwatched steps count too.
        parameters: What happened to each parameter, by FQN, in the model's order.
        branches: Names of the branches known in this step, in the order of their lanes.
        scalars: What ``flow.log`` kept with the step.
        complete: False when something of ours failed and the numbers may lack a part.
        skipped: True when the optimizer did not move (a step that ``GradScaler`` skips).
        reports: What capture itself had to say; ``findings`` holds these and more.
    """

    index: int
    parameters: Mapping[str, ParamStep]
    branches: tuple[str, ...] = ()
    scalars: Mapping[str, float] = field(default_factory=dict)
    complete: bool = True
    skipped: bool = False
    reports: tuple[Finding, ...] = ()

    @property
    def params(self) -> tuple[str, ...]:
        """FQNs of the parameters that took part."""
        return tuple(self.parameters)

    @property
    def findings(self) -> Findings:
        """What is wrong or worth seeing in this step, in words."""
        from gradflow import findings

        return findings.of_step(self)

    def __getitem__(self, fqn: str) -> ParamStep:
        found = self.parameters.get(fqn)
        if found is None:
            found = next((p for p in self.parameters.values() if fqn in p.names), None)
        if found is None:
            raise NoSuchParameterError(
                f"no parameter {fqn!r} among the {len(self.parameters)} of step {self.index}",
                where="step[fqn]",
                do=did_you_mean(fqn, self.parameters),
            )
        return found

    def __iter__(self) -> Iterator[ParamStep]:
        return iter(self.parameters.values())

    def __len__(self) -> int:
        return len(self.parameters)

    def layer(self, path: str) -> Contributions:
        """Sum the measures over the parameters of a module; ``""`` is the whole model.

        Raises:
            NoSuchParameterError: no recorded parameter lies under that module path.
        """
        inside = [p for p in self if not path or any(_is_under(n, path) for n in p.names)]
        if not inside:
            paths = {name.rpartition(".")[0] for p in self for name in p.names}
            raise NoSuchParameterError(
                f"no recorded parameter lies under {path!r}",
                where=f"step {self.index}.layer",
                do=did_you_mean(path, sorted(paths)),
            )
        return _sum(inside, self.branches)

    def __repr__(self) -> str:
        from gradflow.render import text

        return text.step(self)

    def _repr_html_(self) -> str:
        from gradflow.render import html

        return html.step(self)


class Recording(Sequence[Step]):
    """The steps of a run, in order; may be growing while training goes on.

    Args:
        steps: Any sequence of steps: a list in memory, or one that reads from a file on demand.
    """

    def __init__(self, steps: Sequence[Step] = ()) -> None:
        self._steps = steps

    @overload
    def __getitem__(self, position: int) -> Step: ...
    @overload
    def __getitem__(self, position: slice) -> Recording: ...
    def __getitem__(self, position: int | slice) -> Step | Recording:
        if isinstance(position, slice):
            return Recording([self._steps[i] for i in range(*position.indices(len(self)))])
        if not -len(self) <= position < len(self):
            known = f"0 to {len(self) - 1}" if len(self) else "none yet"
            raise NoSuchStepError(
                f"no step at position {position} of {len(self)}",
                where="recording[position]",
                do=f"positions are {known}; recording.last is the newest",
            )
        return self._steps[position]

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def last(self) -> Step:
        """The newest step.

        Raises:
            NoSuchStepError: nothing was recorded yet.
        """
        return self[-1]

    @property
    def params(self) -> tuple[str, ...]:
        """FQNs of all parameters seen, in the order they first appeared."""
        known = getattr(self._steps, "params", None)  # a file knows them without reading its steps
        return _union(step.params for step in self) if known is None else tuple(known)

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of all branches seen, in the order of their lanes."""
        known = getattr(self._steps, "branches", None)
        return _union(step.branches for step in self) if known is None else tuple(known)

    def findings(self, last: int | None = 100) -> Findings:
        """Give what is wrong or worth seeing over the newest steps, in words, warnings first.

        Args:
            last: How many steps are looked at; None for all.

        Raises:
            InvalidArgumentError: ``last`` is no positive number.
        """
        from gradflow import findings

        return findings.of_recording(self, last)

    def compare(
        self, other: Recording, where: str = "", *, names: tuple[str, str] = ("a", "b")
    ) -> Comparison:
        """Put another recording beside this one: what differs, in numbers.

        Args:
            other: The other run; its branches and parameters may be others.
            where: FQN or module path; ``""`` compares whole models.
            names: What the runs are called, this one first.

        Raises:
            NoSuchStepError: a recording is empty.
            NoSuchParameterError: neither run has a parameter or module of that name.
        """
        from gradflow.comparison import compare

        return compare(self, other, where, names=names)

    def save(self, path: str | Path) -> Path:
        """Write the recording to one file that ``gradflow.load`` opens again."""
        from gradflow import storage

        return storage.save(self, path)

    def to_pandas(self) -> pd.DataFrame:
        """Give a table with one row per step, parameter and contributor.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        pandas = need("pandas", extra="lab", for_="recording.to_pandas()")
        table: pd.DataFrame = pandas.DataFrame([row for step in self for p in step for row in _rows(step, p)])
        return table

    def __repr__(self) -> str:
        from gradflow.render import text

        return text.recording(self)

    def _repr_html_(self) -> str:
        from gradflow.render import html

        return html.recording(self)


def _rows(step: Step, p: ParamStep) -> Iterator[dict[str, object]]:
    shares = p.delta.shares if p.delta else {}
    parts = p.delta.norms if p.delta else {}
    for name in dict.fromkeys((*p.contributors, *shares)):
        known = name in p.contributors
        yield {
            "step": step.index,
            "param": p.fqn,
            "contributor": name,
            "norm": p.norms[name] if known else math.nan,
            "share": p.share(name) if known else math.nan,
            "total_norm": p.total_norm,
            "cancellation": p.cancellation,
            "residual": p.residual,
            "delta_norm": p.delta.norm if p.delta else math.nan,
            "delta_part_norm": parts.get(name, math.nan),
            "delta_share": shares.get(name, math.nan),
            **step.scalars,
        }


def _sum(parameters: Sequence[ParamStep], branches: tuple[str, ...]) -> Contributions:
    order = _in_order((p.contributors for p in parameters), branches)
    gram = _sum_grams([(p.contributors, p.gram) for p in parameters], order)
    deltas = [p.delta for p in parameters if p.delta is not None]
    return Contributions(
        contributors=order,
        gram=gram,
        total_norm=math.hypot(*(p.total_norm for p in parameters)),
        absent=tuple(b for b in branches if b not in order),
        delta=_sum_deltas(deltas, branches) if deltas else None,
    )


def _sum_deltas(deltas: Sequence[Delta], branches: tuple[str, ...]) -> Delta:
    order = _in_order((d.contributors for d in deltas), branches)
    return Delta(
        contributors=order,
        gram=_sum_grams([(d.contributors, d.gram) for d in deltas], order),
        norm=math.hypot(*(d.norm for d in deltas)),
        parameter_norm=math.hypot(*(d.parameter_norm for d in deltas)),
        rule=" and ".join(_union((d.rule,) for d in deltas if d.rule)),
        note=" ".join(_union((d.note,) for d in deltas if d.note)),
    )


def _sum_grams(grams: Iterable[tuple[tuple[str, ...], Gram]], order: tuple[str, ...]) -> Gram:
    whole = np.zeros((len(order), len(order)))
    for names, gram in grams:
        rows = [order.index(name) for name in names]
        whole[np.ix_(rows, rows)] += gram
    return whole


def _in_order(names: Iterable[tuple[str, ...]], branches: tuple[str, ...]) -> tuple[str, ...]:
    """Branches in the order of their lanes, then the reserved contributors."""
    seen = _union(names)
    known = [b for b in branches if b in seen]
    others = [n for n in seen if n not in branches and n not in RESERVED]
    return (*known, *others, *(r for r in RESERVED if r in seen))


def _union(groups: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for group in groups for name in group))


def _is_under(fqn: str, path: str) -> bool:
    return fqn == path or fqn.startswith(path + ".")
