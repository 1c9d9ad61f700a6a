"""What arrives at one parameter in one backward, and what is read of it when the leaf receives the sum."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradflow.capture import kernels
from gradflow.capture.comparing import difference, fold, probe, spacing, stamp, sums_to
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
        is_let_go: Whether the arrivals were let go of, for all there is to know of them was read.
        probe: A few elements of the total, where the arrivals were let go of and the survey has none.
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
    is_let_go: bool = False
    probe: Tensor | None = None
    _contributors: tuple[str, ...] | None = None

    def __init__(self) -> None:
        self.edges: list[Edge] = []
        self.gradients: list[Tensor] = []

    def add(self, edge: Edge, gradient: Tensor) -> None:
        """Take in what one use brings."""
        if gradient.requires_grad:  # under create_graph it would hold the whole double graph
            gradient = gradient.detach().clone()
        self.edges.append(edge)
        self.gradients.append(gradient)

    def receive(
        self,
        total: Tensor,
        names: Iterable[str],
        *,
        may_let_go: bool,
        room: NDArray[np.float64] | None = None,
    ) -> None:
        """Compare the arrivals with what the leaf receives, and read both.

        Args:
            total: What the leaf receives.
            names: Contributor of each arrival.
            may_let_go: Whether nobody will ask for more than what is read now; then the arrivals are let go
                of, if that is all there is to know.
            room: Where to put what is read, as in :func:`gradflow.capture.kernels.survey`.
        """
        self.stamp, self.names = stamp(total), tuple(names)
        self.survey = _survey(self.gradients, self.names, total, is_sampled=may_let_go, room=room)
        is_sum = sums_to(self.gradients, total) if self.survey is None else self.survey.is_sum
        if not is_sum:
            self.residual, self.remainder = difference(fold(self.gradients), total)
            self.total = total.detach().clone() if total.requires_grad else total
        elif self.parts is not None:
            self._divide_up(self.parts, needs_rest=not may_let_go)
        if may_let_go and is_sum and self.survey is not None and self.parts is None and self.survey.is_finite:
            self._let_go(self.survey, total)

    def _let_go(self, survey: kernels.Survey, total: Tensor) -> None:
        """Let go of everything but what was read, and a few elements of the total."""
        self.is_let_go, self.gradients, self.total = True, [], None
        if not survey.has_sample:
            self.probe = probe(total)

    def lengths(self) -> Sequence[float | None]:
        """Give the norm of what each use brought, where it was read; None for each elsewhere."""
        return [None] * len(self.edges) if self.survey is None else self.survey.lengths()

    def uses(self) -> Iterable[tuple[Edge, str, float]]:
        """Give each use that was read, whom it counts towards, and the norm of what it brought."""
        assert self.survey is not None, "asked of what was not read"
        return zip(self.edges, self.names, self.survey.lengths(), strict=True)

    def contributors(self) -> tuple[str, ...]:
        """Give who brought what the survey has rows for, in their order; asked once all was read."""
        if self._contributors is None:
            names = dict.fromkeys(self.names)
            has_rest = self.survey is not None and len(names) < self.survey.owners
            self._contributors = (*names, ROUNDING) if has_rest else tuple(names)
        return self._contributors

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
        if rest is None and not survey.is_finite:
            rest = torch.empty_like(whole)
            kernels.divide(gradients, whole, _owners(names), rest)
        self.edges, self.names, self.gradients = [edge] * len(own), names, gradients
        self.total, self.survey, self.rest = whole, survey, None if survey.is_sum else rest
        self.parts = None


def _survey(
    gradients: Sequence[Tensor],
    names: Sequence[str],
    total: Tensor,
    *,
    is_sampled: bool,
    room: NDArray[np.float64] | None,
) -> kernels.Survey | None:
    """Read arrivals and their total at once, where they lie on the host."""
    count = len(set(names))
    is_total = len(gradients) == 1 and gradients[0] is total
    tensors = gradients if is_total else (total, *gradients)
    if not 0 < count <= _SURVEYED or not kernels.are_readable(tensors):
        return None
    owners = None if count == len(names) else _owners(names)
    step = spacing(total.numel()) if is_sampled else 0
    return kernels.survey(gradients, total, owners, sampled_by=step, room=room)


def _owners(names: Sequence[str]) -> list[int]:
    """Number names in the order of their first occurrence."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return [numbers[name] for name in names]
