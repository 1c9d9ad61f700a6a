"""The bare autograd graph as plain lists, and where in it parameters are used.

This is what the inference of modules and branches reads (:mod:`gradflow.graph.infer`), so that it can be
tested with hand-written graphs. Positions are in topological order: a node stands before all it leads to,
and position 0 is the loss. "Below" means further from the loss.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["Key", "Owner", "Skeleton", "Uses", "common_path", "find_uses"]

Key = tuple[str, tuple[int, ...]]
"""What a use is a use of: module path and parameters. Uses with one key are calls of one module."""

_LINEAR_OPS = ("Addmm", "Mm", "T", "Bmm", "Matmul", "Linear", "Baddbmm")


@dataclass(frozen=True, slots=True)
class Owner:
    """A module that holds a parameter under one of its names.

    Attributes:
        path: Module path.
        kind: Class name of the module, as ``"Conv2d"``.
    """

    path: str
    kind: str


@dataclass(slots=True)
class Skeleton:
    """An autograd graph without its tensors.

    Attributes:
        names: Name of each node, as ``"ConvolutionBackward0"``.
        numels: Number of elements of the value it gave in the forward pass.
        order: When it was made: larger is later. Ties are broken by position.
        children: Positions that its inputs lead to; -1 for an input that needs no gradient.
        leaves: Position of each parameter's AccumulateGrad node, to the parameter's number.
        inputs: Positions of the other leaves: data that requires a gradient.
        owners: Modules that hold each parameter, by its number; several if it is tied.
        single_ops: Paths of modules that are one operation, such as a ``Conv2d``.
        lists: Paths of modules that only hold others and are never called, such as a ``ModuleList``.
        home: Class name of the model.
    """

    names: list[str]
    numels: list[int]
    order: list[int]
    children: list[list[int]]
    leaves: dict[int, int]
    inputs: set[int] = field(default_factory=set)
    owners: list[tuple[Owner, ...]] = field(default_factory=list)
    single_ops: frozenset[str] = frozenset()
    lists: frozenset[str] = frozenset()
    home: str = "model"

    def __len__(self) -> int:
        return len(self.names)


@dataclass(slots=True)
class Uses:
    """Where parameters meet data.

    Attributes:
        keys: What each node that combines a parameter with data is a use of.
        owner: Module path of such a node, and of what lies between it and the parameter (``TBackward0``,
            a cast, a weight norm).
        has_data: Whether the value of a node depends on data, not on parameters alone.
        is_under: Whether a node lies below some use that is not the node itself.
    """

    keys: dict[int, Key]
    owner: dict[int, str]
    has_data: list[bool]
    is_under: list[bool]

    def is_in_model(self, at: int) -> bool:
        """Tell whether a node is a use or lies below one."""
        return self.is_under[at] or at in self.keys


def find_uses(skeleton: Skeleton) -> Uses:
    """Find the nodes that combine a parameter with data, and name the module each belongs to."""
    size = len(skeleton)
    has_data = [False] * size
    stems: dict[int, tuple[int, ...]] = {at: (number,) for at, number in skeleton.leaves.items()}
    keys: dict[int, Key] = {}
    owner = {at: _owner(skeleton, (number,), "") for at, number in skeleton.leaves.items()}
    for at in reversed(range(size)):
        if at in skeleton.leaves:
            continue
        kids = skeleton.children[at]
        has_data[at] = _meets_data(skeleton, at, has_data)
        held = tuple(sorted({number for kid in kids for number in stems.get(kid, ())}))
        if has_data[at] and held:
            owner[at] = _owner(skeleton, held, _ops_towards(skeleton, at, stems))
            keys[at] = (owner[at], held)
        elif not has_data[at]:
            owner[at] = common_path(owner[kid] for kid in kids)
            if _is_stem(skeleton, at, held, stems):
                stems[at] = held
    _place_stems(skeleton, keys, owner, stems)
    return Uses(keys, owner, has_data, _under(skeleton, keys))


def _place_stems(
    skeleton: Skeleton, keys: dict[int, Key], owner: dict[int, str], stems: dict[int, tuple[int, ...]]
) -> None:
    """Give what stands between a tied parameter and its use to the module that uses it there."""
    for at in range(len(skeleton)):
        if at in keys or at in stems:
            for kid in skeleton.children[at]:
                if kid in stems and kid not in skeleton.leaves:
                    owner[kid] = owner[at]


def _meets_data(skeleton: Skeleton, at: int, has_data: list[bool]) -> bool:
    kids = skeleton.children[at]
    if at in skeleton.inputs or not kids or skeleton.names[at].startswith("Embedding"):
        return True
    return any(kid < 0 or has_data[kid] for kid in kids)


def _is_stem(skeleton: Skeleton, at: int, held: tuple[int, ...], stems: dict[int, tuple[int, ...]]) -> bool:
    """Tell whether a node only reshapes, casts or reweights a parameter on its way to where it is used."""
    if not held or any(kid not in stems for kid in skeleton.children[at]):
        return False
    return any(skeleton.numels[at] == skeleton.numels[kid] for kid in skeleton.children[at])


def _ops_towards(skeleton: Skeleton, at: int, stems: dict[int, tuple[int, ...]]) -> str:
    """Name the node and what stands between it and the parameter."""
    between = (kid for kid in skeleton.children[at] if kid in stems and kid not in skeleton.leaves)
    return " ".join(skeleton.names[one] for one in (at, *between))


def _owner(skeleton: Skeleton, numbers: tuple[int, ...], ops: str) -> str:
    return common_path(_owner_of_one(skeleton.owners[number], ops) for number in numbers)


def _owner_of_one(owners: tuple[Owner, ...], ops: str) -> str:
    """Pick among the modules that share a tied parameter the one whose kind does such operations."""
    if len(owners) > 1:
        for one in owners:
            if any(_does(one.kind, op) for op in ops.split()):
                return one.path
    return owners[0].path if owners else ""


def _does(kind: str, op: str) -> bool:
    stem = kind.rstrip("0123456789d").lower()
    if stem == "linear":
        return op.removesuffix("Backward0") in _LINEAR_OPS
    return stem[:4] in op.lower()


def _under(skeleton: Skeleton, keys: dict[int, Key]) -> list[bool]:
    is_under = [False] * len(skeleton)
    for at, kids in enumerate(skeleton.children):
        if is_under[at] or at in keys:
            for kid in kids:
                if kid >= 0:
                    is_under[kid] = True
    return is_under


def common_path(paths: Iterable[str]) -> str:
    """Give the module path that all the paths lie at or under.

    Example:
        >>> common_path(["layer1.0.conv1", "layer1.0.bn1"]), common_path(["a.b"]), common_path([])
        ('layer1.0', 'a.b', '')
    """
    found: list[str] | None = None
    for path in paths:
        parts = path.split(".") if path else []
        if found is None:
            found = parts
        elif found != parts:
            same = next((i for i, (a, b) in enumerate(zip(found, parts, strict=False)) if a != b), None)
            found = found[: min(len(found), len(parts)) if same is None else same]
    return ".".join(found or ())
