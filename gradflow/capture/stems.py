"""Stems: parts of the graph that several branches go through before a parameter.

Autocast's cached cast of a weight, a cached parametrization, a packed weight taken apart by ``chunk``,
a trunk under several heads: a parameter's own edge sees only the sum of the branches there. So the
cotangent of each branch is taken where it enters the stem, and just before the stem's own node runs,
one vector-Jacobian product per branch is sent through it, inside the user's one backward. What the
user's backward computes is not touched.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from gradflow.capture.calls import Mark
from gradflow.capture.comparing import sums_to

__all__ = ["INNER", "SHARED", "UNCLAIMED", "Crossing", "Rows", "Stem", "send_through"]

Rows = slice | Sequence[int] | Tensor
"""Which rows of a batch: a slice, a list of positions, or a mask."""

SHARED = "shared"
UNCLAIMED = "unclaimed"
INNER = ""
"""Sends what came in at another stem of the same stretch, and goes on from there."""


class Sent:
    """What one contributor sent into an output of a stem, added up in the order of arrival."""

    __slots__ = ("contributor", "cotangent", "output")

    def __init__(self, contributor: str, output: int, cotangent: Tensor) -> None:
        self.contributor, self.output, self.cotangent = contributor, output, cotangent


class Stem:
    """A node that branches may meet at.

    Every node of a trunk is one, and making it must cost little: what is seldom set is the class's default.

    Attributes:
        mark: Its mark, which holds it, and is held weakly.
        is_split: Whether it is to be split.
        leaves: The watched parameters behind it, once they were looked for: when something is to be split.
        region: Marks of the stretch that is split with it; None for everything behind it.
        is_met: Whether those that read it are known, so that the rest of what arrives is somebody else's.
        is_trunk: Whether it lies outside any branch, and is no mere weight.
        is_guarded: Whether a pre-hook stands on the node.
        is_gate: Whether a branch reads it, and a stretch outside any branch lies behind it.
        rows: Which rows of an output belong to which branch, where one batch holds several.
        terms: Names of the loss terms that an output is.
        size: How many nodes are split with it.
        casts: Where it is the cast of a parameter and is being split: what to cast alike, by contributor.
    """

    is_split: bool = False
    leaves: Sequence[Tensor] = ()
    region: set[Mark] | None = None
    is_met: bool = False
    is_trunk: bool = False
    is_guarded: bool = False
    is_gate: bool = False
    rows: Mapping[int, Mapping[str, Rows]] = MappingProxyType({})
    terms: Mapping[int, str] = MappingProxyType({})
    size: int = 0
    casts: Mapping[str, Tensor] = MappingProxyType({})

    def __init__(self, mark: Mark) -> None:
        self._mark = weakref.ref(mark)
        self._task = -1
        self._sent: list[Sent] = []

    @property
    def mark(self) -> Mark:
        """The mark of its node, which has it as long as it lives."""
        mark = self._mark()
        assert mark is not None, "a stem is asked while its node lives"
        return mark

    def enter(self, task: int, contributor: str, output: int, cotangent: Tensor) -> None:
        """Take in what one reader sends into the stem; what ``INNER`` sends came in at another stem."""
        if task != self._task:  # what is there came in a backward that an exception ended
            self._task, self._sent = task, []
        for one in self._sent:
            if one.contributor == contributor and one.output == output:
                one.cotangent = one.cotangent + cotangent
                return
        self._sent.append(Sent(contributor, output, cotangent))

    def forget(self) -> None:
        """Drop what came in: nothing is to be told apart."""
        self._sent = []

    def take_casts(self, alike: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Give what each contributor sent, cast as what came out of the node was; once for each backward."""
        casts, self.casts = self.casts, MappingProxyType({})
        for contributor, cotangent in casts.items():
            is_to_real = cotangent.is_complex() and not alike.is_complex()
            yield contributor, (cotangent.real if is_to_real else cotangent).to(alike)

    def forget_region(self) -> None:
        """Drop what is split with it, should that be told by marks: its own is one, which holds it."""
        if self.region is not None:
            self.leaves, self.region, self.size = (), None, 0

    def is_explained(self, task: int, arriving: tuple[Tensor | None, ...]) -> bool:
        """Tell whether what arrives is what known contributors sent, to the last bit."""
        sent = self._sent if task == self._task else []
        if any(one.contributor == UNCLAIMED for one in sent):
            return False
        for output, whole in enumerate(arriving):
            if whole is not None and not sums_to([s.cotangent for s in sent if s.output == output], whole):
                return False
        return True

    def leave(self, task: int, arriving: tuple[Tensor | None, ...]) -> dict[str, dict[int, Tensor]]:
        """Give what each contributor sends, ``INNER`` too; what no known reader sent is ``unclaimed``."""
        sent: dict[str, dict[int, Tensor]] = {}
        for one in self._sent if task == self._task else ():
            sent.setdefault(one.contributor, {})[one.output] = one.cotangent
        self.forget()
        if self.rows:
            return self._by_rows(arriving)
        if not self.is_met:
            return {}
        for output, whole in enumerate(arriving):
            rest = None if whole is None else _rest(whole, [s[output] for s in sent.values() if output in s])
            if rest is not None:
                unclaimed = sent.setdefault(UNCLAIMED, {})
                unclaimed[output] = unclaimed[output] + rest if output in unclaimed else rest
        return sent

    def divide_rows(self, output: int, rows: Mapping[str, Rows]) -> None:
        """Tell which rows of an output belong to which branch."""
        self.rows = {**self.rows, output: {**self.rows.get(output, {}), **rows}}

    def name_term(self, output: int, name: str) -> None:
        """Tell which term of the loss an output is."""
        self.terms = {**self.terms, output: name}

    def through_terms(self, arriving: tuple[Tensor | None, ...]) -> dict[str, dict[int, Tensor]]:
        """Give what arrives at each named term of the loss."""
        found: dict[str, dict[int, Tensor]] = {}
        for output, name in self.terms.items():
            whole = arriving[output]
            if whole is not None:
                found.setdefault(name, {})[output] = whole
        return found

    def _by_rows(self, arriving: tuple[Tensor | None, ...]) -> dict[str, dict[int, Tensor]]:
        sent: dict[str, dict[int, Tensor]] = {}
        for output, whole in enumerate(arriving):
            if whole is None:
                continue
            rest = whole.clone()
            for name, rows in self.rows.get(output, {}).items():
                part = torch.zeros_like(whole)
                part[rows] = whole[rows]
                rest[rows] = 0
                sent.setdefault(name, {})[output] = part
            if rest.device.type != "cpu" or bool(rest.any()):
                sent.setdefault(UNCLAIMED, {})[output] = rest
        return sent


class Crossing:
    """An edge over which a node reads one that branches may meet at.

    Attributes:
        reader: Mark of the node that reads.
        slot: Which of its inputs the edge is.
        read: Mark of the node that is read.
        output: Which of its outputs.
    """

    __slots__ = ("output", "read", "reader", "slot")

    def __init__(self, reader: Mark, slot: int, read: Mark, output: int) -> None:
        self.reader, self.slot, self.read, self.output = reader, slot, read, output


def send_through(
    node: Node, stem: Stem, sent: dict[str, dict[int, Tensor]], on: Callable[[str], None]
) -> None:
    """Send each contributor's cotangents through a stem; the hooks behind it see what comes out.

    Args:
        node: The stem's node.
        stem: What is known of it.
        sent: Cotangents by contributor and output of the node.
        on: Called with the contributor before its pass.
    """
    with _silenced(stem.leaves):
        for contributor, by_output in sent.items():
            on(contributor)
            torch.autograd.grad(
                [GradientEdge(node, output) for output in by_output],
                stem.leaves,
                list(by_output.values()),
                retain_graph=True,
                allow_unused=True,
            )


class _Silenced:
    """A user's hook that does nothing in the thread where a pass runs, and what it does in all others."""

    def __init__(self, hook: Callable[[Tensor], Tensor | None]) -> None:
        self.hook, self._thread = hook, threading.get_ident()

    def __call__(self, grad: Tensor) -> Tensor | None:
        return None if threading.get_ident() == self._thread else self.hook(grad)


@contextmanager
def _silenced(leaves: Sequence[Tensor]) -> Iterator[None]:
    """Keep what is sent through a stem from the user's hooks on the leaves, which are for the whole.

    Each keeps its place among the hooks, and one that is taken off meanwhile stays off.
    """
    hooks = [leaf._backward_hooks for leaf in leaves if leaf._backward_hooks]  # what the engine reads
    try:
        for each in hooks:
            each.update({key: _Silenced(hook) for key, hook in each.items() if not hasattr(hook, "planter")})
        yield
    finally:
        for each in hooks:
            each.update({key: hook.hook for key, hook in each.items() if isinstance(hook, _Silenced)})


def _rest(whole: Tensor, parts: list[Tensor]) -> Tensor | None:
    """Give what arrives beyond the parts; None if that is nothing.

    Without waiting for a device: there, anything but a single part itself counts as something, and several
    parts are taken to be all. What one contributor sent was added up as the engine does it: mostly
    that is all there is, to the last bit.
    """
    if sums_to(parts, whole):
        return None
    is_on_host = whole.device.type == "cpu" and not whole.is_sparse
    if len(parts) > 1 and not is_on_host:
        return None
    rest = whole
    for part in parts:
        rest = rest - part
    if not is_on_host:
        return rest
    effort = max((float(p.abs().max()) for p in parts if p.numel()), default=0.0)
    rounding = 4 * len(parts) * torch.finfo(whole.dtype).eps * effort
    return rest if rest.numel() and float(rest.abs().max()) > rounding else None
