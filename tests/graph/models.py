"""Small models with known paths, for tests of tracing and drawing."""

import torch
import torch.nn.functional as F
from torch import nn


class Bottleneck(nn.Module):
    def __init__(self, width_in, width, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride != 1 or width_in != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(width_in, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        skip = x if self.downsample is None else self.downsample(x)
        return F.relu(y + skip)


class ResNet50(nn.Module):
    """The layout of ResNet-50 (He et al. 2015, arXiv:1512.03385); ``width`` 64 is the real one."""

    def __init__(self, width=64, out=128, blocks=(3, 4, 6, 3)):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        before = width
        for number, count in enumerate(blocks):
            wide = width * 2**number
            layer = [Bottleneck(before, wide, 1 if number == 0 else 2)]
            layer += [Bottleneck(4 * wide, wide) for _ in range(count - 1)]
            setattr(self, f"layer{number + 1}", nn.Sequential(*layer))
            before = 4 * wide
        self.fc = nn.Linear(before, out)

    def forward(self, x):
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        return self.fc(x.mean((2, 3)))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 8, 3)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.relu(self.conv2(x)).mean((2, 3))
        return F.normalize(self.fc(x))


class Wrapped(nn.Module):
    """An encoder inside a network that calls it three times."""

    def __init__(self):
        super().__init__()
        self.encoder = Encoder()

    def forward(self, a, p, n):
        return self.encoder(a), self.encoder(p), self.encoder(n)


class Siamese(nn.Module):
    """The ``forward_once`` idiom."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3)
        self.fc1 = nn.Linear(4, 6)
        self.fc2 = nn.Linear(6, 2)

    def forward_once(self, x):
        x = F.relu(self.conv1(x)).mean((2, 3))
        return self.fc2(F.relu(self.fc1(x)))

    def forward(self, x, y):
        return self.forward_once(x), self.forward_once(y)


class Verifier(nn.Module):
    """Two embeddings of one encoder and a head over both (Koch et al. 2015)."""

    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.hidden = nn.Linear(5, 4)
        self.out = nn.Linear(4, 1)

    def forward(self, x, y):
        distance = (self.encoder(x) - self.encoder(y)).abs()
        return self.out(F.relu(self.hidden(distance)))


class Unrolled(nn.Module):
    """A cell written by hand, unrolled over time, with a head on the last state."""

    def __init__(self, steps=5, every=False):
        super().__init__()
        self.steps, self.every = steps, every
        self.i2h = nn.Linear(3, 4)
        self.h2h = nn.Linear(4, 4)
        self.out = nn.Linear(4, 2)

    def forward(self, x):
        h = torch.zeros(x.shape[0], 4)
        outs = []
        for t in range(self.steps):
            h = torch.tanh(self.i2h(x[:, t]) + self.h2h(h))
            if self.every:
                outs.append(self.out(h))
        return torch.stack(outs) if self.every else self.out(h)


class CellNet(nn.Module):
    """An ``LSTMCell`` unrolled over time."""

    def __init__(self, steps=5):
        super().__init__()
        self.steps = steps
        self.cell = nn.LSTMCell(3, 4)
        self.out = nn.Linear(4, 2)

    def forward(self, x):
        h = c = torch.zeros(x.shape[0], 4)
        for t in range(self.steps):
            h, c = self.cell(x[:, t], (h, c))
        return self.out(h)


class Tied(nn.Module):
    """A language model whose decoder shares the embedding's weight."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Embedding(11, 6)
        self.body = nn.Linear(6, 6)
        self.decoder = nn.Linear(6, 11, bias=False)
        self.decoder.weight = self.encoder.weight

    def forward(self, tokens):
        return self.decoder(torch.tanh(self.body(self.encoder(tokens))))


class MultiTask(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8))
        self.head_a = nn.Linear(8, 2)
        self.head_b = nn.Sequential(nn.Linear(8, 3), nn.Tanh(), nn.Linear(3, 3))

    def forward(self, x):
        shared = self.trunk(x)
        return self.head_a(shared), self.head_b(shared)


def images(count, size=12, channels=1):
    return [torch.randn(2, channels, size, size) for _ in range(count)]


def triplet():
    model = Wrapped()
    return F.triplet_margin_loss(*model(*images(3))), model


def siamese():
    model = Siamese()
    a, b = model(*images(2))
    return (a - b).pow(2).sum(1).mean(), model


def verifier():
    model = Verifier()
    return F.binary_cross_entropy_with_logits(model(*images(2)), torch.ones(2, 1)), model


def unrolled(steps=5, every=False):
    model = Unrolled(steps, every)
    target = torch.zeros(steps, 2, 2) if every else torch.zeros(2, 2)
    return F.mse_loss(model(torch.randn(2, steps, 3)), target), model


def lstm_cell(steps=5):
    model = CellNet(steps)
    return F.mse_loss(model(torch.randn(2, steps, 3)), torch.zeros(2, 2)), model


def tied():
    model = Tied()
    tokens = torch.tensor([[1, 2, 3]])
    return F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()), model


def multitask():
    model = MultiTask()
    a, b = model(torch.randn(3, 4))
    return F.mse_loss(a, torch.zeros(3, 2)) + 0.5 * F.mse_loss(b, torch.zeros(3, 3)), model


def resnet(width=8):
    model = ResNet50(width)
    outs = [model(x) for x in images(3, 32, 3)]
    return F.triplet_margin_loss(*outs), model


def chain(length=1000):
    layer = nn.Linear(4, 4, bias=False)
    y = torch.randn(2, 4)
    for _ in range(length):
        y = torch.tanh(layer(y))
    return y.sum(), layer
