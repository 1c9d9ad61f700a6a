"""How far each contributor moved the weights over a whole run, and how much of that was in the end kept.

A path length adds up the norms of a contributor's parts, step by step; the Gram matrices of a recording
tell it exactly. A net displacement is the norm of the *sum* of those parts, and the race is how far that sum
had come, step by step, along the run's final displacement: both need the parts themselves, because the inner
products of one step with another are in no step's Gram matrix.

All of it is an accounting under a frozen preconditioner, not what a branch alone would have done.

Shapes: ``S`` is the number of steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gradflow.errors import InvalidArgumentError, NoSuchParameterError, NotKeptError, did_you_mean
from gradflow.record import RESERVED, ParamStep
from gradflow.recording import Recording

__all__ = ["Displacement", "Trail", "displacement"]

Parts = dict[str, dict[str, NDArray[np.float64]]]  # by contributor, then by FQN


@dataclass(frozen=True, slots=True)
class Trail:
    """What only the parts as tensors tell.

    Attributes:
        net: Norm of the sum of each contributor's parts, in parameter units.
        distance: Norm of the run's final displacement: where the weights ended, seen from where they began.
        race: How far each contributor's parts, summed up to each step, reach along the final displacement.
            Shape ``[S]`` each, in parameter units; at the last step they sum to ``distance``. ``nan`` where
            the weights ended exactly where they began.
        progress: The same of the measured deltas themselves, which the contributors' race sums to.
    """

    net: Mapping[str, float]
    distance: float
    race: Mapping[str, NDArray[np.float64]]
    progress: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Displacement:
    """How far each contributor moved a parameter, a layer or the model over the steps of a recording.

    An accounting under a frozen preconditioner, not what a branch alone would have done.

    Attributes:
        where: FQN or module path; empty for the whole model.
        steps: Numbers of the recorded steps.
        branches: Names of the branches, in the order of their lanes.
        path: Path length of each contributor, branches first: the sum over the steps of its parts' norms,
            in parameter units.
        whole_path: The sum over the steps of the norms of the deltas themselves.
        unwatched: Steps between the first and the last that were not recorded; their moves are not counted.
        unkept: FQNs of parameters that moved while their tensors were not kept.
        kept_for: FQNs of parameters whose tensors were kept.
        trail: Net displacement and race; None where tensors were not kept.
    """

    where: str
    steps: tuple[int, ...]
    branches: tuple[str, ...]
    path: Mapping[str, float]
    whole_path: float
    unwatched: int = 0
    unkept: tuple[str, ...] = ()
    kept_for: tuple[str, ...] = ()
    trail: Trail | None = field(default=None, repr=False)

    @property
    def contributors(self) -> tuple[str, ...]:
        """Names of all contributors, branches first."""
        return tuple(self.path)

    @property
    def net(self) -> Mapping[str, float]:
        """Norm of the sum of each contributor's parts, in parameter units.

        Raises:
            NotKeptError: tensors were not kept.
        """
        return self._trail("net").net

    @property
    def distance(self) -> float:
        """Norm of the run's final displacement, in parameter units.

        Raises:
            NotKeptError: tensors were not kept.
        """
        return self._trail("distance").distance

    @property
    def race(self) -> Mapping[str, NDArray[np.float64]]:
        """How far each contributor had come along the run's final displacement. Shape ``[S]`` each.

        Raises:
            NotKeptError: tensors were not kept.
        """
        return self._trail("race").race

    @property
    def shares(self) -> dict[str, float]:
        """Fraction of the final displacement credited to each contributor; they sum to 1.

        Raises:
            NotKeptError: tensors were not kept.
        """
        trail = self._trail("shares")
        return {name: float(run[-1]) / trail.distance for name, run in trail.race.items()}

    def _trail(self, wanted: str) -> Trail:
        if self.trail is None:
            few = "" if not self.kept_for else f", or ask for {self.kept_for[0]!r}, whose tensors were kept"
            raise NotKeptError(
                f"the parts of the deltas were kept as inner products only, for {_some(self.unkept)}; "
                "they tell path lengths, not how parts of different steps add up",
                where=f"displacement(recording, {self.where!r}).{wanted}",
                do=f'gradflow.watch(model, optimizer, keep="tensors"), or keep=["conv1.*"] for a few{few}',
            )
        return self.trail


def displacement(recording: Recording, where: str = "") -> Displacement:
    r"""Add up over a run what each contributor moved.

    With :math:`d_{b,t}` the part of contributor :math:`b` in the delta of step :math:`t`, and :math:`D` the
    sum of all deltas: the path length is :math:`\sum_t \lVert d_{b,t} \rVert`, the net displacement
    :math:`\lVert \sum_t d_{b,t} \rVert`, and the race
    :math:`\langle \sum_{s \le t} d_{b,s}, D \rangle / \lVert D \rVert`.

    Args:
        recording: The recording; ``recording[-100:]`` for its last hundred steps.
        where: FQN or module path; ``""`` is the whole model.

    Raises:
        NoSuchParameterError: neither a parameter nor a module of that name.
        InvalidArgumentError: no optimizer moved anything there.

    Note:
        Our own definition. Frozen preconditioner: see ``docs/deltas.md``.

    Example:
        >>> from gradflow.record import Delta
        >>> from gradflow.recording import Step
        >>> def moved(step, left, right):
        ...     parts = {"left": np.array([left]), "right": np.array([right])}
        ...     rows = np.array([[left], [right]])
        ...     d = Delta(("left", "right"), rows @ rows.T, abs(left + right), 1.0, parts=parts,
        ...               tensor=np.array([left + right]))
        ...     w = ParamStep(("left", "right"), np.eye(2), 1.0, delta=d, fqn="w", names=("w",), shape=(1,))
        ...     return Step(step, {"w": w}, ("left", "right"))
        >>> run = displacement(Recording([moved(0, 3.0, -1.0), moved(1, 2.0, 1.0)]))
        >>> run.path["right"], run.net["right"], run.distance  # right went there and back
        (2.0, 0.0, 5.0)
        >>> run.race["left"].tolist(), run.race["right"].tolist()
        ([3.0, 5.0], [-1.0, 0.0])
    """
    count = len(recording)
    steps = [recording[i].index for i in range(count)]
    told = _told(recording, where, count)
    if not any(told.path.values()) and not told.moved:
        raise InvalidArgumentError(
            f"no optimizer moved {where or 'the model'} in the {count} steps of this recording",
            where="gradflow.displacement.displacement",
            do="pass the optimizer: gradflow.watch(model, optimizer)",
        )
    order = _in_order(told.path, recording.branches)
    return Displacement(
        where=where,
        steps=tuple(steps),
        branches=recording.branches,
        path={name: told.path[name] for name in order},
        whole_path=told.whole_path,
        unwatched=steps[-1] - steps[0] + 1 - count,
        unkept=tuple(told.unkept),
        kept_for=tuple(told.kept),
        trail=None if told.unkept else _trailed(_members(recording, where, count), order, told.ends),
    )


@dataclass(slots=True)
class _Told:
    """What one pass over the steps adds up."""

    path: dict[str, float] = field(default_factory=dict)
    whole_path: float = 0.0
    moved: bool = False
    unkept: dict[str, None] = field(default_factory=dict)
    kept: dict[str, None] = field(default_factory=dict)
    ends: Parts = field(default_factory=dict)

    def take(self, members: list[ParamStep]) -> None:
        """Take in one step."""
        squares: dict[str, float] = {}
        whole = 0.0
        for p in members:
            if p.delta is None:
                continue
            self.moved = True
            whole += p.delta.norm**2
            for name, norm in p.delta.norms.items():
                squares[name] = squares.get(name, 0.0) + norm**2
            self._keep(p)
        self.whole_path += whole**0.5
        for name, square in squares.items():
            self.path[name] = self.path.get(name, 0.0) + square**0.5

    def _keep(self, p: ParamStep) -> None:
        assert p.delta is not None
        if p.delta.parts is not None and p.delta.tensor is not None:
            self.kept[p.fqn] = None
            for name, part in (*p.delta.parts.items(), (_WHOLE, p.delta.tensor)):
                _add(self.ends.setdefault(name, {}), p.fqn, part)
        elif p.delta.norm or any(p.delta.norms.values()):
            self.unkept[p.fqn] = None


_WHOLE = ""  # the measured delta, beside the parts of the contributors


def _told(recording: Recording, where: str, count: int) -> _Told:
    told, seen = _Told(), False
    for members in _members(recording, where, count):
        seen = seen or bool(members)
        told.take(members)
    if where and not seen:
        known = [name for fqn in recording.params for name in (fqn, fqn.rpartition(".")[0]) if name]
        raise NoSuchParameterError(
            f"no parameter or module {where!r} among the {len(recording.params)} recorded parameters",
            where="gradflow.displacement.displacement",
            do=did_you_mean(where, known),
        )
    return told


def _members(recording: Recording, where: str, count: int) -> Iterator[list[ParamStep]]:
    """The parameters of each step that lie under ``where``."""
    for i in range(count):
        yield [p for p in recording[i] if not where or any(_is_under(n, where) for n in p.names)]


def _is_under(fqn: str, where: str) -> bool:
    return fqn == where or fqn.startswith(where + ".")


def _trailed(steps: Iterator[list[ParamStep]], order: tuple[str, ...], ends: Parts) -> Trail:
    """Go over the steps once more, now that it is known where they lead."""
    goal = ends.get(_WHOLE, {})
    distance = _norm(goal)
    names = (*order, _WHOLE)
    ahead = {name: [0.0] for name in names}
    for members in steps:
        for name in names:
            ahead[name].append(ahead[name][-1] + sum(_along(p, name, goal) for p in members))
    with np.errstate(invalid="ignore", divide="ignore"):
        race = {name: np.array(ahead[name][1:]) / np.float64(distance) for name in names}
    progress = race.pop(_WHOLE)
    return Trail({name: _norm(ends.get(name, {})) for name in order}, distance, race, progress)


def _along(p: ParamStep, name: str, goal: Mapping[str, NDArray[np.float64]]) -> float:
    """Inner product of one part with the final displacement of its parameter."""
    if p.delta is None or p.delta.parts is None:
        return 0.0
    part = p.delta.tensor if name == _WHOLE else p.delta.parts.get(name)
    return 0.0 if part is None else float(np.vdot(_real(part), goal[p.fqn]))


def _add(sums: dict[str, NDArray[np.float64]], fqn: str, part: NDArray) -> None:
    sums[fqn] = sums[fqn] + _real(part) if fqn in sums else _real(part)


def _real(part: NDArray) -> NDArray[np.float64]:
    """The entries in a row; a complex one is two."""
    wide = np.complex128 if np.iscomplexobj(part) else np.float64
    return np.ascontiguousarray(part, dtype=wide).ravel().view(np.float64)


def _norm(arrays: Mapping[str, NDArray[np.float64]]) -> float:
    return float(np.sqrt(sum(float(np.vdot(a, a)) for a in arrays.values())))


def _in_order(names: Mapping[str, float], branches: tuple[str, ...]) -> tuple[str, ...]:
    known = [n for n in (*branches, *RESERVED) if n in names]
    return (*known, *(n for n in names if n not in known))


def _some(names: tuple[str, ...], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
