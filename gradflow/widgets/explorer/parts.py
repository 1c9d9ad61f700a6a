"""What the explorer is made of, in notebooks and in pages: its files, and what a reader may choose."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

__all__ = ["NEWEST", "PARTS", "START", "STYLE"]

_HERE = Path(__file__).parent
PARTS = tuple(_HERE / name for name in ("source", "flow", "list", "detail", "explorer"))
"""The script of the explorer, in the order in which its files stand."""

STYLE = _HERE / "explorer"

NEWEST = -1
START: Mapping[str, Any] = MappingProxyType(
    {
        "step": NEWEST,  # index of the step shown; -1 follows the newest
        "place": "",  # FQN or module path selected; "" is the whole model
        "branch": "",  # the one brought out; "" for all alike
        "opened": None,  # module paths unfolded in the flow; None as at the start
        "sort": "total",  # what the list is sorted by: name, total, conflict, cancellation, delta
        "ascending": False,
        "search": "",
        "view": [0.0, 0.0, 1.0],  # where the flow is looked at: right, down, zoom
        "playing": False,
    }
)
"""What a reader may choose in the explorer, and how it is at the start."""
