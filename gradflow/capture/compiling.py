"""How functions are compiled that read tensors where they lie, and what numba lacks for it.

What numba has compiled it keeps beside the file of the function, and does not look at this one: whoever
changes something here removes the ``__pycache__`` of this folder before the tests are run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from numba import carray  # type: ignore[attr-defined]  # not among numba's typed exports
from numba.core import types
from numba.extending import intrinsic

__all__ = ["IN_ANY_ORDER", "bits", "carray", "compiled", "number", "pointer"]

IN_ANY_ORDER = {"reassoc", "contract", "nsz"}  # of sums in float64, and of nothing else
_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(**options: Any) -> Callable[[_Function], _Function]:
    """Compile a function for each kind of arguments; in each process anew where nothing can be written."""

    def apply(function: _Function) -> _Function:
        strict = {"fastmath": False}  # else a function that is called takes over what its caller may reorder
        wanted = {"nogil": True, "error_model": "numpy", **strict, **options}
        try:
            return cast("_Function", numba.njit(cache=True, **wanted)(function))
        except RuntimeError:  # no folder for the cache
            return cast("_Function", numba.njit(**wanted)(function))

    return apply


def _take_address(_typing: Any, address: Any, like: Any) -> Any:
    """Take a number as the address of elements of the dtype of ``like``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(like.dtype)(address, like), generate  # type: ignore[no-untyped-call]  # numba's own


pointer: Any = intrinsic(_take_address)


def _take_bits(_typing: Any, number: Any) -> Any:
    """Take the bits of a number as an integer: of numbers that are not negative, larger ones have larger."""
    return types.Integer.from_bitwidth(number.bitwidth)(number), _cast


def _take_number(_typing: Any, bits: Any) -> Any:
    """Take an integer as the bits of a number."""
    number: Any = types.float32 if bits.bitwidth == 32 else types.float64
    return number(bits), _cast


def _cast(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))


bits: Any = intrinsic(_take_bits)
number: Any = intrinsic(_take_number)
