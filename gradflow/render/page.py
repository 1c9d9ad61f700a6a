"""A graph as one page that needs nothing else: open, close, pan, zoom, search, hover, light and dark.

The page holds the nested boxes of all views and lays them out itself, so it needs no Graphviz, neither here
nor where it is read. Names are data: they reach the page as JSON and are only ever set as text, and a
content security policy lets no script run but ours.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
from pathlib import Path
from string import Template
from typing import Any

from gradflow.errors import GradflowError
from gradflow.graph.data import Node
from gradflow.graph.graph import Graph
from gradflow.graph.nest import Nest, nest
from gradflow.graph.values import records_of, summed
from gradflow.record import RESERVED
from gradflow.render import graph_text, layout, theme
from gradflow.render.labels import lines_of, prefix_of, tip
from gradflow.render.layout import Look
from gradflow.render.parallel import parallel_branches

__all__ = ["page"]

_HERE = Path(__file__).parent


def page(graph: Graph, look: Look | None = None) -> str:
    """Write a graph as a self-contained HTML page.

    Args:
        graph: A graph or a view; the page opens with the view, or with the overview.
        look: How; its theme is the one the page starts in.
    """
    look = look or Look()
    script = "".join(_part(name) for name in ("page_layout.js", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template(_part("page.html")).substitute(
        theme=theme.find(look.theme).name,
        digest=f"sha256-{digest}",
        title=html.escape(graph_text.heading(graph)),
        style=_style(),
        legend=_legend(graph),
        picture=_picture(graph, look),
        words=html.escape(graph_text.text(graph)),
        data=_json(_content(graph)),
        script=script,
    )


def _part(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _style() -> str:
    light, dark = theme.css_variables(theme.LIGHT), theme.css_variables(theme.DARK)
    return (
        f":root {{ {light} }}\n:root[data-theme=dark] {{ {dark} color-scheme: dark; }}\n{_part('page.css')}"
    )


def _colours(graph: Graph) -> list[dict[str, str]]:
    names = [name for name in graph.branches if name not in RESERVED]
    return [{"name": name, "colour": theme.style(name, names).colour} for name in graph.branches]


def _legend(graph: Graph) -> str:
    shown = _colours(graph)[:12]
    items = [
        f'<li><i style="background:{one["colour"]}"></i>{html.escape(one["name"])}</li>' for one in shown
    ]
    return "".join(items) + ("<li>…</li>" if len(graph.branches) > len(shown) else "")


def _picture(graph: Graph, look: Look) -> str:
    """Give a still picture for readers without scripts; nothing where there is no Graphviz."""
    try:
        picture = layout.draw(graph.overview(), "svg", look)
    except GradflowError:
        return ""
    source = base64.b64encode(picture).decode()
    return f'<img alt="{html.escape(graph_text.heading(graph))}" src="data:image/svg+xml;base64,{source}">'


def _json(content: dict[str, Any]) -> str:
    """Write JSON that may stand in a script element: nothing in it can end the element."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _content(graph: Graph) -> dict[str, Any]:  # what page_layout.js reads; numbers, strings and lists of them
    nested = nest(graph)
    place = {name: i for i, name in enumerate(graph.branches)}
    overview = graph.overview()
    prefix = prefix_of(overview)
    uses: dict[str, int] = {}
    for _, target, edge in nested.edges:
        key = f"{target}:{place.get(edge.branch or '', -1)}"
        uses[key] = uses.get(key, 0) + edge.members
    return {
        "branches": _colours(graph),
        "counted": sum(name not in RESERVED for name in graph.branches),
        "lanes": [place[name] for name in parallel_branches(overview)],
        "boxes": [_box(box, place, prefix) for box in nested.boxes],
        "parents": nested.parents,
        "edges": [
            {"s": s, "t": t, "b": place.get(e.branch or "", -1), "norm": _finite(e.norm), "n": e.members}
            for s, t, e in nested.edges
        ],
        "uses": uses,
        "sums": _sums(graph, nested, place),
        "open": nested.opened,
    }


def _box(box: Node, place: dict[str, int], prefix: str) -> dict[str, Any]:
    lines = lines_of(box, prefix)
    return {
        "kind": box.kind,
        "lines": lines,
        "b": place.get(box.branch or "", -1),
        "path": f"{box.kind} {box.name}" if box.kind == "op" else box.name,
        "repeats": box.repeats,
        "tip": tip(box),
        "find": " ".join((box.name, *box.names, *box.ops, *lines)).lower(),
    }


def _sums(graph: Graph, nested: Nest, place: dict[str, int]) -> dict[int, dict[str, Any]]:
    """Give what the step recorded of each leaf parameter."""
    if graph.step is None:
        return {}
    records = records_of(graph.step)
    found: dict[int, dict[str, Any]] = {}
    parents = set(nested.parents)
    for at, box in enumerate(nested.boxes):
        known = summed(box, records) if at not in parents else None
        if known is not None:
            norms = {place[name]: _finite(norm) for name, norm in known.norms.items() if name in place}
            found[at] = {"c": norms, "S": _finite(known.total), "D": _finite(known.delta)}
    return found


def _finite(value: float | None) -> float | None:
    """Give a number that JSON can hold."""
    return value if value is not None and math.isfinite(value) else None
