"""The figures, public as ``gradflow.plot``: each is made from a step or a recording, and changes neither.

``equation``, ``flow`` and ``compare`` fill a figure and return it; the others draw on one axes, given or new,
and return it. ``plane`` alone takes arrays. All take ``theme="light"`` or ``"dark"``, leave matplotlib's
settings as they were, and attach a description in words, which :func:`describe` gives.

    gradflow.plot.equation(step, "conv1.weight")            # anchor + positive + negative = sum -> delta
    gradflow.plot.flow(step)                                # the ways into each shared weight
    gradflow.plot.contributions(step)                       # how large, everywhere
    gradflow.plot.cosines(step, "conv1")                    # which way
    gradflow.plot.history(flow.recording, scalar="loss")    # over the steps
    gradflow.plot.deltas(flow.recording)                    # whose delta
    gradflow.plot.cancellation(flow.recording)              # where and when the branches cancel
    gradflow.plot.profile(step)                             # how large at every depth
    gradflow.plot.terms(step, "conv1.weight")               # which term of the loss came along which branch
    gradflow.plot.plane(points, gradients, margin=1.0)      # embeddings, and where they are pulled and pushed
    gradflow.plot.compare(one, other, scalar="loss")        # two runs side by side
    gradflow.plot.race(flow.recording)                      # whose way it was, over the run
"""

from __future__ import annotations

from gradflow.render.beside import compare
from gradflow.render.cancelling import cancellation
from gradflow.render.depth import profile
from gradflow.render.equation import equation
from gradflow.render.flow import flow
from gradflow.render.measures import contributions, cosines
from gradflow.render.picture import described as describe
from gradflow.render.plane import plane
from gradflow.render.race import race
from gradflow.render.shares import deltas
from gradflow.render.termtable import terms
from gradflow.render.timeline import history

__all__ = [
    "cancellation",
    "compare",
    "contributions",
    "cosines",
    "deltas",
    "describe",
    "equation",
    "flow",
    "history",
    "plane",
    "profile",
    "race",
    "terms",
]
