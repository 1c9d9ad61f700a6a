"""What stands for a widget where no kernel runs: a picture with words, and a table.

A saved notebook shows it on GitHub and in nbconvert, which know nothing of the widget.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from gradflow.render import html
from gradflow.render.story import Table
from gradflow.render.theme import DARK, LIGHT, css_variables

__all__ = ["Twin", "standing_alone"]


@dataclass(frozen=True, slots=True)
class Twin:
    """A still picture of a widget and the numbers in it.

    Attributes:
        picture: An ``<svg>`` element that stands alone, such as :func:`standing_alone` gives.
        words: What the picture shows, for those who do not see it.
        table: The same in numbers.
        branches: Branches in the order of their lanes, for the colours of the table's headings.
    """

    picture: str
    words: str
    table: Table
    branches: Sequence[str] = ()

    def bundle(self) -> dict[str, str]:
        """Give the twin by MIME type: SVG, HTML and plain text."""
        return {"image/svg+xml": self.picture, "text/html": self._page(), "text/plain": self._text()}

    def _page(self) -> str:
        source = f"data:image/svg+xml;base64,{base64.b64encode(self.picture.encode()).decode()}"
        image = f'<img alt="{escape(self.words)}" style="max-width:100%" src="{source}">'
        shown = html.table(self.table, self.branches)
        sheet = html.style_sheet()
        return (
            f'<figure style="margin:0">{image}</figure><div class="gf"><style>{sheet}</style>'
            f"<details><summary>In numbers</summary>{shown}</details></div>"
        )

    def _text(self) -> str:
        rows = [self.table.columns, *self.table.rows]
        widths = [max(len(row[i]) for row in rows) for i in range(len(self.table.columns))]
        lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
        return "\n".join([self.words, self.table.title, *lines])


def standing_alone(svg: str) -> str:
    """Give an inline ``<svg>`` that uses the theme's colours what it needs to stand in a file of its own.

    Args:
        svg: An element whose neutral colours are ``var(--gf-ink)`` and so on.

    Returns:
        The same element with those colours defined, light and dark, and paper behind it.

    Example:
        >>> '--gf-ink: #0b0b0b;' in standing_alone('<svg viewBox="0 0 1 1"></svg>')
        True
    """
    light, dark = css_variables(LIGHT), css_variables(DARK)
    paper = "background: var(--gf-paper);"
    rules = f"svg {{ {light} {paper} }} @media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }}"
    head, mark, body = svg.partition(">")
    space = "" if "xmlns=" in head else ' xmlns="http://www.w3.org/2000/svg"'
    return f"{head}{space}{mark}<style>{rules}</style>{body}"
