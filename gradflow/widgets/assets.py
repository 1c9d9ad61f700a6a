"""The scripts and style sheets of the widgets, as text, for notebooks and for pages without a kernel.

Every widget's script stands after ``prelude.js`` in one ES module, and its style sheet after ``prelude.css``:
a widget file uses what the prelude defines and imports nothing. Nothing is fetched at
run time, and no widget package is loaded here.
"""

from __future__ import annotations

from pathlib import Path

from gradflow.render.theme import DARK, LIGHT, css_variables

__all__ = ["script", "style_sheet"]

_PRELUDE = Path(__file__).with_name("prelude")


def script(*paths: Path) -> str:
    """Give the ES module of a widget.

    Args:
        paths: Its files, with or without the ending ``.js``; the last one exports the widget.
    """
    return "\n".join(part.with_suffix(".js").read_text(encoding="utf-8") for part in (_PRELUDE, *paths))


def style_sheet(path: Path) -> str:
    """Give the style sheet of a widget: the colours of light and dark, the prelude's rules, then its own.

    A notebook's own theme wins over the system's; both give the same variables, ``--gf-ink`` and so on.

    Args:
        path: Its file, with or without the ending ``.css``.
    """
    own = [part.with_suffix(".css").read_text(encoding="utf-8") for part in (_PRELUDE, path)]
    return "\n".join([_colours(), *own])


def _colours() -> str:
    light, dark = css_variables(LIGHT), css_variables(DARK)
    jupyter = "body[data-jp-theme-light={}] .gf-widget {{ {} color-scheme: {}; }}"
    return "\n".join(
        (
            f".gf-widget {{ {light} color-scheme: light; }}",
            f"@media (prefers-color-scheme: dark) {{ .gf-widget {{ {dark} color-scheme: dark; }} }}",
            jupyter.format('"true"', light, "light"),
            jupyter.format('"false"', dark, "dark"),
        )
    )
