"""The nets that everything is measured on: a model, an optimizer, a fixed batch, and one training step.

Plain PyTorch, and data from a generator: nothing is read from disk and nothing is random between runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradflow.zoo.resnet50 import ResNet50

__all__ = ["NETS", "Job", "Net", "adam", "chain", "dense", "encoder_a", "lstm", "sgd", "triplet", "trunk"]

Optimize = Callable[[Any], torch.optim.Optimizer]


def sgd(params: Any) -> torch.optim.Optimizer:
    """Plain gradient descent: nothing but the gradient is read."""
    return torch.optim.SGD(params, lr=1e-3)


def adam(params: Any) -> torch.optim.Optimizer:
    """Adam with its defaults."""
    return torch.optim.Adam(params, lr=1e-4)


@dataclass(eq=False)
class Job:
    """A model in training.

    Attributes:
        model: The model.
        optimizer: Its optimizer.
        forward: Gives the loss of the fixed batch.
        branches: What to give to ``gradflow.watch(branches=...)``.
        whole: The loss as a module, for those who look at one call of a module; None where nobody asks.
        batch: What it is called with.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    forward: Callable[[], Tensor]
    branches: Sequence[str] | Mapping[str, nn.Module] | None = None
    whole: nn.Module | None = None
    batch: tuple[Tensor, ...] = ()

    def step(self) -> None:
        """Take one ordinary training step."""
        self.optimizer.zero_grad()
        self.forward().backward()
        self.optimizer.step()


@dataclass(frozen=True)
class Net:
    """A net to measure.

    Attributes:
        name: Short name.
        title: What it is, with its sizes.
        build: Makes a job, given what makes the optimizer; the same weights and data every time.
        target: The most that a watched step may cost, as a multiple of a plain one.
        rounds: How many rounds a fair median needs, of all builds together.
        steps: Steps in a round.
        warm: Steps before anything is timed.
        builds: How often it is built anew: where its tensors come to lie in memory changes what a step costs.
    """

    name: str
    title: str
    build: Callable[[Optimize], Job]
    target: float
    rounds: int = 20
    steps: int = 5
    warm: int = 2
    builds: int = 2


def encoder_a() -> nn.Module:
    """Give the encoder of net A: three blocks of convolution, batch norm and ReLU, then a dense layer."""
    blocks: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 128)):
        blocks += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        blocks += [nn.MaxPool2d(2)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 128), nn.Tanh())


class Triplet(nn.Module):
    """The loss of three calls of one encoder."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, *images: Tensor) -> Tensor:
        """Map three batches ``[B, 3, 32, 32]`` to one number."""
        a, p, n = (F.normalize(self.encoder(x), dim=1) for x in images)
        return F.triplet_margin_loss(a, p, n, margin=1.0)


def triplet(make: Callable[[], nn.Module], size: int) -> Callable[[Optimize], Job]:
    """Give a triplet loss over an encoder, with batches of so many random images."""

    def build(optimize: Optimize) -> Job:
        torch.manual_seed(0)
        whole = Triplet(make())
        batch = tuple(torch.randn(size, 3, 32, 32) for _ in range(3))
        names = ("anchor", "positive", "negative")
        encoder = whole.encoder
        return Job(encoder, optimize(encoder.parameters()), lambda: whole(*batch), names, whole, batch)

    return build


def dense(depth: int, width: int) -> nn.Sequential:
    """Give so many dense layers, each with a ReLU behind it."""
    return nn.Sequential(*(m for _ in range(depth) for m in (nn.Linear(width, width), nn.ReLU())))


def chain(depth: int, width: int, size: int, calls: int) -> Callable[[Optimize], Job]:
    """Give a net of so many dense layers, called so many times; all calls feed one loss."""

    def build(optimize: Optimize) -> Job:
        torch.manual_seed(0)
        model = dense(depth, width)
        batch = [torch.randn(size, width) for _ in range(calls)]

        def forward() -> Tensor:
            outputs = [model(x) for x in batch]
            first = outputs[0]
            return torch.stack([(first * o).mean() for o in outputs]).sum()

        return Job(model, optimize(model.parameters()), forward, tuple(f"path{i}" for i in range(calls)))

    return build


def lstm(steps: int, *, as_paths: bool) -> Callable[[Optimize], Job]:
    """Give an LSTMCell that is called so many times, as one path or as that many."""

    def build(optimize: Optimize) -> Job:
        torch.manual_seed(0)
        cell = nn.LSTMCell(64, 128)
        series = torch.randn(steps, 32, 64)

        def forward() -> Tensor:
            state = None
            for x in series:
                state = cell(x, state)
            assert state is not None
            return state[0].square().mean()

        names = tuple(f"t{i}" for i in range(steps)) if as_paths else None
        return Job(cell, optimize(cell.parameters()), forward, names)

    return build


class Attention(nn.Module):
    """A block of a transformer, before-norm: self-attention, then two dense layers."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, T, width]`` to the same."""
        b, t, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, width))
        return x + self.mlp(self.norm2(x))


class Gpt(nn.Module):
    """A language model whose embedding is its output layer too."""

    def __init__(self, vocabulary: int = 8192, width: int = 384, depth: int = 4) -> None:
        super().__init__()
        self.read = nn.Embedding(vocabulary, width)
        self.blocks = nn.Sequential(*(Attention(width, 6, causal=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.write = nn.Linear(width, vocabulary, bias=False)
        self.write.weight = self.read.weight
        nn.init.normal_(self.read.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens ``[B, T]`` to logits ``[B, T, V]``."""
        logits: Tensor = self.write(self.norm(self.blocks(self.read(tokens))))
        return logits


def _gpt(optimize: Optimize) -> Job:
    torch.manual_seed(0)
    model = Gpt()
    tokens = torch.randint(8192, (4, 129))

    def forward() -> Tensor:
        return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())

    return Job(model, optimize(model.parameters()), forward, {"read": model.read, "write": model.write})


class Vit(nn.Module):
    """A vision transformer on patches of 8×8 pixels."""

    def __init__(self, width: int = 384, depth: int = 11) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, stride=8)
        self.places = nn.Parameter(torch.zeros(1, 16, width))
        self.blocks = nn.Sequential(*(Attention(width, 6, causal=False) for _ in range(depth)))
        self.head = nn.Linear(width, 128)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``[B, 3, 32, 32]`` to vectors ``[B, 128]``."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        vectors: Tensor = self.head(self.blocks(tokens).mean(dim=1))
        return vectors


def _vit(optimize: Optimize) -> Job:
    torch.manual_seed(0)
    model = Vit()
    views = [torch.randn(16, 3, 32, 32) for _ in range(2)]

    def forward() -> Tensor:
        left, right = (F.normalize(model(x), dim=1) for x in views)
        return F.cross_entropy(left @ right.T / 0.1, torch.arange(len(left)))

    return Job(model, optimize(model.parameters()), forward, ("left", "right"))


class MultiTask(nn.Module):
    """One trunk under three heads."""

    def __init__(self, width: int = 512) -> None:
        super().__init__()
        self.trunk = dense(6, width)
        self.heads = nn.ModuleList(nn.Linear(width, 10) for _ in range(3))

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map ``[B, width]`` to the features at the end of the trunk, and to one loss a head."""
        features = self.trunk(x)
        pairs = zip(self.heads, labels, strict=True)
        return features, [F.cross_entropy(head(features), wanted) for head, wanted in pairs]


def trunk(optimize: Optimize) -> Job:
    """Give a trunk whose three heads feed one loss."""
    torch.manual_seed(0)
    model = MultiTask()
    batch = (torch.randn(64, 512), torch.randint(10, (3, 64)))
    named = {f"task{i}": head for i, head in enumerate(model.heads)}

    def forward() -> Tensor:
        return torch.stack(model(*batch)[1]).sum()

    return Job(model, optimize(model.parameters()), forward, named, model, batch)


NETS: dict[str, Net] = {
    net.name: net
    for net in (
        Net(
            "A4", "net A (CNN triplet, 11 parameters), batch 4", triplet(encoder_a, 4), 1.10, 90, 10, builds=6
        ),
        Net("A32", "net A, batch 32", triplet(encoder_a, 32), 1.06, 32, 5, builds=4),
        Net("B4", "net B (ResNet-50 triplet, 161 parameters), batch 4", triplet(ResNet50, 4), 1.20, 24, 2),
        Net("B32", "net B, batch 32", triplet(ResNet50, 32), 1.03, 10, 1, warm=1),
        Net(
            "MLP",
            "MLP of 20 layers of 256, two calls, batch 32",
            chain(20, 256, 32, 2),
            1.25,
            32,
            10,
            builds=4,
        ),
        Net("LSTM", "LSTMCell × 50 as one path, batch 32", lstm(50, as_paths=False), 1.25, 24, builds=3),
        Net("LSTM50", "LSTMCell × 50 as 50 paths, batch 32", lstm(50, as_paths=True), 1.25, 24, builds=3),
        Net("GPT", "tied GPT, 10 M parameters, 4 × 128 tokens", _gpt, 1.05, 30, 1, builds=3),
        Net("ViT", "ViT of 20 M parameters, two views, batch 16", _vit, 1.05, 16, 1),
        Net("MTL", "MLP trunk under three heads, batch 64, not split", trunk, 1.25, 200, builds=12),
    )
}
