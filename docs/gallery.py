"""The pictures of ``docs/gallery.md``, from two real trainings: ``python docs/gallery.py assets``.

``equation.svg`` and ``flow.svg``, which the page shows too, are made by ``gradflow demo``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import matplotlib
import torch
from matplotlib.axes import Axes
from torch import nn
from torch.nn import functional as F

import gradflow
from gradflow import plot, zoo
from gradflow.render.picture import loose_axes
from gradflow.zoo.triplet import Encoder

BRANCHES = ("anchor", "positive", "negative")
MARGIN = 0.2
KEPT = "blocks.0.conv.weight"
STEPS = 40


def train() -> gradflow.Recording:
    """Train the triplet network of the zoo, its two distances named as terms of the loss."""
    torch.manual_seed(0)
    encoder = Encoder()
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-3)
    with gradflow.watch(encoder, optimizer, branches=BRANCHES, keep=[KEPT]) as flow:
        for images in islice(zoo.scene("triplet").batches(seed=0), STEPS):
            anchor, positive, negative = (encoder(image) for image in images)
            pull = gradflow.branch.term("pull", F.pairwise_distance(anchor, positive))
            push = gradflow.branch.term("push", F.pairwise_distance(anchor, negative))
            loss = F.relu(pull - push + MARGIN).mean()
            flow.log(loss=loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return flow.recording


def embeddings() -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of six triplets of digits in the plane, and the gradient at each. Both ``[3, 6, 2]``."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 32), nn.Tanh(), nn.Linear(32, 2))
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-3)
    for images in islice(zoo.scene("triplet").batches(seed=1, size=6), 30):
        points = torch.stack([encoder(image) for image in images])
        points.retain_grad()
        loss = F.triplet_margin_loss(*points, margin=MARGIN)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert points.grad is not None
    return points.detach(), points.grad


def pictures() -> Iterator[tuple[str, Callable[[Axes], Axes]]]:
    """Name and drawing of each picture."""
    run = train()
    last = run.last
    points, gradients = embeddings()
    yield "cosines", lambda ax: plot.cosines(last, "fc.weight", ax=ax)
    yield "history", lambda ax: plot.history(run, scalar="loss", ax=ax)
    yield "deltas", lambda ax: plot.deltas(run, KEPT, ax=ax)
    yield "race", lambda ax: plot.race(run, KEPT, ax=ax)
    yield "cancellation", lambda ax: plot.cancellation(run, ax=ax)
    yield "profile", lambda ax: plot.profile(last, by="module", ax=ax)
    yield "terms", lambda ax: plot.terms(last, "fc.weight", ax=ax)
    yield "plane", lambda ax: plot.plane(points.numpy(), gradients.numpy(), margin=MARGIN, ax=ax)


def slim(svg: str) -> str:
    """Write points of paths, and places of letters, to a hundredth: nobody sees more. Indents go."""
    places = r' d="[^"]*"|translate\([^)]*\)'
    fewer = re.sub(places, lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), svg)
    return re.sub(r"^ +", "", fewer, flags=re.MULTILINE)


def main(folder: Path) -> None:
    """Write every picture as SVG, and print what each shows; make all SVG files of the folder slim."""
    matplotlib.rcParams["svg.hashsalt"] = "gallery"  # the same ids in every file, every time
    for name, draw in pictures():
        figure = draw(loose_axes()).figure
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        sys.stdout.write(f"{name}.svg: {plot.describe(figure)}\n")
    for file in sorted(folder.glob("*.svg")):
        file.write_text(slim(file.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
