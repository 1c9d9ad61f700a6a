"""What the lessons are made of: predictions, checked exercises, hints, and a look back.

    ask = gradflow.lessons.predict("How many sets of weights?", choices=("one", "three"))
    ask.guess("three")                      # or the buttons, in JupyterLab
    ask.reveal(answer)                      # computed by then; hidden until there is a guess
    gradflow.lessons.check("01.shared", my_network)
    gradflow.lessons.hint("01.shared")
    gradflow.lessons.progress(ask)
    gradflow.lessons.show(anchor=images)    # a row of small images, with alternative text

Everything works in JupyterLab by mouse and keyboard and as plain text, and nothing leaves the computer.
Importing this loads neither torch nor a widget.
"""

from typing import TYPE_CHECKING

from gradflow.lessons.exercise import Exercise, Hints, Verdict, check, hint, right, wrong
from gradflow.lessons.looking_back import Progress, progress
from gradflow.lessons.prediction import SIGNS, Prediction, Reveal, predict

if TYPE_CHECKING:
    from gradflow.lessons.pictures import show


def __getattr__(name: str) -> object:
    if name != "show":  # draws, so it is loaded when first used
        raise AttributeError(f"module 'gradflow.lessons' has no attribute {name!r}")
    from gradflow.lessons import pictures

    return pictures.show


__all__ = [
    "SIGNS",
    "Exercise",
    "Hints",
    "Prediction",
    "Progress",
    "Reveal",
    "Verdict",
    "check",
    "hint",
    "predict",
    "progress",
    "right",
    "show",
    "wrong",
]
