"""Playgrounds: small live widgets in which a learner touches what the lessons are about.

    gradflow.playground.plane()      # drag three points; three paths push one weight
    gradflow.playground.sharing()    # one encoder, or three copies of it?
    gradflow.playground.time()       # a recurrent cell: one path for each time step

Each computes with real torch and real autograd, through ``gradflow.watch``; its numbers are in a model
class that knows no widget.
"""

from gradflow.widgets.playground.plane_widget import plane
from gradflow.widgets.playground.sharing_widget import sharing
from gradflow.widgets.playground.time_widget import time

__all__ = ["plane", "sharing", "time"]
