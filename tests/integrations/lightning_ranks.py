"""A Lightning run in two processes, started by Lightning itself: ``lightning_ranks.py FOLDER``."""

import sys
from pathlib import Path

import lightning
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from gradflow.integrations.lightning import GradflowCallback
from tests.integrations.triplets import NAMES, batches, encoder, loss_of


class Triplets(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.encoder, self.grads = encoder(), []

    def training_step(self, batch):
        return loss_of(self.encoder, [x[0] for x in batch])

    def on_before_optimizer_step(self, optimizer):
        self.grads.append({fqn: p.grad.clone() for fqn, p in self.encoder.named_parameters()})

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def main(folder):
    callback = GradflowCallback("encoder", branches=NAMES, keep="tensors", to=Path(folder, "run.gradflow"))
    trainer = lightning.Trainer(
        accelerator="cpu",
        strategy="ddp",
        devices=2,
        max_epochs=1,
        callbacks=[callback],
        logger=CSVLogger(folder),
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    model = Triplets()
    trainer.fit(model, DataLoader(batches(4), batch_size=1))
    torch.save(model.grads, Path(folder, f"grads{trainer.global_rank}.pt"))


if __name__ == "__main__":
    main(sys.argv[1])
