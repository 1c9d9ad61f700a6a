"""A graph as a file, by its ending, and as a figure in a notebook."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable
from pathlib import Path

from gradflow.errors import GradflowError, InvalidArgumentError
from gradflow.graph.graph import Graph
from gradflow.render import dot, graph_text, layout, page
from gradflow.render.layout import Look

__all__ = ["ENDINGS", "Look", "figure", "save"]

ENDINGS = (".svg", ".pdf", ".png", ".html", ".dot", ".json", ".txt")


def save(graph: Graph, path: Path, look: Look) -> Path:
    """Write a graph to a file; see :meth:`gradflow.graph.Graph.save`.

    Raises:
        InvalidArgumentError: an ending that is not known.
    """
    ending = path.suffix.lower()
    if ending.removeprefix(".") in layout.FORMATS:
        path.write_bytes(layout.draw(graph.overview(), ending[1:], look))
        return path
    writers: dict[str, Callable[[], str]] = {
        ".dot": lambda: dot.to_dot(graph.overview(), theme=look.theme, details=look.details),
        ".html": lambda: page.page(graph, look),
        ".json": graph.to_json,
        ".txt": lambda: graph_text.text(graph) + "\n",
    }
    if ending not in writers:
        raise InvalidArgumentError(
            f"no way to write a graph as {ending or path.name!r}",
            where="graph.save",
            do=f"known endings: {' '.join(ENDINGS)}",
        )
    path.write_text(writers[ending](), encoding="utf-8")
    return path


def figure(graph: Graph) -> str:
    """Give an HTML figure for notebooks; the text where no Graphviz is at hand."""
    told = graph_text.text(graph)
    try:
        picture = layout.draw(graph.overview(), "svg")
    except GradflowError as error:
        return f"<pre>{html.escape(told)}\n\n{html.escape(str(error))}</pre>"
    source = "data:image/svg+xml;base64," + base64.b64encode(picture).decode()
    alt = html.escape(graph_text.heading(graph), quote=True)
    return f'<figure style="margin:0"><img alt="{alt}" style="max-width:100%" src="{source}"></figure>'
