"""DDP: each rank records its own gradients; merged, they are those of the whole batch.

Run it by ``torchrun --nproc-per-node 2 examples/ddp.py runs``, then
``gradflow merge runs/*.rank?.gradflow -o runs/merged.gradflow``.
"""

import sys
from itertools import islice

import torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

import gradflow
from gradflow.integrations import distributed
from gradflow.zoo import triplet


def main(folder: str) -> None:
    """Train five steps, of eight triplets on each rank."""
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    encoder = triplet.Encoder((1, 4, 8, 8, 16, 16), embedding=16)
    ddp, optimizer = DistributedDataParallel(encoder), torch.optim.Adam(encoder.parameters(), lr=1e-3)
    to, names = distributed.for_rank(f"{folder}/ddp.gradflow"), ("anchor", "positive", "negative")
    with gradflow.watch(encoder, optimizer, branches=names, keep=["*weight"], to=to) as flow:
        for batch in islice(triplet.batches(seed=0, size=8), rank, 5 * ranks, ranks):
            loss, _ = triplet.triplet_loss(*map(ddp, batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    if rank == 0:
        print(flow.recording.last)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
