"""Triplet network of a ResNet-50: "three networks" that are one, called three times.

The question that this answers asks how three ResNet-50 can have the same weights. Building three
gives three sets of weights, which agree only until the first update. Here there is one, in
a network with three inputs, and its gradient is the sum over the three calls.

The ResNet-50 is written out in plain PyTorch. Its parameters bear torchvision's names, so that a
file with torchvision's ImageNet weights can be loaded (:func:`load_weights`); as there, and in "ResNet
v1.5", the 3×3 convolution halves the image, not the 1×1 before it. Width can be reduced for a quick look.

Shapes: ``B`` images or triplets, ``E`` outputs, ``S`` side of an image in pixels, ``W`` width (64).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradflow.errors import InvalidArgumentError
from gradflow.zoo import triplet

__all__ = ["Bottleneck", "ResNet50", "TripletNetwork", "batches", "load_weights", "loss", "thin", "train"]


class Bottleneck(nn.Module):
    """Three convolutions, narrow in the middle, around which the input is led by a shortcut.

    Args:
        channels: Channels of the input.
        width: Channels in the middle; the output has four times as many.
        stride: 2 halves the image.
    """

    def __init__(self, channels: int, width: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels != 4 * width:  # the shortcut must have the output's shape
            projection = nn.Conv2d(channels, 4 * width, kernel_size=1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, channels, S, S]`` to ``[B, 4·width, S/stride, S/stride]``."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + self.downsample(x))


class ResNet50(nn.Module):
    """ResNet-50 with random weights: 50 layers, the last of them dense.

    Args:
        outputs: Outputs of the dense layer, ``E``; 1000 with weights for ImageNet.
        width: Channels of the first convolution, ``W``; 64 is the ResNet-50 proper.

    Note:
        He et al. 2016, arXiv:1512.03385. Blocks start near the identity, so that so deep a network learns
        within tens of steps: the weight of ``bn3`` is 0.2 (Goyal et al. 2017, arXiv:1706.02677, start it
        at 0, but then a block's convolutions get no gradient in the first step). An image of side 32 or less
        leaves one pixel to the last batch normalisations: in training, a batch then needs two images.

    Example:
        >>> ResNet50(5, width=4)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 5])
    """

    def __init__(self, outputs: int = 128, *, width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = _layer(width, width, blocks=3, stride=1)
        self.layer2 = _layer(4 * width, 2 * width, blocks=4, stride=2)
        self.layer3 = _layer(8 * width, 4 * width, blocks=6, stride=2)
        self.layer4 = _layer(16 * width, 8 * width, blocks=3, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(32 * width, outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Bottleneck):
                nn.init.constant_(module.bn3.weight, 0.2)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``[B, 3, S, S]`` to outputs ``[B, E]``."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        outputs: Tensor = self.fc(self.avgpool(x).flatten(1))
        return outputs


def _layer(channels: int, width: int, *, blocks: int, stride: int) -> nn.Sequential:
    """Stack bottlenecks; the first one changes the shape."""
    first = Bottleneck(channels, width, stride=stride)
    return nn.Sequential(first, *(Bottleneck(4 * width, width) for _ in range(blocks - 1)))


class TripletNetwork(nn.Module):
    """Three inputs, one encoder, three unit vectors.

    Example:
        >>> network = TripletNetwork(ResNet50(8, width=4))
        >>> [v.shape for v in network(*torch.rand(3, 2, 3, 32, 32))]
        [torch.Size([2, 8]), torch.Size([2, 8]), torch.Size([2, 8])]
    """

    def __init__(self, encoder: nn.Module | None = None) -> None:
        super().__init__()
        self.encoder = ResNet50() if encoder is None else encoder

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map three batches of images ``[B, 3, S, S]`` to three batches of unit vectors ``[B, E]``."""
        a, p, n = self.encoder(anchor), self.encoder(positive), self.encoder(negative)
        return F.normalize(a, dim=1), F.normalize(p, dim=1), F.normalize(n, dim=1)


def thin() -> TripletNetwork:
    """Give the network with an eighth of the width: as deep, and a step takes a blink."""
    return TripletNetwork(ResNet50(width=8))


def load_weights(network: ResNet50, path: str | os.PathLike[str]) -> None:
    """Load weights from a local file that holds a state dict with torchvision's names.

    The dense layer is loaded if it fits, and else left as it is: ImageNet's has 1000 outputs, an embedding
    has its own number. Such weights expect RGB images in ``[0, 1]`` minus (0.485, 0.456, 0.406), divided
    by (0.229, 0.224, 0.225).

    Args:
        network: A ResNet-50 of width 64, usually.
        path: A file written by ``torch.save(model.state_dict(), path)``. Only tensors are read from it.

    Raises:
        InvalidArgumentError: names or shapes in the file are not those of ``network``, which is left alone.
    """
    found = torch.load(path, map_location="cpu", weights_only=True)
    own = network.state_dict()
    if found.get("fc.weight", own["fc.weight"]).shape != own["fc.weight"].shape:
        found = {name: t for name, t in found.items() if not name.startswith("fc.")}
        found |= {"fc.weight": own["fc.weight"], "fc.bias": own["fc.bias"]}
    wrong = [n for n, t in found.items() if n not in own or t.shape != own[n].shape]
    missing = [n for n in own if n not in found and not n.endswith("num_batches_tracked")]
    if wrong or missing:
        raise InvalidArgumentError(
            f"{len(wrong)} of the file's {len(found)} tensors do not fit, {len(missing)} are missing:"
            f" {', '.join([*wrong, *missing][:3])}",
            where=f"gradflow.zoo.resnet50.load_weights({os.fspath(path)!r})",
            do="pass the state dict of torchvision's resnet50, and a network of width 64",
        )
    network.load_state_dict(found, strict=False)  # old files do not count batches


def batches(seed: int = 0, size: int = 16, *, side: int = 32) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Give endless batches of triplets of real digits, grey repeated in three channels.

    Args:
        seed: The same seed gives the same triplets.
        size: Triplets in a batch, ``B``.
        side: Side ``S`` to which the 28×28 digits are enlarged, in pixels.

    Yields:
        Anchors, positives, negatives: each ``[B, 3, S, S]`` float32.
    """
    for anchor, positive, negative in triplet.batches(seed, size, side=side):
        yield anchor.repeat(1, 3, 1, 1), positive.repeat(1, 3, 1, 1), negative.repeat(1, 3, 1, 1)


def loss(network: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    """Triplet margin loss with margin 0.2; see :func:`gradflow.zoo.triplet.triplet_loss`.

    Args:
        network: Called once, with three inputs.
        batch: Anchors, positives, negatives, each ``[B, 3, S, S]``.
    """
    anchor, positive, negative = network(*batch)
    return triplet.triplet_loss(anchor, positive, negative)


def train(steps: int = 30, seed: int = 0) -> list[float]:
    """Train the thin network from scratch in plain PyTorch; give the loss of every step.

    Example:
        >>> len(train(steps=2))
        2
    """
    torch.manual_seed(seed)
    network = thin()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses = []
    for batch in islice(batches(seed), steps):
        value, _ = loss(network, batch)
        optimizer.zero_grad()
        value.backward()  # one ResNet-50, three paths through it, one sum
        optimizer.step()
        losses.append(value.item())
    return losses
