"""What is written on a box: its title, what it holds, and the tip that a pointer brings up."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gradflow.graph.data import PLUMBING, Node, short_op
from gradflow.graph.graph import Graph
from gradflow.render import theme

__all__ = ["common_prefix", "count", "lines_of", "operations", "prefix_of", "shape", "tip", "title", "values"]

_LONG = 22  # characters of a line
_MANY = 8  # nodes in a box, from which on their number says more than their names
_WORDY = re.compile("^(Native|Cudnn|Miopen|Mkldnn)|WithIndices$")


def title(node: Node, prefix: str = "") -> str:
    """Give the name of a box as a reader says it; ``prefix`` is a module path that goes without saying."""
    times = f" ×{node.repeats}" if node.repeats > 1 else ""
    if node.kind in ("sum", "delta"):
        return " ".join(f"{label} {theme.number(value)}" for label, value in node.values)
    if node.kind == "op":
        return (operations(node) or short_op(node.name)) + times
    return theme.short(node.name.removeprefix(prefix) or node.name or "model", 32) + times


def lines_of(node: Node, prefix: str = "") -> list[str]:
    """Give the lines of a box, the title first."""
    if node.kind == "parameter":
        held = f"{node.members} parameters" if node.members > 1 else shape(node)
        held = held if node.members > 1 or len(node.shape or ()) > 1 else ""
        inside = [" · ".join(part for part in (held, count(node.numel)) if part), values(node)]
    elif node.kind in ("module", "loss"):
        inside = [_brief(node)]
        inside += [shape(node)] if node.kind == "module" else []
    else:
        inside = [shape(node)]
    return [title(node, prefix), *(line for line in inside if line)]


def _brief(node: Node) -> str:
    """Give the operations of a box, or as many as fit, or how many nodes it holds."""
    held = operations(node).split(" · ")
    if len(held) > 4 or node.members > _MANY:
        return f"{node.members} nodes"
    for left_out in range(len(held)):
        told = " · ".join(held[: len(held) - left_out]) + (f" +{left_out}" if left_out else "")
        if len(told) <= _LONG:
            return told
    return held[0] + (f" +{len(held) - 1}" if len(held) > 1 else "")


def operations(node: Node) -> str:
    """Give the operations worth naming: no transposes and other plumbing, unless there is nothing else."""
    found = [op for op in node.ops if op not in PLUMBING] or node.ops
    return " · ".join(_WORDY.sub("", op) for op in found)


def shape(node: Node) -> str:
    """Write a shape as ``"2×8×3"``; empty if there is none."""
    return "×".join(map(str, node.shape)) if node.shape else ""


def values(node: Node) -> str:
    """Write the numbers of a step as ``"Σ 0.3 → Δ 0.01"``; empty if there are none."""
    return " → ".join(f"{label} {theme.number(value)}" for label, value in node.values)


def count(numel: int) -> str:
    """Write how many numbers a parameter holds.

    Example:
        >>> count(1), count(512), count(2_360_000)
        ('1 number', '512 numbers', '2.36M numbers')
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if numel >= size:
            return f"{numel / size:.3g}{unit} numbers"
    return f"{numel} number{'s' * (numel != 1)}"


def tip(node: Node) -> str:
    """Give all that is known of a box, a fact a line."""
    names = [f"{len(node.names)} parameters"] if len(node.names) > 8 else [", ".join(node.names)]
    place = f"call {node.call} of {node.path or 'the model'}" if node.calls else ""
    saved = sum(one.size_bytes for one in node.saved)
    lines = [
        node.name or "the model",
        f"branch {node.branch}" if node.branch else "",
        place,
        shape(node),
        *names,
        " ".join(node.ops),
        f"keeps {len(node.saved)} tensors, {saved:,} bytes" if node.saved else "",
        "module and branch inferred from the graph" if node.inferred else "",
    ]
    return "\n".join(dict.fromkeys(line for line in lines if line))


def prefix_of(graph: Graph) -> str:
    """Give the module path that all boxes of a graph lie under, with its dot; it goes without saying."""
    names = [node.name for node in graph.nodes if node.kind in ("module", "parameter")]
    prefix = common_prefix(names)
    if any(name.removeprefix(prefix).partition(".")[0].isdigit() for name in names):  # "5" alone says nothing
        prefix = prefix.removesuffix(".").rpartition(".")[0]
        prefix += "." if prefix else ""
    return prefix


def common_prefix(names: Iterable[str]) -> str:
    """Give the module path, with its dot, that all names lie under.

    Example:
        >>> common_prefix(["encoder.conv1", "encoder.fc"]), common_prefix(["a.b", "c"])
        ('encoder.', '')
    """
    parts = [name.split(".")[:-1] for name in set(names) if name]
    shared: list[str] = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return ".".join(shared) + "." if shared else ""
