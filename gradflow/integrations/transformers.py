"""Hugging Face: a callback for ``transformers.Trainer`` and trainers made from it, as sentence-transformers'.

    gradients = GradflowCallback(branches={"input": "transformer.wte", "output": "lm_head"})
    Trainer(model, ..., callbacks=[gradients]).train()
    gradients.recording.last["transformer.wte.weight"]

The measures go into the trainer's own log: ``trainer.state.log_history``, and, where the callback is attached
before the others (:meth:`GradflowCallback.attach`), whatever ``report_to`` names.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim import Optimizer

from gradflow.errors import need
from gradflow.integrations.accelerate import bare
from gradflow.integrations.plan import Branches, Plan
from gradflow.integrations.scalars import scalars
from gradflow.recording import Recording

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

    from gradflow.capture.recorder import Recorder
else:
    TrainerCallback = need(
        "transformers", extra="transformers", for_="gradflow.integrations.transformers"
    ).TrainerCallback

__all__ = ["GradflowCallback"]


class GradflowCallback(TrainerCallback):
    """Watches the model of a ``Trainer`` while it trains.

    Args:
        module: Path of the module to watch; ``""`` for the whole model.
        branches: As for :func:`gradflow.watch`; modules may be named by their paths.
        log: Whether measures join the trainer's log whenever it logs a loss.
        layers: Module paths, below the watched module, whose measures are logged one by one.
        options: Further options of :func:`gradflow.watch`. With several processes, each adds its rank to the
            name of the file in ``to``.

    Attributes:
        flow: The recorder, once training has begun.

    Raises:
        InvalidArgumentError: an option is none of ``gradflow.watch``.

    Note:
        The trainer tells no callback when training fails. Then :meth:`close`, or a ``with`` around
        ``trainer.train()``, takes the hooks off.

    Example:
        >>> GradflowCallback(branches={"input": "transformer.wte", "output": "lm_head"}).flow is None  # yet
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

    def attach(self, trainer: Trainer) -> GradflowCallback:
        """Join a trainer before its other callbacks, so that those that report see the measures too."""
        trainer.callback_handler.callbacks.insert(0, self)
        return self

    def close(self) -> None:
        """Take every hook off."""
        self._plan.end()

    def __enter__(self) -> GradflowCallback:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # everything the trainer has
    ) -> None:
        """Begin to watch: model and optimizer are in their places."""
        model: nn.Module = kwargs["model"]
        optimizer: Optimizer = kwargs["optimizer"]
        self._plan.begin(model, [bare(optimizer)], (args.process_index, args.world_size))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,  # everything the trainer has
    ) -> None:
        """Keep the loss with the step, and add measures to what is logged."""
        flow = self._plan.flow
        if flow is None or logs is None or "loss" not in logs:
            return
        flow.log(loss=float(logs["loss"]))
        step = self._plan.news() if self._log else None
        if step is not None:
            measures = scalars(step, self._layers)
            logs.update(measures)
            state.log_history[-1].update(measures)

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # everything the trainer has
    ) -> None:
        """Take every hook off."""
        self.close()
