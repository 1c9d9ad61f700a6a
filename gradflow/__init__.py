"""gradflow: see how gradients from several paths meet in one shared weight.

    flow = gradflow.watch(encoder, optimizer, branches=("anchor", "positive", "negative"))
    ...                                     # the training loop, unchanged
    flow.recording.last                     # what each path contributed, their sum, and the delta

Names are loaded when first used, so that importing gradflow costs nothing and ``gradflow --help``
answers at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradflow import lessons, zoo
    from gradflow.capture.branches import branch
    from gradflow.capture.recorder import Recorder, watch
    from gradflow.capture.trace import trace
    from gradflow.checks import check
    from gradflow.diagrams import diagram
    from gradflow.errors import GradflowError
    from gradflow.graph import Graph
    from gradflow.recording import Recording, Step
    from gradflow.render import figures as plot
    from gradflow.reports import report
    from gradflow.storage import load
    from gradflow.widgets import playground
    from gradflow.widgets.explorer.live import explore

__version__ = "0.1.0"

_HOMES = {
    "Graph": "gradflow.graph",
    "GradflowError": "gradflow.errors",
    "Recorder": "gradflow.capture.recorder",
    "Recording": "gradflow.recording",
    "Step": "gradflow.recording",
    "branch": "gradflow.capture.branches",
    "check": "gradflow.checks",
    "diagram": "gradflow.diagrams",
    "explore": "gradflow.widgets.explorer.live",
    "lessons": "gradflow.lessons",
    "load": "gradflow.storage",
    "playground": "gradflow.widgets.playground",
    "plot": "gradflow.render.figures",
    "report": "gradflow.reports",
    "trace": "gradflow.capture.trace",
    "watch": "gradflow.capture.recorder",
    "zoo": "gradflow.zoo",
}
_MODULES = ("lessons", "playground", "plot", "zoo")

__all__ = [
    "GradflowError",
    "Graph",
    "Recorder",
    "Recording",
    "Step",
    "branch",
    "check",
    "diagram",
    "explore",
    "lessons",
    "load",
    "playground",
    "plot",
    "report",
    "trace",
    "watch",
    "zoo",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'gradflow' has no attribute {name!r}")
    home = importlib.import_module(_HOMES[name])
    found = home if name in _MODULES else getattr(home, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
