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

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.multiprocessing.reductions import StorageWeakRef

from gradflow.capture import branches
from gradflow.capture.calls import Call, Mark, Window, joined, origins_in
from gradflow.capture.marking import Marker, Sink
from gradflow.capture.release import break_chains
from gradflow.capture.stems import Rows
from gradflow.capture.walk import (
    fresh_nodes,
    is_in_checkpoint,
    is_leaf_node,
    leaf_of,
    mark_of,
    tensors_of,
    upstream,
)

__all__ = ["Planter", "planters_behind"]

_TORCHS = frozenset(f"torch.nn.modules.{name}" for name in ("conv", "linear", "rnn", "sparse"))


class _Running(threading.local):
    """The running calls of a thread, innermost last."""

    def __init__(self) -> None:
        self.frames: list[_Frame] = []


class _Frame:
    """A running call of a module, kept while it runs, with its window."""

    __slots__ = ("call", "inputs", "module", "window")

    def __init__(self, module: int) -> None:
        self.module = module
        self.call: Call | None = None
        self.window: Window | None = None
        self.inputs: list[Node] = []


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
        self.marker = Marker(key, sink, splits_trunks=splits_trunks)
        self._sink = sink
        self._named = named
        self._running = _Running()

    def enter(self, path: str, module: nn.Module, data: object, *, is_function: bool) -> None:
        """Take note that a module call begins; runs as its forward pre-hook."""
        frames = self._running.frames
        frame = _Frame(id(module))
        try:
            if torch.is_grad_enabled():
                self._begin(frame, path, module, data)
                if is_function and frame.call is not None:
                    frame.call.is_function = True
            else:
                self._begin_silent(path, module, data)
        except Exception as error:
            self._sink.fail(error)
        frames.append(frame)

    def leave(self, module: nn.Module, output: object) -> None:
        """Plant hooks on what the call built; runs as its forward hook, also after an exception."""
        frames = self._running.frames
        depth = len(frames) - 1
        while depth >= 0 and frames[depth].module != id(module):
            depth -= 1
        if depth < 0:  # it began before the hooks were put on
            return
        frame = frames[depth]
        del frames[depth:]
        call, window = frame.call, frame.window
        if call is None or window is None:
            return
        try:
            if output is None and sys.exc_info()[0] is not None:
                window.cancel(call)
            roots = [node for t in tensors_of(output) if (node := t.grad_fn) is not None]
            self.marker.mark_fresh(roots, window, call, frame.inputs)
        except Exception as error:
            self._sink.fail(error)

    def forget_calls(self) -> None:
        """Forget the calls under way, for nobody will tell of their end: the hooks are off."""
        self._running = _Running()

    def claim(self, tensor: Tensor, name: str) -> None:
        """Give the unmarked stretch behind ``tensor`` to a branch."""
        if tensor.grad_fn is None:
            return
        window = self._sink.window()
        window.contexts[name] = None
        call = Call("", 0, 0, window, branch=name)
        read = [tensor.grad_fn]
        for node, slots in fresh_nodes([tensor.grad_fn], self.key):
            if _was_made_in(name, node):
                self.marker.mark(node, Mark(window, call, name), None, slots)
                read += upstream(node)
            else:
                self.marker.mark(node, Mark(window), None, slots, is_derived=True)
        self._read(read, call)

    def divide_rows(self, output: Tensor, rows: dict[str, Rows]) -> None:
        """Divide what comes back to a tensor by rows: each branch's go through what made it on their own."""
        node = output.grad_fn
        if node is None:
            return
        window = self._sink.window()
        self.marker.mark_fresh([node], window, None, None)
        stem = self.marker.guarded(node)
        stem.divide_rows(output.output_nr, rows)
        window.contexts.update(dict.fromkeys(rows))
        readers = [Call("", 0, 0, window, branch=name) for name in rows]
        for reader in (*readers, window.outside):
            self.marker.spread(node, lambda m, reader=reader: m.add_reach(reader))  # type: ignore[misc]

    def name_term(self, value: Tensor, name: str) -> None:
        """Tell apart what comes back to a tensor as a term of the loss."""
        if value.grad_fn is None:
            return
        window = self._sink.window()
        window.terms[name] = None
        self.marker.mark_fresh([value.grad_fn], window, None, None)
        self.marker.guarded(value.grad_fn).name_term(value.output_nr, name)

    def _begin(self, frame: _Frame, path: str, module: nn.Module, data: object) -> None:
        parent = None
        for around in reversed(self._running.frames):
            if around.call is not None:
                parent = around.call
                break
        if torch._C._current_graph_task_id() != -1:
            call, window = self._recomputed(path, module, parent, data)
        else:
            window = parent.window if parent is not None else self._sink.window()
            call = window.begin(path, id(module), parent)
            self._place(call, module)
        if type(module).__module__ in _TORCHS:  # asked each time: a parametrization changes it
            call.is_torchs = True
        tensors = tensors_of(data)
        if not tensors:
            call.maker = object()
        elif parent is not None and parent.maker is not None:
            call.maker = parent.maker
        inputs = [node for t in tensors if (node := t.grad_fn) is not None]
        if inputs:
            self._derive(call, window, parent, inputs)
        frame.call, frame.window, frame.inputs = call, window, inputs

    def _derive(self, call: Call, window: Window, parent: Call | None, inputs: list[Node]) -> None:
        """Take note of what a call derives from, and let that know who reads it."""
        marks = [mark_of(node, self.key) for node in inputs]
        if None in marks:
            self.marker.mark_fresh(inputs, window, parent, None)
            marks = [mark_of(node, self.key) for node in inputs]
        for mark in marks:
            if mark is not None:
                call.origins = joined(call.origins, origins_in(window, call, mark))
        self._read(inputs, call)

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
        if self._running.frames or torch._C._current_graph_task_id() != -1 or not is_in_checkpoint():
            return
        window = self._sink.window()
        call = window.begin(path, id(module))
        self._place(call, module)
        memory = [StorageWeakRef(t.untyped_storage()) for t in tensors_of(data) if t.layout == torch.strided]
        window.first_passes.setdefault(_identity(module, data), []).append((call, memory))

    def _recomputed(
        self, path: str, module: nn.Module, parent: Call | None, data: object
    ) -> tuple[Call, Window]:
        """A call inside a backward: checkpointing runs forwards there again, and they inherit its label."""
        if parent is not None:
            window = parent.window
            call = Call(path, parent.index, id(module), window, parent, branch=parent.branch)
            call.recomputes = parent.recomputes
        else:
            mark = self._first_run(module, data)
            window = self._sink.latest_window() if mark is None else mark.window
            index = mark.call.index if mark is not None and mark.call is not None else 0
            call = Call(path, index, id(module), window)
            call.recomputes = mark
            if mark is None:
                call.branch = _branch_of_running_node()
        call.is_recomputed = True
        return call, window

    def _first_run(self, module: nn.Module, data: object) -> Mark | None:
        """Find what a forward inside a backward repeats: the running node's, or a checkpoint's first pass."""
        node = torch._C._current_autograd_node()
        mark = None if node is None else mark_of(node, self.key)
        if mark is not None:
            return mark
        window = self._sink.latest_window()
        noted = window.first_passes.get(_identity(module, data), [])
        found = [call for call, memory in noted if not any(one.expired() for one in memory)]
        if not found or any(call.branch != found[0].branch for call in found):
            return None
        if len(found) > 1 and found[0].branch is None:
            return None  # the same input more than once: which of the passes this is cannot be told
        return Mark(window, found[0], found[0].branch)

    def follow(self, gradients: tuple[Tensor | None, ...], mark: Mark) -> None:
        """Mark what a backward with ``create_graph`` builds as made where the differentiated node was."""
        roots = [g.grad_fn for g in gradients if g is not None and g.grad_fn is not None]
        for node, slots in fresh_nodes(roots, self.key):
            self.marker.mark(node, Mark(mark.window, mark.call, mark.branch, mark.origins), None, slots)

    def _read(self, inputs: list[Node], call: Call) -> None:
        """Tell the stretches without a branch of their own who reads them."""
        if call.branch is not None:
            if call.parent is None or call.parent.branch != call.branch:
                self.marker.read_by(inputs, call)
            return

        def visit(mark: Mark) -> bool:
            return _is_open_to(call, mark) and mark.add_reader(call)

        for node in inputs:
            mark = mark_of(node, self.key)
            if mark is not None and _is_open_to(call, mark):  # mostly it is not: a call made it
                self.marker.spread(node, visit)


def _is_open_to(call: Call, mark: Mark) -> bool:
    """Tell whether a node that a call reads lies in no branch, nor in a call that this one is not part of."""
    return mark.branch is None and (mark.call is None or call.is_inside(mark.call))


def _was_made_in(name: str, node: Node) -> bool:
    """Tell whether a node was made inside a stretch of that branch, open or over."""
    number = node._sequence_nr()
    closed = branches.closed_stretch(number)
    context = branches.current()
    if closed is not None:
        return closed == name
    return context is not None and context.name == name and branches.is_inside(number)


def _branch_of_running_node() -> str | None:
    """Give the branch that is open now, or was where the node was made that runs in a backward."""
    context, node = branches.current(), torch._C._current_autograd_node()
    if context is not None or node is None:
        return None if context is None else context.name
    return branches.closed_stretch(node._sequence_nr())


def _identity(module: nn.Module, data: object) -> tuple[int, ...]:
    """Identify a call by its module and where its inputs lie; it holds as long as a checkpoint keeps them."""
    return (id(module), *(t.data_ptr() for t in tensors_of(data) if t.layout == torch.strided))


def planters_behind(tensor: Tensor) -> list[Planter]:
    """Find the recorders that watch a parameter, or marked a node, behind a tensor."""
    behind = [] if tensor.grad_fn is None else fresh_nodes([tensor.grad_fn], None)
    break_chains(behind)
    children = (child for _, slots in behind for child, _ in slots if child is not None)
    found: dict[int, Planter] = {}
    for node in dict.fromkeys(children):
        if is_leaf_node(node):
            hooks = (leaf_of(node)._backward_hooks or {}).values()
            found.update((id(p), p) for h in hooks if (p := getattr(h, "planter", None)) is not None)
    return list(found.values())
