"""pytorch-metric-learning: one call of the encoder, whose rows a miner makes anchors and negatives."""

import numpy as np
import torch
from pytorch_metric_learning import losses, miners

import gradflow
from gradflow import data
from gradflow.integrations.metric_learning import by_role
from gradflow.zoo import triplet


def main() -> None:
    """Train five steps on batches of sixteen digits."""
    torch.manual_seed(0)
    images, labels = map(torch.tensor, map(np.copy, data.digits()))
    encoder = triplet.Encoder((1, 4, 8, 8, 16, 16), embedding=16)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-3)
    miner, loss_func = miners.TripletMarginMiner(0.2, "semihard"), losses.TripletMarginLoss(0.2)

    with gradflow.watch(encoder, optimizer) as flow:
        for seed in range(5):
            rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:16]
            embeddings = encoder(torch.nn.functional.pad(images[rows], (2, 2, 2, 2)))
            mined = miner(embeddings, labels[rows])
            loss = loss_func(by_role(embeddings, mined), labels[rows], mined)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    print(flow.recording)


if __name__ == "__main__":
    main()
