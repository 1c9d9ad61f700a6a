"""The graph of a picture: nodes, edges, parameters and branches, and the views of it.

A traced graph holds every autograd node. :meth:`Graph.collapse` and :meth:`Graph.expand` give other views
of the same graph; nothing is ever lost, a view can always be opened again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from gradflow.errors import InvalidArgumentError, did_you_mean
from gradflow.graph.collapse import View, collapsed, in_order
from gradflow.graph.data import Edge, Node, Parameter, owner_path
from gradflow.graph.fold import folded
from gradflow.graph.repeats import chain
from gradflow.graph.values import measured, valued

__all__ = ["Graph"]

_ENOUGH_BOXES = 3
_MOST_BOXES = 60


@dataclass(frozen=True, slots=True, repr=False)
class Graph:
    """A backward graph, or a view of one.

    Attributes:
        nodes: In topological order from the loss.
        edges: Pointing the way the gradient flows.
        parameters: Every parameter with its names and uses, whatever the view.
        branches: Names of the branches, in forward order.
        view: What of the graph is shown; None when it is all of it.
        base: The whole graph that this is a view of; None when it is that itself.
        step: The recorded step whose numbers are shown; None for none.
        notes: What cannot be seen in this graph, and what to do about it.
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    parameters: tuple[Parameter, ...]
    branches: tuple[str, ...] = ()
    view: View | None = None
    base: Graph | None = field(default=None, compare=False)
    step: Any = field(default=None, compare=False)  # a Step; graph and record know nothing of each other
    notes: tuple[str, ...] = ()

    @property
    def whole(self) -> Graph:
        """The whole graph that this is a view of."""
        return self.base or self

    def collapse(self, depth: int | None = 1, *, fold: bool = True) -> Graph:
        """Fold nodes into the modules that made them, one box per call and branch.

        Args:
            depth: How many levels of modules to tell apart; 0 gives one box per branch, None every node.
            fold: Draw equal blocks, and long runs of equal time steps, once.

        Returns:
            A view; collapsing a view collapses the whole graph anew.

        Raises:
            InvalidArgumentError: ``depth`` is negative.
        """
        if depth is not None and depth < 0:
            raise InvalidArgumentError(
                f"depth={depth} is negative",
                where="graph.collapse",
                do="pass 0 or more, or None for every node",
            )
        return self._seen(View(depth, fold=fold))

    def expand(self, group: str | Node | None = None) -> Graph:
        """Open a box one level deeper, or draw out what was folded into it.

        Args:
            group: A module path (opened in all branches), or a node of this view. None shows every node.

        Raises:
            InvalidArgumentError: no such module in this graph.
        """
        if group is None:
            return self._seen(View(None, fold=False))
        view = self.view or View(None, fold=False)
        node = next((one for one in self.nodes if group in (one, one.id)), None)
        path = group if isinstance(group, str) and node is None else self._path(node)
        paths = self._module_paths()
        if path not in paths:
            raise InvalidArgumentError(
                f"no module {path!r} in this graph",
                where="graph.expand",
                do=did_you_mean(path, sorted(paths)),
            )
        repeated = [one for one in self.nodes if one.repeats > 1 and self._path(one) == path]
        if repeated:
            families = {outer.rpartition(".")[0] for outer in chain(path)} | {path}
            return self._seen(replace(view, unfolded=view.unfolded | families))
        return self._seen(replace(view, opened=view.opened | set(chain(path))))

    def overview(self) -> Graph:
        """Give the view that is drawn when none was chosen: modules, as deep as stays readable on a page."""
        if self.view is not None:
            return self
        best = self.collapse(0)
        deepest = max((path.count(".") + 1 for path in self._module_paths() if path), default=0)
        for depth in range(1, deepest + 1):
            deeper = self.collapse(depth)
            if len(deeper.nodes) > _MOST_BOXES and len(best.nodes) > 1:
                break
            best = deeper
            if _boxes_per_branch(best) >= _ENOUGH_BOXES:
                break
        return best

    def with_values(self, step: Any) -> Graph:  # a Step, see `step`
        """Show a recorded step's numbers: contributions on the arrows into parameters, Σ and Δ after them.

        Args:
            step: A step of a recording of the same model; None takes the numbers away.
        """
        changed = replace(self, step=step)
        return changed if self.view is None else changed._seen(self.view)

    def to_dot(self, *, theme: str = "light", details: bool = True) -> str:
        """Write the view (for a whole graph, its overview) as text in Graphviz' language DOT."""
        from gradflow.render import dot

        return dot.to_dot(self.overview(), theme=theme, details=details)

    def to_json(self) -> str:
        """Write nodes, edges, parameters and branches of this view as JSON."""
        content = {
            name: [asdict(one) for one in getattr(self, name)] for name in ("nodes", "edges", "parameters")
        }
        return json.dumps(content | {"branches": list(self.branches)}, ensure_ascii=False)

    def __repr__(self) -> str:
        from gradflow.render import graph_text

        return graph_text.text(self)

    def _repr_html_(self) -> str:
        from gradflow.render import graph_files

        return graph_files.figure(self)

    def save(
        self,
        path: str | Path,
        *,
        step: Any = None,  # a Step, see `step`
        theme: str = "light",
        details: bool = True,
        time_limit_s: float = 20.0,
    ) -> Path:
        """Write a picture or the data, by the ending: .svg .pdf .png .html .dot .json .txt, and .gif .mp4.

        A whole graph is drawn as its overview; ``graph.expand().save(...)`` draws every node.

        Args:
            path: Where to.
            step: A recorded step whose numbers to show, see :meth:`with_values`; for .gif and .mp4 a
                recording, whose steps become frames.
            theme: ``"light"`` or ``"dark"``.
            details: Whether boxes tell operations, shapes and sizes, or their names alone, as on a slide.
            time_limit_s: Seconds a layout may take; what takes longer is collapsed further, with a warning.

        Returns:
            The path written.

        Raises:
            InvalidArgumentError: an ending that is not known, or a moving picture without a recording.
            MissingPackageError: there is no Graphviz to draw with, or no ffmpeg for .mp4.
        """
        from gradflow.render import graph_files

        return graph_files.save(self, Path(path), graph_files.Look(theme, details, time_limit_s), step)

    def _seen(self, view: View) -> Graph:
        whole = self.whole
        raw = whole.edges
        if self.step is not None:
            raw = measured(raw, whole.parameters, whole.branches, self.step)
        nodes, edges = list(whole.nodes), list(raw)
        if view.depth is not None or view.fold:
            nodes, edges = folded(*collapsed(whole.nodes, raw, view), view)
        if self.step is not None:
            nodes, edges = valued(nodes, edges, whole.branches, self.step)
        nodes = in_order(nodes, edges)
        return replace(whole, nodes=tuple(nodes), edges=tuple(edges), view=view, base=whole, step=self.step)

    def _module_paths(self) -> set[str]:
        paths = {outer for path in {node.path for node in self.whole.nodes} for outer in chain(path)}
        return paths | {
            outer for p in self.parameters for name in p.names for outer in chain(owner_path(name))
        }

    @staticmethod
    def _path(node: Node | None) -> str:
        if node is None:
            return ""
        return node.name if node.kind in ("module", "parameter") and node.members > 1 else node.path


def _boxes_per_branch(graph: Graph) -> float:
    boxes = [node for node in graph.nodes if node.kind == "module"]
    return len(boxes) / max(1, len({node.branch for node in boxes}))
