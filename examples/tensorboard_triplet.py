"""TensorBoard: scalars, histograms and a figure of every step. Then: tensorboard --logdir FOLDER."""

import sys
import tempfile
from itertools import islice
from pathlib import Path

import torch

import gradflow
from gradflow.integrations.tensorboard import Board
from gradflow.zoo import triplet


def main(folder: str = "") -> None:
    """Train five steps on triplets of real digits, and write them to a folder."""
    torch.manual_seed(0)
    folder = folder or tempfile.mkdtemp()
    encoder = triplet.Encoder((1, 4, 8, 8, 16, 16), embedding=16)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-3)
    names = ("anchor", "positive", "negative")
    with (
        gradflow.watch(encoder, optimizer, branches=names, keep="fc.*") as flow,
        Board(folder, layers=("blocks.0", "fc"), figures=("fc.bias",)) as board,
    ):
        for batch in islice(triplet.batches(seed=0, size=8), 5):
            loss, _ = triplet.triplet_loss(*map(encoder, batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            board.add(flow.recording.last)
    print("wrote", *(path.name for path in Path(folder).iterdir()))


if __name__ == "__main__":
    main(*sys.argv[1:])
