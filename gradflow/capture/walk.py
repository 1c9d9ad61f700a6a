"""Walking the autograd graph back from the tensors of a call; always with a stack of our own.

Graphs outgrow the recursion limit: three thousand chained operations are enough.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import FrameType, FunctionType, MethodType, ModuleType

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils.checkpoint import CheckpointFunction

from gradflow.capture.calls import Mark

__all__ = [
    "Slots",
    "fresh_nodes",
    "is_cast_of_leaf",
    "is_in_checkpoint",
    "is_leaf_node",
    "is_view_or_cast",
    "leaf_of",
    "mark_of",
    "put_mark",
    "tensors_in",
    "tensors_of",
    "upstream",
]

Slots = tuple[tuple[Node | None, int], ...]
"""Where the inputs of a node lead: to which node, and to which of its outputs."""

_LEAF: type = torch._C._functions.AccumulateGrad  # type: ignore[attr-defined]  # torch's stubs lack it
_DEPTH = 6  # how deep containers of tensors are looked into; objects, as a distribution is one, half as deep
_FEW = 64  # attributes of an object, or items in one; what has more is a trainer, a vocabulary, a dataset
_NO_DATA = (nn.Module, type, FunctionType, MethodType, ModuleType)
_CONTAINERS = (Mapping, tuple, list, set, frozenset)
_VIEWS_AND_CASTS = frozenset({
    "AliasBackward0", "AsStridedBackward0", "ExpandBackward0", "PermuteBackward0", "ReshapeAliasBackward0",
    "SelectBackward0", "SliceBackward0", "SplitBackward0", "SplitWithSizesBackward0", "SqueezeBackward1",
    "TBackward0", "ToCopyBackward0", "TransposeBackward0", "UnbindBackward0", "UnsafeSplitBackward0",
    "UnsafeViewBackward0", "UnsqueezeBackward0", "ViewBackward0",
})  # fmt: skip


def tensors_of(data: object) -> list[Tensor]:
    """Give every tensor in the arguments of a call, or in its output."""
    if isinstance(data, Tensor):
        return [data]
    found: list[Tensor] = []
    for part in data if isinstance(data, tuple) else (data,):
        for value in part if isinstance(part, tuple) else (part,):
            if isinstance(value, Tensor):
                found.append(value)
            elif value is not None and not (type(value) is dict and not value):
                found += tensors_in(value)
    return found


def tensors_in(value: object, depth: int = _DEPTH) -> Iterator[Tensor]:
    """Give every tensor in nested tuples, lists, dicts and dataclasses, and in what other objects hold."""
    if isinstance(value, Tensor):
        yield value
    elif depth == 0 or value is None or isinstance(value, str | bytes | int | float):
        return
    else:
        for item in _held_by(value, in_objects=depth > _DEPTH // 2):
            yield from tensors_in(item, depth - 1)


def _held_by(value: object, *, in_objects: bool) -> Iterable[object]:
    """Give the items of a container, or what any other object holds, as a distribution holds its mean."""
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, tuple | list | set | frozenset):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    if not in_objects or isinstance(value, _NO_DATA):
        return ()
    slots = [kind.__dict__.get("__slots__", ()) for kind in type(value).__mro__]
    names = itertools.chain.from_iterable((one,) if isinstance(one, str) else one for one in slots)
    held = [*getattr(value, "__dict__", {}).values(), *(getattr(value, name, None) for name in names)]
    if len(held) > _FEW:
        return ()
    return [item for item in held if not (isinstance(item, _CONTAINERS) and len(item) > _FEW)]


def is_leaf_node(node: Node) -> bool:
    """Tell whether a node is an AccumulateGrad; its type is not public."""
    return type(node) is _LEAF


def leaf_of(node: Node) -> Tensor:
    """Give the parameter of an AccumulateGrad."""
    leaf: Tensor = node.variable  # type: ignore[attr-defined]  # torch's stubs know only Node
    return leaf


def mark_of(node: Node, key: str) -> Mark | None:
    """Give the mark that a node carries under ``key``."""
    found: Mark | None = node.metadata.get(key)  # type: ignore[attr-defined]  # a method, to torch's stubs
    return found


def put_mark(node: Node, key: str, mark: Mark) -> None:
    """Put a mark on a node: it lives and dies with the node, whoever holds it."""
    node.metadata[key] = mark  # type: ignore[index]  # see above


def is_view_or_cast(node: Node) -> bool:
    """Tell whether a node of one input only casts or views it, as autocast and ``chunk`` do to a weight."""
    return type(node).__name__ in _VIEWS_AND_CASTS


def is_cast_of_leaf(node: Node) -> bool:
    """Tell whether a node is the cast of a parameter: what autocast makes once and caches."""
    child = node.next_functions[0][0] if type(node).__name__ == "ToCopyBackward0" else None
    return child is not None and is_leaf_node(child)


def is_in_checkpoint() -> bool:
    """Tell whether this runs inside the first, gradient-free pass of re-entrant checkpointing."""
    code = CheckpointFunction.forward.__code__
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is code:
            return True
        frame = frame.f_back
    return False


def fresh_nodes(roots: list[Node], key: str | None) -> list[tuple[Node, Slots]]:
    """Give the nodes behind ``roots`` that carry no mark under ``key``, children before their readers.

    The walk stops at marked nodes and at leaves: what lies behind a mark is marked already. Without a key it
    goes on to the leaves. With each node comes where its inputs lead, for asking costs more than keeping.
    """
    roots = [root for root in roots if _is_fresh(root, key)]
    chain: list[tuple[Node, Slots]] = []  # from the root on, as long as it does not branch; mostly to its end
    while len(roots) == 1:
        (node,) = roots
        slots = node.next_functions
        chain.append((node, slots))
        roots = [child for child, _ in slots if child is not None and _is_fresh(child, key)]
    chain.reverse()
    return _fresh_behind(roots, key) + chain if roots else chain


def _fresh_behind(roots: list[Node], key: str | None) -> list[tuple[Node, Slots]]:
    """Do it where the graph branches."""
    order: list[tuple[Node, Slots]] = []
    seen: set[Node] = set()
    stack: list[tuple[Node, Slots | None]] = [(root, None) for root in roots]
    while stack:
        node, slots = stack.pop()
        if slots is not None:  # its children are done
            order.append((node, slots))
        elif node not in seen:
            seen.add(node)
            slots = node.next_functions
            stack.append((node, slots))
            for child, _ in slots:
                if child is not None and child not in seen and _is_fresh(child, key):
                    stack.append((child, None))
    return order


def _is_fresh(node: Node, key: str | None) -> bool:
    if type(node) is _LEAF:
        return False
    return key is None or key not in node.metadata  # type: ignore[operator]  # a method, to torch's stubs


def upstream(node: Node) -> Iterator[Node]:
    """Give the children of a node that are not leaves."""
    for child, _ in node.next_functions:
        if child is not None and not is_leaf_node(child):
            yield child
