"""Naming a stretch of the forward pass: ``with gradflow.branch("anchor"): ...``."""

from __future__ import annotations

from contextvars import ContextVar, Token
from types import TracebackType

import torch

from gradflow.errors import InvalidArgumentError
from gradflow.record import RESERVED

__all__ = ["branch", "check_name", "current"]

_current: ContextVar[branch | None] = ContextVar("gradflow_branch", default=None)


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

    __slots__ = ("_tokens", "name")

    def __init__(self, name: str) -> None:
        check_name(name, where="gradflow.branch")
        self.name = name
        self._tokens: list[Token[branch | None]] = []

    def __enter__(self) -> branch:
        self._tokens.append(_current.set(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.reset(self._tokens.pop())

    def claim(self, tensor: torch.Tensor) -> torch.Tensor:
        """Claim for this branch a stretch of forward that no module call made, such as ``x @ self.proj``.

        Everything on the way from ``tensor`` back to what a module call or another claim made counts
        towards this branch.

        Args:
            tensor: The result of the stretch.

        Returns:
            The same tensor.
        """
        from gradflow.capture.planting import planters_behind  # it imports this module

        for planter in planters_behind(tensor):
            planter.claim(tensor, self.name)
        return tensor

    def __repr__(self) -> str:
        return f"branch({self.name!r})"


def current() -> branch | None:
    """Give the innermost open branch of this thread and task."""
    return _current.get()


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
