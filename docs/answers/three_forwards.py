"""Three forward passes, one backward: the question about a triplet CNN in TensorFlow, and its answers."""

from __future__ import annotations

import functools
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from workbench import PATHS, dense, descend, number, percent, run

from gradflow import data
from gradflow.zoo import triplet


def distances(anchor: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """Give both distances as the question's code does: one number for the whole batch."""
    return (anchor - positive).square().sum().sqrt(), (anchor - negative).square().sum().sqrt()


@number("D1")
def valid() -> str:
    """Compare one backward of three passes with three backwards, each with two passes detached."""
    encoder, images = dense(), next(triplet.batches(0))
    weight = encoder.fc1.weight

    def gradient(*kept: str) -> Tensor:
        outputs = [
            encoder(x) if name in kept else encoder(x).detach() for name, x in zip(PATHS, images, strict=True)
        ]
        return torch.autograd.grad(F.triplet_margin_loss(*outputs), weight)[0]

    whole = gradient(*PATHS)
    apart = (whole - sum(gradient(name) for name in PATHS)).norm() / whole.norm()
    assert apart < 1e-5
    return f"one backward of three passes, and three backwards of one path each: the same to {1e-5:.0e}"


@number("D2")
def how_many_passes() -> str:
    """Count the nodes that a backward goes through."""
    p = run("triplet").last["fc.weight"]
    calls = sorted({use.call for use in p.uses})
    assert len(calls) == len(p.uses) == 3
    return f"{len(calls)} calls of `fc` in the forward, {len(p.uses)} ways back, 1 gradient"


@number("D3")
def weight_sharing() -> str:
    """Count the parameters that three calls reach."""
    step = run("triplet").last
    reached = [p for p in step if set(p.contributors) >= set(PATHS)]
    return f"all three calls reach {len(reached)} of {len(step)} parameters"


@number("D4")
def only_the_negative() -> str:
    """Tell what each path brings to the whole model, in digits that are the same on all processors tried."""
    norms = run("triplet").last.layer("").norms
    return "norms, rounded: " + ", ".join(f"{name} {norms[name]:.0f}" for name in PATHS)


@number("D5")
def three_times_backward() -> str:
    """Name the nodes through which the first convolution is reached."""
    nodes = [use.node for use in run("triplet").last["blocks.0.conv.weight"].uses]
    return f"{len(nodes)} × `{nodes[0]}` for one convolution"


@functools.cache
def trained() -> tuple[Tensor, Tensor, Tensor]:
    """Train with triplets; give embeddings of all digits before and after, and the classes."""
    images, labels = data.digits()
    large = F.interpolate(torch.tensor(images), size=(32, 32), mode="bilinear", align_corners=False)
    encoder = dense()
    before = F.normalize(encoder(large).detach(), dim=1)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-3)
    for batch in islice(triplet.batches(0, 32), 50):
        descend(
            F.triplet_margin_loss(*(F.normalize(encoder(x), dim=1) for x in batch), margin=0.2), optimizer
        )
    return before, F.normalize(encoder(large).detach(), dim=1), torch.tensor(labels)


@number("D6")
def which_negative() -> str:
    """Tell which triplets are dead: with the farthest, a random and the nearest negative."""
    _, embeddings, classes = trained()
    z, y = embeddings[::10], classes[::10]
    apart, rng = torch.cdist(z, z), np.random.default_rng(0)
    dead: dict[str, list[bool]] = {"farthest": [], "random": [], "nearest": []}
    for a in range(len(y)):
        likes = np.flatnonzero((y == y[a]).numpy() & (np.arange(len(y)) != a))
        unlike = apart[a][y != y[a]]
        room = apart[a][rng.choice(likes)] + 0.2
        for name, d in (
            ("farthest", unlike.max()),
            ("random", unlike[rng.integers(len(unlike))]),
            ("nearest", unlike.min()),
        ):
            dead[name].append(bool(d >= room))
    return "dead triplets: " + ", ".join(f"{name} {percent(float(np.mean(d)))}" for name, d in dead.items())


@number("D7")
def norm_of_the_batch() -> str:
    """Divide by the norm of the whole batch, as the question's code does."""
    torch.manual_seed(0)
    row = torch.randn(1, 128)
    alone, four = row / row.norm(), row.repeat(4, 1) / row.repeat(4, 1).norm()
    return f"the same image: length {alone[0].norm():.2f} alone, {four[0].norm():.2f} in a batch of four"


@number("D8")
def floor_of_the_hinge() -> str:
    """Take the gradient where the floor of the hinge is reached."""
    a, p = torch.zeros(1, 8), torch.full((1, 8), 0.01, requires_grad=True)
    near, far = distances(a, p, torch.ones(1, 8))
    loss = torch.clamp(near - far + 0.2, min=1e-6)
    loss.backward()
    return f"loss {loss.item():.6f}, largest gradient {p.grad.abs().max().item()}"


@number("D9")
def loss_inside_the_if() -> str:
    """Run the loop with the loss where the question's code has it, under `if NaN`."""

    def step(anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        if anchor.isnan().any() or positive.isnan().any() or negative.isnan().any():
            loss = F.triplet_margin_loss(anchor, positive, negative)
        return loss

    try:
        step(*torch.rand(3, 4, 8))
    except UnboundLocalError as error:
        return f"without a NaN: `{type(error).__name__}`"
    return "it runs"


@number("D10")
def converging() -> str:
    """Give the loss of an encoder whose embeddings are all the same."""
    z = torch.ones(16, 8)
    loss = F.triplet_margin_loss(z, z, z, margin=0.2, eps=0.0).item()
    return f"all embeddings equal: loss {loss:.3f}, the margin 0.2"


@number("D11")
def one_embedding() -> str:
    """Name held-out digits by the nearest mean of a class."""
    before, after, classes = trained()
    order = np.random.default_rng(1).permutation(len(classes))
    train, test = order[:4000], order[4000:]

    def accuracy(z: Tensor) -> float:
        means = torch.stack([z[train][classes[train] == c].mean(dim=0) for c in range(10)])
        return (torch.cdist(z[test], means).argmin(dim=1) == classes[test]).float().mean().item()

    first, last = percent(accuracy(before)), percent(accuracy(after))
    return f"nearest class mean: {first} right before, {last} after 50 steps"


@number("D12")
def three_inputs_or_three_calls() -> str:
    """Compare a network with three inputs with three calls of its encoder."""

    class ThreeInputs(nn.Module):
        def __init__(self, encoder: nn.Module) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, *images: Tensor) -> list[Tensor]:
            return [self.encoder(x) for x in images]

    encoder, images = dense(), next(triplet.batches(0))
    (a,) = torch.autograd.grad(F.triplet_margin_loss(*ThreeInputs(encoder)(*images)), encoder.fc1.weight)
    (b,) = torch.autograd.grad(F.triplet_margin_loss(*map(encoder, images)), encoder.fc1.weight)
    return f"one model of three inputs, or three calls: largest difference {(a - b).abs().max().item()}"
