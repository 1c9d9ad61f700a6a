"""Accelerate: half precision and two micro-batches a step, with the paths told apart all the same."""

from itertools import islice

import torch
from accelerate import Accelerator

from gradflow.integrations import accelerate
from gradflow.zoo import triplet


def main() -> None:
    """Train five steps of two batches of eight triplets each."""
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True, mixed_precision="bf16", gradient_accumulation_steps=2)
    encoder = triplet.Encoder((1, 4, 8, 8, 16, 16), embedding=16)
    encoder, optimizer = accelerator.prepare(encoder, torch.optim.Adam(encoder.parameters(), lr=1e-3))

    names = ("anchor", "positive", "negative")
    with accelerate.watch(accelerator, encoder, optimizer, branches=names) as flow:
        for batch in islice(triplet.batches(seed=0, size=8), 10):
            with accelerator.accumulate(encoder):
                loss, _ = triplet.triplet_loss(*map(encoder, batch))
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(encoder.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()

    print(flow.recording)


if __name__ == "__main__":
    main()
