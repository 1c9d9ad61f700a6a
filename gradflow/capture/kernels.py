"""Reading gradients that lie on the host: each element once, in one pass, without a copy.

torch would widen every row to float64 before it multiplies. Compiled code widens in the registers, so the
inner products cost little more than reading the rows, and those of a small row cost next to nothing.
numba compiles it when a recorder first needs it, and keeps the result on disk for the next process; it
compiles anew when this file changes, and does not look at others: so all of it stands here.

Shapes: ``C`` rows, each contiguous and of the same ``n`` real elements (a complex one counts as two).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
import torch
from numba import carray  # type: ignore[attr-defined]  # not among numba's typed exports
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter

__all__ = [
    "Factor",
    "OverRoot",
    "Survey",
    "Weighed",
    "are_readable",
    "gram",
    "is_sum",
    "squares",
    "survey",
    "weigh",
]

_BLOCK = 1024  # elements of a row that are read at a time: three rows of a block stay in the first cache
_TILE = 3  # rows that are multiplied with as many others at a time, so that each is loaded less often
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

_MADE = -1  # stands for the address of a factor that is made block by block
_PLAIN = (Tensor, Parameter)  # no subclass
_IN_ANY_ORDER = {"reassoc", "contract", "nsz"}  # of sums in float64, and of nothing else
_Function = TypeVar("_Function", bound=Callable[..., Any])


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
    _gram(_addresses(rows), _size(rows[0]), _LIKE[rows[0].dtype], matrix)
    return matrix


def squares(rows: Sequence[Tensor]) -> NDArray[np.float64]:
    """Give the square of the 2-norm of each readable row, ``[C]``."""
    found = np.zeros(len(rows))
    _squares(_addresses(rows), _size(rows[0]), _LIKE[rows[0].dtype], found)
    return found


def is_sum(rows: Sequence[Tensor], total: Tensor) -> bool:
    """Tell whether readable rows, added in the given order, are a total to the last bit; NaN equals NaN."""
    return bool(_is_sum(_addresses(rows), total.data_ptr(), _size(total), _LIKE[total.dtype]))


class Survey(NamedTuple):
    """What one pass over rows and their total tells.

    Attributes:
        is_sum: Whether the rows, added in the given order, are the total to the last bit.
        gram: Inner products of what each owner's rows sum to, ``[O, O]``.
        square: Square of the 2-norm of the total, ``[1]``.
        squares: Square of the 2-norm of each row, ``[C]``.
    """

    is_sum: bool
    gram: NDArray[np.float64]
    square: NDArray[np.float64]
    squares: NDArray[np.float64]


def survey(rows: Sequence[Tensor], total: Tensor, owners: Sequence[int] | None = None) -> Survey:
    """Read readable rows and their total once, for all there is to know of them.

    Args:
        rows: The rows.
        total: What they may sum to.
        owners: Whose each row is, numbered from 0 in the order of their first rows; None where each is
            another one's. The rows of an owner are added in the given order, rounded to the dtype.
    """
    like, size, square = _LIKE[total.dtype], _size(total), np.zeros(1)
    count = len(rows) if owners is None else max(owners) + 1
    matrix, addresses = np.zeros((count, count)), _addresses(rows)
    if count == len(rows):
        if count == 1 and rows[0].data_ptr() == total.data_ptr():
            _gram(addresses, size, like, matrix)
            return Survey(True, matrix, matrix[0], matrix[0])
        if 2 <= count <= _TILE:
            found = _survey_few(addresses, total.data_ptr(), size, like, matrix, square)
            is_sum = found or _is_sum(addresses, total.data_ptr(), size, like)  # NaN equals NaN
            return Survey(bool(is_sum), matrix, square, matrix.diagonal())
    squares, whose = np.zeros(len(rows)), np.array(range(count) if owners is None else owners)
    found = _survey(addresses, whose, total.data_ptr(), size, like, matrix, square, squares)
    return Survey(bool(found), matrix, square, squares)


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
    matrix, square, squares = np.zeros((count + 1, count + 1)), np.zeros(1), np.zeros(len(parts))
    ends = np.array([whole.data_ptr(), 0 if rest is None else rest.data_ptr(), _size(whole)], np.int64)
    like = _LIKE[whole.dtype]
    _divide(_addresses(parts), np.array(owners), ends, like, matrix, square, squares)
    is_all = bool(matrix[count, count] == 0)
    return Survey(is_all, matrix[:count, :count] if is_all else matrix, square, squares)


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
    count, most = len(parts), max(map(len, parts), default=0)
    table = np.zeros((2, count, most), np.int64)  # where tensors and factors lie; 0 for none
    numbers, over = np.ones((count, most)), None
    for i, products in enumerate(parts):
        for k, (factor, tensor) in enumerate(products):
            table[0, i, k] = tensor.data_ptr()
            if isinstance(factor, OverRoot):
                table[1, i, k], over = _MADE, factor
            elif isinstance(factor, Tensor):
                table[1, i, k] = factor.data_ptr()
            else:
                numbers[i, k] = factor
    matrix, found = np.zeros((count, count)), np.zeros(4)
    second = 0 if over is None else over.second.data_ptr()
    ends = np.array([after.data_ptr(), before.data_ptr(), second, _size(before)], np.int64)
    made_of = np.zeros(3) if over is None else np.array(over[1:], np.float64)
    _weigh(table, numbers, ends, made_of, _LIKE[before.dtype], matrix, found)
    moved, theta, beyond, effort = found
    residual = np.array([0.0 if beyond == 0 else np.divide(beyond, effort)])
    return Weighed(matrix, np.sqrt([moved, theta]), residual)


def _addresses(rows: Sequence[Tensor]) -> NDArray[np.int64]:
    return np.array([row.data_ptr() for row in rows], np.int64)


def _size(tensor: Tensor) -> int:
    return tensor.numel() * (2 if tensor.is_complex() else 1)


def _compiled(**options: Any) -> Callable[[_Function], _Function]:
    """Compile a function for each kind of arguments; in each process anew where nothing can be written."""

    def compiled(function: _Function) -> _Function:
        wanted = {"nogil": True, "error_model": "numpy", **options}
        try:
            return cast("_Function", numba.njit(cache=True, **wanted)(function))
        except RuntimeError:  # no folder for the cache
            return cast("_Function", numba.njit(**wanted)(function))

    return compiled


def _take_address(_typing: Any, address: Any, like: Any) -> Any:
    """Take a number as the address of elements of the dtype of ``like``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(like.dtype)(address, like), generate  # type: ignore[no-untyped-call]  # numba's own


_pointer: Any = intrinsic(_take_address)


@_compiled()
def _part(address: int, start: int, stop: int, like: NDArray) -> Any:
    return carray(_pointer(address, like), stop)[start:stop]


@_compiled(fastmath=_IN_ANY_ORDER)
def _dot(left: NDArray, right: NDArray) -> float:
    found = 0.0
    for i in range(left.size):
        found += np.float64(left[i]) * np.float64(right[i])
    return found


@_compiled()  # each rounding as the engine rounds
def _adds_up(addresses: NDArray, total: NDArray, start: int, scratch: NDArray) -> bool:
    stop = start + total.size
    first = _part(addresses[0], start, stop, scratch)
    if addresses.size == 1:
        return _is_alike(first, total)
    second = _part(addresses[1], start, stop, scratch)
    for i in range(total.size):
        scratch[i] = first[i] + second[i]
    for k in range(2, addresses.size):
        further = _part(addresses[k], start, stop, scratch)
        for i in range(total.size):
            scratch[i] += further[i]
    return _is_alike(scratch[: total.size], total)


@_compiled()
def _is_alike(here: NDArray, there: NDArray) -> bool:
    unlike = np.int32(0)
    for i in range(there.size):  # without a way out, so that many are compared at once
        unlike += np.int32(here[i] != there[i])
    if unlike != 0:
        for i in range(there.size):
            if here[i] != there[i] and not (np.isnan(here[i]) and np.isnan(there[i])):
                return False
    return True


@_compiled()
def _widen(row: NDArray, wide: NDArray) -> None:
    for i in range(row.size):
        wide[i] = row[i]


@_compiled()
def _multiply(wide: NDArray, size: int, matrix: NDArray) -> None:
    """Add the inner products of the rows of a block, on and below the diagonal, tile by tile."""
    whole = len(wide) // _TILE * _TILE
    for i in range(0, whole, _TILE):
        for j in range(0, i + 1, _TILE):
            a, b, c = wide[i][:size], wide[i + 1][:size], wide[i + 2][:size]
            x, y, z = wide[j][:size], wide[j + 1][:size], wide[j + 2][:size]
            _add_tile(a, b, c, x, y, z, matrix[i : i + _TILE, j : j + _TILE])
    for i in range(whole, len(wide)):
        for j in range(i + 1):
            matrix[i, j] += _dot(wide[i][:size], wide[j][:size])


@_compiled(fastmath=_IN_ANY_ORDER)
def _add_tile(a: NDArray, b: NDArray, c: NDArray, x: NDArray, y: NDArray, z: NDArray, found: NDArray) -> None:
    ax = ay = az = bx = by = bz = cx = cy = cz = 0.0
    for i in range(a.size):
        ax, ay, az = ax + a[i] * x[i], ay + a[i] * y[i], az + a[i] * z[i]
        bx, by, bz = bx + b[i] * x[i], by + b[i] * y[i], bz + b[i] * z[i]
        cx, cy, cz = cx + c[i] * x[i], cy + c[i] * y[i], cz + c[i] * z[i]
    found[0, 0], found[0, 1], found[0, 2] = found[0, 0] + ax, found[0, 1] + ay, found[0, 2] + az
    found[1, 0], found[1, 1], found[1, 2] = found[1, 0] + bx, found[1, 1] + by, found[1, 2] + bz
    found[2, 0], found[2, 1], found[2, 2] = found[2, 0] + cx, found[2, 1] + cy, found[2, 2] + cz


@_compiled()
def _mirror(matrix: NDArray) -> None:
    for i in range(len(matrix)):
        for j in range(i):
            matrix[j, i] = matrix[i, j]


@_compiled()
def _gram(addresses: NDArray, size: int, like: NDArray, matrix: NDArray) -> None:
    if addresses.size == 1:
        row = _part(addresses[0], 0, size, like)
        matrix[0, 0] = _dot(row, row)
        return
    if addresses.size <= 3:
        _survey_few(addresses, addresses[0], size, like, matrix, np.zeros(1))
        return
    wide = np.empty((addresses.size, min(size, _BLOCK)))
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        for i in range(addresses.size):
            _widen(_part(addresses[i], start, stop, like), wide[i])
        _multiply(wide, stop - start, matrix)
    _mirror(matrix)


@_compiled()
def _squares(addresses: NDArray, size: int, like: NDArray, found: NDArray) -> None:
    for i in range(addresses.size):
        row = _part(addresses[i], 0, size, like)
        found[i] = _dot(row, row)


@_compiled()
def _is_sum(addresses: NDArray, total: int, size: int, like: NDArray) -> bool:
    scratch = np.empty(min(size, _BLOCK), like.dtype)
    for start in range(0, size, _BLOCK):
        if not _adds_up(addresses, _part(total, start, min(start + _BLOCK, size), like), start, scratch):
            return False
    return True


@_compiled()
def _survey_few(
    addresses: NDArray, total: int, size: int, like: NDArray, matrix: NDArray, square: NDArray
) -> bool:
    """Read two or three rows and their total, without a buffer."""
    whole = _part(total, 0, size, like)
    first, second = _part(addresses[0], 0, size, like), _part(addresses[1], 0, size, like)
    if addresses.size == 2:
        return _survey_two(first, second, whole, matrix, square)
    return _survey_three(first, second, _part(addresses[2], 0, size, like), whole, matrix, square)


@_compiled(fastmath=_IN_ANY_ORDER)
def _survey_two(first: NDArray, second: NDArray, total: NDArray, matrix: NDArray, square: NDArray) -> bool:
    aa = ab = bb = tt = 0.0
    unlike = np.int32(0)
    for i in range(total.size):
        unlike |= _is_off(_add(first[i], second[i]), total[i])
        a, b, t = np.float64(first[i]), np.float64(second[i]), np.float64(total[i])
        aa, ab, bb, tt = aa + a * a, ab + a * b, bb + b * b, tt + t * t
    matrix[0, 0], matrix[1, 1], square[0] = aa, bb, tt
    matrix[0, 1] = matrix[1, 0] = ab
    return bool(unlike == 0)


@_compiled(fastmath=_IN_ANY_ORDER)
def _survey_three(
    first: NDArray, second: NDArray, third: NDArray, total: NDArray, matrix: NDArray, square: NDArray
) -> bool:
    aa = ab = ac = bb = bc = cc = tt = 0.0
    unlike = np.int32(0)
    for i in range(total.size):
        unlike |= _is_off(_add(_add(first[i], second[i]), third[i]), total[i])
        a, b, c = np.float64(first[i]), np.float64(second[i]), np.float64(third[i])
        t = np.float64(total[i])
        aa, ab, ac, bb = aa + a * a, ab + a * b, ac + a * c, bb + b * b
        bc, cc, tt = bc + b * c, cc + c * c, tt + t * t
    matrix[0, 0], matrix[1, 1], matrix[2, 2], square[0] = aa, bb, cc, tt
    matrix[0, 1] = matrix[1, 0] = ab
    matrix[0, 2] = matrix[2, 0] = ac
    matrix[1, 2] = matrix[2, 1] = bc
    return bool(unlike == 0)


@_compiled()  # rounded as the engine rounds, although its callers add in any order
def _add(here: float, there: float) -> float:
    return here + there


@_compiled()
def _is_off(here: float, there: float) -> Any:  # a number of numpy's
    return np.int32(here != there)


@_compiled()
def _survey(
    addresses: NDArray,
    owners: NDArray,
    total: int,
    size: int,
    like: NDArray,
    matrix: NDArray,
    square: NDArray,
    squares: NDArray,
) -> bool:
    count, is_sum = len(matrix), True
    scratch, sums = np.empty(min(size, _BLOCK), like.dtype), np.empty((count, min(size, _BLOCK)), like.dtype)
    wide = np.empty(sums.shape)
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        whole = _part(total, start, stop, like)
        is_sum &= _adds_up(addresses, whole, start, scratch)
        square[0] += _dot(whole, whole)
        _widen_by_owner(addresses, owners, start, stop, sums, squares, wide[:count])
        _multiply(wide, whole.size, matrix)
    _mirror(matrix)
    if addresses.size == count:
        squares[:] = np.diag(matrix)
    return is_sum


@_compiled()
def _widen_by_owner(
    addresses: NDArray, owners: NDArray, start: int, stop: int, sums: NDArray, squares: NDArray, wide: NDArray
) -> None:
    """Widen what a block of the rows of each owner sums to; of several rows, count the square of each."""
    size = stop - start
    if addresses.size == len(wide):  # each has one, in this order
        for k in range(addresses.size):
            _widen(_part(addresses[k], start, stop, sums), wide[k])
        return
    known = 0
    for k in range(addresses.size):
        row, own = _part(addresses[k], start, stop, sums), sums[owners[k]]
        squares[k] += _dot(row, row)
        if owners[k] == known:
            known += 1
            for i in range(size):
                own[i] = row[i]
        else:
            for i in range(size):
                own[i] += row[i]
    for c in range(len(wide)):
        _widen(sums[c][:size], wide[c])


@_compiled()
def _divide(
    addresses: NDArray,
    owners: NDArray,
    ends: NDArray,
    like: NDArray,
    matrix: NDArray,
    square: NDArray,
    squares: NDArray,
) -> None:
    """Read parts and what they leave; ``ends``: where the whole and what is left lie, and their size."""
    total, left_to, size = ends
    last = len(matrix) - 1
    sums = np.empty((last, min(size, _BLOCK)), like.dtype)
    wide, left = np.empty((last + 1, min(size, _BLOCK))), np.empty(min(size, _BLOCK), like.dtype)
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        whole = _part(total, start, stop, like)
        square[0] += _dot(whole, whole)
        _widen_by_owner(addresses, owners, start, stop, sums, squares, wide[:last])
        left[: whole.size] = whole
        for k in range(addresses.size):
            row = _part(addresses[k], start, stop, like)
            for i in range(row.size):
                left[i] -= row[i]
        if left_to != 0:
            _part(left_to, start, stop, like)[:] = left[: whole.size]
        _widen(left[: whole.size], wide[last])
        _multiply(wide, whole.size, matrix)
    _mirror(matrix)
    if addresses.size == last:
        squares[:] = np.diag(matrix)[:last]


@_compiled()
def _weigh(
    table: NDArray,
    numbers: NDArray,
    ends: NDArray,
    made_of: NDArray,
    like: NDArray,
    matrix: NDArray,
    found: NDArray,
) -> None:
    """Weigh parts.

    ``ends``: where the parameter lies after and before the step, and what a factor is made of; and the size.
    """
    after, before, second, size = ends
    count = table.shape[1]
    parts = np.empty((count, min(size, _BLOCK)), like.dtype)
    wide = np.empty(parts.shape)
    moved, made = np.empty(min(size, _BLOCK), like.dtype), np.empty(min(size, _BLOCK), like.dtype)
    effort, most_off, most = np.empty_like(moved), np.zeros_like(moved), np.zeros_like(moved)
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        here, there = _part(after, start, stop, like), _part(before, start, stop, like)
        delta = moved[: stop - start]
        for i in range(delta.size):
            delta[i] = here[i] - there[i]
        found[0] += _dot(delta, delta)
        found[1] += _dot(there, there)
        if second != 0:
            _make(_part(second, start, stop, like), made_of, made)
        for c in range(count):
            part = parts[c][: delta.size]
            _multiply_out(part, table[:, c], numbers[c], start, made)
            _widen(part, wide[c])
        _multiply(wide, delta.size, matrix)
        if not _compare(delta, parts, there, effort, most_off, most):
            found[2] = np.inf  # what is not a number is as far off as can be
    _mirror(matrix)
    found[2], found[3] = max(found[2], most_off.max()), most.max()


@_compiled()
def _make(second: NDArray, made_of: NDArray, made: NDArray) -> None:
    """Make a block of a factor that is a number over a root, rounded as torch rounds it."""
    kind = made.dtype.type
    number, root, eps = kind(made_of[0]), kind(made_of[1]), kind(made_of[2])
    for i in range(second.size):
        made[i] = number / (np.sqrt(second[i]) / root + eps)


@_compiled()
def _multiply_out(part: NDArray, table: NDArray, numbers: NDArray, start: int, made: NDArray) -> None:
    """Sum the products of one contributor, rounded as torch rounds them."""
    stop = start + part.size
    part[:] = 0
    for k in range(numbers.size):
        if table[0, k] == 0:
            break
        tensor = _part(table[0, k], start, stop, part)
        if table[1, k] == 0:
            number = part.dtype.type(numbers[k])
            for i in range(part.size):
                part[i] += number * tensor[i]
            continue
        factor = made[: part.size] if table[1, k] == _MADE else _part(table[1, k], start, stop, part)
        for i in range(part.size):
            part[i] += factor[i] * tensor[i]


@_compiled()
def _compare(
    delta: NDArray, parts: NDArray, theta: NDArray, effort: NDArray, most_off: NDArray, most: NDArray
) -> bool:
    """See how far parts are from a delta beyond the rounding of the parameter; ``delta`` is used up.

    What was most so far is kept for each place of a block, for that takes no comparing across places.
    Tells whether all of it are numbers.
    """
    slack = delta.dtype.type(2 * np.finfo(delta.dtype).eps)
    effort[:] = 0
    for c in range(len(parts)):
        part = parts[c]
        for i in range(delta.size):
            delta[i] -= part[i]
            effort[i] += abs(part[i])
    unlike = np.int32(0)
    for i in range(delta.size):
        off = abs(delta[i]) - abs(theta[i]) * slack
        most_off[i] = off if off > most_off[i] else most_off[i]
        most[i] = effort[i] if effort[i] > most[i] else most[i]
        unlike |= np.int32(np.isnan(off))
    return bool(unlike == 0)
