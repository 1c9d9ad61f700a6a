"""Planting hooks while the forward pass runs: on every node that reads a watched parameter.

A hook on a parameter sees only the sum of its gradients; the engine adds them up before. So each
node with an edge into a parameter's AccumulateGrad gets a hook of its own: ``grad_inputs[k]`` there
*is* the contribution of that use. The nodes are found by walking back from the outputs of each
module call to its inputs, at forward time: a walk from the loss would miss what checkpointing or
gradient caching build later.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from gradflow.capture import branches
from gradflow.capture.calls import Call, Mark, Window
from gradflow.capture.stems import Crossing, Rows, Stem
from gradflow.capture.walk import (
    fresh_nodes,
    is_cast_of_leaf,
    is_in_checkpoint,
    is_leaf_node,
    is_view_or_cast,
    leaf_of,
    leaves_behind,
    mark_of,
    put_mark,
    tensors_in,
    upstream,
)

__all__ = ["Edge", "Planter", "Sink", "planters_behind"]


class Edge:
    """A use that a hook was planted for: an edge from a marked node into a watched parameter."""

    __slots__ = ("mark", "node", "param", "slot")

    def __init__(self, mark: Mark, node: str, slot: int, param: int) -> None:
        self.mark, self.node, self.slot, self.param = mark, node, slot, param


class Sink(Protocol):
    """What planted hooks report to."""

    def knows(self, leaf: Tensor) -> bool:
        """Tell whether a leaf is watched."""

    def window(self) -> Window:
        """Give the window that a call beginning now belongs to."""

    def latest_window(self) -> Window:
        """Give the window whose backward is running."""

    def hook(self, edges: list[Edge], crossings: list[Crossing]) -> Callable[..., None]:
        """Give the hook for a node with these uses, which reads these stems."""

    def guard(self, stem: Stem) -> Callable[..., None]:
        """Give the pre-hook for a node that branches meet at."""

    def fail(self, error: Exception) -> None:
        """Take note of a failure of ours; the user's training goes on."""


class _Frame:
    """A running call of a module, kept while it runs."""

    __slots__ = ("call", "inputs", "module")

    def __init__(self, module: int, call: Call | None, inputs: list[Node]) -> None:
        self.module, self.call, self.inputs = module, call, inputs


class Planter:
    """Follows the calls of the watched modules and plants hooks on what they build.

    Args:
        key: Key of this recorder's marks in ``node.metadata``.
        sink: What the planted hooks report to.
        named: Names of modules that are branches, by ``id`` of the module.
        splits_trunks: Whether what branches read from outside any branch is split, and not only weights.
    """

    def __init__(self, key: str, sink: Sink, named: dict[int, str], *, splits_trunks: bool = False) -> None:
        self.key = key
        self._splits_trunks = splits_trunks
        self._sink = sink
        self._named = named
        self._local = threading.local()

    def enter(self, path: str, module: nn.Module, data: object) -> None:
        """Take note that a module call begins; runs as its forward pre-hook."""
        frames = self._frames()
        frame = _Frame(id(module), None, [])
        try:
            if torch.is_grad_enabled():
                frame.call, frame.inputs = self._begin(path, module, data)
            else:
                self._begin_silent(path, module, data)
        except Exception as error:
            self._sink.fail(error)
        frames.append(frame)

    def leave(self, module: nn.Module, output: object) -> None:
        """Plant hooks on what the call built; runs as its forward hook, also after an exception."""
        frames = self._frames()
        while frames:
            frame = frames.pop()
            if frame.module == id(module):
                break
        else:
            return
        if frame.call is None:
            return
        try:
            if output is None and sys.exc_info()[0] is not None:
                frame.call.window.cancel(frame.call)
            roots = [t.grad_fn for t in tensors_in(output) if t.grad_fn is not None]
            self._mark_fresh(roots, frame.call.window, frame.call, set(frame.inputs))
        except Exception as error:
            self._sink.fail(error)

    def claim(self, tensor: Tensor, name: str) -> None:
        """Give the unmarked stretch behind ``tensor`` to a branch."""
        if tensor.grad_fn is None:
            return
        window = self._sink.window()
        window.contexts[name] = None
        call = Call("", 0, 0, window, branch=name)
        fresh = fresh_nodes([tensor.grad_fn], self.key)
        for node in fresh:
            self._mark(node, Mark(window, call, name), None)
        self._read([child for node in fresh for child in upstream(node)], call)

    def divide_rows(self, output: Tensor, rows: dict[str, Rows]) -> None:
        """Divide what comes back to a tensor by rows: each branch's go through what made it on their own."""
        node = output.grad_fn
        if node is None:
            return
        window = self._sink.window()
        self._mark_fresh([node], window, None, None)
        stem = self._guarded(node)
        stem.rows.setdefault(output.output_nr, {}).update(rows)
        window.contexts.update(dict.fromkeys(rows))
        readers = [Call("", 0, 0, window, branch=name) for name in rows]
        for reader in (*readers, window.outside):
            self._spread(node, lambda m, reader=reader: _add(m.reach, reader))  # type: ignore[misc]

    def name_term(self, value: Tensor, name: str) -> None:
        """Tell apart what comes back to a tensor as a term of the loss."""
        if value.grad_fn is None:
            return
        window = self._sink.window()
        window.terms[name] = None
        self._mark_fresh([value.grad_fn], window, None, None)
        self._guarded(value.grad_fn).terms[value.output_nr] = name

    def _guarded(self, node: Node) -> Stem:
        """Give the stem that a node is, with a pre-hook on it."""
        mark = mark_of(node, self.key)
        assert mark is not None, "a stem is marked before it is guarded"
        if mark.stem is None:
            mark.stem = Stem(mark)
        if not mark.stem.leaves:
            leaves, mark.stem.size = leaves_behind(node)
            mark.stem.leaves = [leaf for leaf in leaves if self._sink.knows(leaf)]
            if mark.stem.leaves:
                node.register_prehook(self._sink.guard(mark.stem))
        return mark.stem

    def _frames(self) -> list[_Frame]:
        frames: list[_Frame] | None = getattr(self._local, "frames", None)
        if frames is None:
            frames = self._local.frames = []
        return frames

    def _begin(self, path: str, module: nn.Module, data: object) -> tuple[Call, list[Node]]:
        parent = next((f.call for f in reversed(self._frames()) if f.call is not None), None)
        if torch._C._current_graph_task_id() != -1:
            call = self._recomputed(path, module, parent, data)
        else:
            window = parent.window if parent is not None else self._sink.window()
            call = window.begin(path, id(module), parent)
            self._place(call, module)
        tensors = list(tensors_in(data))
        call.takes_data = bool(tensors)
        inputs = [t.grad_fn for t in tensors if t.grad_fn is not None]
        self._mark_fresh(inputs, call.window, parent, None)
        call.origins |= self._origins(inputs, call)
        self._read(inputs, call)
        return call, inputs

    def _place(self, call: Call, module: nn.Module) -> None:
        """Decide the branch of a call by the contexts around it; the innermost wins."""
        context, parent = branches.current(), call.parent
        call.context = context
        if context is not None:
            call.window.contexts[context.name] = None
        if id(module) in self._named:
            call.branch = self._named[id(module)]
        elif context is not None and (parent is None or parent.context is not context):
            call.branch = context.name
        elif parent is not None:
            call.branch = parent.branch

    def _begin_silent(self, path: str, module: nn.Module, data: object) -> None:
        """A call without gradients: remember the branches it names, and the first pass of a checkpoint."""
        context = branches.current()
        if context is not None:
            self._sink.window().contexts[context.name] = None
        if self._frames() or torch._C._current_graph_task_id() != -1 or not is_in_checkpoint():
            return
        window = self._sink.window()
        call = window.begin(path, id(module))
        self._place(call, module)
        window.first_passes.setdefault(_identity(module, data), []).append(call)

    def _recomputed(self, path: str, module: nn.Module, parent: Call | None, data: object) -> Call:
        """A call inside a backward: checkpointing runs forwards there again, and they inherit its label."""
        if parent is not None:
            call = Call(path, parent.index, id(module), parent.window, parent, branch=parent.branch)
            call.recomputes = parent.recomputes
        else:
            mark = self._first_run(module, data)
            window = self._sink.latest_window() if mark is None else mark.window
            index = mark.call.index if mark is not None and mark.call is not None else 0
            call = Call(path, index, id(module), window)
            call.recomputes = mark
            context = branches.current()
            if mark is None and context is not None:
                call.branch = context.name
        call.is_recomputed = True
        return call

    def _first_run(self, module: nn.Module, data: object) -> Mark | None:
        """Find what a forward inside a backward repeats: the running node's, or a checkpoint's first pass."""
        node = torch._C._current_autograd_node()
        mark = None if node is None else mark_of(node, self.key)
        if mark is not None:
            return mark
        window = self._sink.latest_window()
        found = window.first_passes.get(_identity(module, data), [])
        if not found or any(call.branch != found[0].branch for call in found):
            return None
        if len(found) > 1 and found[0].branch is None:
            return None  # the same input more than once: which of the passes this is cannot be told
        return Mark(window, found[0], found[0].branch)

    def follow(self, gradients: tuple[Tensor | None, ...], mark: Mark) -> None:
        """Mark what a backward with ``create_graph`` builds as made where the differentiated node was."""
        roots = [g.grad_fn for g in gradients if g is not None and g.grad_fn is not None]
        for node in fresh_nodes(roots, self.key):
            self._mark(node, Mark(mark.window, mark.call, mark.branch, mark.origins), None)

    def _mark_fresh(
        self, roots: list[Node], window: Window, call: Call | None, inputs: set[Node] | None
    ) -> None:
        """Mark what is new behind ``roots`` as made in ``call``, which read ``inputs`` (None: anything)."""
        for node in fresh_nodes(roots, self.key):
            mark = Mark(window, call, call.branch if call is not None else None)
            mark.origins = self._origins(upstream(node), call)
            self._mark(node, mark, inputs)

    def _origins(self, nodes: Iterator[Node] | list[Node], call: Call | None) -> frozenset[Mark]:
        """Marks that nodes derive from, looking through the stretch they are made in."""
        running = set(call.chain()) if call is not None else set()
        found: list[frozenset[Mark]] = []
        for node in nodes:
            mark = mark_of(node, self.key)
            if mark is None:
                continue
            is_same_stretch = mark.call is None or mark.call in running
            found.append(mark.origins if is_same_stretch else frozenset([mark]))
        if len(found) == 1:
            return found[0]
        return frozenset().union(*found)

    def _mark(self, node: Node, mark: Mark, inputs: set[Node] | None) -> None:
        put_mark(node, self.key, mark)
        mark.is_stem_candidate = self._could_be_stem(node, mark)
        edges: list[Edge] = []
        crossings: list[Crossing] = []
        for slot, (child, output) in enumerate(node.next_functions):
            if child is None:
                continue
            if is_leaf_node(child):
                if self._sink.knows(leaf_of(child)):
                    edges.append(Edge(mark, node.name(), slot, id(leaf_of(child))))
            else:
                self._cross(child, mark, inputs)
                stem = self._stem(child, mark)
                if stem is not None:
                    crossings.append(Crossing(mark, slot, stem, output))
        if edges or crossings:
            node.register_hook(self._sink.hook(edges, crossings))

    def _stem(self, node: Node, reader: Mark) -> Stem | None:
        """Give the stem that a node is to one that reads it; guard it once branches may meet there."""
        mark = mark_of(node, self.key)
        if mark is None:
            return None
        is_trunk = self._splits_trunks and reader.branch is not None and mark.branch is None
        if not is_trunk and not mark.is_stem_candidate:
            return None
        if mark.stem is None:
            mark.stem = Stem(mark)
        if is_trunk or mark.reach or is_cast_of_leaf(node):
            return self._guarded(node)
        return mark.stem

    def _could_be_stem(self, node: Node, mark: Mark) -> bool:
        """Tell whether a node makes a weight out of weights, which several branches may then read."""
        if mark.call is not None and not all(call.takes_data for call in mark.call.chain()):
            return True
        if not is_view_or_cast(node):
            return False
        child = node.next_functions[0][0]
        if child is None or is_leaf_node(child):
            return child is not None
        behind = mark_of(child, self.key)
        return behind is not None and behind.is_stem_candidate

    def _cross(self, child: Node, reader: Mark, inputs: set[Node] | None) -> None:
        """Take note that a node reads another stretch around the inputs of its call: a cached weight."""
        mark = mark_of(child, self.key)
        if mark is None or mark.call is reader.call:
            return
        if not mark.is_stem_candidate and (inputs is None or child in inputs):
            return
        call = reader.call or reader.window.outside
        if mark.call is not None and call in mark.call.chain():
            return
        if mark.branch is None or mark.branch != call.branch:
            self._spread(child, lambda m: _add(m.reach, call))

    def _read(self, inputs: list[Node], call: Call) -> None:
        """Tell the stretches without a branch of their own who reads them."""
        named = call.branch is not None
        if named and call.parent is not None and call.parent.branch == call.branch:
            return
        running = set(call.chain())

        def visit(mark: Mark) -> bool:
            placed = mark.branch is not None or (
                not named and mark.call is not None and mark.call not in running
            )
            return not placed and _add(mark.readers, call)

        for node in inputs:
            self._spread(node, visit)

    def _spread(self, start: Node, visit: Callable[[Mark], bool]) -> None:
        """Visit marks from a node towards the leaves, as far as ``visit`` says it is news."""
        stack = [start]
        while stack:
            node = stack.pop()
            mark = mark_of(node, self.key)
            if mark is not None and visit(mark):
                stack.extend(upstream(node))


def _identity(module: nn.Module, data: object) -> tuple[int, ...]:
    """Identify a call by its module and the storage of its inputs, which a checkpoint keeps."""
    return (id(module), *(t.data_ptr() for t in tensors_in(data) if t.layout == torch.strided))


def _add(calls: set[Call], call: Call) -> bool:
    """Add a call unless it, or one of the same named branch, is there; tell whether it was news."""
    if call in calls or (call.branch is not None and any(c.branch == call.branch for c in calls)):
        return False
    calls.add(call)
    return True


def planters_behind(tensor: Tensor) -> list[Planter]:
    """Find the recorders that watch a parameter, or marked a node, behind a tensor."""
    found: dict[int, Planter] = {}
    stack = [tensor.grad_fn] if tensor.grad_fn is not None else []
    seen: set[Node] = set(stack)
    while stack:
        node = stack.pop()
        if is_leaf_node(node):
            hooks = (leaf_of(node)._backward_hooks or {}).values()
            found.update((id(p), p) for h in hooks if (p := getattr(h, "planter", None)) is not None)
            continue
        fresh = [c for c, _ in node.next_functions if c is not None and c not in seen]
        seen.update(fresh)
        stack.extend(fresh)
    return list(found.values())
