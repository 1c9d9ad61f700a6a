"""The compiled code that reads gradients where they lie; what calls it is :mod:`gradflow.capture.kernels`.

numba compiles a function when it is first called, and keeps the result on disk for the next process. It
compiles anew when this file changes and does not look at others, so all that calls one another stands here.

Memory is told of by addresses; ``like`` is an empty array of the dtype that lies there. Shapes: ``C`` rows of
``n`` elements each, one after another. Results are added to arrays that the caller made, of zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradflow.capture.compiling import IN_ANY_ORDER, carray, compiled, pointer

__all__ = ["MADE", "divide", "gram", "is_sum", "make", "squares", "survey", "survey_few", "weigh"]

_BLOCK = 1024  # elements of a row that are read at a time: three rows of a block stay in the first cache
_TILE = 3  # rows that are multiplied with as many others at a time, so that each is loaded less often
MADE = -1  # stands for the address of a factor that is made block by block


@compiled()
def _part(address: int, start: int, stop: int, like: NDArray) -> Any:
    return carray(pointer(address, like), stop)[start:stop]


@compiled(fastmath=IN_ANY_ORDER)
def _dot(left: NDArray, right: NDArray) -> float:
    found = 0.0
    for i in range(left.size):
        found += np.float64(left[i]) * np.float64(right[i])
    return found


@compiled()  # each rounding as the engine rounds
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


@compiled()
def _is_alike(here: NDArray, there: NDArray) -> bool:
    unlike = np.int32(0)
    for i in range(there.size):  # without a way out, so that many are compared at once
        unlike += np.int32(here[i] != there[i])
    if unlike != 0:
        for i in range(there.size):
            if here[i] != there[i] and not (np.isnan(here[i]) and np.isnan(there[i])):
                return False
    return True


@compiled()
def _widen(row: NDArray, wide: NDArray) -> None:
    for i in range(row.size):
        wide[i] = row[i]


@compiled()
def _multiply(wide: NDArray, size: int, matrix: NDArray) -> None:
    """Add the inner products of the rows of a block, on and below the diagonal, tile by tile."""
    whole = len(wide) // _TILE * _TILE
    for i in range(0, whole, _TILE):
        for j in range(0, i + 1, _TILE):
            _add_tile(wide, i, j, size, matrix[i : i + _TILE, j : j + _TILE])
    for i in range(whole, len(wide)):
        for j in range(i + 1):
            matrix[i, j] += _dot(wide[i][:size], wide[j][:size])


@compiled(fastmath=IN_ANY_ORDER)
def _add_tile(wide: NDArray, i: int, j: int, size: int, found: NDArray) -> None:
    a, b, c = wide[i][:size], wide[i + 1][:size], wide[i + 2][:size]
    x, y, z = wide[j][:size], wide[j + 1][:size], wide[j + 2][:size]
    ax = ay = az = bx = by = bz = cx = cy = cz = 0.0
    for k in range(size):
        ax, ay, az = ax + a[k] * x[k], ay + a[k] * y[k], az + a[k] * z[k]
        bx, by, bz = bx + b[k] * x[k], by + b[k] * y[k], bz + b[k] * z[k]
        cx, cy, cz = cx + c[k] * x[k], cy + c[k] * y[k], cz + c[k] * z[k]
    found[0, 0], found[0, 1], found[0, 2] = found[0, 0] + ax, found[0, 1] + ay, found[0, 2] + az
    found[1, 0], found[1, 1], found[1, 2] = found[1, 0] + bx, found[1, 1] + by, found[1, 2] + bz
    found[2, 0], found[2, 1], found[2, 2] = found[2, 0] + cx, found[2, 1] + cy, found[2, 2] + cz


@compiled()
def _mirror(matrix: NDArray) -> None:
    for i in range(len(matrix)):
        matrix[:i, i] = matrix[i, :i]


@compiled()
def gram(addresses: NDArray, size: int, like: NDArray, matrix: NDArray) -> None:
    """Take the inner products of rows, ``[C, C]``."""
    if addresses.size == 1:
        squares(addresses, size, like, matrix[0])
        return
    if addresses.size <= 3:
        _read_few(addresses, addresses[0], size, like, matrix, np.zeros(1))
        return
    wide = np.empty((addresses.size, min(size, _BLOCK)))
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        for i in range(addresses.size):
            _widen(_part(addresses[i], start, stop, like), wide[i])
        _multiply(wide, stop - start, matrix)
    _mirror(matrix)


@compiled()
def squares(addresses: NDArray, size: int, like: NDArray, found: NDArray) -> None:
    """Take the square of the 2-norm of each row, ``[C]``."""
    for i in range(addresses.size):
        row = _part(addresses[i], 0, size, like)
        found[i] = _dot(row, row)


@compiled()
def is_sum(addresses: NDArray, total: int, size: int, like: NDArray) -> bool:
    """Tell whether rows, added in their order, are a total to the last bit; NaN equals NaN."""
    scratch = np.empty(min(size, _BLOCK), like.dtype)
    for start in range(0, size, _BLOCK):
        if not _adds_up(addresses, _part(total, start, min(start + _BLOCK, size), like), start, scratch):
            return False
    return True


@compiled()
def survey_few(rows: Any, total: int, size: int, step: int, like: NDArray, numbers: NDArray) -> int:
    """Read up to three rows, each another contributor's, and their total, without a buffer.

    ``rows``: where they lie, three addresses of which 0 is none. ``numbers`` and what is told: as in
    :func:`survey`.
    """
    count = 3 if rows[2] != 0 else 2 if rows[1] != 0 else 1
    addresses = np.array(rows)[:count]
    matrix, square = numbers[1 : 1 + count * count].reshape(count, count), numbers[:1]
    whole = _part(total, 0, size, like)
    if count == 1:
        squares(addresses, size, like, matrix[0])
        square[0] = matrix[0, 0] if rows[0] == total else _dot(whole, whole)
        is_all = rows[0] == total or is_sum(addresses, total, size, like)
    else:
        is_all = _read_few(addresses, total, size, like, matrix, square)
        is_all = is_all or is_sum(addresses, total, size, like)  # NaN equals NaN
    rest = numbers[1 + count * count :]
    rest[:count] = np.diag(matrix)
    _take(whole, step, rest[count:])
    return int(is_all) | int(np.isfinite(square[0])) << 1


@compiled()
def _take(row: NDArray, step: int, found: NDArray) -> None:
    for i in range(found.size):
        found[i] = row[i * step]


@compiled()
def _read_few(
    addresses: NDArray, total: int, size: int, like: NDArray, matrix: NDArray, square: NDArray
) -> bool:
    """Read two or three rows and their total: tells whether they are the total, where all are numbers."""
    whole = _part(total, 0, size, like)
    first, second = _part(addresses[0], 0, size, like), _part(addresses[1], 0, size, like)
    if addresses.size == 2:
        return _survey_two(first, second, whole, matrix, square)
    return _survey_three(first, second, _part(addresses[2], 0, size, like), whole, matrix, square)


@compiled(fastmath=IN_ANY_ORDER)
def _survey_two(first: NDArray, second: NDArray, total: NDArray, matrix: NDArray, square: NDArray) -> bool:
    aa = ab = bb = tt = 0.0
    unlike = np.int32(0)
    for i in range(total.size):
        unlike |= np.int32(_add(first[i], second[i]) != total[i])
        a, b, t = np.float64(first[i]), np.float64(second[i]), np.float64(total[i])
        aa, ab, bb, tt = aa + a * a, ab + a * b, bb + b * b, tt + t * t
    matrix[0, 0], matrix[1, 1], square[0] = aa, bb, tt
    matrix[0, 1] = matrix[1, 0] = ab
    return bool(unlike == 0)


@compiled(fastmath=IN_ANY_ORDER)
def _survey_three(
    first: NDArray, second: NDArray, third: NDArray, total: NDArray, matrix: NDArray, square: NDArray
) -> bool:
    aa = ab = ac = bb = bc = cc = tt = 0.0
    unlike = np.int32(0)
    for i in range(total.size):
        unlike |= np.int32(_add(_add(first[i], second[i]), third[i]) != total[i])
        a, b, c, t = np.float64(first[i]), np.float64(second[i]), np.float64(third[i]), np.float64(total[i])
        aa, ab, ac, bb = aa + a * a, ab + a * b, ac + a * c, bb + b * b
        bc, cc, tt = bc + b * c, cc + c * c, tt + t * t
    matrix[0, 0], matrix[1, 1], matrix[2, 2], square[0] = aa, bb, cc, tt
    matrix[1, 0], matrix[2, 0], matrix[2, 1] = ab, ac, bc
    _mirror(matrix)
    return bool(unlike == 0)


@compiled()  # rounded as the engine rounds, although its callers add in any order
def _add(here: float, there: float) -> float:
    return here + there


@compiled()
def survey(addresses: NDArray, owners: NDArray, ends: NDArray, like: NDArray, numbers: NDArray) -> int:
    """Read rows and their total.

    ``owners``: whose each row is; ``ends``: where the total lies, its size, how far apart the elements of the
    sample are, and the number of owners. ``numbers`` is filled: square of the total, inner products of what
    each owner's rows sum to, square of each row, and a sample of the total. Tells in bits whether the rows
    are the total (1), and whether its square is a number (2).
    """
    total, size, step, count = ends
    numbers[:] = 0
    matrix = numbers[1 : 1 + count * count].reshape(count, count)
    rest = numbers[1 + count * count :]
    squares, is_all = rest[: addresses.size], True
    scratch, sums = np.empty(min(size, _BLOCK), like.dtype), np.empty((count, min(size, _BLOCK)), like.dtype)
    wide = np.empty(sums.shape)
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        whole = _part(total, start, stop, like)
        is_all &= _adds_up(addresses, whole, start, scratch)
        numbers[0] += _dot(whole, whole)
        _widen_by_owner(addresses, owners, (start, stop), sums, squares, wide)
        _multiply(wide, whole.size, matrix)
    _mirror(matrix)
    if addresses.size == count:
        squares[:] = np.diag(matrix)
    _take(_part(total, 0, size, like), step, rest[addresses.size :])
    return int(is_all) | int(np.isfinite(numbers[0])) << 1


@compiled()
def _widen_by_owner(
    addresses: NDArray, owners: NDArray, span: Any, sums: NDArray, squares: NDArray, wide: NDArray
) -> None:
    """Widen what a block of the rows of each owner sums to; of several rows, count the square of each."""
    (start, stop), size = span, span[1] - span[0]
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


@compiled()
def divide(
    addresses: NDArray, owners: NDArray, ends: NDArray, like: NDArray, matrix: NDArray, found: NDArray
) -> None:
    """Read parts and what they leave of a whole; the rest as in :func:`survey`.

    ``ends``: where the whole lies, where to put what is left (0: nowhere), and their size. The last row of
    ``matrix`` is that of what is left.
    """
    total, left_to, size = ends
    last, squares = len(matrix) - 1, found[1:]
    sums = np.empty((last, min(size, _BLOCK)), like.dtype)
    wide, left = np.empty((last + 1, min(size, _BLOCK))), np.empty(min(size, _BLOCK), like.dtype)
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        whole = _part(total, start, stop, like)
        found[0] += _dot(whole, whole)
        _widen_by_owner(addresses, owners, (start, stop), sums, squares, wide[:last])
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


@compiled()
def weigh(
    table: NDArray, numbers: NDArray, ends: NDArray, like: NDArray, matrix: NDArray, found: NDArray
) -> None:
    """Work out the parts of a delta, and read them against it.

    ``table``: where the tensors lie whose products sum to a part, and their factors, ``[2, C, products]``; 0
    stands for none, ``MADE`` for one made block by block. ``numbers``: factors that are numbers; the last row
    is what a factor is made of. ``ends``: where the parameter lies after and before the step, what a factor
    is made of (0: nothing), their size. ``found``: squares of the delta and of the parameter before, how far
    the parts are off beyond rounding, the largest effort.
    """
    after, before, second, size = ends
    count = table.shape[1]
    parts, wide = np.empty((count, min(size, _BLOCK)), like.dtype), np.empty((count, min(size, _BLOCK)))
    moved, made, effort = np.empty_like(parts[0]), np.empty_like(parts[0]), np.empty_like(parts[0])
    most_off, most = np.zeros_like(moved), np.zeros_like(moved)
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        here, there = _part(after, start, stop, like), _part(before, start, stop, like)
        delta = moved[: stop - start]
        for i in range(delta.size):
            delta[i] = here[i] - there[i]
        found[0] += _dot(delta, delta)
        found[1] += _dot(there, there)
        if second != 0:
            _make(_part(second, start, stop, like), numbers[-1], made)
        for c in range(count):
            part = parts[c][: delta.size]
            _multiply_out(part, table[:, c], numbers[c], start, made)
            _widen(part, wide[c])
        _multiply(wide, delta.size, matrix)
        if not _compare(delta, parts, there, effort, most_off, most):
            found[2] = np.inf  # what is not a number is as far off as can be
    _mirror(matrix)
    found[2], found[3] = max(found[2], most_off.max()), most.max()


@compiled()
def make(second: int, made: int, size: int, like: NDArray, made_of: NDArray) -> None:
    """Make a factor that is a number over a root, of what lies at ``second``; see :func:`weigh`."""
    _make(_part(second, 0, size, like), made_of, _part(made, 0, size, like))


@compiled()
def _make(second: NDArray, made_of: NDArray, made: NDArray) -> None:
    """Make a block of a factor that is a number over a root, rounded as torch rounds it."""
    kind = made.dtype.type
    number, root, eps = kind(made_of[0]), kind(made_of[1]), kind(made_of[2])
    for i in range(second.size):
        made[i] = kind(1) / (np.sqrt(second[i]) / root + eps) * number


@compiled()
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
        factor = made[: part.size] if table[1, k] == MADE else _part(table[1, k], start, stop, part)
        for i in range(part.size):
            part[i] += factor[i] * tensor[i]


@compiled()
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
