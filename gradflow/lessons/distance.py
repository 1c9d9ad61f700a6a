"""How far a guess is off, in words: for numbers, for signs, and for one of several choices."""

from __future__ import annotations

import math

__all__ = ["of_choice", "of_number", "written"]

_SPOT_ON, _CLOSE, _NEAR = 0.02, 0.10, 0.30  # relative errors


def written(value: float) -> str:
    """Write a number with four digits at most, and a whole one as such.

    Example:
        >>> written(3.0), written(0.123456), written(-2e-9), written(8000123)
        ('3', '0.1235', '-2e-09', '8,000,123')
    """
    if math.isfinite(value) and value == round(value) and abs(value) < 1e15:
        return f"{round(value):,}"
    return f"{value:.4g}"


def of_number(guess: float, value: float) -> tuple[str, bool]:
    """Compare a guess with the computed value.

    Returns:
        A sentence on how far it is off, and whether it counts as right (off by 10 % at most; by
        nothing, where the value is 0).

    Example:
        >>> of_number(1.41, 2**0.5)
        ('Spot on: off by 0.3 %.', True)
        >>> of_number(3, 1)
        ('3 times too large.', False)
        >>> of_number(2, -1)[0], of_number(0.5, 0)[0], of_number(0, 7)[0]
        ('The sign is the other way.', 'It is exactly 0.', 'It is not 0.')
    """
    if guess == value:
        return "Exactly.", True
    if not math.isfinite(value):
        return f"It is {value}, which is no ordinary number.", False
    if value == 0:
        return "It is exactly 0.", False
    if guess == 0:
        return "It is not 0.", False
    if guess * value < 0:
        return "The sign is the other way.", False
    return _by_size(guess, value)


def _by_size(guess: float, value: float) -> tuple[str, bool]:
    """Both have one sign and are not 0."""
    off = abs(guess - value) / abs(value)
    side = "large" if abs(guess) > abs(value) else "small"
    if off <= _SPOT_ON:
        return f"Spot on: off by {100 * off:.2g} %.", True
    if off <= _CLOSE:
        return f"Close: {100 * off:.2g} % too {side}.", True
    if off <= _NEAR:
        return f"Near: {100 * off:.2g} % too {side}.", False
    ratio = max(guess / value, value / guess)
    if ratio < 1.5:
        return f"{100 * off:.0f} % too {side}.", False
    return f"{written(float(f'{ratio:.2g}'))} times too {side}.", False


def of_choice(guess: str, value: str) -> tuple[str, bool]:
    """Compare a choice with the one that is right."""
    return ("Yes.", True) if guess == value else (f"Not “{guess}”.", False)
