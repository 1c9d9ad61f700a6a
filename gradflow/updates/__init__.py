"""The rules that split what an optimizer did to a parameter among the contributors of its gradient.

:class:`~gradflow.updates.splitter.DeltaSplitter` does it; :func:`~gradflow.updates.rules.register` teaches it
one more optimizer. ``docs/deltas.md`` derives the rules.
"""

from gradflow.updates import adam, adaptive, muon, sgd
from gradflow.updates.frozen import Accumulate, Ema, Frozen, Stepped
from gradflow.updates.rules import register
from gradflow.updates.splitter import DeltaSplitter, Split

__all__ = [
    "Accumulate",
    "DeltaSplitter",
    "Ema",
    "Frozen",
    "Split",
    "Stepped",
    "adam",
    "adaptive",
    "muon",
    "register",
    "sgd",
]
