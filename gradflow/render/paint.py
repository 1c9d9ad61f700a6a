r"""What boxes and arrows look like in DOT: labels, shapes, colours and widths, with every name escaped.

Names come from anywhere (a module may be called ``a\"b<script>``), so they never become identifiers: nodes
are numbered, names stand in labels and tooltips. No ``URL`` is ever written.
"""

from __future__ import annotations

import html as markup
import math
import re
from dataclasses import dataclass, field

from gradflow.graph.data import Edge, Node
from gradflow.graph.graph import Graph
from gradflow.record import RESERVED
from gradflow.render import theme as themes
from gradflow.render.labels import lines_of, prefix_of, tip, title, values
from gradflow.render.parallel import parallel_branches
from gradflow.render.theme import Theme

__all__ = ["FONTS", "Fixed", "Paint", "contrast", "escaped", "html", "without_markup"]

FONTS = "Helvetica Neue,Helvetica,Arial,Liberation Sans,DejaVu Sans,sans-serif"

_LEGIBLE = 4.5  # contrast of text, WCAG 2.1, level AA
_THIN, _THICK, _PLAIN = 0.8, 5.0, 1.6  # widths of arrows into parameters, in points


@dataclass(frozen=True, slots=True)
class Fixed:
    """What stays as it is from picture to picture of a sequence, so that boxes stand still.

    Attributes:
        largest: The norm that is drawn with the widest arrow.
        lines: The widest text of each box, by id.
    """

    largest: float
    lines: dict[str, list[str]]


@dataclass(slots=True)
class Paint:
    """Gives the attributes of each node and edge of a view.

    Attributes:
        graph: The view.
        look: Its theme.
        details: Whether boxes tell operations, shapes and sizes, or their names alone.
        fixed: What stays as it is from picture to picture of a sequence.
        ids: Identifier of each node in the text, by id.
        lanes: Branches that run side by side.
        names: Branches that have a colour, in their order.
        parameters: Ids of the parameters.
    """

    graph: Graph
    look: Theme
    details: bool = True
    fixed: Fixed | None = None
    ids: dict[str, str] = field(default_factory=dict)
    lanes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    parameters: set[str] = field(default_factory=set)
    _prefix: str = ""
    _largest: float = 0.0
    _repeated: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        graph = self.graph
        self.ids = {node.id: f"n{i}" for i, node in enumerate(graph.nodes)}
        self.lanes = parallel_branches(graph)
        self.names = tuple(name for name in graph.branches if name not in RESERVED)
        self.parameters = {node.id for node in graph.nodes if node.kind == "parameter"}
        self._prefix = prefix_of(graph)
        self._repeated = {node.id for node in graph.nodes if node.repeats > 1}
        norms = [e.norm for e in graph.edges if e.target in self.parameters and e.norm is not None]
        largest = max((norm for norm in norms if math.isfinite(norm)), default=0.0)
        self._largest = largest if self.fixed is None else self.fixed.largest

    def colour(self, branch: str | None) -> str:
        """Give the colour of a branch; what belongs to none is grey."""
        if branch is None or branch not in (*self.names, *RESERVED):
            return self.look.muted
        return themes.style(branch, self.names).colour

    def legible(self, branch: str | None) -> str:
        """Give the colour of a branch for text: nearer to that of other text, until it reads well."""
        colour, look = self.colour(branch), self.look
        shades = (_mixed(colour, look.ink, part / 10) for part in range(10))
        return next((shade for shade in shades if contrast(shade, look.paper) >= _LEGIBLE), look.ink)

    def lines(self, node: Node) -> list[str]:
        """Give the lines of a box; one outside the lanes also tells its step or branch."""
        found = lines_of(node, self._prefix)
        if not self.details:
            return found[:1] + [line for line in (values(node),) if line and node.kind == "parameter"]
        if node.kind == "module" and node.branch not in (None, node.name, *self.lanes):
            found.append(f"step {node.step}" if node.step is not None else _told(node.branch))
        return found

    def node(self, node: Node, *extra: str) -> str:
        """Write a node; ``extra`` are more attributes."""
        head, *lines = self.lines(node)
        size = '<font point-size="9" color="{}">{}</font>'
        faint = self.look.faint if node.kind == "loss" else self.look.muted
        rows = [f"<b>{html(head)}</b>" if node.kind != "op" else html(head)]
        rows += [size.format(faint, html(line)) for line in lines]
        parts = [f"label=<{'<br/>'.join(rows)}>", *self._shape(node), *extra]
        parts += [f'id="{self.ids[node.id]}"', f'class="{node.kind}"', f'tooltip="{escaped(tip(node))}"']
        return f"{self.ids[node.id]} [{', '.join(parts)}]"

    def proxy(self, edge: Edge, parameter: Node, name: str) -> str:
        """Write one use of a parameter that is used far and wide: a small box beside its consumer."""
        look = self.look
        label = f'<font point-size="8">{html(title(parameter, self._prefix))}</font>'
        return (
            f'{name} [label=<{label}>, shape=cylinder, style=filled, fillcolor="{look.panel}", '
            f'color="{self.colour(edge.branch)}", height=0.2, margin="0.06,0.02", '
            f'class="proxy {self.ids[parameter.id]}", tooltip="{escaped(tip(parameter))}"]'
        )

    def edge(self, edge: Edge, target: str, *extra: str) -> str:
        """Write an edge into ``target``, which may be a proxy; ``extra`` are more attributes."""
        is_use = edge.target in self.parameters
        colour = self.colour(edge.branch)
        width = self.width(edge.norm) if is_use else 1.0
        parts = [f'color="{colour}"', *extra]
        if is_use:
            parts += [f"penwidth={width:.2f}", f"arrowsize={0.5 + 0.08 * width:.2f}"]
        if edge.is_loop:
            parts += ["style=dashed", "constraint=false"]
        if edge.norm is not None:
            is_placed = any(part.startswith("lp=") for part in extra)  # else dot sets it on thick lines
            label = themes.number(edge.norm) if is_placed else f"  {themes.number(edge.norm)}"
            parts.append(f'label="{label}", fontcolor="{self.legible(edge.branch)}"')
        elif is_use and edge.source in self._repeated and not extra:
            parts.append(f'label="  {edge.members} uses", fontcolor="{self.look.muted}"')
        parts.append(f'class="{"use" if is_use else "flow"} {self.ids[edge.source]} {self.ids[edge.target]}"')
        return f"{self.ids[edge.source]} -> {target} [{', '.join(parts)}]"

    @property
    def largest(self) -> float:
        """The norm that is drawn with the widest arrow; 0 if there is none."""
        return self._largest

    def room(self, node: Node) -> list[str]:
        """Give the text that decides the size of a box."""
        return self.lines(node) if self.fixed is None else self.fixed.lines.get(node.id, self.lines(node))

    def width(self, norm: float | None) -> float:
        """Give the width of an arrow into a parameter, in points: proportional to the norm."""
        if norm is None or not math.isfinite(norm) or not self._largest:
            return _PLAIN
        return max(_THIN, _THICK * norm / self._largest)

    def _shape(self, node: Node) -> list[str]:
        look, colour = self.look, self.colour(node.branch)
        if node.kind == "loss":
            fill = colour if node.branch else look.ink
            return [f'fillcolor="{fill}"', f'color="{fill}"', f'fontcolor="{look.paper}"']
        if node.kind == "input":
            return ["shape=ellipse", 'style="dashed"']
        dark = [f'color="{look.ink}"', "penwidth=1.2"]
        if node.kind == "parameter":
            return ["shape=cylinder", "style=filled", f'fillcolor="{look.panel}"', *dark]
        if node.kind == "sum":
            return ["shape=circle", "style=filled", "margin=0.02", *dark]
        if node.kind in ("optimizer", "delta"):
            return ["style=filled", *dark]
        small = ['margin="0.08,0.03"', "height=0.2", "fontsize=10"] if node.kind == "op" else []
        return [f'color="{colour}"', "penwidth=1.2", *small]


def contrast(one: str, other: str) -> float:
    """Give the contrast of two colours, from 1 to 21, as WCAG 2.1 defines it.

    Example:
        >>> round(contrast("#000000", "#ffffff"), 1), round(contrast("#F0E442", "#fefefe"), 1)
        (21.0, 1.3)
    """
    bright, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def _mixed(one: str, other: str, part: float) -> str:
    """Give a colour between two."""
    pairs = ((int(one[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in pairs)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _told(branch: str | None) -> str:
    return str(branch) if branch in RESERVED else f"branch {branch}"


def html(text: str) -> str:
    """Escape text for a label of Graphviz's HTML kind.

    Example:
        >>> html('a"b<script>&c')
        'a&quot;b&lt;script&gt;&amp;c'
    """
    text = _clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace('"', "&quot;").replace("\n", " ")


def escaped(text: str) -> str:
    r"""Escape text for a quoted string, in which Graphviz reads backslashes and entities.

    Example:
        >>> print(escaped('a"b' + chr(92) + '&amp;'))
        a\"b\\&amp;amp;
    """
    text = _clean(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return re.sub(r"&(?=#?\w+;)", "&amp;", text)


def without_markup(dot: str) -> str:
    r"""Give DOT text of ours with plain labels, for a Graphviz that was built without HTML labels.

    Example:
        >>> print(without_markup('n0 [label=<<b>a&lt;b</b><br/>c>, shape=box]'))
        n0 [label="a<b\nc", shape=box]
    """

    def plain(label: re.Match[str]) -> str:
        lines = [re.sub(r"<[^>]*>", "", line) for line in label[1].split("<br/>")]
        return f'label="{escaped(chr(10).join(map(markup.unescape, lines)))}",'

    return re.sub(r"label=<((?:[^<>]|<[^>]*>)*)>,", plain, dot)


def _clean(text: str) -> str:
    """Replace what XML cannot hold."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff\ufffe\uffff]", "\N{REPLACEMENT CHARACTER}", text)
