"""pytorch-metric-learning: one batch of embeddings, whose rows play several parts in a loss.

    embeddings = encoder(images)                       # one call: to autograd one path
    mined = miner(embeddings, labels)
    by_role(embeddings, mined)                         # ... of which each role is a branch now
    loss_func(embeddings, labels, mined).backward()

What comes back to the embeddings is told apart by rows, each sent through the encoder on its own
(:meth:`gradflow.branch.rows`): exact, for one more backward of the encoder per branch. An encoder that is
called several times, for queries and references, needs none of this: ``branches=("query", "reference")``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from gradflow.capture.branches import branch
from gradflow.errors import InvalidArgumentError

__all__ = ["by_label", "by_role"]

_ROLES = {3: ("anchor", "positive", "negative"), 4: ("anchor", "positive", "anchor", "negative")}


def by_label(embeddings: Tensor, labels: Tensor, names: Mapping[int, str] | None = None) -> Tensor:
    """Make the rows of each class a branch.

    Args:
        embeddings: What the encoder made of the batch, ``[B, E]``.
        labels: Class of each row, ``[B]``, whole numbers.
        names: What to call the classes; ``"class 3"`` where one is not named.

    Returns:
        The same embeddings.

    Raises:
        InvalidArgumentError: there is not one label for each row, or a name cannot be a branch.

    Example:
        >>> import torch
        >>> encoder = torch.nn.Linear(2, 2)
        >>> z = by_label(encoder(torch.ones(3, 2)), torch.tensor([7, 1, 7]), {7: "sevens"})
    """
    rows = len(embeddings)
    if labels.shape != (rows,):
        raise InvalidArgumentError(
            f"labels of shape {tuple(labels.shape)} do not go with {rows} embeddings",
            where="gradflow.integrations.metric_learning.by_label",
            do="give one label for each row",
        )
    known = names or {}
    classes = labels.tolist()
    chosen: dict[str, list[int]] = {}
    for row, label in sorted(enumerate(classes), key=lambda pair: pair[1]):
        chosen.setdefault(known.get(label, f"class {label}"), []).append(row)
    return branch.rows(embeddings, chosen)


def by_role(embeddings: Tensor, mined: Sequence[Tensor]) -> Tensor:
    """Make the rows of each role that a miner gave a branch.

    A row may be the anchor of one triplet and the negative of another. What comes back to it is one
    gradient, which cannot be told apart by role; so such rows are a branch of their own, as
    ``"anchor + negative"``. Rows that no tuple uses are ``"not mined"``: their gradient is zero, or what a
    term beside the tuples (a regularizer) sends them.

    Args:
        embeddings: What the encoder made of the batch, ``[B, E]``.
        mined: What a miner gave: triplets (anchors, positives, negatives) or pairs (anchors, positives,
            anchors, negatives), as positions of rows.

    Returns:
        The same embeddings.

    Raises:
        InvalidArgumentError: ``mined`` is neither.

    Note:
        Positives and negatives that a loss takes from elsewhere (``ref_emb``, a memory) are no rows of the
        batch: use the miner's tuples of the batch itself, or call the encoder for them as well.

    Example:
        >>> import torch
        >>> encoder = torch.nn.Linear(2, 2)
        >>> z = by_role(encoder(torch.ones(4, 2)), [torch.tensor([0]), torch.tensor([1]), torch.tensor([2])])
    """
    where = "gradflow.integrations.metric_learning.by_role"
    roles = _ROLES.get(len(mined)) if isinstance(mined, Sequence) else None
    if roles is None:
        raise InvalidArgumentError(
            f"{mined!r:.60} are neither triplets nor pairs",
            where=where,
            do="give what a miner of pytorch-metric-learning gave: 3 or 4 tensors of positions",
        )
    played: list[dict[str, None]] = [{} for _ in range(len(embeddings))]
    for role in dict.fromkeys(roles):
        for name, positions in zip(roles, mined, strict=True):
            for row in positions.tolist() if name == role else ():
                played[row][role] = None
    chosen: dict[str, list[int]] = {}
    for row, names in enumerate(played):
        chosen.setdefault(" + ".join(names) or "not mined", []).append(row)
    return branch.rows(embeddings, {name: chosen[name] for name in sorted(chosen, key=_rank)})


def _rank(name: str) -> tuple[int, str]:
    """Order single roles as the triplet has them, then what plays several, then what plays none."""
    order = [*_ROLES[3]]
    return (order.index(name), "") if name in order else (len(order) + (name == "not mined"), name)
