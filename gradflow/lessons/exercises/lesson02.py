"""Exercise of lesson 2: tell the three gradients apart with plain PyTorch, without gradflow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gradflow.lessons.exercise import Exercise, Verdict, right, wrong
from gradflow.zoo import triplet

__all__ = ["EXERCISES"]

_PATHS = ("anchor", "positive", "negative")


def _examine(answer: Any) -> Verdict:  # Any: a learner may hand in anything
    torch.manual_seed(2)
    encoder = triplet.Encoder((1, 4, 8, 8, 8, 8), embedding=4)
    batch = next(triplet.batches(seed=3, size=8))
    expected = _two_stages(encoder, batch)
    found = answer(encoder, *batch)
    if not isinstance(found, dict) or set(found) != set(_PATHS):
        return wrong(
            f"It gave {type(found).__name__} {sorted(map(str, found)) if isinstance(found, dict) else ''}.",
            "Give a dict with a gradient for 'anchor', 'positive' and 'negative'.",
        )
    shapes = {tuple(torch.as_tensor(found[name]).shape) for name in _PATHS}
    if shapes != {tuple(encoder.fc.weight.shape)}:
        return wrong(
            f"The gradients have shapes {sorted(shapes)}.", "A gradient has the shape of its weight: [4, 8]."
        )
    return _compared(found, expected)


def _two_stages(encoder: triplet.Encoder, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """First the gradient at each embedding, then each of them back through its own call."""
    outputs = [encoder(images) for images in batch]
    ends = torch.autograd.grad(triplet.triplet_loss(*outputs)[0], outputs)
    weight = [encoder.fc.weight]
    grads = [torch.autograd.grad(out, weight, end)[0] for out, end in zip(outputs, ends, strict=True)]
    return dict(zip(_PATHS, grads, strict=True))


def _compared(found: dict[str, Tensor], expected: dict[str, Tensor]) -> Verdict:
    total = sum(expected.values(), torch.zeros(()))
    norms = ", ".join(f"{name} {found[name].norm().item():.3g}" for name in _PATHS)
    if all(_near(found[name], expected[name]) for name in _PATHS):
        return right(f"Norms: {norms}; and their sum is .grad.")
    if all(_near(found[name], total) for name in _PATHS):
        return wrong(
            f"Each of yours is the whole sum: {norms}.",
            "backward() goes along all three paths. Cut two of them: .detach() their embeddings.",
        )
    if all(_near(found[name], total / 3) for name in _PATHS):
        return wrong(
            f"Each of yours is a third of the sum: {norms}.",
            "The paths do not bring equal parts. Measure each: cut the other two.",
        )
    if all(_near(found[name], total - expected[name]) for name in _PATHS):
        return wrong(
            f"Yours are the sums of the *other* two: {norms}.",
            "You detached the path that you wanted to keep. Detach the others.",
        )
    if _near(found["negative"], total) and not _near(found["anchor"], total):
        return wrong(
            f"Yours grow: {norms}; the last one is the whole sum.",
            ".grad adds up over calls of backward(). Clear it before each path, or use torch.autograd.grad.",
        )
    off = max((found[name] - expected[name]).abs().max().item() for name in _PATHS)
    return wrong(
        f"Off by up to {off:.3g}: {norms}.", "Run all three calls, and detach two of the embeddings."
    )


def _near(one: Tensor, other: Tensor) -> bool:
    return bool(torch.allclose(one, other, rtol=1e-4, atol=1e-6))


EXERCISES = (
    Exercise(
        "02.split",
        "Write by_path(encoder, anchor, positive, negative), which gives the gradient of encoder.fc.weight "
        "along each path.",
        _examine,
        (
            "The loss needs all three embeddings. But a gradient need not flow through all three.",
            "embedding.detach() has the same numbers and no way back.",
            "For each path: encode all three images, detach the two others, and take "
            "torch.autograd.grad(loss, encoder.fc.weight)[0].",
        ),
    ),
)
