"""Compiled code for the commonest split: two or three parts of a step of Adam, read in one pass.

It does what :func:`gradflow.capture.compiled.weigh` does for any parts, without a buffer: each element of
each tensor is loaded once, and all that is made of it stays in the registers. No compiled function of
another module is called here, for numba would not notice a change in it.

Small functions keep the rounding of torch in what is made of float32, while the sums around them may be taken
in any order: what numba may reorder is settled for each function by itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradflow.capture.compiling import IN_ANY_ORDER, bits, carray, compiled, number, pointer

__all__ = ["weigh_few"]


@compiled(forceinline=True)
def _over_root(second: Any, one: Any, times: Any, root: Any, eps: Any) -> Any:
    return one / (np.sqrt(second) / root + eps) * times  # each rounding as torch rounds


@compiled(forceinline=True)
def _times(left: Any, right: Any) -> Any:
    return left * right


@compiled(forceinline=True)
def _less(left: Any, right: Any) -> Any:
    return left - right


@compiled(forceinline=True)
def _beyond(left_over: Any, theta: Any, slack: Any) -> Any:
    """Give how far parts are from a delta beyond the rounding of the parameter."""
    return abs(left_over) - abs(theta) * slack


@compiled(fastmath=IN_ANY_ORDER)
def weigh_few(where: NDArray, made_of: NDArray, like: NDArray, matrix: NDArray, found: NDArray) -> None:
    """Work out two or three parts that are a tensor each, times the same number over a root; read them.

    ``where``: the ``ends`` of :func:`gradflow.capture.compiled.weigh`, and then where the tensors lie; its
    ``matrix`` and ``found`` are the same. ``made_of``: number, root and eps. What is not a number shows in
    ``matrix`` or in the squares, and nowhere else.
    """
    if matrix.shape[0] == 2:
        _weigh(where, None, made_of, like, matrix, found)
    else:
        _weigh(where, carray(pointer(where[6], like), where[3]), made_of, like, matrix, found)


@compiled(fastmath=IN_ANY_ORDER)
def _weigh(
    where: NDArray, third: NDArray | None, made_of: NDArray, like: NDArray, matrix: NDArray, found: NDArray
) -> None:
    size, kind = where[3], like.dtype.type
    here, there = carray(pointer(where[0], like), size), carray(pointer(where[1], like), size)
    second = carray(pointer(where[2], like), size)
    left, right = carray(pointer(where[4], like), size), carray(pointer(where[5], like), size)
    times, root, eps = kind(made_of[0]), kind(made_of[1]), kind(made_of[2])
    slack, zero, one = kind(2 * np.finfo(like.dtype).eps), kind(0), kind(1)
    most_off = most = bits(zero)
    xx = xy = xz = yy = yz = zz = dd = tt = 0.0
    for i in range(size):
        factor = _over_root(second[i], one, times, root, eps)
        x, y = _times(left[i], factor), _times(right[i], factor)
        delta = _less(here[i], there[i])
        rest, effort = _less(_less(delta, x), y), abs(x) + abs(y)
        dd += np.float64(delta) * np.float64(delta)
        tt += np.float64(there[i]) * np.float64(there[i])
        xx += np.float64(x) * np.float64(x)
        xy += np.float64(x) * np.float64(y)
        yy += np.float64(y) * np.float64(y)
        if third is not None:
            z = _times(third[i], factor)
            rest, effort = _less(rest, z), effort + abs(z)
            xz += np.float64(x) * np.float64(z)
            yz += np.float64(y) * np.float64(z)
            zz += np.float64(z) * np.float64(z)
        most_off = max(most_off, bits(max(_beyond(rest, there[i], slack), zero)))
        most = max(most, bits(effort))
    matrix[0, 0], matrix[1, 1], matrix[0, 1], matrix[1, 0] = xx, yy, xy, xy
    if third is not None:
        matrix[0, 2], matrix[2, 0], matrix[1, 2], matrix[2, 1], matrix[2, 2] = xz, xz, yz, yz, zz
    found[0], found[1], found[2], found[3] = dd, tt, number(most_off), number(most)
