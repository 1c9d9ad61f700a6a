"""Reading gradients that lie on the host: each element once, in one pass, without a copy.

torch would widen every row to float64 before it multiplies. Compiled code widens in the registers, so the
inner products cost little more than reading the rows, and those of a small row cost next to nothing. It
stands in :mod:`gradflow.capture.compiled`, and is loaded when something is read first.

Shapes: ``C`` rows, each without gaps and of the same ``n`` real elements (a complex one counts as two).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter

__all__ = [
    "Factor",
    "OverRoot",
    "Survey",
    "Weighed",
    "are_readable",
    "divide",
    "gram",
    "is_sum",
    "make",
    "squares",
    "survey",
    "weigh",
]

_LIKE: dict[torch.dtype, NDArray] = {
    torch.float32: np.empty(0, np.float32),
    torch.float64: np.empty(0, np.float64),
    torch.complex64: np.empty(0, np.float32),
    torch.complex128: np.empty(0, np.float64),
}  # an empty array tells the compiled code what it reads


class OverRoot(NamedTuple):
    """A factor ``number / (sqrt(second) / root + eps)``, worked out element by element."""

    second: Tensor
    number: float
    root: float
    eps: float


Factor = float | Tensor | OverRoot
Products = Sequence[tuple[Factor, Tensor]]
"""What sums to a part: each a tensor, and what multiplies it."""

_PLAIN = (Tensor, Parameter)  # no subclass
_FEW = 3  # rows that are read without a buffer


def are_readable(tensors: Sequence[Tensor]) -> bool:
    """Tell whether the compiled code can read tensors where they lie.

    That is: of one dtype and size, on the host, without gaps, and their elements in the same order.
    """
    first = tensors[0]
    dtype, size = first.dtype, first.numel()
    strides = None if first.is_contiguous() else first.stride()  # None: in the order of their shape
    if dtype not in _LIKE or not (strides is None or _is_without_gaps(first)):
        return False
    for tensor in tensors:
        if (
            type(tensor) not in _PLAIN
            or tensor.dtype != dtype
            or tensor.numel() != size
            or not tensor.is_cpu
            or tensor.layout != torch.strided
            or (not tensor.is_contiguous() if strides is None else tensor.stride() != strides)
            or tensor.is_neg()
            or (dtype.is_complex and tensor.is_conj())
        ):
            return False
    return True


def _is_without_gaps(tensor: Tensor) -> bool:
    """Tell whether a tensor fills its stretch of memory, in whatever order: a gradient may be turned."""
    if tensor.layout != torch.strided:
        return False
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def gram(rows: Sequence[Tensor]) -> NDArray[np.float64]:
    """Give the inner products of readable rows, ``[C, C]``; real parts for complex ones."""
    matrix = np.zeros((len(rows), len(rows)))
    _code().gram(_addresses(rows), _size(rows[0]), _LIKE[rows[0].dtype], matrix)
    return matrix


def squares(rows: Sequence[Tensor]) -> NDArray[np.float64]:
    """Give the square of the 2-norm of each readable row, ``[C]``."""
    found = np.zeros(len(rows))
    _code().squares(_addresses(rows), _size(rows[0]), _LIKE[rows[0].dtype], found)
    return found


def is_sum(rows: Sequence[Tensor], total: Tensor) -> bool:
    """Tell whether readable rows, added in the given order, are a total to the last bit; NaN equals NaN."""
    return bool(_code().is_sum(_addresses(rows), total.data_ptr(), _size(total), _LIKE[total.dtype]))


class Survey:
    """What one pass over rows and their total tells.

    The numbers lie in one array, and each is taken from it when it is asked for. The compiled code fills it
    in the order that is given here, and :func:`divide` puts it together in that order. Once nobody asks any
    more, the array may be given to another survey.

    Args:
        numbers: Square of the total, ``[1]``; inner products, ``[O * O]``; square of each row, ``[C]``; a
            sample of the total, of any size.
        owners: How many contributors ``O`` the inner products are of.
        rows: How many rows ``C`` were read.
        tells: Whether they are the total (1), and whether its square is a number (2).
    """

    __slots__ = ("_rows", "has_sample", "is_finite", "is_sum", "numbers", "owners")

    def __init__(self, numbers: NDArray[np.float64], owners: int, rows: int, tells: int) -> None:
        self.numbers, self.owners, self._rows = numbers, owners, rows
        self.has_sample = len(numbers) > 1 + owners * owners + rows
        self.is_sum = tells & 1 == 1
        self.is_finite = tells & 2 == 2

    @property
    def square(self) -> NDArray[np.float64]:
        """Square of the 2-norm of the total, ``[1]``."""
        return self.numbers[:1]

    @property
    def gram(self) -> NDArray[np.float64]:
        """Inner products of what each owner's rows sum to, ``[O, O]``; an array of its own."""
        return self.numbers[1 : 1 + self.owners**2].reshape(self.owners, self.owners).copy()

    @property
    def squares(self) -> NDArray[np.float64]:
        """Square of the 2-norm of each row, ``[C]``."""
        start = 1 + self.owners**2
        return self.numbers[start : start + self._rows]

    def measures(self) -> NDArray[np.float64]:
        """Give all but the sample, an array of its own: square of the total, inner products, squares."""
        return self.numbers[: 1 + self.owners**2 + self._rows].copy()

    def lengths(self) -> list[float]:
        """Give the 2-norm of each row."""
        return [math.sqrt(square) for square in self.squares.tolist()]

    @property
    def sample(self) -> NDArray[np.float64]:
        """Every so-many-th element of the total; none where none were asked for, or none can be had."""
        return self.numbers[1 + self.owners**2 + self._rows :]


def survey(
    rows: Sequence[Tensor],
    total: Tensor,
    owners: Sequence[int] | None = None,
    *,
    sampled_by: int = 0,
    room: NDArray[np.float64] | None = None,
) -> Survey:
    """Read readable rows and their total once, for all there is to know of them.

    Args:
        rows: The rows.
        total: What they may sum to.
        owners: Whose each row is, numbered from 0 in the order of their first rows; None where each is
            another one's. The rows of an owner are added in the given order, rounded to the dtype.
        sampled_by: Keep every so-many-th element of the total, if it is real and in the order of its shape;
            0 for none.
        room: An array that nobody needs any more, to be written over if it is of the right size; to get one
            anew between the user's own large tensors costs time, and breaks up the memory that these leave.
    """
    like, size, addresses = _LIKE[total.dtype], _size(total), [row.data_ptr() for row in rows]
    count, read = len(rows) if owners is None else max(owners) + 1, len(rows)
    is_sampled = sampled_by > 0 and total.is_contiguous() and not total.is_complex()
    samples = -(-size // sampled_by) if is_sampled else 0
    needed = 1 + count * count + read + samples
    numbers = np.empty(needed) if room is None or room.size != needed else room
    if size and count == read <= _FEW:  # of no elements there is no address
        where = (*addresses, 0, 0)[:_FEW]
        tells = _code().survey_few(where, total.data_ptr(), size, sampled_by, like, numbers)
    else:
        whose = np.array(range(count) if owners is None else owners)
        ends = np.array([total.data_ptr(), size, sampled_by, count])
        tells = _code().survey(np.array(addresses, np.int64), whose, ends, like, numbers)
    return Survey(numbers, count, read, tells)


def divide(
    parts: Sequence[Tensor], whole: Tensor, owners: Sequence[int], rest: Tensor | None = None
) -> Survey:
    """Read the parts that a tensor was divided into, and what they leave of it.

    Args:
        parts: The parts; readable.
        whole: What they are parts of.
        owners: Whose each part is, as in :func:`survey`.
        rest: Where to put ``whole`` less each part in the given order; None to put it nowhere.

    Returns:
        Whether nothing is left; inner products of what each owner has and, in the last row where there is
        something, of what is left; squares of the whole and of each part.
    """
    count = max(owners) + 1
    matrix, found = np.zeros((count + 1, count + 1)), np.zeros(1 + len(parts))
    ends = np.array([whole.data_ptr(), 0 if rest is None else rest.data_ptr(), _size(whole)], np.int64)
    like = _LIKE[whole.dtype]
    _code().divide(_addresses(parts), np.array(owners), ends, like, matrix, found)
    is_all = bool(matrix[count, count] == 0)
    matrix = matrix[:count, :count] if is_all else matrix
    numbers = np.concatenate([found[:1], matrix.ravel(), found[1:]])
    return Survey(numbers, len(matrix), len(parts), is_all | int(np.isfinite(found[0])) << 1)


class Weighed(NamedTuple):
    """What one pass over the parts of a delta tells.

    Attributes:
        gram: Inner products of the parts, ``[C, C]``.
        norms: 2-norms of the delta and of the parameter before it, ``[2]``.
        residual: How far the parts are from the delta beyond the rounding of the parameter, relative to
            the largest effort, ``[1]``.
    """

    gram: NDArray[np.float64]
    norms: NDArray[np.float64]
    residual: NDArray[np.float64]


def weigh(parts: Sequence[Products], after: Tensor, before: Tensor) -> Weighed:
    """Work out the parts of a delta block by block, and read them against the delta; none of them is kept.

    Args:
        parts: Of each contributor, the products that sum to its part: a readable tensor, and what multiplies
            it: a number, a readable tensor, or a number over the root of one, the same for all. Each step is
            rounded to the dtype, as torch would round it; the dtype is real.
        after: The parameter after the step.
        before: The parameter before the step.
    """
    count, most = len(parts), max(3, *map(len, parts))
    table = np.zeros((2, count, most), np.int64)  # where tensors and factors lie; 0 for none
    numbers, over = np.ones((count + 1, most)), None
    for i, products in enumerate(parts):
        for k, (factor, tensor) in enumerate(products):
            table[0, i, k] = tensor.data_ptr()
            if isinstance(factor, OverRoot):
                table[1, i, k], over = _code().MADE, factor
            elif isinstance(factor, Tensor):
                table[1, i, k] = factor.data_ptr()
            else:
                numbers[i, k] = factor
    matrix, found, like = np.zeros((count, count)), np.zeros(4), _LIKE[before.dtype]
    second = 0 if over is None else over.second.data_ptr()
    ends = np.array([after.data_ptr(), before.data_ptr(), second, _size(before)], np.int64)
    if over is not None:
        numbers[count, :3] = over[1:]
    if not _weigh_few(table, numbers, ends, like, matrix, found):
        matrix[:], found[:] = 0, 0
        _code().weigh(table, numbers, ends, like, matrix, found)
    moved, theta, beyond, effort = found
    residual = np.array([0.0 if beyond == 0 else np.divide(beyond, effort)])
    return Weighed(matrix, np.sqrt([moved, theta]), residual)


def _weigh_few(
    table: NDArray, numbers: NDArray, ends: NDArray, like: NDArray, matrix: NDArray, found: NDArray
) -> bool:
    """Do it in one pass where parts are few, and each a tensor times the factor that is made; tell if so."""
    tensors, factors = table
    is_plain = len(tensors) in (2, 3) and not tensors[:, 1:].any() and (factors[:, 0] == _code().MADE).all()
    if is_plain:
        from gradflow.capture.weighing import weigh_few  # loads numba, as _code() does

        weigh_few(np.concatenate([ends, tensors[:, 0]]), numbers[-1], like, matrix, found)
    return bool(is_plain and np.isfinite(matrix).all() and np.isfinite(found).all())


def make(over: OverRoot) -> Tensor:
    """Give a number over the root of a readable tensor, rounded as :func:`weigh` rounds it."""
    made = torch.empty_like(over.second)
    numbers = np.array(over[1:], np.float64)
    size, like = _size(made), _LIKE[made.dtype]
    _code().make(over.second.data_ptr(), made.data_ptr(), size, like, numbers)
    return made


def _addresses(rows: Sequence[Tensor]) -> NDArray[np.int64]:
    return np.array([row.data_ptr() for row in rows], np.int64)


def _size(tensor: Tensor) -> int:
    return tensor.numel() * (2 if tensor.is_complex() else 1)


@functools.cache
def _code() -> ModuleType:
    """Give the compiled code: numba takes a third of a second to load."""
    from gradflow.capture import compiled

    return compiled
