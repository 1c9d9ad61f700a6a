"""Figures that carry their own description: made, described and written as SVG here.

A :class:`Picture` is a matplotlib figure that shows itself in a notebook as an image *with* alternative
text, which the usual PNG output has not.
"""

from __future__ import annotations

import base64
import io
import re
import textwrap
from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

import matplotlib.pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, FigureBase, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.transforms import ScaledTranslation

from gradflow.render.theme import LIGHT, NEUTRALS, applied

__all__ = [
    "Picture",
    "axes_of",
    "described",
    "legend_below",
    "loose_axes",
    "loose_figure",
    "new_figure",
    "tell",
    "to_svg",
]


_NOTE_PT, _NOTE_LETTER_PT = 7.5, 4.0  # a note under a figure: its size, and about the width of a letter


class Picture(Figure):
    """A figure that shows itself in a notebook as an image with alternative text.

    Attributes:
        elastic: True where the figure takes the size that the drawing on it needs.
    """

    elastic = False

    def _repr_html_(self) -> str:
        drawn = io.BytesIO()
        self.savefig(drawn, format="png", dpi=144)
        data = base64.b64encode(drawn.getvalue()).decode("ascii")
        width = round(self.get_figwidth() * 96)
        return (
            f'<figure style="margin:0"><img style="width:{width}px;max-width:100%" '
            f'alt={quoteattr(described(self))} src="data:image/png;base64,{data}"></figure>'
        )


def new_figure(width_in: float, height_in: float) -> Picture:
    """Give an empty figure that pyplot does not know, so that a notebook shows it once, not twice."""
    fig = Picture(figsize=(width_in, height_in))
    FigureCanvasAgg(fig)
    return fig


def loose_figure(width_in: float, height_in: float) -> Picture:
    """Give an empty figure that pyplot does not know, whose axes make room for their labels by themselves."""
    fig = Picture(figsize=(width_in, height_in), layout=_layout())
    FigureCanvasAgg(fig)
    return fig


def loose_axes(theme: str = "light") -> Axes:
    """Give axes in a figure that pyplot does not know and that takes the size its drawing needs.

    For programs that write files: ``plot.contributions(step, ax=loose_axes()).figure.savefig(...)``.
    """
    with applied(theme):
        fig = Picture(layout=_layout())
        FigureCanvasAgg(fig)
        fig.elastic = True
        return fig.add_subplot()


def axes_of(ax: Axes | None, width_in: float, height_in: float) -> Axes:
    """Give the axes to draw on: those given, or new ones of a size in a figure of pyplot's.

    A notebook shows pyplot's figures at the end of the cell.
    """
    if ax is None:
        fig = plt.figure(figsize=(width_in, height_in), FigureClass=Picture, layout=_layout())
        return fig.add_subplot()
    if isinstance(ax.figure, Picture) and ax.figure.elastic:
        ax.figure.set_size_inches(width_in, height_in)
    return ax


def _layout() -> ConstrainedLayoutEngine:
    return ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)


def legend_below(ax: Axes, keys: Sequence[Artist], *, offset_pt: float = 36, note: str = "") -> None:
    """Put a legend under the axes and their labels, in as many columns as their width has room for.

    A ``note`` on how to read the figure stands above the keys, folded to the same width.
    """
    lengths = [len(str(key.get_label())) for key in keys]
    room_pt = ax.get_window_extent().width * 72 / ax.figure.dpi
    fitting = [n for n in range(1, len(keys) + 1) if _width_pt(lengths, n) <= room_pt]
    ax.legend(
        handles=list(keys),
        ncols=max(fitting, default=1),
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=ax.transAxes + ScaledTranslation(0, -offset_pt / 72, ax.figure.dpi_scale_trans),
        columnspacing=1.6,
        title="\n".join(textwrap.wrap(note, max(20, int(room_pt / _NOTE_LETTER_PT)))) or None,
        title_fontsize=_NOTE_PT,
    )


def _width_pt(lengths: Sequence[int], columns: int) -> float:
    """About how wide a legend of labels of these lengths is; matplotlib fills it column by column."""
    high = -(-len(lengths) // columns)
    return sum(4.9 * max(lengths[i : i + high]) + 42 for i in range(0, len(lengths), high))


def tell(target: FigureBase | Axes, words: str) -> None:
    """Attach the description of what ``target`` shows; :func:`described` gives it back."""
    target.set_label(words)


def described(fig: FigureBase) -> str:
    """Give the description of a figure: its own, or those of its axes.

    Example:
        >>> fig = new_figure(2, 2)
        >>> tell(fig, "Two bars.")
        >>> described(fig)
        'Two bars.'
    """
    own = str(fig.get_label() or "")
    axes: Sequence[Axes] = fig.axes if isinstance(fig, Figure | SubFigure) else ()
    parts = [str(ax.get_label()) for ax in axes]
    return own or " ".join(part for part in parts if part and not part.startswith("<"))


def to_svg(fig: Figure, *, title: str, prefix: str) -> str:
    """Write a figure drawn in the light theme as one inline ``<svg>`` that follows light and dark.

    Args:
        fig: The figure; its description becomes ``<desc>``.
        title: A short name, for ``<title>``.
        prefix: Put before every id, so that several pictures can stand in one page.

    Returns:
        The ``<svg>`` element. Its neutral colours are CSS variables ``--gf-ink``, ``--gf-paper`` and
        so on, with the light theme's as fallback; the colours of the branches stay as they are.
    """
    written = io.StringIO()
    fig.savefig(written, format="svg", metadata={"Date": None}, transparent=True)
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)  # is for "*"
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{prefix}-", svg)
    for name in NEUTRALS:
        colour = getattr(LIGHT, name)
        svg = svg.replace(colour, f"var(--gf-{name}, {colour})")
    head, _, body = svg.partition(">")
    head = re.sub(r'\s(?:width|height)="[^"]*"', "", head)
    ids = f'role="img" aria-labelledby="{prefix}-t {prefix}-d"'
    wide = fig.get_figwidth() * 96
    size = f"width:100%;max-width:{wide:.0f}px;min-width:{0.72 * wide:.0f}px;height:auto"
    width = f'style="{size};stroke-linejoin:round"'
    words = (
        f'<title id="{prefix}-t">{escape(title)}</title><desc id="{prefix}-d">{escape(described(fig))}</desc>'
    )
    return f"{head} {ids} {width}>{words}{body}".strip()
