"""What arrives at one parameter in one backward, and what is read of it when the leaf receives the sum."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gradflow.capture import kernels
from gradflow.capture.comparing import difference, fold, probe, stamp, sums_to
from gradflow.capture.marking import Edge
from gradflow.capture.stems import SHARED

__all__ = ["ROUNDING", "Arrival", "Backward", "Part"]

ROUNDING = "rounding"
_SURVEYED = 64  # contributors; the pairs of more are too many


@dataclass(eq=False, slots=True)
class Arrival:
    """A use that brought something: counted towards a contributor, its norm taken only when asked for.

    Attributes:
        edge: The use.
        contributor: Whom it counts towards.
        norm: Norm of what it brought, on the device or known already; None where it is the contributor's.
    """

    edge: Edge
    contributor: str
    norm: Tensor | float | None = None


class Part(NamedTuple):
    """What one contributor sent through a stem to a use behind it.

    Attributes:
        contributor: Who sent it.
        gradient: What came out at the use.
    """

    contributor: str
    gradient: Tensor


class Backward:
    """One parameter in one backward call, until it is committed.

    There is one for every parameter of every step: what is seldom set is a default of the class.

    Attributes:
        edges: Uses that brought something, in arrival order.
        gradients: What each brought; empty once it was let go of.
        names: Contributor of each, once the leaf has received the sum.
        parts: What came through stems to a use, by contributor.
        terms: What named terms of the loss sent to each use.
        residual: How far they were from the leaf's total; None while conserved bitwise.
        remainder: What the leaf received beyond the arrivals; None while conserved bitwise.
        was_clear: Whether ``.grad`` was None before.
        stamp: Storage and version of the total the leaf received; None until it has received it.
        total: The total itself, where the arrivals do not sum to it bitwise.
        survey: All there is to know of the arrivals and their total; None where it was not read at once.
        rest: What the parts leave of the arrival that they took the place of; None if nothing.
        probe: A few elements of the total, where the arrivals were let go of; else None.
    """

    names: tuple[str, ...] = ()
    parts: dict[Edge, list[Part]] | None = None
    terms: list[tuple[Edge, str, Tensor]] | None = None
    residual: Tensor | None = None
    remainder: Tensor | None = None
    was_clear: bool = False
    stamp: tuple[int, int] | None = None
    total: Tensor | None = None
    survey: kernels.Survey | None = None
    rest: Tensor | None = None
    probe: Tensor | None = None

    def __init__(self) -> None:
        self.edges: list[Edge] = []
        self.gradients: list[Tensor] = []

    @property
    def is_read(self) -> bool:
        """Whether the survey tells all there is to know of the arrivals, and all are numbers."""
        return self.survey is not None and self.parts is None and _is_finite(self.survey)

    def add(self, edge: Edge, gradient: Tensor) -> None:
        """Take in what one use brings."""
        if gradient.requires_grad:  # under create_graph it would hold the whole double graph
            gradient = gradient.detach().clone()
        self.edges.append(edge)
        self.gradients.append(gradient)

    def receive(self, total: Tensor, names: Iterable[str], *, needs_rest: bool) -> None:
        """Compare the arrivals with what the leaf receives, and read both.

        Args:
            total: What the leaf receives.
            names: Contributor of each arrival.
            needs_rest: Whether somebody will ask for what the parts of an arrival leave of it.
        """
        self.stamp, self.names = stamp(total), tuple(names)
        self.survey = _survey(self.gradients, self.names, total)
        is_sum = sums_to(self.gradients, total) if self.survey is None else self.survey.is_sum
        if not is_sum:
            self.residual, self.remainder = difference(fold(self.gradients), total)
            self.total = total.detach().clone() if total.requires_grad else total
        elif self.parts is not None:
            self._divide_up(self.parts, needs_rest=needs_rest)

    def let_go(self, total: Tensor) -> None:
        """Let go of everything but what was read, and a few elements of the total."""
        self.probe, self.gradients, self.total = probe(total), [], None

    def lengths(self) -> Sequence[float | None]:
        """Give the norm of what each use brought, where it was read; None for each elsewhere."""
        if self.survey is None:
            return [None] * len(self.edges)
        return [math.sqrt(square) for square in self.survey.squares.tolist()]

    def contributors(self) -> tuple[str, ...]:
        """Give who brought what the survey has rows for, in their order."""
        names = dict.fromkeys(self.names)
        has_rest = self.survey is not None and len(names) < len(self.survey.gram)
        return (*names, ROUNDING) if has_rest else tuple(names)

    def received(self) -> Tensor:
        """Give what the leaf received."""
        folded = self.total if self.total is not None else fold(self.gradients)
        assert folded is not None, "without arrivals the total is kept"
        return folded

    def _divide_up(self, parts: dict[Edge, list[Part]], *, needs_rest: bool) -> None:
        """Put parts in the place of what they are parts of, where that is all that arrived."""
        named = zip(self.edges, self.names, strict=True)
        if not any(name == SHARED and edge in parts for edge, name in named):
            self.parts = None  # whoever sent it is known without them
        if self.parts is None or len(self.edges) > 1 or self.terms is not None:
            return
        (edge,), (whole,), own = self.edges, self.gradients, parts[self.edges[0]]
        gradients, names = [part.gradient for part in own], tuple(part.contributor for part in own)
        if not kernels.are_readable((whole, *gradients)):
            return
        rest = torch.empty_like(whole) if needs_rest else None
        survey = kernels.divide(gradients, whole, _owners(names), rest)
        if rest is None and not _is_finite(survey):
            rest = torch.empty_like(whole)
            kernels.divide(gradients, whole, _owners(names), rest)
        self.edges, self.names, self.gradients = [edge] * len(own), names, gradients
        self.total, self.survey, self.rest = whole, survey, None if survey.is_sum else rest
        self.parts = None


def _survey(gradients: Sequence[Tensor], names: Sequence[str], total: Tensor) -> kernels.Survey | None:
    """Read arrivals and their total at once, where they lie on the host."""
    count = len(set(names))
    if not 0 < count <= _SURVEYED or not kernels.are_readable((total, *gradients)):
        return None
    return kernels.survey(gradients, total, None if count == len(names) else _owners(names))


def _owners(names: Sequence[str]) -> list[int]:
    """Number names in the order of their first occurrence."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return [numbers[name] for name in names]


def _is_finite(survey: kernels.Survey) -> bool:
    return math.isfinite(survey.square[0])
