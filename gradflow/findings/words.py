"""How lists of names are said in a finding."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["count", "named", "some"]


def named(branches: Sequence[str]) -> str:
    """Say which branches.

    Example:
        >>> named(["anchor"]), named(["anchor", "positive"])
        ("Branch 'anchor'", 'Branches anchor, positive')
    """
    return f"Branch {branches[0]!r}" if len(branches) == 1 else f"Branches {some(branches)}"


def some(names: Sequence[str], most: int = 3) -> str:
    """Say the first few of many names.

    Example:
        >>> some(["a", "b", "c", "d", "e"])
        'a, b, c and 2 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def count(number: int, thing: str) -> str:
    """Say how many of a thing.

    Example:
        >>> count(1, "warning"), count(0, "note"), count(2, "branch")
        ('1 warning', '0 notes', '2 branches')
    """
    plural = "es" if thing.endswith("ch") else "s"
    return f"{number} {thing}" + ("" if number == 1 else plural)
