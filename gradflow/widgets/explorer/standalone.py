"""The explorer for a page without a kernel: script, style, and as many steps as the page has room for.

Numbers are float32 here, three digits of which are shown; what is left out is said in words.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from gradflow.record import ParamStep
from gradflow.recording import Recording, Step
from gradflow.widgets import assets
from gradflow.widgets.explorer.book import Book
from gradflow.widgets.explorer.parts import PARTS, START, STYLE
from gradflow.widgets.explorer.table import columns_of

__all__ = ["Standalone", "standalone"]

_HERE = Path(__file__).parent
_TABLE_BYTES, _MAP_BYTES = 1_000_000, 500_000  # before base64 makes them a third larger
_TINY = float(np.nextafter(np.float32(0), np.float32(1)))


@dataclass(frozen=True, slots=True)
class Standalone:
    """What a page needs to hold the explorer.

    Attributes:
        element: Markup: where the explorer goes, and its data.
        script: An ES module, to stand in a ``<script type="module">`` behind the element.
        style: A style sheet.
        sentence: What of the recording is in the page and what was left out.
    """

    element: str
    script: str
    style: str
    sentence: str


def standalone(recording: Recording) -> Standalone:
    """Put a recording into a form that a page can hold.

    Args:
        recording: The recording; long ones are thinned to evenly spaced steps, the newest among them.
    """
    book = Book(Recording(_Picked(recording, _positions(recording))))
    columns = columns_of(_steps(book), (p for step in _steps(book) for p in step))
    tables = [book.page([step], columns).numbers for step in _steps(book)]
    first, maps = book.overview(), _maps(book)
    every = round(len(recording) / max(1, len(book.indices)))
    data = {
        "state": {**START},
        "overview": first.head,
        "numbers": base64.b64encode(first.numbers.astype("<f8").tobytes()).decode(),
        "columns": columns.named(),
        "steps": book.indices,
        "rows": len(book.tree.rows),
        "tables": _packed(np.concatenate(tables) if tables else np.zeros(0)),
        "maps": maps,
        "every": every,
        "why": _why(maps),
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    plain = "<noscript>This part needs JavaScript; all others do not.</noscript>"
    return Standalone(
        element=f'<div id="gf-explorer">{plain}</div>'
        f'<script type="application/json" id="gf-explorer-data">{text}</script>',
        script=assets.script(*PARTS, _HERE / "standalone"),
        style=assets.style_sheet(STYLE),
        sentence=_sentence(len(book.indices), len(recording), maps),
    )


class _Picked(Sequence[Step]):
    """Some steps of a recording, read when they are asked for."""

    def __init__(self, recording: Recording, positions: Sequence[int]) -> None:
        self._recording, self._positions = recording, positions

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, at: int) -> Step: ...
    @overload
    def __getitem__(self, at: slice) -> list[Step]: ...
    def __getitem__(self, at: int | slice) -> Step | list[Step]:
        if isinstance(at, slice):
            return [self._recording[i] for i in self._positions[at]]
        return self._recording[self._positions[at]]


def _positions(recording: Recording) -> list[int]:
    """Positions of as many evenly spaced steps as there is room for, the first and the newest among them."""
    if not len(recording):
        return []
    newest = next((s for s in reversed(recording[-8:]) if len(s)), recording.last)
    one = Book(Recording([newest]))
    size = 4 * max(1, one.page([newest], columns_of([newest], newest)).numbers.size)
    count = min(len(recording), max(2, _TABLE_BYTES // size))
    return sorted({round(i) for i in np.linspace(0, len(recording) - 1, count)})


def _steps(book: Book) -> Iterator[Step]:
    return (book.recording[i] for i in range(len(book.recording)))


def _maps(book: Book) -> dict[str, Any]:
    """The equations that there is room for: all of the newest step, small first, then the first of others."""
    kept: dict[str, Any] = {}
    room = _MAP_BYTES
    steps = [step for step in _steps(book) if len(step)][::-1]
    small = sorted((p for p in steps[0] if p.tensors is not None), key=_rank) if steps else []
    wanted = [(steps[0].index, p.fqn) for p in small] + [
        (s.index, p.fqn) for s in steps[1:] for p in small[:1]
    ]
    for index, fqn in wanted:
        reply = book.maps(index, fqn)
        room -= 4 * reply.numbers.size
        if room < 0:
            break
        if reply.head["panels"]:
            kept[f"{index} {fqn}"] = {"head": reply.head, "cells": _packed(reply.numbers)}
    return kept


def _rank(p: ParamStep) -> tuple[bool, int]:
    return len(p.shape) < 2, math.prod(p.shape)


def _packed(numbers: NDArray[np.float64]) -> str:
    """Numbers as float32 in base64; what float32 would take for zero stays the least that is not."""
    with np.errstate(under="ignore", over="ignore"):
        short = numbers.astype("<f4")
    lost = (short == 0.0) & (numbers != 0.0)
    short[lost] = np.copysign(_TINY, numbers[lost])
    return base64.b64encode(short.tobytes()).decode()


def _why(maps: dict[str, Any]) -> str:
    if not maps:
        return 'No tensors were kept. To see them, record with gradflow.watch(..., keep="tensors").'
    return "This page has no room for this equation; gradflow.explore(recording) shows it in a notebook."


def _sentence(shown: int, whole: int, maps: dict[str, Any]) -> str:
    thinned = f"{shown} of {whole} steps are in this page, evenly spaced"
    steps = thinned if shown < whole else "All steps are in this page"
    equations = f", and {len(maps)} equations" if maps else ""
    return f"{steps}{equations}. What is selected in one part is selected in all; nothing is sent anywhere."
