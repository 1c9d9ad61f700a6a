"""What was recorded of one parameter in one step: frozen data over numpy arrays, and its measures.

Nothing here knows torch: capture fills these in, and everything that analyses, draws or stores
reads them. Steps and recordings, which hold many of these, are in :mod:`gradflow.recording`.

Shapes: ``C`` is the number of contributors of one parameter (or layer) in one step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gradflow import metrics
from gradflow.errors import NoSuchBranchError, NotKeptError, did_you_mean
from gradflow.metrics import Gram

Kept = TypeVar("Kept")

__all__ = [
    "BESIDE_THE_TOTAL",
    "OTHER_RANKS",
    "RESERVED",
    "Contributions",
    "Delta",
    "Finding",
    "ParamStep",
    "TermTable",
    "Use",
]

RESERVED = (
    "unclaimed",
    "shared",
    "rounding",
    "edited",
    "other ranks",
    "history",
    "decay",
    "unattributed",
)
"""Names of contributors that are no branch; ``watch`` refuses them as names of branches."""

OTHER_RANKS = "other ranks"
"""Sum of what the leaves of the other processes received, where a gradient is averaged over several."""

BESIDE_THE_TOTAL = ("edited", OTHER_RANKS)
"""Contributors to what the optimizer reads that the leaf did not receive: they come into ``.grad`` later."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong or worth seeing, in words.

    Attributes:
        severity: ``"warning"`` when the numbers or the training are in doubt, else ``"note"``.
        code: Short stable name, such as ``"branch-absent"``.
        text: What was seen, with the numbers.
        do: What to do about it; empty when nothing need be done.
        where: FQN or module path it concerns; empty for the whole step.
    """

    severity: str
    code: str
    text: str
    do: str = ""
    where: str = ""

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"{self.severity}: {self.text}{place}" + (f" {self.do}" if self.do else "")


@dataclass(frozen=True, slots=True)
class Use:
    """One edge from a node of the autograd graph into a parameter's AccumulateGrad node.

    Attributes:
        branch: The contributor it counts towards.
        call: Module call the node was made in, such as ``"encoder.conv1#2"``: module path, and which call of
            that module since the last backward, from 0; empty outside any call.
        node: Name of the node, such as ``"ConvolutionBackward0"``.
        index: Which input of the node the parameter is.
        norm: Norm of the gradient along the edge, in gradient units.
    """

    branch: str
    call: str
    node: str
    index: int
    norm: float


@dataclass(frozen=True, slots=True)
class Delta:
    """How the optimizer moved one parameter (or layer) in one step, split by contributor.

    An accounting under a frozen preconditioner, not a counterfactual: it tells how much of the move the
    optimizer made is credited to each contributor, not what a contributor alone would have done.

    Attributes:
        contributors: Names; the order of the rows of ``gram``.
        gram: Inner products of the parts of the delta. Shape ``[C, C]``, squared parameter units.
        norm: Norm of θ after − θ before, measured from the parameter.
        parameter_norm: Norm of θ before.
        residual: How far the parts are from the measured delta: the largest |Σ parts − delta| beyond
            the rounding of θ itself (2·eps·|θ|), as a fraction of the largest Σ|parts|; ``nan`` for
            a layer or a model.
        rule: Name of the rule that split it, such as ``"Adam"``; empty when the delta is shown whole.
        note: Why it is shown whole, or what the reader should know of the rule.
        parts: The parts as arrays of the parameter's shape, when tensors were kept.
        tensor: The measured delta itself, when tensors were kept.
    """

    contributors: tuple[str, ...]
    gram: Gram
    norm: float
    parameter_norm: float
    residual: float = math.nan
    rule: str = ""
    note: str = ""
    parts: Mapping[str, NDArray] | None = field(default=None, repr=False, compare=False)
    tensor: NDArray | None = field(default=None, repr=False, compare=False)

    @property
    def shares(self) -> dict[str, float]:
        """Fraction of the delta credited to each contributor; sums to 1, ``nan`` if the delta is 0.

        It also is ``nan`` where the parts cancel down to less than the parameter's rounding, so that
        nothing moved: fractions of what is left would be fractions of noise.
        """
        if self.norm == 0.0:
            return dict.fromkeys(self.contributors, math.nan)
        return dict(zip(self.contributors, metrics.shares(self.gram).tolist(), strict=True))

    @property
    def norms(self) -> dict[str, float]:
        """Norm of each contributor's part, in parameter units."""
        return dict(zip(self.contributors, metrics.norms(self.gram).tolist(), strict=True))

    @property
    def relative(self) -> float:
        """``|delta| / |θ before|``; ``nan`` if both are zero."""
        if self.parameter_norm == 0.0:
            return math.inf if self.norm else math.nan
        return self.norm / self.parameter_norm

    def part(self, name: str) -> NDArray:
        """Give one contributor's part of the delta, of the parameter's shape.

        Raises:
            NoSuchBranchError: no contributor of that name.
            NotKeptError: tensors were not kept.
        """
        _position(self.contributors, name, where="delta.part")
        return _kept(_kept(self.parts, "delta.part").get(name), "delta.part")


@dataclass(frozen=True, slots=True)
class TermTable:
    """What each term of a loss sent along each branch into one parameter: the branch × term table.

    Shapes: ``B`` contributors, ``T`` terms.

    Attributes:
        contributors: Branches and other contributors, the rows of the table.
        terms: Named terms, the columns; ``"unclaimed"`` is what came through no named term.
        gram: Inner products of all cells, row by row. Shape ``[B * T, B * T]``, squared gradient units.
    """

    contributors: tuple[str, ...]
    terms: tuple[str, ...]
    gram: Gram

    @property
    def norms(self) -> NDArray[np.float64]:
        """Norm of each cell. Shape ``[B, T]``, in gradient units."""
        return metrics.norms(self.gram).reshape(len(self.contributors), len(self.terms))

    @property
    def by_term(self) -> Contributions:
        """What each term sent along all branches together, with the measures of contributions."""
        gram = self._blocks().sum(axis=(0, 2))
        return Contributions(self.terms, gram, metrics.total_norm(gram))

    def along(self, branch: str) -> Contributions:
        """Give what each term sent along one branch.

        Raises:
            NoSuchBranchError: no row of that name.
        """
        row = _position(self.contributors, branch, where="terms.along")
        gram = self._blocks()[row, :, row, :]
        return Contributions(self.terms, gram, metrics.total_norm(gram))

    def _blocks(self) -> NDArray[np.float64]:
        b, t = len(self.contributors), len(self.terms)
        return self.gram.reshape(b, t, b, t)


@dataclass(frozen=True, slots=True)
class Contributions:
    """What several contributors brought to one parameter, layer or model in one step.

    Attributes:
        contributors: Branches first, then reserved names; the order of the rows of ``gram``.
        gram: Inner products of the contributions. Shape ``[C, C]`` float64, squared gradient units.
        total_norm: Norm of what the leaf received, taken from the total itself.
        absent: Branches that never reached it in this step; they have no row. Zero is not absent.
        delta: How the optimizer moved it; ``None`` without an optimizer.
    """

    contributors: tuple[str, ...]
    gram: Gram
    total_norm: float
    absent: tuple[str, ...] = ()
    delta: Delta | None = None

    @property
    def norms(self) -> dict[str, float]:
        """Norm of each contribution, in gradient units."""
        return dict(zip(self.contributors, metrics.norms(self.gram).tolist(), strict=True))

    @property
    def cancellation(self) -> float:
        """Share of the effort that the sum throws away, in ``[0, 1]``; ``nan`` if all are zero."""
        rows = self._summing()
        return metrics.cancellation(self.gram[np.ix_(rows, rows)], self.total_norm)

    def cosine(self, a: str, b: str) -> float:
        """Give the cosine between two contributions, in ``[-1, 1]``; ``nan`` if either is zero.

        Raises:
            NoSuchBranchError: a name is not among ``contributors``.
        """
        return metrics.cosine(self.gram, self._row(a, "cosine"), self._row(b, "cosine"))

    def conflict(self, a: str, b: str) -> float:
        """Give ``max(0, -cosine(a, b))``: how much two contributions pull against each other.

        Raises:
            NoSuchBranchError: a name is not among ``contributors``.
        """
        return metrics.conflict(self.gram, self._row(a, "conflict"), self._row(b, "conflict"))

    def share(self, name: str) -> float:
        """Give the projection of one contribution on the sum, as a fraction of it; they sum to 1.

        Raises:
            NoSuchBranchError: the name is not among ``contributors``.
        """
        row, rows = self._row(name, "share"), self._summing()
        if row not in rows:
            return 0.0
        return float(metrics.shares(self.gram[np.ix_(rows, rows)])[rows.index(row)])

    def _summing(self) -> list[int]:
        """Rows of the contributors that add up to what the leaf received."""
        return [i for i, name in enumerate(self.contributors) if name not in BESIDE_THE_TOTAL]

    def _row(self, name: str, caller: str) -> int:
        if name in self.absent:
            raise NoSuchBranchError(
                f"branch {name!r} is absent here: it never reached this parameter in this step",
                where=caller,
                do="look at .absent first; a branch that arrived with zeros is not absent",
            )
        return _position(self.contributors, name, where=caller)


@dataclass(frozen=True, slots=True, repr=False)
class ParamStep(Contributions):
    """One parameter in one step.

    Attributes:
        fqn: Fully qualified name, as in ``named_parameters()``.
        names: All its names; a tied parameter has several.
        shape: Shape of the parameter.
        residual: Largest relative difference, over the step's backward calls, between the raw arrivals summed
            in arrival order and what the leaf received; 0.0 when conserved bitwise.
        scale: What the optimizer read as a multiple of what the leaf received (clipping, loss scaling).
        uses: Every edge into the parameter, with the norm of its gradient.
        terms: What each named term of the loss sent along each branch; None if no term was named.
        tensors: The contributions as arrays, when they were kept.
        total_tensor: What the leaf received, when tensors were kept.
    """

    fqn: str = ""
    names: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    residual: float = 0.0
    scale: float = 1.0
    uses: tuple[Use, ...] = ()
    terms: TermTable | None = None
    tensors: Mapping[str, NDArray] | None = field(default=None, repr=False, compare=False)
    total_tensor: NDArray | None = field(default=None, repr=False, compare=False)

    @property
    def total(self) -> NDArray:
        """What the leaf received, an array of the parameter's shape.

        Raises:
            NotKeptError: tensors were not kept; ``total_norm`` always is.
        """
        return _kept(self.total_tensor, f"step[{self.fqn!r}].total")

    def contribution(self, name: str) -> NDArray:
        """Give one contribution as an array of the parameter's shape.

        Raises:
            NoSuchBranchError: no contributor of that name, or it is absent.
            NotKeptError: tensors were not kept.
        """
        where = f"step[{self.fqn!r}].contribution"
        self._row(name, where)
        return _kept(_kept(self.tensors, where).get(name), where)

    def __repr__(self) -> str:
        from gradflow.render import text

        return text.param_step(self)

    def _repr_html_(self) -> str:
        from gradflow.render import html

        return html.param_step(self)


def _position(names: tuple[str, ...], name: str, *, where: str) -> int:
    if name not in names:
        raise NoSuchBranchError(f"no contributor {name!r} here", where=where, do=did_you_mean(name, names))
    return names.index(name)


def _kept(value: Kept | None, where: str) -> Kept:
    if value is None:
        raise NotKeptError(
            "only inner products were kept, not the tensors",
            where=where,
            do='gradflow.watch(model, optimizer, keep="tensors"), or keep=["conv1.*"] for a few',
        )
    return value
