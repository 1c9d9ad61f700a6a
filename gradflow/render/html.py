"""The same stories for notebooks and pages: escaped HTML that follows light and dark.

What is told is worked out in :mod:`gradflow.render.story`, which the terminal shares; here it gets headings,
tables with headers, and small bars. Names are escaped: a module may be called anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from gradflow.comparison import Comparison
from gradflow.findings import Findings
from gradflow.record import RESERVED, Finding, ParamStep
from gradflow.recording import Recording, Step
from gradflow.render import comparing
from gradflow.render import story as stories
from gradflow.render.story import Story, Table
from gradflow.render.theme import DARK, LIGHT, css_variables, style

__all__ = [
    "comparison",
    "findings",
    "findings_list",
    "param_step",
    "recording",
    "step",
    "style_sheet",
    "table",
]

_BAR_PX = (96, 10)
_WORDS = ("shares of Δ in %", "counts to", "module call")  # columns that hold words, not numbers


def step(step: Step) -> str:
    """Tell of a step, as the text repr does."""
    return _told(stories.of_step(step), step.branches)


def param_step(p: ParamStep) -> str:
    """Tell of one parameter in one step, as the text repr does.

    Example:
        >>> import numpy as np
        >>> w = ParamStep(("<b>",), np.eye(1), 1.0, fqn='w"', names=('w"',), shape=(1,))
        >>> page = param_step(w)
        >>> "<b>" in page, "&lt;b&gt;" in page, "w&quot; [1]" in page
        (False, True, True)
    """
    branches = [n for n in (*p.contributors, *p.absent) if n not in RESERVED]
    return _told(stories.of_param_step(p), branches)


def recording(recording: Recording) -> str:
    """Tell of a recording, as the text repr does."""
    return _told(stories.of_recording(recording), recording.last.branches if len(recording) else ())


def comparison(compared: Comparison) -> str:
    """Tell two runs side by side, as the text repr does."""
    return _told(comparing.of_comparison(compared), compared.branches)


def findings(found: Findings) -> str:
    """Tell what was found, as the text repr does."""
    return _told(stories.of_findings(found), ())


def style_sheet() -> str:
    """Give the CSS of stories and tables, for light and dark."""
    rules = Path(__file__).with_name("repr.css").read_text(encoding="utf-8")
    dark = f"@media (prefers-color-scheme: dark) {{ .gf {{\n{css_variables(DARK)}\n}} }}"
    return f".gf {{\n{css_variables(LIGHT)}\n}}\n{dark}\n{rules}"


def table(shown: Table, branches: Sequence[str]) -> str:
    """Give one table, in a part that scrolls sideways where it is too wide."""
    heads = "".join(_head(name, branches) for name in shown.columns)
    if shown.bars:
        heads += '<th scope="col" class="gf-words">norms side by side</th>'
    rows = "".join(_row(shown, i, branches) for i in range(len(shown.rows)))
    caption = f"<caption>{escape(shown.title)}</caption>" if shown.title else ""
    notes = [note for note in (shown.more, shown.note) if note]
    more = "".join(f'<p class="gf-more">{escape(note)}</p>' for note in notes)
    region = f'<div class="gf-scroll" tabindex="0" role="region" aria-label="{escape(shown.title)}">'
    return f"{region}<table>{caption}<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>{more}"


def findings_list(findings: Sequence[Finding]) -> str:
    """Give findings as a list; warnings have a bar at their side and say that they are warnings."""
    items = "".join(
        f'<li class="gf-{"warning" if f.severity == "warning" else "note"}">{escape(str(f))}</li>'
        for f in findings
    )
    return f"<ul>{items}</ul>"


def _told(story: Story, branches: Sequence[str]) -> str:
    facts = "".join(f"<li>{escape(fact)}</li>" for fact in story.facts)
    facts = f'<ul class="gf-facts">{facts}</ul>' if facts else ""
    tables = "".join(table(t, branches) for t in story.tables)
    found = f"<div><strong>Findings</strong>{findings_list(story.findings)}</div>" if story.findings else ""
    return (
        f'<div class="gf"><style>{style_sheet()}</style><p class="gf-head">{escape(story.heading)}</p>'
        f"{facts}{tables}{found}</div>"
    )


def _head(name: str, branches: Sequence[str]) -> str:
    chip = _chip(name, branches)
    words = ' class="gf-words"' if name in _WORDS else ""
    return f'<th scope="col"{words}>{chip}{escape(name)}</th>'


def _row(shown: Table, i: int, branches: Sequence[str]) -> str:
    first, *others = shown.rows[i]
    chip = _chip(first.rpartition(" (")[0] or first, branches) if shown.columns[0] == "contributor" else ""
    cells = [f'<th scope="row">{chip}{escape(first)}</th>']
    for name, cell in zip(shown.columns[1:], others, strict=True):
        words = ' class="gf-words"' if name in _WORDS else ""
        cells.append(f"<td{words}>{escape(cell)}</td>")
    if shown.bars:
        cells.append(f"<td>{_bar(shown.bars[i], branches)}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _chip(name: str, branches: Sequence[str]) -> str:
    """A small square in the contributor's colour; decoration, as the name stands beside it."""
    if name not in branches and name not in RESERVED:
        return ""
    colour = style(name, branches).colour
    return f'<span class="gf-chip" style="background:{colour}" aria-hidden="true"></span>'


def _bar(norms: Mapping[str, float], branches: Sequence[str]) -> str:
    """The norms as pieces of one bar; hidden from screen readers, which have the numbers."""
    width, height = _BAR_PX
    whole = sum(norms.values())
    if not whole or math.isnan(whole):
        return ""
    pieces, x = [], 0.0
    for name, norm in norms.items():
        part = width * norm / whole
        colour = style(name, branches).colour
        pieces.append(f'<rect x="{x:.1f}" width="{part:.1f}" height="{height}" fill="{colour}"/>')
        x += part
    return (
        f'<svg class="gf-bar" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'aria-hidden="true" focusable="false">{"".join(pieces)}</svg>'
    )
