"""Freeing deep graphs: torch 2.13 does it by recursion once Python has seen the nodes.

Beyond some 40,000 nodes in a row that overflows the stack, which ends the process and raises nothing; in
threads with small stacks it takes 4000. So at every :data:`DEEP` nodes of depth one is made to hold what it
reads until it is gone itself, and then to free that from where no recursion is under way.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from torch.autograd.graph import Node

from gradflow.capture.walk import Slots, is_leaf_node

__all__ = ["DEEP", "break_chain", "break_chains"]

DEEP = 1000
"""How long a chain of nodes may be before it is broken; one and the next are on the stack at a time."""

_KEY = "gradflow.release"


class _Waiting(threading.local):
    """What waits to be freed in a thread: None where no chain is being freed."""

    nodes: list[list[Node]] | None = None


class _Held:
    """Holds nodes until it dies itself; the outermost to die in a thread frees those of all others."""

    __slots__ = ("_nodes",)
    _waiting = _Waiting()  # of the class, for the globals of a module may be gone when an interpreter ends

    def __init__(self, nodes: list[Node]) -> None:
        self._nodes = nodes

    def __del__(self) -> None:
        waiting, nodes = self._waiting, self._nodes
        if waiting.nodes is not None:
            waiting.nodes.append(nodes)
            return
        self._nodes = []
        waiting.nodes = [nodes]
        del nodes
        try:
            while waiting.nodes:
                waiting.nodes.pop()
        finally:
            waiting.nodes = None


def break_chain(node: Node, slots: Slots) -> None:
    """Have the nodes that a node reads, where ``slots`` lead, be freed after it and not inside of it."""
    data: dict[str, object] = node.metadata  # type: ignore[assignment]  # a method, to torch's stubs
    if _KEY not in data:
        data[_KEY] = _Held([child for child, _ in slots if child is not None and not is_leaf_node(child)])


def break_chains(nodes: Iterable[tuple[Node, Slots]]) -> None:
    """Do it at every :data:`DEEP` nodes of depth, in a whole graph: children before their readers."""
    depths: dict[Node, int] = {}
    for node, slots in nodes:
        depth = 1 + max((depths.get(child, 0) for child, _ in slots if child is not None), default=0)
        if depth > DEEP:
            break_chain(node, slots)
            depth = 0
        depths[node] = depth
