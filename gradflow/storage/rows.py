"""Rows of the tables of a recording file, their checksums, and the phrases they refer to.

Whatever repeats from step to step (FQNs, names of contributors and uses, shapes) is a *phrase*: written
once as JSON, and a number ever after. What changes from step to step is little-endian float64 in one
blob a parameter. Each row ends with a checksum over all its other columns, so that a damaged number is
told and never shown.
"""

from __future__ import annotations

import json
import zlib
from typing import Any, NamedTuple, TypeVar, get_type_hints

import numpy as np

__all__ = [
    "COLUMNS",
    "COMPLETE",
    "DTYPES",
    "SKIPPED",
    "TABLES",
    "ArrayRow",
    "ParamRow",
    "Phrase",
    "PhraseRow",
    "StepRow",
    "sealed",
    "to_phrase",
    "to_row",
]

Phrase = tuple[Any, ...]  # strings, integers, None and tuples of these: exactly what JSON can give back

DTYPES = {np.dtype(code).newbyteorder("<").str: np.dtype(code) for code in "?bBhHiIqQefdFD"}
COMPLETE, SKIPPED = 1, 2  # bits of StepRow.flags


class StepRow(NamedTuple):
    """One step; its parameters are rows of ``param``, from row ``first`` on."""

    id: int
    number: int
    params: int
    first: int
    branches: int
    scalars: int
    reals: bytes
    flags: int
    reports: str
    kept_bytes: int


class ParamRow(NamedTuple):
    """One parameter in one step; its kept tensors begin at row ``first`` of ``array``."""

    id: int
    identity: int
    layout: int
    account: int
    uses: bytes
    reals: bytes
    first: int


class ArrayRow(NamedTuple):
    """One kept tensor."""

    id: int
    dtype: str
    shape: int
    data: bytes


class PhraseRow(NamedTuple):
    """One phrase."""

    id: int
    json: str


TABLES = {"phrase": PhraseRow, "array": ArrayRow, "param": ParamRow, "step": StepRow}
COLUMNS: dict[type, dict[str, type]] = {row: get_type_hints(row) for row in TABLES.values()}
"""The types of the columns of a row, by name."""

Row = TypeVar("Row", PhraseRow, ArrayRow, ParamRow, StepRow)


def sealed(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Give the row with its checksum at the end, a signed 32-bit integer.

    Example:
        >>> sealed(PhraseRow(7, '["anchor"]'))
        (7, '["anchor"]', 1889146203)
    """
    crc = zlib.crc32(repr([len(value) if isinstance(value, bytes) else value for value in row]).encode())
    for value in row:
        if isinstance(value, bytes):
            crc = zlib.crc32(value, crc)
    return (*row, crc - (1 << 31))


def to_row(kind: type[Row], columns: tuple[Any, ...]) -> Row:
    """Give the row that was sealed.

    Raises:
        ValueError: the checksum is not that of the row, or a column has the wrong type.

    Example:
        >>> to_row(PhraseRow, sealed(PhraseRow(7, '["anchor"]')))
        PhraseRow(id=7, json='["anchor"]')
    """
    row = columns[:-1]
    if sealed(row) != columns:
        raise ValueError("its checksum is wrong")
    if list(map(type, row)) != list(COLUMNS[kind].values()):
        raise ValueError("a column has the wrong type")
    return kind(*row)


def to_phrase(text: str) -> Phrase:
    """Give a phrase as it was before it became JSON: lists become tuples again.

    Raises:
        ValueError: the text is no JSON, or no list.
    """
    value = _tuples(json.loads(text))
    if not isinstance(value, tuple):
        raise ValueError("a phrase is no list")
    return value


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
