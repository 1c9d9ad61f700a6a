"""The state of a playground: a small frozen dataclass that is read from a dict, checked, and written as one.

A state holds all that is needed to show the same thing again: print it, save it as JSON, give it back.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from gradflow.errors import InvalidArgumentError, did_you_mean

__all__ = ["as_dict", "changed", "check_choice", "check_number", "check_pair", "check_whole", "read"]

Kind = TypeVar("Kind")


def read(kind: type[Kind], given: Mapping[str, Any], where: str) -> Kind:
    """Make a state of a dict; what the dict leaves out starts as it usually does.

    Raises:
        InvalidArgumentError: the dict names something that this state has not, or a value means nothing.
    """
    return changed(kind(), given, where)


def changed(state: Kind, changes: Mapping[str, Any], where: str) -> Kind:
    """Give a state with some of its values replaced.

    Raises:
        InvalidArgumentError: a name or a value means nothing here.
    """
    known = [f.name for f in dataclasses.fields(state)]  # type: ignore[arg-type]  # always a dataclass
    for name in changes:
        if name not in known:
            raise InvalidArgumentError(
                f"{name!r} is no part of this state", where=where, do=did_you_mean(name, known)
            )
    return dataclasses.replace(state, **changes)  # type: ignore[type-var]


def as_dict(state: object) -> dict[str, Any]:
    """Write a state as a dict of what JSON knows."""
    return {
        f.name: _plain(getattr(state, f.name))
        for f in dataclasses.fields(state)  # type: ignore[arg-type]
    }


def _plain(value: Any) -> Any:  # any value of a state
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return value


def check_choice(value: object, known: Iterable[str], what: str, where: str) -> str:
    """Give a value that is one of several words.

    Raises:
        InvalidArgumentError: it is none of them.
    """
    words = list(known)
    if value not in words:
        raise InvalidArgumentError(f"{what}={value!r}", where=where, do=did_you_mean(str(value), words))
    return str(value)


def check_number(value: object, least: float, most: float, what: str, where: str) -> float:
    """Give a number that lies within bounds.

    Raises:
        InvalidArgumentError: it is no number, or outside.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not least <= float(value) <= most:  # type: ignore[arg-type]
        raise InvalidArgumentError(
            f"{what}={value!r}", where=where, do=f"give a number from {least:g} to {most:g}"
        )
    return float(value)  # type: ignore[arg-type]


def check_whole(value: object, least: int, most: int, what: str, where: str) -> int:
    """Give a whole number that lies within bounds.

    Raises:
        InvalidArgumentError: it is not whole, or outside.
    """
    number = check_number(value, least, most, what, where)
    if number != int(number):
        raise InvalidArgumentError(f"{what}={value!r}", where=where, do="give a whole number")
    return int(number)


def check_pair(value: object, most: float, what: str, where: str) -> tuple[float, float]:
    """Give a point of the plane, moved to the nearest edge where it lies outside ``[-most, most]``.

    Raises:
        InvalidArgumentError: it is no pair of finite numbers.
    """
    try:
        x, y = (float(v) for v in value)  # type: ignore[attr-defined]  # what is no iterable raises TypeError
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(
            f"{what}={value!r:.60}", where=where, do="give a pair, such as [0.5, -1.0]"
        ) from error
    if not math.isfinite(x) or not math.isfinite(y):
        raise InvalidArgumentError(f"{what}={value!r:.60}", where=where, do="give finite numbers")
    return max(-most, min(most, x)), max(-most, min(most, y))
