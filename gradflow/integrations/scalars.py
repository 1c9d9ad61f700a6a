"""The numbers of a step, by name, for whatever takes numbers: loggers, dashboards, tables.

The names are paths, as loggers group them: ``gradflow/norm/anchor`` for the whole model,
``gradflow/conv1/norm/anchor`` for a layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

from gradflow.record import Contributions
from gradflow.recording import Step

__all__ = ["scalars"]


def scalars(step: Step, layers: Sequence[str] = (), *, prefix: str = "gradflow") -> dict[str, float]:
    """Give the measures of a step over the whole model, and over some of its layers.

    Args:
        step: A recorded step.
        layers: Module paths to tell apart, such as ``("conv1", "layer1.0")``.
        prefix: What every name begins with.

    Returns:
        ``norm/NAME`` and ``share/NAME`` of each contributor, ``cosine/A-B`` of each two branches,
        ``cancellation``, ``total_norm``; ``delta_norm`` and ``delta_share/NAME`` where an optimizer moved the
        parameters; and ``residual``, the largest of the step: 0 when every sum was conserved bitwise. What is
        undefined (the cosine of a zero) is left out.

    Raises:
        NoSuchParameterError: no recorded parameter lies under one of the layers.

    Example:
        >>> import numpy as np
        >>> from gradflow.record import ParamStep
        >>> w = ParamStep(("a", "b"), np.array([[4.0, 0.0], [0.0, 0.0]]), 2.0, fqn="w", names=("w",))
        >>> found = scalars(Step(0, {"w": w}, ("a", "b")), prefix="run")
        >>> found["run/norm/a"], found["run/cancellation"], "run/cosine/a-b" in found
        (2.0, 0.0, False)
    """
    if not step.parameters:
        return {}
    found = {f"{prefix}/residual": max(p.residual for p in step)}
    for path in ("", *layers):
        start = f"{prefix}/{path}/" if path else f"{prefix}/"
        found.update((start + name, value) for name, value in _measures(step.layer(path), step.branches))
    return found


def _measures(layer: Contributions, branches: Sequence[str]) -> Iterator[tuple[str, float]]:
    yield "total_norm", layer.total_norm
    for name, norm in layer.norms.items():
        yield f"norm/{name}", norm
        yield from _defined(f"share/{name}", layer.share(name))
    for a, b in combinations([b for b in branches if b in layer.contributors], 2):
        yield from _defined(f"cosine/{a}-{b}", layer.cosine(a, b))
    yield from _defined("cancellation", layer.cancellation)
    if layer.delta is not None:
        yield "delta_norm", layer.delta.norm
        for name, share in layer.delta.shares.items():
            yield from _defined(f"delta_share/{name}", share)


def _defined(name: str, value: float) -> Iterator[tuple[str, float]]:
    if not math.isnan(value):
        yield name, value
