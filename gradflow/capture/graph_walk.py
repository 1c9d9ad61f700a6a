"""The autograd graph behind some losses, as lists: its nodes, what they are called, what they keep.

Always iterative: graphs outgrow the recursion limit. Nothing is unpacked, and no forward pass runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import Node as AutogradNode

from gradflow.capture.release import break_chains
from gradflow.capture.walk import is_leaf_node
from gradflow.errors import InvalidArgumentError
from gradflow.graph import Saved
from gradflow.graph.data import owner_path
from gradflow.graph.skeleton import Owner, Skeleton

__all__ = [
    "Leaf",
    "Names",
    "Norms",
    "Walk",
    "leaves_of",
    "made",
    "measure",
    "names_in",
    "saved_tensors",
    "skeleton_of",
    "walk_from",
]

Norms = dict[tuple[int, int], float]
"""Norm of the gradient on an edge, by the position of its source and the input it is."""

_Slots = tuple[tuple[AutogradNode | None, int], ...]
_SINGLE_OPS = ("linear", "conv", "batchnorm", "normalization", "instancenorm", "sparse")


@dataclass(slots=True)
class Walk:
    """The nodes behind some losses.

    Attributes:
        nodes: In topological order: each stands before all that it leads to.
        inputs: Positions that each node's inputs lead to; -1 for an input that needs no gradient.
        shapes: Shape of the (first) value that each node gave in the forward pass, if it says so.
    """

    nodes: list[AutogradNode]
    inputs: list[list[int]]
    shapes: list[tuple[int, ...] | None]


def walk_from(losses: list[torch.Tensor]) -> Walk:
    """Visit every node behind the losses once.

    Raises:
        InvalidArgumentError: a loss has no graph, or there is none.
    """
    roots = [loss.grad_fn for loss in losses if loss.grad_fn is not None]
    if not roots or len(roots) < len(losses):
        raise InvalidArgumentError(
            "the loss has no grad_fn: nothing was recorded on the way to it",
            where="gradflow.trace",
            do="trace the tensor that you call backward on; not made under torch.no_grad(), not detached",
        )
    slots: dict[AutogradNode, _Slots] = {}
    waiting: dict[AutogradNode, int] = {}
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node in slots:
            continue
        slots[node] = node.next_functions
        for child, _ in slots[node]:
            if child is not None:
                waiting[child] = waiting.get(child, 0) + 1
                stack.append(child)
    nodes = _sorted(roots, slots, waiting)
    position = {node: at for at, node in enumerate(nodes)}
    break_chains([(node, slots[node]) for node in reversed(nodes)])
    return Walk(
        nodes=nodes,
        inputs=[[-1 if c is None else position[c] for c, _ in slots[node]] for node in nodes],
        shapes=[_shape(node) for node in nodes],
    )


def _sorted(
    roots: list[AutogradNode], slots: dict[AutogradNode, _Slots], waiting: dict[AutogradNode, int]
) -> list[AutogradNode]:
    """Put the nodes in topological order; ``waiting`` tells how many edges lead into each."""
    nodes: list[AutogradNode] = []
    ready = [root for root in dict.fromkeys(reversed(roots)) if root not in waiting]
    while ready:
        node = ready.pop()
        nodes.append(node)
        for child, _ in reversed(slots[node]):
            if child is not None:
                waiting[child] -= 1
                if not waiting[child]:
                    ready.append(child)
    return nodes


@dataclass(slots=True)
class Names:
    """Names of the parameters and modules of the models.

    Attributes:
        of: All FQNs of a parameter, by its ``id``.
        owners: The modules that hold it, in the same order.
        single_ops: Paths of modules that are one operation.
        lists: Paths of modules that only hold others.
        home: Class name of the model.
    """

    of: dict[int, list[str]] = field(default_factory=dict)
    owners: dict[int, list[Owner]] = field(default_factory=dict)
    single_ops: set[str] = field(default_factory=set)
    lists: set[str] = field(default_factory=set)
    home: str = "model"


def names_in(model: nn.Module | Sequence[nn.Module] | None) -> Names:
    """Name parameters and modules of a model, or of several, then prefixed ``"0."``, ``"1."``."""
    names = Names()
    models = [] if model is None else [model] if isinstance(model, nn.Module) else list(model)
    for number, one in enumerate(models):
        prefix = f"{number}" if len(models) > 1 else ""
        modules = dict(one.named_modules(prefix=prefix, remove_duplicate=False))
        names.single_ops.update(path for path, module in modules.items() if _is_single_op(module))
        lists = (nn.ModuleList, nn.ModuleDict)
        names.lists.update(path for path, module in modules.items() if isinstance(module, lists))
        for fqn, parameter in one.named_parameters(prefix=prefix, remove_duplicate=False):
            path = owner_path(fqn)
            names.of.setdefault(id(parameter), []).append(fqn)
            names.owners.setdefault(id(parameter), []).append(Owner(path, type(modules[path]).__name__))
    if len(models) == 1:
        names.home = type(models[0]).__name__
    return names


def _is_single_op(module: nn.Module) -> bool:
    if any(name != "parametrizations" for name, _ in module.named_children()):
        return False
    homes = (base.__module__ for base in type(module).__mro__)
    return any(home.startswith("torch.nn.") and home.rpartition(".")[2] in _SINGLE_OPS for home in homes)


@dataclass(slots=True)
class Leaf:
    """A leaf of the graph: a parameter, or data that requires a gradient.

    Attributes:
        names: All its names; a number where no model names it.
        owners: The modules that hold it.
        is_parameter: False for data.
        rank: Its place among the parameters of the model; behind them if it is none of them.
    """

    names: tuple[str, ...]
    owners: tuple[Owner, ...]
    is_parameter: bool
    rank: int


def leaves_of(walk: Walk, names: Names) -> dict[int, Leaf]:
    """Name the leaves of the graph, by position; those of no model are numbered."""
    leaves: dict[int, Leaf] = {}
    ranks = {key: rank for rank, key in enumerate(names.of)}
    for at, node in enumerate(walk.nodes):
        if not is_leaf_node(node):
            continue
        tensor = node.variable  # type: ignore[attr-defined]
        known = tuple(names.of.get(id(tensor), ()))
        rank = ranks.get(id(tensor), len(ranks))
        is_parameter = bool(known) or isinstance(tensor, nn.Parameter)
        leaves[at] = Leaf(known, tuple(names.owners.get(id(tensor), ())), is_parameter, rank)
    for kind, word in ((True, "parameter"), (False, "input")):
        unnamed = [leaf for leaf in leaves.values() if leaf.is_parameter is kind and not leaf.names]
        for number, leaf in enumerate(unnamed):
            leaf.names = (f"{word} {number}",)
    return leaves


def skeleton_of(walk: Walk, names: Names, leaves: dict[int, Leaf]) -> Skeleton:
    """Give the bare graph, for working out modules and branches from it."""
    parameters = {at: leaf for at, leaf in leaves.items() if leaf.is_parameter}
    return Skeleton(
        names=[node.name() for node in walk.nodes],
        numels=[math.prod(shape or (1,)) for shape in walk.shapes],
        order=[made(node) for node in walk.nodes],
        children=walk.inputs,
        leaves={at: number for number, at in enumerate(parameters)},
        inputs=leaves.keys() - parameters.keys(),
        owners=[leaf.owners for leaf in parameters.values()],
        single_ops=frozenset(names.single_ops),
        lists=frozenset(names.lists),
        home=names.home,
    )


def made(node: AutogradNode) -> int:
    """Tell when a node was made; the counter is one per thread, so an order within a thread only."""
    number = getattr(node, "_sequence_nr", None)
    return number() if number is not None else 0


def _shape(node: AutogradNode) -> tuple[int, ...] | None:
    try:
        metadata: Sequence[Any] = node._input_metadata  # no stub describes it
        return tuple(int(size) for size in metadata[0].shape)
    except (AttributeError, IndexError, RuntimeError, TypeError):  # an undefined, nested or symbolic output
        return None


def measure(losses: list[torch.Tensor], walk: Walk) -> Norms:
    """Measure the norm of the gradient on every edge, by one backward that accumulates nothing."""
    found: dict[tuple[int, int], torch.Tensor] = {}
    handles = [
        node.register_hook(_norm_hook(at, kids, found))
        for at, (node, kids) in enumerate(zip(walk.nodes, walk.inputs, strict=True))
        if any(kid >= 0 for kid in kids)
    ]
    leaves = [node.variable for node in walk.nodes if is_leaf_node(node)]  # type: ignore[attr-defined]
    try:
        torch.autograd.grad(losses, leaves, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        raise InvalidArgumentError(
            f"the gradients could not be measured: {error}".splitlines()[0],
            where="gradflow.trace(norms=True)",
            do="trace a scalar loss before its backward, or pass norms=False",
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    values = torch.stack([norm.to("cpu") for norm in found.values()]).tolist() if found else []
    return dict(zip(found, values, strict=True))


def _norm_hook(at: int, kids: list[int], found: dict[tuple[int, int], torch.Tensor]) -> Callable[..., None]:
    def hook(grad_inputs: tuple[torch.Tensor | None, ...], _: object) -> None:
        for slot, grad in enumerate(grad_inputs):
            if grad is not None and slot < len(kids) and kids[slot] >= 0:
                dense = grad.detach().coalesce().values() if grad.is_sparse else grad.detach()
                found[at, slot] = torch.linalg.vector_norm(dense).to(torch.float64)

    return hook


def saved_tensors(node: AutogradNode) -> tuple[Saved, ...]:
    """List the tensors a node keeps, without unpacking: what a hook has packed is named and left alone."""
    found: list[Saved] = []
    for attribute in dir(node):
        if attribute.startswith("_raw_saved_"):
            kept = getattr(node, attribute)
            name = attribute.removeprefix("_raw_saved_")
            several = kept if isinstance(kept, tuple) else (kept,)
            for number, one in enumerate(several):
                label = f"{name}[{number}]" if isinstance(kept, tuple) else name
                tensor = getattr(one, "data", None)
                if isinstance(tensor, torch.Tensor):
                    size = tensor.numel() * tensor.element_size()
                    dtype = str(tensor.dtype).removeprefix("torch.")
                    found.append(Saved(label, tuple(tensor.shape), dtype, size))
                elif tensor is not None:
                    found.append(Saved(label, (), "packed", 0))
    return tuple(found)
