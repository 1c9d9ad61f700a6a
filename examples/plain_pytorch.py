"""Plain PyTorch: three calls of one encoder, and what each path brought to its weights."""

from itertools import islice

import torch

import gradflow
from gradflow.zoo import triplet


def main() -> None:
    """Train ten steps on triplets of real digits."""
    torch.manual_seed(0)
    encoder = triplet.Encoder((1, 4, 8, 8, 16, 16), embedding=16)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-3)

    with gradflow.watch(encoder, optimizer, branches=("anchor", "positive", "negative")) as flow:
        for batch in islice(triplet.batches(seed=0, size=8), 10):
            loss, _ = triplet.triplet_loss(*map(encoder, batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            flow.log(loss=loss)

    print(flow.recording)
    print(flow.recording.last["fc.weight"])


if __name__ == "__main__":
    main()
