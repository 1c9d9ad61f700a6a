"""The classic teaching diagrams: three calls of one encoder, two of a Siamese network, a cell in time ...

Each is drawn from one real training step of a scene of the zoo: what the arrows say was measured, nothing
is made up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from gradflow import zoo
from gradflow.capture.recorder import watch
from gradflow.capture.trace import trace
from gradflow.errors import InvalidArgumentError, did_you_mean
from gradflow.graph import Graph

__all__ = ["NAMES", "diagram", "diagram_graph"]

_SIZE = 8  # examples in the batch


@dataclass(frozen=True, slots=True)
class _Motif:
    """Which scene a diagram shows, and how far folded.

    Attributes:
        scene: Name of the scene.
        depth: Levels of modules told apart.
        steps: How many time steps to show, where the scene has more.
    """

    scene: str
    depth: int = 1
    steps: int | None = None


_MOTIFS = {
    "triplet": _Motif("triplet", depth=0),
    "triplet-layers": _Motif("triplet", depth=2),
    "siamese": _Motif("contrastive"),
    "lstm": _Motif("siamese_lstm_cells", depth=2, steps=3),
    "rnn": _Motif("rnn", steps=4),
    "tied": _Motif("tied_lm"),
    "multitask": _Motif("multitask"),
    "two-models": _Motif("two_models", depth=2),
    "simsiam": _Motif("simsiam"),
    "infonce": _Motif("infonce"),
    "resnet50": _Motif("resnet50_thin", depth=2),
}

NAMES = tuple(_MOTIFS)
"""Names of the diagrams."""


def diagram(
    name: str,
    path: str | Path | None = None,
    *,
    theme: str = "light",
    details: bool = True,
    values: bool = True,
) -> Graph | Path:
    """Draw a classic diagram from a real training step of a scene of the zoo.

    Args:
        name: One of :data:`NAMES`, as ``"triplet"``, ``"siamese"``, ``"lstm"``, ``"tied"``, ``"multitask"``,
            ``"two-models"``, ``"simsiam"``.
        path: Where to, by its ending: .svg .pdf .png .html .dot .json .txt. None gives the graph instead.
        theme: ``"light"`` or ``"dark"``.
        details: Whether boxes tell operations, shapes and sizes, or their names alone, as on a slide.
        values: Whether arrows carry the contributions of a real step, and what followed from them.

    Returns:
        The path written, or the graph, which draws itself in a notebook.

    Raises:
        InvalidArgumentError: no diagram of that name, or no way to write that ending.
        MissingPackageError: there is no Graphviz to draw with.

    Example:
        >>> diagram("siamese").branches
        ('left', 'right')
    """
    graph = diagram_graph(name, values=values)
    return graph if path is None else graph.save(path, theme=theme, details=details)


def diagram_graph(name: str, *, values: bool = True) -> Graph:
    """Give the view that a diagram draws.

    Raises:
        InvalidArgumentError: no diagram of that name.
    """
    if name not in _MOTIFS:
        raise InvalidArgumentError(
            f"no diagram {name!r}", where="gradflow.diagram", do=did_you_mean(name, _MOTIFS)
        )
    motif = _MOTIFS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        graph = _traced(motif, zoo.scene(motif.scene), values=values)
    return graph.collapse(motif.depth)


def _traced(motif: _Motif, scene: zoo.Scene, *, values: bool) -> Graph:
    """Run one training step of a scene, and trace it on the way."""
    model = scene.build()
    optimizers = scene.optimizers(model)
    batch = next(scene.batches(seed=0, size=_SIZE))
    branches = scene.watch_branches(model)
    if motif.steps is not None:
        batch = tuple(part[:, :, : motif.steps] if part.ndim == 4 else part for part in batch)
        if scene.modules is None and len(scene.branches) > 2:
            branches = scene.branches[: motif.steps]
    with watch(model, optimizers, branches=branches, stems=scene.stems) as flow:
        loss, _ = scene.loss(model, batch)
        graph = trace(loss, model)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        return graph.with_values(flow.recording.last) if values else graph
