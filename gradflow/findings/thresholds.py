"""What counts as striking: named constants, so that a reader can see, and a test can vary, each of them."""

from __future__ import annotations

__all__ = [
    "ACCUMULATED",
    "CANCELLATION",
    "CONFLICT",
    "DEAD",
    "DOMINANT",
    "LASTING",
    "MARGIN",
    "NOISE_FLOOR",
    "RESIDUAL",
    "ROUNDING",
    "STUCK",
    "STUCK_STEPS",
    "UNCLAIMED",
    "WINDOW",
]

NOISE_FLOOR = 1e-5
"""Contributions below this fraction of the step's largest are taken for rounding: their angles mean nothing.

The bias of a convolution before a batch-norm has a gradient of exactly zero but for rounding; in float32
it was seen at 1e-8 to 5e-6 of the largest contribution."""

CONFLICT = 0.5
"""A conflict (minus the cosine) from which two branches are said to pull against each other."""

CANCELLATION = 0.5
"""Cancellation from which a parameter is said to lose most of the branches' effort."""

UNCLAIMED = 0.05
"""Fraction of the total from which unclaimed gradient is a warning; penalties on weights are mostly less."""

ROUNDING = 0.05
"""Fraction of the effort from which the contributor ``rounding`` is more than half precision loses."""

RESIDUAL = 1e-5
"""Relative residual from which the sum is in doubt; below it, the order of summing explains it."""

WINDOW = 100
"""How many of the newest steps ``recording.findings()`` looks at."""

LASTING = 0.5
"""Fraction of a window's steps from which something is said to last."""

DOMINANT = 0.9
"""Part of the effort (the sum of the branches' norms) from which one branch is said to dominate."""

DEAD = 0.95
"""Mean fraction of dead examples from which a window is a warning; from half of them on it is a note."""

MARGIN = 0.01
"""How near to its margin a loss stays, as a fraction of it, when it is said to be stuck there."""

STUCK = 1e-3
"""How little a loss changes, as a fraction of it, when it is said to be stuck."""

STUCK_STEPS = 20
"""Steps for which a loss must stay where it is; random embeddings begin near the margin too."""

ACCUMULATED = 1e-3
"""How well the norm of what was left over must agree with what the optimizer read in the step before."""
