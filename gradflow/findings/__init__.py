"""What is wrong or worth seeing, in words: in a step and over a recording.

A *warning* says that the numbers or the training are in doubt; a *note* tells what the numbers show.
Everything here reads records; what only the model and the optimizer can tell is in :mod:`gradflow.checks`.
"""

from gradflow.findings.branches import noise_floor
from gradflow.findings.listing import Findings
from gradflow.findings.run import of_recording
from gradflow.findings.step import of_step
from gradflow.findings.thresholds import CANCELLATION, CONFLICT, NOISE_FLOOR, RESIDUAL, ROUNDING, UNCLAIMED

__all__ = [
    "CANCELLATION",
    "CONFLICT",
    "NOISE_FLOOR",
    "RESIDUAL",
    "ROUNDING",
    "UNCLAIMED",
    "Findings",
    "noise_floor",
    "of_recording",
    "of_step",
]
