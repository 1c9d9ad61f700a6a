"""Lightning: a callback that watches ``trainer.fit``, and logs to whatever loggers the trainer has.

    gradients = GradflowCallback("encoder", branches=("anchor", "positive", "negative"))
    lightning.Trainer(callbacks=[gradients]).fit(model, loader)
    gradients.recording.last

Automatic and manual optimization, several optimizers, accumulated batches, clipping and half precision are
seen as they are. Every process records its own gradients; only the first one logs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from gradflow.errors import need
from gradflow.integrations.plan import Branches, Plan
from gradflow.integrations.scalars import scalars
from gradflow.recording import Recording

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer

    from gradflow.capture.recorder import Recorder
else:
    Callback = need("lightning.pytorch", extra="lightning", for_="gradflow.integrations.lightning").Callback

__all__ = ["GradflowCallback"]


class GradflowCallback(Callback):
    """Watches a module of a LightningModule while it is fitted.

    Args:
        module: Path of the module to watch, such as ``"encoder"``; ``""`` for the whole LightningModule.
        branches: As for :func:`gradflow.watch`; modules may be named by their paths.
        log: Whether to log measures, every ``log_every_n_steps`` of the trainer.
        layers: Module paths, below the watched module, whose measures are logged one by one.
        options: Further options of :func:`gradflow.watch`: ``params``, ``keep``, ``every``, ``last``, ``to``,
            ``stems``. With several processes, each adds its rank to the file's name.

    Attributes:
        flow: The recorder, once training has begun.

    Raises:
        InvalidArgumentError: an option is none of ``gradflow.watch``.

    Example:
        >>> GradflowCallback("encoder", branches=("left", "right"), last=100).flow is None  # yet
        True
    """

    def __init__(
        self,
        module: str = "",
        *,
        branches: Branches = None,
        log: bool = True,
        layers: Sequence[str] = (),
        **options: Any,  # as watch takes them
    ) -> None:
        self._plan = Plan("GradflowCallback", module, branches, options)
        self._log, self._layers = log, tuple(layers)

    @property
    def flow(self) -> Recorder | None:
        """The recorder; None before training has begun."""
        return self._plan.flow

    @property
    def recording(self) -> Recording:
        """What was recorded so far."""
        return self._plan.recording

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to watch: everything is in its place, and on its device."""
        self._plan.begin(pl_module, trainer.optimizers, (trainer.global_rank, trainer.world_size))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Keep the loss with the step, and log measures when they are due."""
        flow, value = self._plan.flow, _loss(outputs)
        if flow is not None and value is not None:
            flow.log(loss=value)
        if not self._log or not trainer.is_global_zero or not trainer.loggers:
            return
        step = self._plan.news(every=max(1, getattr(trainer, "log_every_n_steps", 1)))
        if step is not None:
            measures = scalars(step, self._layers)
            for logger in trainer.loggers:
                logger.log_metrics(measures, step=trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take every hook off."""
        self._plan.end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take every hook off, also when training fails."""
        self._plan.end()


def _loss(outputs: object) -> Tensor | None:
    """Give the loss of a training step, as Lightning passes it on; None if there is none."""
    value = outputs.get("loss") if isinstance(outputs, dict) else outputs
    return value if isinstance(value, Tensor) and value.numel() == 1 else None
