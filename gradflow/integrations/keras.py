"""Keras 3 on its torch backend: watch a model while ``fit``, ``train_on_batch`` or a loop of yours trains it.

    flow = gradflow.integrations.keras.watch(model)              # compiled: with its own optimizer
    model.fit(x, y)
    flow.recording.last["encoder.conv1.kernel"]                  # the names of your layers and variables

A model that calls another one three times has three paths through it, found by counting calls, named by
``branches=("anchor", "positive", "negative")`` in the order in which you wrote the calls (Keras may run them
in another one); ``{name: layer}`` makes the calls of a layer a branch.

Set ``KERAS_BACKEND=torch`` before keras is imported; where nothing was set and this module comes first, it
does so itself.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim import Optimizer

from gradflow.capture.options import read_options
from gradflow.capture.recorder import Recorder
from gradflow.errors import InvalidArgumentError, MissingPackageError, NothingToWatchError, need
from gradflow.integrations.keras_order import WrittenOrder
from gradflow.integrations.keras_steps import KerasSteps, steps_of
from gradflow.integrations.keras_view import KerasView, trainable, view_of
from gradflow.integrations.plan import OPTIONS, refuse_unknown
from gradflow.recording import Recording

_WHERE = "gradflow.integrations.keras"


def _on_torch() -> Any:  # the keras package, which has no types
    """Import keras, and refuse another backend than torch."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    backend = os.environ["KERAS_BACKEND"]
    try:
        keras = need("keras", extra="keras", for_=_WHERE)
        backend = keras.backend.backend()
        if backend == "torch":
            return keras
    except MissingPackageError as error:  # keras itself, or what its backend needs
        if backend == "torch" or getattr(error.__cause__, "name", "") == "keras":
            raise
    raise InvalidArgumentError(
        f"Keras runs on the backend {backend!r}, and gradflow sees torch's gradients only",
        where=_WHERE,
        do='os.environ["KERAS_BACKEND"] = "torch" before keras is imported',
    )


if TYPE_CHECKING:

    class Callback:  # keras has no types
        """What keras.callbacks.Callback is to a type checker."""

        model: Any

else:
    Callback = _on_torch().callbacks.Callback

__all__ = ["GradflowCallback", "watch"]

Layer = Any  # a keras.Layer; keras has no types
KerasOptimizer = Any  # a keras.optimizers.Optimizer


def watch(
    model: Layer | Sequence[Layer],
    optimizer: KerasOptimizer | Optimizer | Sequence[KerasOptimizer | Optimizer] | None = None,
    *,
    branches: Sequence[str] | Mapping[str, Layer] | None = None,
    **options: Any,  # as gradflow.watch takes them
) -> Recorder:
    """Watch a Keras model: from now on every step's contributions, their sum and the delta are recorded.

    Args:
        model: A built model, or a list of models that share layers; then names begin with the name of the
            model, as in ``"model_a.dense.kernel"``.
        optimizer: A Keras or a torch optimizer, or several; None for those that the models were compiled
            with. Without any, ``flow.step()`` ends a step.
        branches: As for :func:`gradflow.watch`, with layers for modules.
        options: Further options of :func:`gradflow.watch`.

    Returns:
        A recorder; usable as a context manager. ``close()`` undoes everything.

    Raises:
        NothingToWatchError: no variable is trainable, or the model has not been built.
        InvalidArgumentError: the model is none of Keras, or an option none of ``gradflow.watch``.

    Note:
        Deltas of ``SGD``, ``Adam``, ``AdamW`` and ``RMSprop`` are split; those of other optimizers, and of
        steps that Keras clips or accumulates, are shown whole.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1, name="dense")])
        >>> with watch(model, branches=("left", "right")) as flow:
        ...     (model(keras.ops.ones((1, 2))) - model(keras.ops.zeros((1, 2)))).sum().backward()
        ...     flow.step()
        >>> flow.recording.last["dense.kernel"].contributors
        ('left', 'right')
    """
    refuse_unknown(options, OPTIONS, where=f"{_WHERE}.watch")
    models = _models(model)
    view = view_of(models)
    if not any(True for _ in view.named_parameters()):
        raise NothingToWatchError(
            f"{type(view).__name__} has no trainable variable yet",
            where=f"{_WHERE}.watch",
            do="build it first: model.build(shape), or call it once on a batch",
        )
    optimizers = [_as_torch(one, models) for one in _optimizers(optimizer, models)]
    return _KerasRecorder(view, optimizers, branches=branches, options=options)


class _KerasRecorder(Recorder):
    """A recorder that also takes the hooks off the Keras optimizers."""

    def __init__(
        self,
        view: KerasView,
        optimizers: Sequence[Optimizer],
        *,
        branches: Sequence[str] | Mapping[str, nn.Module] | None,
        options: dict[str, Any],  # as watch takes them
    ) -> None:
        params = options.pop("params", None)
        names = () if branches is None or isinstance(branches, Mapping) else tuple(branches)
        self._order = WrittenOrder([layer for _, layer in view.named_modules()], names)
        self._order.attach()  # first, so that the names are known when the recorder's hooks run
        asked: dict[str, Any] = {
            "keep": "gram",
            "every": 1,
            "last": None,
            "to": None,
            "stems": "report",
        } | options
        try:
            options_of_watch = read_options(**asked)
            super().__init__(view, optimizers, branches=branches, params=params, options=options_of_watch)
        except BaseException:
            self._order.detach()
            raise
        self._attached = [one for one in optimizers if isinstance(one, KerasSteps)]
        for one in self._attached:
            one.attach()

    def close(self) -> None:
        """Undo everything: no hook, attribute or reference remains on the model or the optimizer."""
        super().close()
        self._order.detach()
        for one in self._attached:
            one.detach()
        self._attached = []


class GradflowCallback(Callback):
    """Watches a model while ``fit`` trains it, and keeps the loss with each step.

    Args:
        branches: As for :func:`watch`.
        options: Further options of :func:`gradflow.watch`.

    Attributes:
        flow: The recorder, once training has begun.

    Note:
        Keras tells no callback when training fails: then :meth:`close` takes the hooks off.

    Example:
        >>> GradflowCallback(branches=("anchor", "positive", "negative")).flow is None  # yet
        True
    """

    def __init__(
        self,
        branches: Sequence[str] | Mapping[str, Layer] | None = None,
        **options: Any,  # as gradflow.watch takes them
    ) -> None:
        super().__init__()
        refuse_unknown(options, OPTIONS, where="GradflowCallback")
        self._branches, self._options = branches, options
        self.flow: Recorder | None = None

    @property
    def recording(self) -> Recording:
        """What was recorded so far."""
        return Recording() if self.flow is None else self.flow.recording

    def close(self) -> None:
        """Take every hook off; the recording stays."""
        if self.flow is not None:
            self.flow.close()

    def on_train_begin(self, logs: object = None) -> None:
        """Begin to watch."""
        self.close()
        self.flow = watch(self.model, branches=self._branches, **self._options)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Keep with the step what Keras tells of the batch: running means over the epoch."""
        if self.flow is not None and logs:
            self.flow.log(**{name: float(value) for name, value in logs.items()})

    def on_train_end(self, logs: object = None) -> None:
        """Take every hook off."""
        self.close()


def _models(model: Layer | Sequence[Layer]) -> list[Layer]:
    from keras import Layer as KerasLayer

    models = list(model) if isinstance(model, Sequence) else [model]
    for one in models:
        if not isinstance(one, KerasLayer):
            raise InvalidArgumentError(
                f"{one!r:.80} is no Keras model",
                where=f"{_WHERE}.watch",
                do="pass a Keras model or layer; gradflow.watch takes a torch module",
            )
    if not models or len({one.name for one in models}) < len(models):
        raise InvalidArgumentError(
            f"the models are named {[one.name for one in models]}",
            where=f"{_WHERE}.watch",
            do='give every model a name of its own: keras.Model(..., name="model_a")',
        )
    return models


def _optimizers(given: Any, models: Sequence[Layer]) -> list[Any]:
    """Give the optimizers that were passed, or else those that the models were compiled with."""
    if given is None:
        own = [getattr(model, "optimizer", None) for model in models]
        return list({id(one): one for one in own if one is not None}.values())
    return list(given) if isinstance(given, Sequence) else [given]


def _as_torch(optimizer: KerasOptimizer | Optimizer, models: Sequence[Layer]) -> Optimizer:
    """Give a torch optimizer as it is, and the steps of a Keras one with the parameters it may move."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    from keras.optimizers import Optimizer as OfKeras

    if not isinstance(optimizer, OfKeras):
        raise InvalidArgumentError(
            f"{optimizer!r:.80} is no optimizer of Keras or torch",
            where=f"{_WHERE}.watch",
            do="pass the optimizer object, not its name; model.optimizer is that of a compiled model",
        )
    if optimizer.built:
        return steps_of(optimizer, [variable._value for variable in optimizer._trainable_variables])
    users = [model for model in models if getattr(model, "optimizer", None) is optimizer] or models
    return steps_of(optimizer, [p for model in users for p in trainable(model)])
