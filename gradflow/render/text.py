"""Stories for a terminal: plain strings as wide as it is, without colour codes.

``repr(step)`` and its kin come from here. What is told is worked out in :mod:`gradflow.render.story`,
which HTML shares.
"""

from __future__ import annotations

import io
import shutil
import textwrap
from collections.abc import Sequence
from itertools import chain
from typing import Literal

from gradflow.comparison import Comparison
from gradflow.findings import Findings
from gradflow.record import ParamStep
from gradflow.recording import Recording, Step
from gradflow.render import comparing
from gradflow.render import story as stories
from gradflow.render.story import Story, Table
from gradflow.render.theme import short

__all__ = ["comparison", "findings", "param_step", "recording", "step", "table"]

_WIDTH = 110  # where there is no terminal to ask
_NARROWEST_NAME = 18
_BETWEEN = 2  # spaces between columns
_WORDS = ("shares of Δ in %", "counts to", "module call")
_DROPPED_FIRST = (
    "residual",
    "norm in Δ",
    "shares of Δ in %",
    "smallest cosine",
    "cancels",
    "‖Δ‖",
    "module call",
)
_FIXED = (*_WORDS, *_DROPPED_FIRST)
_LONGEST_HEAD = 12


def step(step: Step, *, width: int | None = None) -> str:
    """Tell of a step: its most interesting rows, what is left out, and its findings."""
    return _told(stories.of_step(step), width)


def param_step(p: ParamStep, *, width: int | None = None) -> str:
    """Tell of one parameter in one step.

    Example:
        >>> import numpy as np
        >>> gram = np.array([[9.0, 0.0], [0.0, 16.0]])
        >>> w = ParamStep(("query", "key"), gram, 5.0, fqn="proj.weight", names=("w",), shape=(4, 2))
        >>> print(param_step(w))
        proj.weight [4×2]
          Σ has norm 5; 29 % of the contributions cancels
          the arrivals add up to Σ bitwise
          tensors not kept
        Contributions
          contributor  norm  share of Σ  cos Q  cos K
          ───────────────────────────────────────────
          query (Q)       3        36 %  +1.00   0.00
          key (K)         4        64 %   0.00  +1.00
    """
    return _told(stories.of_param_step(p), width)


def recording(recording: Recording, *, width: int | None = None) -> str:
    """Tell of a recording: a few of its steps, summed over the whole model."""
    return _told(stories.of_recording(recording), width)


def comparison(compared: Comparison, *, width: int | None = None) -> str:
    """Tell two runs side by side: a table of their measures, and what was found in either."""
    return _told(comparing.of_comparison(compared), width)


def findings(found: Findings, *, width: int | None = None) -> str:
    """Tell what was found: a headline with how much of it, then each finding with what to do."""
    return _told(stories.of_findings(found), width)


def table(step: Step, *, width: int | None = None) -> str:
    """Give the whole table of a step, one row per parameter, in the model's order."""
    return _tabled(stories.step_table(step), _wide(width))


def _wide(width: int | None) -> int:
    return max(40, shutil.get_terminal_size((_WIDTH, 24)).columns if width is None else width)


def _told(story: Story, width: int | None) -> str:
    columns = _wide(width)
    facts = [f"  {fact}" for fact in story.facts]
    tables = [part for t in story.tables for part in (t.title, _tabled(t, columns))]
    found = [f"  {finding}" for finding in story.findings]
    lines = [story.heading, *facts, *tables, *(("Findings", *found) if found else ())]
    return "\n".join(chain.from_iterable(_wrapped(line, columns) for line in lines))


def _wrapped(line: str, columns: int) -> list[str]:
    """Fold a line of words; tables are within the width already."""
    if "\n" in line or len(line) <= columns:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()))
    return textwrap.wrap(line.strip(), columns, initial_indent=indent, subsequent_indent=indent + "  ")


def _tabled(table: Table, columns: int) -> str:
    """Lay out a table; the first column is shortened in its middle, what does not fit is named below."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    heads = [heading if heading in _FIXED else short(heading, _LONGEST_HEAD) for heading in table.columns]
    widths = [max(len(row[i]) for row in (heads, *table.rows)) for i in range(len(heads))]
    shown, room = _fitting(table.columns, widths, columns)
    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    for i in shown:
        justify: Literal["left", "right"] = "left" if i == 0 or table.columns[i] in _WORDS else "right"
        drawn.add_column(Text(heads[i]), justify=justify, no_wrap=True)
    for row in table.rows:
        drawn.add_row(Text(short(row[0], room)), *(Text(row[i]) for i in shown[1:]))
    written = io.StringIO()
    console = Console(
        file=written, width=columns - 2, color_system=None, force_terminal=False, force_jupyter=False
    )
    console.print(drawn)
    lines = ["  " + line.rstrip() for line in written.getvalue().splitlines() if line.strip()]
    hidden = [heading for i, heading in enumerate(table.columns) if i not in shown]
    note = table.note if any("of Δ" in table.columns[i] for i in shown) else ""
    notes = [table.more, note, f"no room for: {', '.join(hidden)}" if hidden else ""]
    return "\n".join([*lines, *(part for note in notes if note for part in _wrapped(f"  {note}", columns))])


def _fitting(heads: Sequence[str], widths: Sequence[int], columns: int) -> tuple[list[int], int]:
    """Which columns fit, and how many characters the first one then has."""
    shown = list(range(len(widths)))
    droppable = [heads.index(heading) for heading in _DROPPED_FIRST if heading in heads]
    droppable += [i for i in reversed(shown[1:]) if i not in droppable]
    while True:
        room = columns - 3 - sum(widths[i] + _BETWEEN for i in shown[1:])
        if room >= min(widths[0], _NARROWEST_NAME) or not droppable:
            return shown, room
        shown.remove(droppable.pop(0))
