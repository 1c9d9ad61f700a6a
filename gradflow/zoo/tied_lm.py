"""Tied embeddings: a small language model that uses one matrix to read and to write.

A row of the matrix is what a character means. On the way in, the rows of the last eight characters are
looked up; on the way out, every row is compared with what the model has in mind, to guess
the next character. One parameter, two uses, and they pull differently: reading touches the rows of
the characters that were read, writing touches all rows. Embeddings start small, as is usual in
language models; then writing is the louder use in the first steps.

The text is the Zen of Python, 856 characters: short enough to be learnt by heart.

Shapes: ``B`` contexts, ``T`` characters in a context, ``V`` characters in the vocabulary, ``E`` width.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradflow import data

__all__ = ["CONTEXT", "TinyLM", "batches", "loss", "modules", "train", "vocabulary"]

CONTEXT = 8
"""Characters from which the next one is guessed, ``T``."""


def vocabulary() -> str:
    """Give the characters of the text, in order; a token is a place in this string.

    Example:
        >>> len(vocabulary()), vocabulary()[-5:]
        (45, 'uvwxy')
    """
    return "".join(sorted(set(data.zen())))


class TinyLM(nn.Module):
    """Embeds the context, mixes it in one hidden layer, and scores every character by the same embedding.

    Args:
        width: Dimensions of the embedding, ``E``.

    Note:
        Tying: Press and Wolf 2017, arXiv:1608.05859. The model is Bengio et al. 2003 with tied weights.

    Example:
        >>> model = TinyLM()
        >>> model(torch.zeros(2, 8, dtype=torch.int64)).shape
        torch.Size([2, 45])
        >>> [name for name, _ in model.named_parameters()]
        ['embedding.weight', 'hidden.weight', 'hidden.bias']
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        characters = len(vocabulary())
        self.embedding = nn.Embedding(characters, width)
        self.hidden = nn.Linear(CONTEXT * width, width)
        self.decoder = nn.Linear(width, characters, bias=False)
        self.decoder.weight = self.embedding.weight  # one parameter under two names
        nn.init.normal_(self.embedding.weight, std=0.05)

    def forward(self, contexts: Tensor) -> Tensor:
        """Map tokens ``[B, T]`` int64 to logits of the next token ``[B, V]``."""
        read = self.embedding(contexts).flatten(1)
        logits: Tensor = self.decoder(torch.tanh(self.hidden(read)))
        return logits


def batches(seed: int = 0, size: int = 16) -> Iterator[tuple[Tensor, Tensor]]:
    """Give endless batches of places in the Zen of Python.

    Args:
        seed: The same seed gives the same places.
        size: Places in a batch, ``B``.

    Yields:
        Contexts ``[B, T]`` and the tokens that follow them ``[B]``, both int64.
    """
    text, characters = data.zen(), vocabulary()
    tokens = np.array([characters.index(c) for c in text])
    rng = np.random.default_rng(seed)
    while True:
        start = rng.integers(len(tokens) - CONTEXT, size=size)
        yield torch.tensor(tokens[start[:, None] + np.arange(CONTEXT)]), torch.tensor(tokens[start + CONTEXT])


def modules(model: TinyLM) -> dict[str, nn.Module]:
    """Name the two uses of the matrix."""
    return {"input": model.embedding, "output": model.decoder}


def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of the next character.

    Args:
        model: Called once.
        batch: Contexts ``[B, T]`` and next tokens ``[B]``.

    Returns:
        The loss in nats, and detached: ``accuracy``, the fraction of characters guessed rightly.
    """
    contexts, following = batch
    logits = model(contexts)
    return F.cross_entropy(logits, following), {
        "accuracy": (logits.argmax(dim=1) == following).float().mean()
    }


def train(steps: int = 30, seed: int = 0) -> list[float]:
    """Train from scratch in plain PyTorch; give the loss of every step.

    Example:
        >>> len(train(steps=2))
        2
    """
    torch.manual_seed(seed)
    model = TinyLM()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for batch in islice(batches(seed), steps):
        value, _ = loss(model, batch)
        optimizer.zero_grad()
        value.backward()  # from the way out and from the way in, into one matrix
        optimizer.step()
        losses.append(value.item())
    return losses
