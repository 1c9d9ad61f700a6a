"""From a step to the rows that a recording file gains by it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradflow.errors import InvalidArgumentError, ShapeError
from gradflow.metrics import Gram
from gradflow.record import ParamStep
from gradflow.recording import Step
from gradflow.storage.rows import COMPLETE, DTYPES, SKIPPED, TABLES, Phrase, StepRow

__all__ = ["Batch", "Ends", "encode", "encode_again"]


class Ends(NamedTuple):
    """How many rows each table has; the next row's ``id`` is one more."""

    phrase: int = 0
    array: int = 0
    param: int = 0
    step: int = 0


@dataclass
class Batch:
    """The rows that one step adds, and where the tables end with them.

    Attributes:
        rows: By table, in the order in which they must be written.
        fresh: The phrases that were not known before, with their numbers.
        ends: Where the tables end.
    """

    rows: dict[str, list[tuple[Any, ...]]]
    fresh: dict[Phrase, int]
    ends: Ends


@dataclass
class _Pen:
    """Writes rows after the ends of the tables; knows the phrases written so far."""

    ends: Ends
    known: Mapping[Phrase, int]
    fresh: dict[Phrase, int] = field(default_factory=dict)
    rows: dict[str, list[tuple[Any, ...]]] = field(default_factory=lambda: {table: [] for table in TABLES})

    def next(self, table: str) -> int:
        return int(getattr(self.ends, table)) + len(self.rows[table]) + 1

    def write(self, table: str, *columns: Any) -> None:
        self.rows[table].append((self.next(table), *columns))

    def phrase(self, value: Phrase) -> int:
        number = self.known.get(value) or self.fresh.get(value)
        if number is None:
            number = self.fresh[value] = self.next("phrase")
            self.write("phrase", json.dumps(value, separators=(",", ":")))
        return number

    def batch(self) -> Batch:
        return Batch(self.rows, self.fresh, Ends(*(self.next(table) - 1 for table in Ends._fields)))


def encode(step: Step, ends: Ends, known: Mapping[Phrase, int]) -> Batch:
    """Give the rows that ``step`` adds to tables that end at ``ends``.

    Raises:
        ShapeError: a Gram matrix has not one row per contributor, or tensors that are summed have several
            shapes.
        InvalidArgumentError: a kept tensor has a dtype without a portable form.
    """
    pen = _Pen(ends, known)
    first = pen.next("param")
    for p in step:
        _write_param(pen, p)
    _write_step(pen, step, first, sum(len(row[-1]) for row in pen.rows["array"]))
    return pen.batch()


def encode_again(step: Step, newest: StepRow, ends: Ends, known: Mapping[Phrase, int]) -> Batch:
    """Give the row that takes the place of the ``newest`` one; its parameters stay as they were written."""
    pen = _Pen(ends._replace(step=newest.id - 1), known)
    _write_step(pen, step, newest.first, newest.kept_bytes)
    return pen.batch()


def _write_step(pen: _Pen, step: Step, first: int, kept_bytes: int) -> None:
    pen.write(
        "step",
        int(step.index),
        pen.phrase(step.params),
        first,
        pen.phrase(tuple(step.branches)),
        pen.phrase(tuple(step.scalars)),
        _reals(step.scalars.values()),
        COMPLETE * bool(step.complete) | SKIPPED * bool(step.skipped),
        json.dumps([(f.severity, f.code, f.text, f.do, f.where) for f in step.reports]),
        kept_bytes,
    )


def _write_param(pen: _Pen, p: ParamStep) -> None:
    first, delta = pen.next("array"), p.delta
    kept = [*(p.tensors or {}).values(), p.total_tensor]
    moved = [*(delta.parts or {}).values(), delta.tensor] if delta else []
    _check_alike(kept, p.fqn)
    _check_alike(moved, p.fqn)
    for array in (*kept, *moved):
        if array is not None:
            _write_array(pen, array, p.fqn)
    pen.write(
        "param",
        pen.phrase((p.fqn, tuple(p.names), _shape(p.shape))),
        pen.phrase(_layout(p)),
        pen.phrase((delta.rule, delta.note) if delta else ()),
        np.array([pen.phrase((u.branch, u.call, u.node, int(u.index))) for u in p.uses], "<u4").tobytes(),
        _param_reals(p),
        first,
    )


def _write_array(pen: _Pen, array: NDArray, fqn: str) -> None:
    array = np.asarray(array)
    little = array.dtype.newbyteorder("<")
    if little.str not in DTYPES:
        raise InvalidArgumentError(
            f"a tensor kept of {fqn!r} has dtype {array.dtype}, which has no portable form",
            where="gradflow.storage",
            do=f"convert it before recording; portable are {', '.join(map(str, DTYPES.values()))}",
        )
    pen.write(
        "array", little.str, pen.phrase(_shape(array.shape)), array.astype(little, copy=False).tobytes()
    )


def _check_alike(tensors: Sequence[NDArray | None], fqn: str) -> None:
    shapes = dict.fromkeys(np.shape(tensor) for tensor in tensors if tensor is not None)
    if len(shapes) > 1:
        raise ShapeError(
            f"tensors kept of {fqn!r} are of the shapes {', '.join(map(str, shapes))}",
            where="gradflow.storage",
            do="give contributions and their total one shape, and likewise a delta and its parts",
        )


def _layout(p: ParamStep) -> Phrase:
    """Names of the contributors, and which tensors were kept; ``None`` where there is nothing."""
    delta = p.delta
    return (
        tuple(p.contributors),
        tuple(p.absent),
        None if p.tensors is None else tuple(p.tensors),
        int(p.total_tensor is not None),
        None if delta is None else tuple(delta.contributors),
        None if delta is None or delta.parts is None else tuple(delta.parts),
        int(delta is not None and delta.tensor is not None),
        None if p.terms is None else (tuple(p.terms.contributors), tuple(p.terms.terms)),
    )


def _param_reals(p: ParamStep) -> bytes:
    blob = _reals([p.total_norm, p.residual, p.scale, *(u.norm for u in p.uses)])
    blob += _gram(p.gram, p.contributors, f"step[{p.fqn!r}].gram")
    if p.delta:
        blob += _reals([p.delta.norm, p.delta.parameter_norm, p.delta.residual])
        blob += _gram(p.delta.gram, p.delta.contributors, f"step[{p.fqn!r}].delta.gram")
    if p.terms:
        cells = [f"{b} {t}" for b in p.terms.contributors for t in p.terms.terms]
        blob += _gram(p.terms.gram, cells, f"step[{p.fqn!r}].terms.gram")
    return blob


def _gram(gram: Gram, names: Sequence[str], where: str) -> bytes:
    if np.shape(gram) != (len(names), len(names)):
        raise ShapeError(
            f"a Gram matrix of shape {np.shape(gram)} does not fit {len(names)} contributors",
            where=where,
            do="give it one row and one column per contributor",
        )
    return np.asarray(gram, "<f8").tobytes()


def _reals(values: Iterable[float]) -> bytes:
    return np.array(list(values), "<f8").tobytes()


def _shape(shape: Iterable[int]) -> tuple[int, ...]:
    return tuple(map(int, shape))
