"""The order of a Keras model's calls as it was written, not as Keras runs it.

A functional model runs the calls of one layer in an order of its own: with three outputs, the last one first.
Paths named by the order of their calls would get one another's names. So where the two orders differ, each
such call runs inside :class:`gradflow.branch` with the name that it was written for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.hooks import RemovableHandle

from gradflow.capture.branches import branch

__all__ = ["WrittenOrder"]

Layer = Any  # a keras.Layer; keras has no types


class WrittenOrder:
    """Gives the calls of shared layers the names they were written for.

    Args:
        layers: Every layer of the watched models, themselves among them.
        names: Names of the paths, in the order in which the calls were written.
    """

    def __init__(self, layers: Sequence[Layer], names: Sequence[str]) -> None:
        self._plans: list[tuple[Layer, Layer, list[str]]] = []
        for model in layers:
            for layer, order in _runs(model):
                if len(order) == len(names) and order != sorted(order):
                    self._plans.append((model, layer, [names[i] for i in order]))
        self._handles: list[RemovableHandle] = []

    def attach(self) -> None:
        """Put hooks on; before those of whoever watches, so that the names are known to it."""
        for model, layer, names in self._plans:
            calls = _Calls(names)
            self._handles += [
                model.register_forward_pre_hook(calls.model_begins),
                model.register_forward_hook(calls.model_ends, always_call=True),
                layer.register_forward_pre_hook(calls.layer_begins),
                layer.register_forward_hook(calls.layer_ends, always_call=True),
            ]

    def detach(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


class _Calls:
    """The calls of one layer while its model runs."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._runs: list[Iterator[str]] = []
        self._open: list[branch | None] = []

    def model_begins(self, *_: object) -> None:
        """The model begins to run its graph."""
        self._runs.append(iter(self._names))

    def model_ends(self, *_: object) -> None:
        """The model has run, or failed."""
        if self._runs:
            self._runs.pop()

    def layer_begins(self, *_: object) -> None:
        """One of the calls begins; outside the model it gets no name."""
        name = next(self._runs[-1], None) if self._runs else None
        self._open.append(None if name is None else branch(name).__enter__())

    def layer_ends(self, *_: object) -> None:
        """The call is over."""
        stretch = self._open.pop() if self._open else None
        if stretch is not None:
            stretch.__exit__(None, None, None)


def _runs(model: Layer) -> Iterator[tuple[Layer, list[int]]]:
    """Give each layer that a functional model calls several times, and in which order it runs the calls.

    The order is that of ``keras.src.ops.function.Function``: deepest first, then as the nodes are listed.
    """
    by_depth = getattr(model, "_nodes_by_depth", None) or {}
    order: dict[Layer, list[int]] = {}
    for depth in sorted(by_depth, reverse=True):
        for node in by_depth[depth]:
            if node.operation is not None and not node.is_input:
                written = node.operation._inbound_nodes
                order.setdefault(node.operation, []).append(written.index(node))
    for layer, indices in order.items():
        if len(indices) > 1 and hasattr(layer, "register_forward_hook"):
            ranks = sorted(indices)
            yield layer, [ranks.index(i) for i in indices]
