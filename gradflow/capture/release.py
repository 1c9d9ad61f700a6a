"""Freeing deep graphs: torch 2.13 does it by recursion once Python has seen the nodes.

Beyond some 40,000 nodes in a row that overflows the stack, which ends the process and raises nothing; in
threads with small stacks far fewer do. So at every :data:`DEEP` nodes of depth one is made to hold what it
reads until it is gone itself. The outermost of these to go then frees what all others held, in turn.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from torch.autograd.graph import Node

from gradflow.capture.walk import Slots, is_leaf_node

__all__ = ["DEEP", "break_chain", "break_chains"]

DEEP = 250
"""How long a chain of nodes may be before it is broken.

At most twice as many are on the stack at a time: those before the outermost break, and those behind one of
the others. Most nodes take some 200 bytes there, those of ``cat`` and ``split`` up to 300; stacks of threads
have 128 kB where they are small, and 512 kB to 8 MB elsewhere.
"""

_KEY = "gradflow.release"


class _Waiting(threading.local):
    """What waits to be freed in a thread: None where no chain is being freed."""

    nodes: list[list[Node]] | None = None


class _Held:
    """Holds nodes until it dies itself; the outermost to die in a thread frees those of all others.

    An exception that is raised in here, as by Ctrl-C, ends nothing but the loop, and what is left is freed
    with the list; Python tells of it and goes on.
    """

    __slots__ = ("_nodes",)
    _waiting = _Waiting()  # of the class, for the globals of a module may be gone when an interpreter ends

    def __init__(self, nodes: list[Node]) -> None:
        self._nodes = nodes

    def __del__(self) -> None:
        waiting, nodes = self._waiting, self._nodes
        if waiting.nodes is not None:
            waiting.nodes.append(nodes)
            return
        waiting.nodes = [nodes]
        self._nodes = []  # this and the next leave the nodes to the list alone: taking them out frees them
        del nodes
        try:
            while waiting.nodes:
                waiting.nodes.pop()
        finally:
            waiting.nodes = None


def break_chain(node: Node, slots: Slots) -> None:
    """Have the nodes that a node reads, where ``slots`` lead, be freed after it and not inside of it."""
    data: Any = node.metadata  # a dict; to torch's stubs a method
    if _KEY not in data:  # where another recorder, or a trace, has not broken it here
        data[_KEY] = _Held([child for child, _ in slots if child is not None and not is_leaf_node(child)])


def break_chains(nodes: Sequence[tuple[Node, Slots]]) -> None:
    """Do it at each :data:`DEEP` nodes of depth in a whole graph, given children before their readers."""
    if len(nodes) <= DEEP:
        return
    depths: dict[Node | None, int] = {}
    for node, slots in nodes:
        depth = max((depths.get(child, -1) for child, _ in slots), default=-1) + 1
        if depth > DEEP:
            break_chain(node, slots)
            depth = 0
        depths[node] = depth
