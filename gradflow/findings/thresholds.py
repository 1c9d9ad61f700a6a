"""What counts as striking: named constants, so that a reader can see, and a test can vary, each of them."""

from __future__ import annotations

__all__ = ["CANCELLATION", "CONFLICT", "NOISE_FLOOR", "RESIDUAL", "ROUNDING", "UNCLAIMED"]

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
