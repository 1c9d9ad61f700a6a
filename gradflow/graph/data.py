"""Nodes, edges and parameters of a backward graph: frozen data, without behaviour.

Edges point the way the gradient flows: from the loss towards the parameters, as ``next_functions``
does. Letters: none; shapes are tuples of ints, norms are in gradient units.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "KINDS",
    "PLUMBING",
    "Edge",
    "Node",
    "Parameter",
    "Saved",
    "Use",
    "owner_path",
    "parent_path",
    "short_op",
]

KINDS = ("loss", "op", "module", "parameter", "input", "sum", "optimizer", "delta")
"""What a node stands for. ``op`` is one node of the autograd graph, ``module`` is several of them."""

PLUMBING = frozenset({
    "Alias", "AsStrided", "Clone", "Expand", "Permute", "ReshapeAlias", "Select", "Slice", "Squeeze", "T",
    "ToCopy", "Transpose", "Unsqueeze", "UnsafeView", "View",
})  # fmt: skip
"""Operations that move numbers without computing: they join the box before them, and are not named."""


@dataclass(frozen=True, slots=True)
class Saved:
    """A tensor that a node keeps for the backward pass.

    Attributes:
        name: What the node calls it, such as ``"self"`` or ``"weight"``.
        shape: Its shape; empty also when it is packed by someone's hook and was left alone.
        dtype: Its dtype, such as ``"float32"``.
        size_bytes: Its number of elements times the size of one; 0 when left alone.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Node:
    """One node of a picture: a node of the autograd graph, or several folded into one.

    Attributes:
        id: Unique in its graph; stable from one run to the next.
        kind: One of :data:`KINDS`.
        name: Name of the autograd node, FQN of the parameter, or module path of the group.
        calls: Module calls it was made in, outermost first: ``(module path, index of the call)``.
        branch: Branch it belongs to; None for the loss and for what belongs to none.
        step: Which repetition it is part of, where one module runs many times in a row; else None.
        shape: Shape of the value it gave in the forward pass; None for groups.
        inferred: True when ``calls`` and ``branch`` were worked out from the graph, not recorded.
        names: All names of a parameter, or of the parameters of a group.
        members: How many autograd nodes (or parameters) it stands for.
        repeats: How many equal blocks or time steps it stands for.
        ops: What a group holds, in forward order, without repetition.
        numel: How many numbers the parameter (or the parameters of the group) holds.
        saved: Tensors kept for the backward pass, when asked for.
        values: Numbers to show with it, as ``(label, value)``; see :meth:`Graph.with_values`.
    """

    id: str
    kind: str
    name: str
    calls: tuple[tuple[str, int], ...] = ()
    branch: str | None = None
    step: int | None = None
    shape: tuple[int, ...] | None = None
    inferred: bool = False
    names: tuple[str, ...] = ()
    members: int = 1
    repeats: int = 1
    ops: tuple[str, ...] = ()
    numel: int = 0
    saved: tuple[Saved, ...] = ()
    values: tuple[tuple[str, float], ...] = ()

    @property
    def path(self) -> str:
        """Module path of the innermost call it was made in; empty outside any."""
        return self.calls[-1][0] if self.calls else ""

    @property
    def call(self) -> int | None:
        """Which call of that module it was made in; None outside any."""
        return self.calls[-1][1] if self.calls else None


@dataclass(frozen=True, slots=True)
class Edge:
    """One way that gradient flows, from ``source`` to ``target``.

    Attributes:
        source: Id of the node nearer to the loss.
        target: Id of the node nearer to the parameters.
        index: Which input of the source this is; -1 where several edges are drawn as one.
        branch: Branch that the gradient along it belongs to.
        norm: Norm of the gradient along it, when known; of all of them together where there are several.
        members: How many edges of the autograd graph it stands for.
        is_loop: Whether it leads from one of several folded equals to the next.
    """

    source: str
    target: str
    index: int = 0
    branch: str | None = None
    norm: float | None = None
    members: int = 1
    is_loop: bool = False


@dataclass(frozen=True, slots=True)
class Use:
    """One edge from a node into a parameter's AccumulateGrad node.

    Attributes:
        node: Id of the node.
        index: Which input of the node the parameter is.
        op: Name of the node, such as ``"ConvolutionBackward0"``.
        call: Module call it was made in, as ``"encoder.conv1#2"``; empty outside any.
        branch: Branch it counts towards; None if it belongs to none.
        norm: Norm of the gradient along it, when known.
    """

    node: str
    index: int
    op: str
    call: str
    branch: str | None
    norm: float | None = None


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter that the loss depends on.

    Attributes:
        id: Id of its node.
        fqn: Fully qualified name; empty if it is no parameter of the traced model.
        names: All its names; a tied parameter has several.
        shape: Its shape.
        uses: Every edge into it, in forward order.
    """

    id: str
    fqn: str
    names: tuple[str, ...]
    shape: tuple[int, ...]
    uses: tuple[Use, ...]

    @property
    def branches(self) -> tuple[str, ...]:
        """Branches that use it, in forward order."""
        return tuple(dict.fromkeys(use.branch for use in self.uses if use.branch is not None))


def parent_path(path: str) -> str:
    """Give the module path one level up; the root's is empty.

    Example:
        >>> parent_path("layer1.0.conv1"), parent_path("fc")
        ('layer1.0', '')
    """
    return path.rpartition(".")[0]


def owner_path(fqn: str) -> str:
    """Give the path of the module that holds a parameter; a parametrization is no module of its own.

    Example:
        >>> owner_path("layer1.0.conv1.weight"), owner_path("fc.parametrizations.weight.original0")
        ('layer1.0.conv1', 'fc')
    """
    module, mark, _ = f".{fqn}".partition(".parametrizations.")
    return module[1:] if mark else parent_path(fqn)


def short_op(name: str) -> str:
    """Give an autograd node's name as a reader says it.

    Example:
        >>> short_op("ConvolutionBackward0"), short_op("torch::autograd::AccumulateGrad")
        ('Convolution', 'AccumulateGrad')
    """
    name = name.rpartition("::")[2]
    return name.rstrip("0123456789").removesuffix("Backward") or name
