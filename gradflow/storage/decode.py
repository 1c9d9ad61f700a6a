"""From rows back to steps and parameters; text in a file can only become names, numbers and arrays.

Whatever a row should not hold ends in a ``ValueError``, ``TypeError`` or ``LookupError``, which
:func:`gradflow.storage.database.reading` turns into an error of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gradflow.metrics import Gram
from gradflow.record import Delta, Finding, ParamStep, TermTable, Use
from gradflow.recording import Step
from gradflow.storage.rows import COMPLETE, DTYPES, SKIPPED, ArrayRow, ParamRow, Phrase, StepRow, to_phrase

__all__ = ["decode_array", "decode_param", "decode_step", "distinct"]

Look = Callable[[int], Phrase]  # gives the phrase of a number
Fetch = Callable[[int, int], Sequence[NDArray]]  # gives so many arrays, from a row of ``array`` on


def decode_step(row: StepRow, parameters: Mapping[str, ParamStep], look: Look) -> Step:
    """Give the step of a row; its parameters are read by whoever made ``parameters``."""
    reals = np.frombuffer(row.reals, "<f8").tolist()
    return Step(
        index=row.number,
        parameters=parameters,
        branches=distinct(look(row.branches)),
        scalars=dict(zip(distinct(look(row.scalars)), reals, strict=True)),
        complete=bool(row.flags & COMPLETE),
        skipped=bool(row.flags & SKIPPED),
        reports=tuple(Finding(*names(report)) for report in to_phrase(row.reports)),
    )


def decode_param(row: ParamRow, look: Look, fetch: Fetch) -> ParamStep:
    """Give the parameter of a row, with the tensors that were kept of it."""
    contributors, absent, tensors, has_total, movers, parts, has_tensor, cells = look(row.layout)
    fqn, all_names, shape = look(row.identity)
    uses = [look(number) for number in np.frombuffer(row.uses, "<u4").tolist()]
    reals = _Reals(row.reals)
    total_norm, residual, scale = reals.take(3).tolist()
    norms = reals.take(len(uses)).tolist()
    gram = reals.square(len(contributors))
    sizes = (len(tensors or ()), bool(has_total), len(parts or ()), bool(has_tensor))
    arrays = iter(fetch(row.first, sum(sizes)) if any(sizes) else ())
    kept = _by_name(tensors, arrays)
    total = next(arrays) if has_total else None
    _check_alike(kept, total)
    delta = None
    if movers is not None:
        norm, parameter_norm, delta_residual = reals.take(3).tolist()
        rule, note = names(look(row.account))
        moved_by = _by_name(parts, arrays)
        moved = next(arrays) if has_tensor else None
        _check_alike(moved_by, moved)
        delta = Delta(
            contributors=distinct(movers),
            gram=reals.square(len(movers)),
            norm=norm,
            parameter_norm=parameter_norm,
            residual=delta_residual,
            rule=rule,
            note=note,
            parts=moved_by,
            tensor=moved,
        )
    terms = None if cells is None else _terms(cells, reals)
    reals.done()
    return ParamStep(
        contributors=distinct(contributors),
        gram=gram,
        total_norm=total_norm,
        absent=names(absent),
        delta=delta,
        fqn=names((fqn,))[0],
        names=names(all_names),
        shape=_sizes(shape),
        residual=residual,
        scale=scale,
        uses=tuple(_use(use, norm) for use, norm in zip(uses, norms, strict=True)),
        terms=terms,
        tensors=kept,
        total_tensor=total,
    )


def _terms(cells: Phrase, reals: _Reals) -> TermTable:
    rows, columns = (distinct(part) for part in cells)
    return TermTable(rows, columns, reals.square(len(rows) * len(columns)))


def decode_array(row: ArrayRow, look: Look) -> NDArray:
    """Give the array of a row: read-only, in the machine's byte order."""
    native = DTYPES[row.dtype]
    flat = np.frombuffer(row.data, native.newbyteorder("<")).astype(native, copy=False)
    return flat.reshape(_sizes(look(row.shape)))


class _Reals:
    """Takes numbers off the front of a blob; says so when they are too few or too many."""

    def __init__(self, blob: bytes) -> None:
        self._rest = np.frombuffer(blob, "<f8").astype(
            np.float64, copy=False
        )  # a swap on big-endian machines

    def take(self, count: int) -> NDArray[np.float64]:
        if count > len(self._rest):
            raise ValueError("it has too few numbers")
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def square(self, side: int) -> Gram:
        return self.take(side * side).reshape(side, side)

    def done(self) -> None:
        if len(self._rest):
            raise ValueError("it has too many numbers")


def names(values: object) -> tuple[str, ...]:
    """Give the names in a phrase, after a look that they are names."""
    if not isinstance(values, tuple) or not all(isinstance(value, str) for value in values):
        raise ValueError("a name is no text")
    return values


def distinct(values: object) -> tuple[str, ...]:
    """Give the names in a phrase, after a look that they are names, and each is there once."""
    found = names(values)
    if len(set(found)) < len(found):
        raise ValueError("a name is there twice")
    return found


def _check_alike(tensors: Mapping[str, NDArray] | None, total: NDArray | None) -> None:
    """Tensors that are summed are of one shape, or numpy would stretch them."""
    shapes = {tensor.shape for tensor in (tensors or {}).values()}
    if len(shapes | ({total.shape} if total is not None else set())) > 1:
        raise ValueError("its tensors are of several shapes")


def _sizes(shape: Phrase) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError("a shape is no list of sizes")
    return shape


def _by_name(phrase: Phrase | None, arrays: Iterator[NDArray]) -> dict[str, NDArray] | None:
    return None if phrase is None else {name: next(arrays) for name in distinct(phrase)}


def _use(phrase: Phrase, norm: float) -> Use:
    branch, call, node = names(phrase[:3])
    return Use(branch, call, node, int(phrase[3]), norm)
