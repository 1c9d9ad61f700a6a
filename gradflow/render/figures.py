"""The figures, public as ``gradflow.plot``: each is made from a step or a recording, and changes neither.

``equation`` and ``flow`` fill a figure and return it; the others draw on one axes, given or new, and
return it. All take ``theme="light"`` or ``"dark"``, leave matplotlib's settings as they were, and attach
a description in words, which :func:`describe` gives.

    gradflow.plot.equation(step, "conv1.weight")            # anchor + positive + negative = sum -> delta
    gradflow.plot.flow(step)                                # the ways into each shared weight
    gradflow.plot.contributions(step)                       # how large, everywhere
    gradflow.plot.cosines(step, "conv1")                    # which way
    gradflow.plot.history(flow.recording, scalar="loss")    # over the steps
    gradflow.plot.deltas(flow.recording)                    # whose delta
    gradflow.plot.race(flow.recording)                      # whose way it was, over the run
"""

from __future__ import annotations

from gradflow.render.equation import equation
from gradflow.render.flow import flow
from gradflow.render.measures import contributions, cosines
from gradflow.render.picture import described as describe
from gradflow.render.race import race
from gradflow.render.shares import deltas
from gradflow.render.timeline import history

__all__ = ["contributions", "cosines", "deltas", "describe", "equation", "flow", "history", "race"]
