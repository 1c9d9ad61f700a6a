"""Lightning: a callback watches the encoder while the trainer fits it, and logs to its loggers."""

from itertools import islice

import lightning
import torch
from torch.utils.data import DataLoader

from gradflow.integrations.lightning import GradflowCallback
from gradflow.zoo import triplet


class Triplet(lightning.LightningModule):
    """An encoder and the triplet loss."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = triplet.Encoder((1, 4, 8, 8, 16, 16), embedding=16)

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        """Call the encoder three times."""
        return triplet.triplet_loss(*map(self.encoder, batch))[0]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Give one Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def main() -> None:
    """Fit ten batches of eight triplets."""
    gradients = GradflowCallback("encoder", branches=("anchor", "positive", "negative"))
    options = {"logger": False, "enable_checkpointing": False}  # both would write to the current folder
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", callbacks=[gradients], **options)
    trainer.fit(Triplet(), DataLoader(list(islice(triplet.batches(size=8), 10)), batch_size=None))
    print(gradients.recording)


if __name__ == "__main__":
    main()
