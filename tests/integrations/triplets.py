"""What the tests of all integrations train: a small encoder on triplets of real digits, seeded."""

from itertools import islice

import torch
from torch import nn
from torch.nn import functional as F

from gradflow.zoo import triplet

NAMES = ("anchor", "positive", "negative")


def encoder():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 6), nn.Tanh(), nn.Linear(6, 3))


def batches(count, size=4, seed=0):
    """Triplets of digits: tuples of three ``[size, 1, 28, 28]``."""
    return list(islice(triplet.batches(seed, size, side=28), count))


def loss_of(net, batch):
    return F.triplet_margin_loss(*map(net, batch), margin=1.0)
