"""Copies that look like sharing: modules of the same build, each with weights of its own.

``copy.deepcopy(encoder)`` starts with the weights of the encoder and looks like it, but each copy gets only
the gradient of its own path. Equal weights are evidence; the same build with other weights is only a hint.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradflow.checks.subject import Subject
from gradflow.findings.words import some
from gradflow.record import Finding

__all__ = ["findings"]

_STACKS = (nn.Sequential, nn.ModuleList)
_PEEK = 8  # numbers from either end of a weight by which copies are looked up, before all are compared
_SHARE_ONE = (
    "If one set of weights is meant, call one module for every input (self.right = self.left), "
    "and every path sends its gradient to it."
)


@dataclass(frozen=True, slots=True)
class _Member:
    path: str
    module: nn.Module
    parent: nn.Module | None
    weights: tuple[Tensor, ...]

    @property
    def trains(self) -> bool:
        return any(w.requires_grad for w in self.weights)

    @property
    def size(self) -> int:
        return sum(w.numel() for w in self.weights)


def findings(subject: Subject) -> Iterator[Finding]:
    """Tell of modules that are copies of one another, and of those that are built alike side by side."""
    told: set[str] = set()
    alike: dict[str, list[list[_Member]]] = {}
    for members in _alike(subject).values():
        for copies in _equal(members):
            if not all(_parent(m.path) in told for m in copies):
                yield _copies(copies)
            told.update(m.path for m in copies)
        side = [m for m in members if m.path not in told and m.trains]
        for pair in _side_by_side(side):
            if not all(_parent(m.path) in told for m in pair):
                alike.setdefault(re.sub(r"\d+", "*", _listed(pair)), []).append(pair)
            told.update(m.path for m in pair)
    yield from (_built_alike(pairs) for pairs in alike.values())


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _alike(subject: Subject) -> dict[object, list[_Member]]:
    """Give the modules that hold parameters, by class, and names and shapes of what they hold."""
    modules = list(subject.modules())
    owners = {id(child): module for _, module in modules for child in module.children()}
    groups: dict[object, list[_Member]] = {}
    for path, module in modules:
        held = dict(module.named_parameters())
        if held and not any(_is_unreadable(p) for p in held.values()):
            build = (type(module), *((name, p.shape, p.dtype) for name, p in held.items()))
            member = _Member(path, module, owners.get(id(module)), tuple(held.values()))
            groups.setdefault(build, []).append(member)
    return groups


def _is_unreadable(param: Tensor) -> bool:
    """Without numbers to compare: on the meta device, without a shape yet, or spread over processes."""
    return param.is_meta or type(param) not in (nn.Parameter, Tensor)


def _equal(members: Sequence[_Member]) -> Iterator[list[_Member]]:
    """Give the groups among modules of one build whose weights are all equal, and not the same tensors.

    Weights that hold one number only, such as those of a fresh batch-norm, are equal by chance: no proof.
    """
    seen: dict[object, list[list[_Member]]] = {}
    for member in members if len(members) > 1 else ():
        telling = next((w for w in member.weights if _tells(w)), None)
        if telling is None:
            continue
        buckets = seen.setdefault(_peek(telling), [])
        bucket = next((b for b in buckets if _same_numbers(b[0], member)), None)
        if bucket is None:
            buckets.append([member])
        elif not any(_share(other, member) for other in bucket):
            bucket.append(member)
    for buckets in seen.values():
        yield from (bucket for bucket in buckets if len(bucket) > 1)


@torch.no_grad()
def _tells(weight: Tensor) -> bool:
    """Tell whether a weight holds more than one number; a look at its ends is mostly enough."""
    flat = weight.flatten()
    return len(set(_peek(weight))) > 1 or bool((flat != flat[:1]).any())


@torch.no_grad()
def _peek(weight: Tensor) -> tuple[object, ...]:
    flat = weight.flatten()
    return tuple(torch.cat([flat[:_PEEK], flat[-_PEEK:]]).tolist())


def _same_numbers(a: _Member, b: _Member) -> bool:
    pairs = zip(a.weights, b.weights, strict=True)
    return all(x.device == y.device and torch.equal(x, y) for x, y in pairs)


def _share(a: _Member, b: _Member) -> bool:
    places = [{w.data_ptr() for w in member.weights if w.numel()} for member in (a, b)]
    return bool(places[0] & places[1])


def _side_by_side(members: Sequence[_Member]) -> Iterator[list[_Member]]:
    """Give modules of several layers that stand side by side under one parent, and not in a stack."""
    families: dict[int, list[_Member]] = {}
    for member in members:
        if not isinstance(member.parent, _STACKS) and _layers(member.module) > 1:
            families.setdefault(id(member.parent), []).append(member)
    for family in families.values():
        apart = [m for i, m in enumerate(family) if not any(_share(m, other) for other in family[:i])]
        if len(apart) == len(family) > 1:
            yield family


def _layers(module: nn.Module) -> int:
    return sum(any(True for _ in m.parameters(recurse=False)) for m in module.modules())


def _copies(members: Sequence[_Member]) -> Finding:
    names, size = _listed(members), members[0].size
    text = f"{names} are copies: equal weights ({size:,} numbers in each), kept apart."
    parents = {id(m.parent): m.parent for m in members}
    (parent, *others) = parents.values()
    if sum(m.trains for m in members) < 2:
        return Finding(
            "note", "copies", f"{text} At most one of them trains.", "A slow or frozen twin is so."
        )
    if not others and isinstance(parent, _STACKS):
        do = "A stack whose layers start alike is so, such as nn.TransformerEncoder. " + _SHARE_ONE
        return Finding("note", "copies", text, do)
    return Finding("warning", "copies", text, "They drift apart with the first update. " + _SHARE_ONE)


def _built_alike(families: Sequence[Sequence[_Member]]) -> Finding:
    """Tell of one family, and how many more differ from it in the numbers of layers only."""
    members, more = families[0], len(families) - 1
    apart = _distance(members[0], members[1])
    said = "" if math.isnan(apart) else f"; the first two are {100 * apart:.3g} % of their norm apart"
    others = f" So are {more} more, in other layers." if more else ""
    text = f"{_listed(members)} are built alike, and each has weights of its own{said}.{others}"
    return Finding("note", "built-alike", text, _SHARE_ONE)


@torch.no_grad()
def _distance(a: _Member, b: _Member) -> float:
    """How far the weights of two modules are apart, as a fraction of the first one's norm."""
    whole = math.hypot(*map(_norm, a.weights))
    apart = (_norm(x - y.to(x.device)) for x, y in zip(a.weights, b.weights, strict=True))
    return math.hypot(*apart) / whole if whole else math.nan


def _norm(values: Tensor) -> float:
    return float(
        torch.linalg.vector_norm(values, dtype=torch.complex128 if values.is_complex() else torch.double)
    )


def _listed(members: Sequence[_Member]) -> str:
    names = [m.path or type(m.module).__name__ for m in members]
    return " and ".join(names) if len(names) == 2 else some(names)
