"""A graph as a file, by its ending, and as a figure in a notebook."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gradflow.errors import GradflowError, InvalidArgumentError
from gradflow.graph.graph import Graph
from gradflow.render import animate, dot, graph_text, layout, page
from gradflow.render.layout import Look

__all__ = ["ENDINGS", "Look", "figure", "save"]

ENDINGS = (".svg", ".pdf", ".png", ".html", ".dot", ".json", ".txt", ".gif", ".mp4")


def save(graph: Graph, path: Path, look: Look, step: Any = None) -> Path:  # a Step, or a Recording
    """Write a graph to a file; see :meth:`gradflow.graph.Graph.save`.

    Raises:
        InvalidArgumentError: an ending that is not known, or a moving picture without a recording.
    """
    ending = path.suffix.lower()
    if ending.removeprefix(".") in animate.FORMATS:
        return animate.animate(graph, _recording(step, path), path, look)
    if step is not None:
        graph = graph.with_values(getattr(step, "last", step))
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


def _recording(step: Any, path: Path) -> Sequence[Any]:
    if isinstance(step, Sequence):
        return step
    raise InvalidArgumentError(
        f"{path.suffix} shows several steps, and step is {'not given' if step is None else 'a single one'}",
        where="graph.save",
        do=f"graph.save({path.name!r}, step=flow.recording)",
    )


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
