"""sentence-transformers: the columns of the training data as branches.

    gradients = GradflowCallback(columns=("anchor", "positive", "negative"))
    SentenceTransformerTrainer(model, ..., loss=TripletLoss(model), callbacks=[gradients]).train()

Its losses embed several columns in one call where they can: to autograd that is one path. So the rows of each
call are counted out to the columns in their order, and told apart by :meth:`gradflow.branch.rows`: exact, for
one more backward of the model per column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradflow.capture.branches import branch, check_name
from gradflow.errors import InvalidArgumentError, need
from gradflow.integrations import transformers

need(
    "sentence_transformers", extra="sentence-transformers", for_="gradflow.integrations.sentence_transformers"
)

__all__ = ["GradflowCallback"]


class GradflowCallback(transformers.GradflowCallback):
    """Watches a ``SentenceTransformer`` while its trainer trains it.

    Args:
        columns: Names of the text columns of the training data, in their order: each is a branch.
        log: Whether measures join the trainer's log whenever it logs a loss.
        layers: Module paths whose measures are logged one by one.
        options: Further options of :func:`gradflow.watch`, except ``branches``.

    Attributes:
        flow: The recorder, once training has begun.

    Raises:
        InvalidArgumentError: an option is none of ``gradflow.watch``, or a column cannot be a branch.

    Note:
        For losses that embed whole columns. Those that embed again inside the backward, in mini-batches
        (their names begin with ``Cached``), leave no columns to tell apart: their gradient is ``unclaimed``.

    Example:
        >>> GradflowCallback(columns=("query", "answer")).flow is None  # yet
        True
    """

    def __init__(
        self,
        columns: Sequence[str] = ("anchor", "positive", "negative"),
        *,
        log: bool = True,
        layers: Sequence[str] = (),
        **options: Any,  # as watch takes them
    ) -> None:
        where = "GradflowCallback(columns=...)"
        for name in columns:
            check_name(name, where=where)
        if isinstance(columns, str) or len(set(columns)) != len(columns):
            raise InvalidArgumentError(
                f"columns={columns!r} are no names of different columns",
                where=where,
                do='columns=("anchor", "positive", "negative")',
            )
        super().__init__(log=log, layers=layers, **options)
        self._columns = tuple(columns)
        self._handles: list[RemovableHandle] = []

    def close(self) -> None:
        """Take every hook off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        super().close()

    def on_train_begin(
        self, args: Any, state: Any, control: Any, **kwargs: Any
    ) -> None:  # as the trainer has
        """Begin to watch, and to count the rows out to the columns."""
        self.close()
        super().on_train_begin(args, state, control, **kwargs)
        self._handles = [_Columns(self._columns).listen(kwargs["model"])]


class _Columns:
    """Counts the rows that a model embeds out to the columns, call by call."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._done = 0  # columns embedded since the first one
        self._size = 0  # rows of one column
        self._handle: RemovableHandle | None = None

    def listen(self, model: nn.Module) -> RemovableHandle:
        """Listen to the calls of a model."""
        return model.register_forward_pre_hook(self._about_to_run)

    def _about_to_run(self, module: nn.Module, _args: object) -> None:
        """Hook this one call: a hook put on now runs after those of whoever watches."""
        if self._handle is not None:
            self._handle.remove()
        counts = torch.is_grad_enabled() and torch._C._current_graph_task_id() == -1  # not in a backward
        self._handle = module.register_forward_hook(self._has_run) if counts else None

    def _has_run(self, _module: nn.Module, _args: object, output: object) -> None:
        if self._handle is not None:
            self._handle.remove()
        embeddings = output.get("sentence_embedding") if isinstance(output, dict) else None
        if isinstance(embeddings, Tensor) and embeddings.grad_fn is not None:
            self._count_out(embeddings)

    def _count_out(self, embeddings: Tensor) -> None:
        rows = embeddings.shape[0]
        if self._done == 0:
            self._size = rows
        count, rest = divmod(rows, max(1, self._size))
        names = self._names[self._done : self._done + count]
        self._done = (self._done + count) % len(self._names)
        if rest or len(names) < count:  # not whole columns: better unnamed than wrong
            self._done = 0
            return
        size = self._size
        branch.rows(embeddings, {name: slice(i * size, (i + 1) * size) for i, name in enumerate(names)})
