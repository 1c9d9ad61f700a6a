r"""A graph as DOT text, the language of Graphviz: our own, escaped, the same for every run.

Names come from anywhere (a module may be called ``a\"b<script>``), so they never become identifiers: nodes
are numbered, names stand in labels and tooltips, escaped. No ``URL`` is ever written.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from gradflow.graph.data import Edge, Node
from gradflow.graph.graph import Graph
from gradflow.record import RESERVED
from gradflow.render import theme as themes
from gradflow.render.labels import lines_of, prefix_of, tip, title
from gradflow.render.parallel import parallel_branches, rows
from gradflow.render.theme import Theme

__all__ = ["FONTS", "to_dot"]

FONTS = "Helvetica Neue,Helvetica,Arial,Liberation Sans,DejaVu Sans,sans-serif"

_HUB = 8  # more arrows than this into one parameter make `dot` explode: each use then gets its own proxy
_THIN, _THICK = 0.8, 5.0


def to_dot(graph: Graph, *, theme: str = "light") -> str:
    """Write a graph as DOT.

    Args:
        graph: A graph or a view of one; drawn as it is.
        theme: ``"light"`` or ``"dark"``.

    Example:
        >>> from gradflow.graph import Edge, Node
        >>> print(to_dot(Graph((Node("0", "op", "SumBackward0"),), (), ())).splitlines()[0])
        digraph gradflow {
    """
    return "\n".join(_Drawing(graph, themes.find(theme)).lines()) + "\n"


@dataclass(slots=True)
class _Drawing:
    graph: Graph
    look: Theme
    ids: dict[str, str] = field(default_factory=dict)
    lanes: tuple[str, ...] = ()
    hubs: dict[str, Node] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    prefix: str = ""
    largest: float = 0.0

    def lines(self) -> Iterator[str]:
        graph = self.graph
        self.ids = {node.id: f"n{i}" for i, node in enumerate(graph.nodes)}
        self.lanes = parallel_branches(graph)
        parameters = {node.id for node in graph.nodes if node.kind == "parameter"}
        uses = Counter(edge.target for edge in graph.edges if edge.target in parameters)
        self.hubs = {node.id: node for node in graph.nodes if uses[node.id] > _HUB}
        self.names = tuple(name for name in graph.branches if name not in RESERVED)
        self.prefix = prefix_of(graph)
        norms = [edge.norm for edge in graph.edges if edge.target in parameters and edge.norm is not None]
        self.largest = max(norms, default=0.0)
        yield "digraph gradflow {"
        yield from ("  " + line for line in self._body(parameters))
        yield "}"

    def _body(self, parameters: set[str]) -> Iterator[str]:
        yield from self._defaults()
        for lane in self.lanes:
            yield from self._lane(lane)
        for node in self.graph.nodes:
            if node.branch not in self.lanes:
                yield self._node(node)
        yield from self._rows()
        yield from self._column()
        for number, edge in enumerate(self.graph.edges):
            if edge.target in self.hubs:
                yield from self._proxy(edge, number)
            else:
                yield self._edge(edge, self.ids[edge.target], is_use=edge.target in parameters)

    def _defaults(self) -> Iterator[str]:
        look = self.look
        font = f'fontname="{FONTS}"'
        yield f'graph [rankdir=TB, newrank=true, nodesep=0.3, ranksep=0.4, bgcolor="{look.paper}", {font},'
        yield f'  fontsize=12, fontcolor="{look.ink}", tooltip="gradient flow"]'
        yield f'node [shape=box, style="rounded,filled", fillcolor="{look.paper}", color="{look.muted}",'
        yield f'  {font}, fontsize=11, fontcolor="{look.ink}", margin="0.12,0.06", height=0.3]'
        yield f'edge [color="{look.muted}", arrowsize=0.6, {font}, fontsize=9, fontcolor="{look.muted}"]'

    def _lane(self, lane: str) -> Iterator[str]:
        colour = self._colour(lane)
        yield f"subgraph cluster_{self.lanes.index(lane)} {{"
        yield f'  label="{_escaped(lane)}"; fontcolor="{colour}"; style="rounded,filled"; color="{colour}1c";'
        yield "  labelloc=b; margin=10;"  # at the top, arrows from the loss would cross the name
        for node in self.graph.nodes:
            if node.branch == lane:
                yield f"  {self._node(node)}"
        yield "}"

    def _node(self, node: Node) -> str:
        head, *lines = lines_of(node, self.prefix)
        if node.kind == "module" and node.branch not in (None, node.name, *self.lanes):
            lines.append(f"step {node.step}" if node.step is not None else str(node.branch))
        rows_ = [f"<b>{_html(head)}</b>" if node.kind != "op" else _html(head)]
        rows_ += [f'<font point-size="9" color="{self._muted(node)}">{_html(line)}</font>' for line in lines]
        parts = [f"label=<{'<br/>'.join(rows_)}>", *self._shape(node)]
        parts += [f'id="{self.ids[node.id]}"', f'class="{node.kind}"', f'tooltip="{_escaped(tip(node))}"']
        return f"{self.ids[node.id]} [{', '.join(parts)}]"

    def _muted(self, node: Node) -> str:
        return self.look.faint if node.kind == "loss" else self.look.muted

    def _shape(self, node: Node) -> list[str]:
        look, colour = self.look, self._colour(node.branch)
        if node.kind == "loss":
            fill = colour if node.branch else look.ink
            return [f'fillcolor="{fill}"', f'color="{fill}"', f'fontcolor="{look.paper}"']
        if node.kind == "parameter":
            return [
                "shape=cylinder",
                "style=filled",
                f'fillcolor="{look.panel}"',
                f'color="{look.ink}"',
                "penwidth=1.2",
            ]
        if node.kind == "input":
            return ["shape=ellipse", 'style="dashed"']
        if node.kind in ("sum", "optimizer", "delta"):
            style = (
                ["shape=circle", "style=filled", "margin=0.02"] if node.kind == "sum" else ['style="filled"']
            )
            return [*style, f'fillcolor="{look.paper}"', f'color="{look.ink}"', "penwidth=1.2"]
        parts = [f'color="{colour}"', "penwidth=1.2"]
        if node.branch in self.lanes:
            parts.append(f'group="{self.lanes.index(node.branch)}"')
        return parts if node.kind != "op" else [*parts, 'margin="0.08,0.03"', "height=0.2", "fontsize=10"]

    def _colour(self, branch: str | None) -> str:
        if branch is None:
            return self.look.muted
        return themes.style(branch, self.names).colour

    def _rows(self) -> Iterator[str]:
        """Keep the boxes of one module in one row, the lanes in their order."""
        for row in rows(self.graph, self.lanes):
            row.sort(key=lambda node: self.lanes.index(node.branch or ""))
            ids = [self.ids[node.id] for node in row]
            yield f"{{ rank=same; {' -> '.join(ids)} [style=invis] }}"

    def _column(self) -> Iterator[str]:
        """Keep the shared parameters in one column, between the lanes."""
        users: dict[str, set[str | None]] = {}
        for edge in self.graph.edges:
            users.setdefault(edge.target, set()).add(edge.branch)
        shared = [
            node
            for node in self.graph.nodes
            if node.kind == "parameter"
            and node.id not in self.hubs
            and len(users[node.id] & set(self.lanes)) > 1
        ]
        if len(shared) > 1:
            order = " -> ".join(self.ids[node.id] for node in self._top_down(shared))
            yield f"{order} [style=invis, weight=4]"

    def _top_down(self, shared: list[Node]) -> list[Node]:
        place = {node.id: i for i, node in enumerate(self.graph.nodes)}
        first: dict[str, int] = {}
        for edge in self.graph.edges:
            first[edge.target] = min(first.get(edge.target, len(place)), place[edge.source])
        return sorted(shared, key=lambda node: first.get(node.id, 0))

    def _proxy(self, edge: Edge, number: int) -> Iterator[str]:
        """Draw one use of a parameter used far and wide: a small box beside its consumer."""
        node = self.hubs[edge.target]
        name = _html(title(node, self.prefix))
        look = self.look
        yield (
            f'p{number} [label=<<font point-size="8">{name}</font>>, shape=cylinder, style=filled, '
            f'fillcolor="{look.panel}", color="{look.muted}", height=0.2, margin="0.06,0.02", '
            f'class="proxy {self.ids[node.id]}", tooltip="{_escaped(tip(node))}"]'
        )
        yield self._edge(edge, f"p{number}", is_use=True)

    def _edge(self, edge: Edge, target: str, *, is_use: bool) -> str:
        colour = self._colour(edge.branch)
        parts = [f'color="{colour}"']
        if is_use:
            parts.append(f"penwidth={self._width(edge.norm):.2f}")
        else:
            parts.append("weight=8")
        if edge.is_loop:
            parts += ["style=dashed", "constraint=false"]
        if edge.norm is not None:
            parts.append(f'label="{themes.number(edge.norm)}", fontcolor="{colour}"')
        parts.append(f'class="{"use" if is_use else "flow"} {self.ids[edge.source]} {self.ids[edge.target]}"')
        return f"{self.ids[edge.source]} -> {target} [{', '.join(parts)}]"

    def _width(self, norm: float | None) -> float:
        """Give the width of an arrow into a parameter, in points: proportional to the norm."""
        if norm is None or not math.isfinite(norm) or not self.largest:
            return 1.6
        return max(_THIN, _THICK * norm / self.largest)


def _clean(text: str) -> str:
    """Replace what XML cannot hold."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff\ufffe\uffff]", "\N{REPLACEMENT CHARACTER}", text)


def _html(text: str) -> str:
    """Escape text for a label of Graphviz's HTML kind."""
    text = _clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace('"', "&quot;").replace("\n", " ")


def _escaped(text: str) -> str:
    """Escape text for a quoted string, in which Graphviz reads backslashes and entities."""
    text = _clean(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return re.sub(r"&(?=#?\w+;)", "&amp;", text)
