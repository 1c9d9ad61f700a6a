"""The options of ``watch``, read and checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gradflow.errors import InvalidArgumentError

__all__ = ["Options", "read_options"]


@dataclass(frozen=True, slots=True)
class Options:
    """What ``watch`` was asked for.

    Attributes:
        keep: FQN patterns of the parameters whose tensors are kept; ``("*",)`` for all.
        every: Watch each so-many-th step.
        last: Keep so many steps in memory; None for all.
        to: File to stream to; None for none.
        splits_trunks: Whether a trunk under several branches is split by one extra backward for each.
    """

    keep: tuple[str, ...] = ()
    every: int = 1
    last: int | None = None
    to: Path | None = None
    splits_trunks: bool = False


def read_options(
    *, keep: str | Sequence[str], every: int, last: int | None, to: str | Path | None, stems: str
) -> Options:
    """Read the keyword arguments of ``watch``.

    Raises:
        InvalidArgumentError: one of them means nothing.
    """
    for name, value in (("every", every), ("last", last)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise InvalidArgumentError(
                f"{name}={value!r} is no positive whole number",
                where="gradflow.watch",
                do=f"{name}=10, or leave it out",
            )
    if stems not in ("report", "split"):
        raise InvalidArgumentError(
            f"stems={stems!r} is neither 'report' nor 'split'",
            where="gradflow.watch",
            do='stems="split" splits what branches share, at the cost of one more backward of it for each',
        )
    patterns = {"gram": (), "tensors": ("*",)}.get(keep, (keep,)) if isinstance(keep, str) else tuple(keep)
    return Options(patterns, every, last, None if to is None else Path(to), stems == "split")
