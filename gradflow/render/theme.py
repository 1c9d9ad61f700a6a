"""The one look of gradflow: colour, dash, marker, hatch and letter of each contributor, light and dark.

A branch is told by its position among the step's branches, never by the order of drawing, so that it
looks the same in every figure, table, diagram and widget. Colours are those of Okabe and Ito, which
people with any common colour vision tell apart; each also has a dash, a marker, a hatch and a letter.

Importing this loads no plotting package: text and HTML use it too.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from gradflow.errors import InvalidArgumentError, did_you_mean
from gradflow.record import RESERVED

__all__ = [
    "DARK",
    "DIVERGING",
    "LIGHT",
    "NEUTRALS",
    "PALETTE",
    "SEQUENTIAL",
    "Style",
    "Theme",
    "applied",
    "css_variables",
    "find",
    "ink_on",
    "letters",
    "luminance",
    "number",
    "percent",
    "short",
    "signed",
    "style",
]

PALETTE = ("#0072B2", "#009E73", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
"""Colours of the branches by position: blue, green, vermilion, then the rest of Okabe and Ito."""

DIVERGING = "RdBu_r"  # signed values, symmetric about 0
SEQUENTIAL = "cividis"  # norms

_DASHES: tuple[tuple[float, ...], ...] = (
    (),
    (6, 2),
    (1.5, 1.5),
    (6, 2, 1.5, 2),
    (3, 1.5, 1.5, 1.5, 1.5, 1.5),
)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_HATCHES = ("", "///", "...", "\\\\\\", "xxx", "+++")

_RESERVED_LOOK = {  # colour, hatch, marker: greys that stand out on white and on black
    "unclaimed": ("#8C8C8C", "///", "p"),
    "shared": ("#767676", "xxx", "h"),
    "rounding": ("#A6A6A6", "...", "."),
    "edited": ("#8C8C8C", "\\\\\\", "*"),
    "other ranks": ("#828282", "ooo", "d"),
    "history": ("#9A9A9A", "---", "<"),
    "decay": ("#7A7A7A", "|||", ">"),
    "unattributed": ("#969696", "+++", "8"),
}


@dataclass(frozen=True, slots=True)
class Style:
    """How one contributor looks, everywhere.

    Attributes:
        colour: ``"#RRGGBB"``; the same in light and dark.
        dash: On and off lengths of its lines, in line widths; empty for a solid line.
        marker: matplotlib's name of its marker.
        hatch: matplotlib's name of the pattern that fills its bars; empty for none.
        letter: A short name for it; a reserved contributor keeps its whole name.
    """

    colour: str
    dash: tuple[float, ...]
    marker: str
    hatch: str
    letter: str


@dataclass(frozen=True, slots=True)
class Theme:
    """The neutral colours of one theme; those of the branches do not depend on it.

    Attributes:
        name: ``"light"`` or ``"dark"``.
        ink: Text, axes, and the sum of the contributions.
        paper: Background.
        muted: Secondary text; at least 4.5:1 against ``paper``.
        faint: Grid lines and frames.
        panel: Fill of boxes and of empty panels.
        alarm: Frame of a warning, such as a conflict; never used without words.
    """

    name: str
    ink: str
    paper: str
    muted: str
    faint: str
    panel: str
    alarm: str


LIGHT = Theme("light", "#0b0b0b", "#fefefe", "#575b60", "#d3d6da", "#f3f4f6", "#a8123c")
DARK = Theme("dark", "#f4f4f4", "#14161a", "#a9aeb6", "#3f444c", "#20242a", "#ff8fa8")
NEUTRALS = ("ink", "paper", "muted", "faint", "panel", "alarm")
_THEMES = {theme.name: theme for theme in (LIGHT, DARK)}


def find(name: str) -> Theme:
    """Give the theme of that name.

    Raises:
        InvalidArgumentError: it is neither ``"light"`` nor ``"dark"``.

    Example:
        >>> find("dark").ink
        '#f4f4f4'
    """
    if name not in _THEMES:
        raise InvalidArgumentError(
            f"no theme {name!r}", where="gradflow.plot", do=f"known: {', '.join(map(repr, _THEMES))}"
        )
    return _THEMES[name]


def style(name: str, branches: Sequence[str]) -> Style:
    """Tell how a contributor looks, given all branches in the order of their lanes.

    Raises:
        InvalidArgumentError: neither a branch nor a reserved contributor.

    Example:
        >>> style("negative", ["anchor", "positive", "negative"]).colour
        '#D55E00'
        >>> style("decay", ["anchor"]).letter
        'decay'
    """
    if name in branches:
        i = list(branches).index(name)
        lap = i // len(PALETTE)
        return Style(
            colour=PALETTE[i % len(PALETTE)],
            dash=_DASHES[i % len(_DASHES)],
            marker=_MARKERS[(i + lap) % len(_MARKERS)],
            hatch=_HATCHES[lap % len(_HATCHES)],
            letter=letters(branches)[name],
        )
    if name not in RESERVED:
        raise InvalidArgumentError(
            f"{name!r} is neither a branch nor a reserved contributor",
            where="gradflow.render.theme.style",
            do=did_you_mean(name, (*branches, *RESERVED)),
        )
    colour, hatch, marker = _RESERVED_LOOK[name]
    return Style(colour, (1, 1), marker, hatch, name)


def letters(branches: Sequence[str]) -> dict[str, str]:
    """Give each branch a letter: its initial where all initials differ, else its number from 1.

    Example:
        >>> letters(["anchor", "positive", "negative"])
        {'anchor': 'A', 'positive': 'P', 'negative': 'N'}
        >>> letters(["task_a", "task_b"])
        {'task_a': '1', 'task_b': '2'}
    """
    initials = [name[:1].upper() for name in branches]
    plain = all(i.isalpha() for i in initials) and len(set(initials)) == len(initials)
    return {name: initials[i] if plain else str(i + 1) for i, name in enumerate(branches)}


def ink_on(colour: str) -> str:
    """Give black or white, whichever is easier to read on a colour.

    Example:
        >>> ink_on("#0072B2"), ink_on("#E69F00")
        ('#ffffff', '#000000')
    """
    return "#000000" if luminance(colour) > 0.179 else "#ffffff"


def luminance(colour: str) -> float:
    """Give the relative luminance of ``"#RRGGBB"``, from 0 for black to 1 for white.

    Note:
        As WCAG 2.2 defines it; contrasts are ratios of luminances, each raised by 0.05.
    """
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@contextlib.contextmanager
def applied(theme: str) -> Iterator[Theme]:
    """Draw in a theme: matplotlib's settings are ours inside the block and found as they were after it.

    Only the settings that the theme makes are put back. Restoring all of them would undo what pyplot itself
    sets when its first figure is made: in a notebook no figure would be shown from then on.

    Example:
        >>> import matplotlib
        >>> with applied("dark") as look:
        ...     matplotlib.rcParams["text.color"] == look.ink
        True
    """
    import matplotlib

    look = find(theme)
    sheet = Path(__file__).with_name("gradflow.mplstyle")
    current = cast("MutableMapping[str, object]", matplotlib.rcParams)  # its keys are Literals
    style_file = cast(
        "Mapping[str, object]", matplotlib.rc_params_from_file(sheet, use_default_template=False)
    )
    ours = {**style_file, **_settings(look)}
    before = {name: current[name] for name in ours}
    try:
        current.update(ours)
        yield look
    finally:
        current.update(before)


def _settings(look: Theme) -> dict[str, str]:
    """The settings of matplotlib that depend on the theme."""
    inks = ("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.labelcolor", "ytick.labelcolor")
    lines = ("axes.edgecolor", "xtick.color", "ytick.color", "legend.labelcolor")
    papers = ("figure.facecolor", "axes.facecolor", "savefig.facecolor")
    return {
        **dict.fromkeys(inks, look.ink),
        **dict.fromkeys(lines, look.muted),
        **dict.fromkeys(papers, look.paper),
        "grid.color": look.faint,
        "legend.labelcolor": look.ink,
    }


def css_variables(look: Theme) -> str:
    """Write the neutral colours as CSS declarations, for pages that follow light and dark.

    Example:
        >>> css_variables(LIGHT).splitlines()[0]
        '--gf-ink: #0b0b0b;'
    """
    return "\n".join(f"--gf-{name}: {getattr(look, name)};" for name in NEUTRALS)


def short(name: str, most: int) -> str:
    """Shorten a name to ``most`` characters, keeping its end, which tells parameters apart.

    Example:
        >>> short("encoder.layers.11.attention.output.weight", 24)
        'encod…tion.output.weight'
    """
    if len(name) <= most:
        return name
    head = max(1, (most - 1) // 4)
    return f"{name[:head]}…{name[len(name) - (most - 1 - head) :]}"


def number(value: float) -> str:
    """Write a magnitude in three significant digits, without needless zeros.

    Example:
        >>> [number(v) for v in (0.0, 0.123456, 12.0, 1234.5, 3.21e-7, float("nan"))]
        ['0', '0.123', '12', '1.23e3', '3.21e-7', '–']
    """
    if math.isnan(value):
        return "–"
    if value == 0.0 or math.isinf(value):
        return f"{value:g}".lstrip("-") if value == 0.0 else f"{value:g}"
    if 1e-3 <= abs(value) < 1e3:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def percent(fraction: float) -> str:
    """Write a fraction in percent, with a true minus.

    Example:
        >>> [percent(f) for f in (0.123, -0.5, 0.004, 1e-7, 0.0, float("nan"))]
        ['12 %', '−50 %', '0.4 %', '≈ 0 %', '0 %', '–']
    """
    if math.isnan(fraction):
        return "–"
    hundredths = 100 * fraction
    if 0 < abs(hundredths) < 0.01:
        return "≈ 0 %"
    text = f"{hundredths:.0f}" if abs(hundredths) >= 0.95 or hundredths == 0 else f"{hundredths:.1g}"
    return f"{text} %".replace("-", "−")


def signed(value: float) -> str:
    """Write a cosine or a share with its sign, a true minus, and two decimals.

    Example:
        >>> [signed(v) for v in (0.5, -0.25, 0.0, float("nan"))]
        ['+0.50', '−0.25', '0.00', '–']
    """
    if math.isnan(value):
        return "–"
    text = f"{value:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text.replace("-", "−")
