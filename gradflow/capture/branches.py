"""Naming a stretch of the forward pass: ``with gradflow.branch("anchor"): ...``."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from types import TracebackType
from typing import NamedTuple

import torch

from gradflow.capture.stems import Rows
from gradflow.errors import InvalidArgumentError
from gradflow.record import RESERVED

__all__ = ["branch", "check_name", "closed_stretch", "current", "is_inside", "is_plain"]

_REMEMBERED = 256  # stretches that are over


class _Stretch(NamedTuple):
    """A stretch that is over: the first node made in it, the first made after it, and its branch."""

    start: int
    end: int
    name: str


@dataclass(frozen=True, slots=True)
class _State:
    """The open branch of a thread, and the stretches that are over, in the order of their ends.

    Stretches are told by autograd's own count of the nodes that this thread has made. It is used for one
    thing only: to see that a node was made in a stretch that is over, whose branch nobody claimed it for.
    """

    branch: branch | None = None
    started: int = 0
    closed: tuple[_Stretch, ...] = ()


_PLAIN = _State()
_state: ContextVar[_State] = ContextVar("gradflow_branch", default=_PLAIN)


class branch:  # noqa: N801 - reads as a verb in `with gradflow.branch("anchor")`
    """Name a stretch of the forward pass: a path whose contributions are told apart.

    Uses of parameters inside it count towards the branch; the innermost wins. It needs no recorder
    in hand, and costs next to nothing when nobody watches. A thread started inside does not inherit it.

    Args:
        name: Any non-empty string that is no reserved contributor (``"unclaimed"``, ``"decay"`` ...).

    Raises:
        InvalidArgumentError: the name is empty or reserved.

    Example:
        >>> layer = torch.nn.Linear(2, 2)
        >>> with branch("text"):
        ...     y = layer(torch.ones(1, 2))
    """

    __slots__ = ("_before", "name")

    def __init__(self, name: str) -> None:
        check_name(name, where="gradflow.branch")
        self.name = name
        self._before: list[_State] = []

    def __enter__(self) -> branch:
        state = _state.get()
        self._before.append(state)
        _state.set(replace(state, branch=self, started=_nodes_made()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        before, state = self._before.pop(), _state.get()
        stretch = _Stretch(state.started, _nodes_made(), self.name)
        _state.set(replace(before, closed=(*state.closed, stretch)[-_REMEMBERED:]))

    def claim(self, tensor: torch.Tensor) -> torch.Tensor:
        """Claim for this branch a stretch of forward that no module call made, such as ``x @ self.proj``.

        What was made inside the branch's own stretch, from ``tensor`` back to what a module call made, counts
        towards this branch; what was made before it does too, if no other branch reads it.

        Args:
            tensor: The result of the stretch.

        Returns:
            The same tensor.
        """
        from gradflow.capture.planting import planters_behind  # it imports this module

        for planter in planters_behind(tensor):
            planter.claim(tensor, self.name)
        return tensor

    @staticmethod
    def rows(output: torch.Tensor, rows: Mapping[str, Rows]) -> torch.Tensor:
        """Tell the branches of a batch apart that were concatenated before one forward.

        To autograd such a batch is one path. Each branch's rows of the gradient that comes back to
        ``output`` are sent through the encoder on their own, in a pass of their own before the user's: exact
        as a decomposition, batch normalisation included, at the price of one more backward of the encoder
        per branch. ``.grad`` is untouched. Rows of no branch count as ``unclaimed``.

        Args:
            output: What the encoder made of the whole batch; rows along its first dimension.
            rows: Which rows are whose: ``{"anchor": slice(0, 8), "positive": slice(8, 16)}``; a slice, a list
                of positions, or a boolean mask.

        Returns:
            The same tensor.

        Raises:
            InvalidArgumentError: a name cannot be a branch, or a row is claimed twice or does not exist.

        Example:
            >>> encoder = torch.nn.Linear(2, 2)
            >>> z = branch.rows(encoder(torch.ones(4, 2)), {"left": slice(0, 2), "right": slice(2, 4)})
        """
        from gradflow.capture.planting import planters_behind

        _check_rows(output, rows)
        for planter in planters_behind(output):
            planter.divide_rows(output, dict(rows))
        return output

    @staticmethod
    def term(name: str, value: torch.Tensor) -> torch.Tensor:
        """Name a term of the loss, such as a distance: what it sends to each parameter is told apart.

        Shown in ``step[fqn].terms``, a table of branches × terms. Each term costs one more backward of what
        lies behind it; ``.grad`` is untouched. Name terms of which none contains another.

        Args:
            name: Name of the term; several tensors may share one.
            value: The term, of any shape.

        Returns:
            The same tensor.

        Raises:
            InvalidArgumentError: the name is empty or reserved.

        Example:
            >>> encoder = torch.nn.Linear(2, 2)
            >>> pull = branch.term("pull", encoder(torch.ones(1, 2)).norm())
        """
        from gradflow.capture.planting import planters_behind

        check_name(name, where="gradflow.branch.term")
        for planter in planters_behind(value):
            planter.name_term(value, name)
        return value

    def __repr__(self) -> str:
        return f"branch({self.name!r})"


def _nodes_made() -> int:
    """Give autograd's count of the nodes that this thread has made."""
    return torch._C._autograd._get_sequence_nr()


def current() -> branch | None:
    """Give the innermost open branch of this thread and task."""
    return _state.get().branch


def is_inside(number: int) -> bool:
    """Tell whether the node of that number was made inside the open branch."""
    state = _state.get()
    return state.branch is not None and number >= state.started and closed_stretch(number) is None


def is_plain() -> bool:
    """Tell whether no branch was named on this thread, so that nodes need not be placed by their numbers."""
    return _state.get() is _PLAIN


def closed_stretch(number: int) -> str | None:
    """Give the branch, over by now, inside which the node of that number was made; None if there is none.

    Where stretches lie inside one another, the innermost counts: it was over first.
    """
    closed = _state.get().closed
    if not closed or number >= closed[-1].end:  # mostly: it is newer than all of them
        return None
    first = bisect_right(closed, number, key=lambda stretch: stretch.end)
    return next((stretch.name for stretch in closed[first:] if stretch.start <= number), None)


def check_name(name: object, *, where: str) -> None:
    """Refuse what cannot name a branch.

    Raises:
        InvalidArgumentError: the name is no string, empty, or reserved.
    """
    if not isinstance(name, str) or not name:
        raise InvalidArgumentError(
            f"a branch is named by a non-empty string, not {name!r}",
            where=where,
            do='name it, as in gradflow.branch("anchor")',
        )
    if name in RESERVED:
        raise InvalidArgumentError(
            f"{name!r} is the name of a contributor that is no branch",
            where=where,
            do=f"choose a name other than {', '.join(RESERVED)}",
        )


def _check_rows(output: torch.Tensor, rows: Mapping[str, Rows]) -> None:
    where = "gradflow.branch.rows"
    size = output.shape[0] if output.ndim else 0
    taken = torch.zeros(size, dtype=torch.int64)
    for name, chosen in rows.items():
        check_name(name, where=where)
        try:
            taken[chosen] += 1
        except (IndexError, TypeError, ValueError) as error:
            raise InvalidArgumentError(
                f"rows[{name!r}] = {chosen!r:.60} does not choose among {size} rows",
                where=where,
                do='give a slice, a list of positions or a mask, as in {"anchor": slice(0, 8)}',
            ) from error
    twice = taken.gt(1).nonzero().flatten().tolist()
    if twice:
        raise InvalidArgumentError(
            f"row {twice[0]} is given to more than one branch",
            where=where,
            do="give every row to one branch; rows of no branch count as unclaimed",
        )
