"""What the distributed cases train, and what one process alone computes of it: the oracle.

Every rank draws the batch of all ranks and takes its own rows. So each can compute, on a copy of the model
that knows nothing of other processes, what every rank's branches bring.
"""

import copy

import numpy as np
import torch
from torch import nn

from tests import laws

NAMES = ("anchor", "positive", "negative")
ROWS = 4  # of a batch, on each rank


class Encoder(nn.Module):
    """Odd sizes, so that shards are uneven and some ranks hold nothing of the last bias."""

    def __init__(self, width=7):
        super().__init__()
        self.one, self.two, self.gain = nn.Linear(5, width), nn.Linear(width, 3), nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.two(torch.tanh(self.one(x))) * self.gain


class Wrapper(nn.Module):
    """A net that calls its encoder three times in one forward."""

    def __init__(self):
        super().__init__()
        self.encoder = Encoder()

    def forward(self, a, p, n):
        return self.encoder(a), self.encoder(p), self.encoder(n)


def batches(ranks, step):
    """The inputs of every rank in one step: ``[rank][branch]``."""
    generator = torch.Generator().manual_seed(step)
    whole = torch.randn(ranks, 3, ROWS, 5, generator=generator)
    return [list(rows) for rows in whole]


def triplet(a, p, n):
    return torch.relu((a - p).square().sum(1) - (a - n).square().sum(1) + 5.0).mean()


def called_thrice(net, inputs):
    return triplet(*map(net, inputs))


def oracle(twin, inputs_of, run=called_thrice, outputs_of=""):
    """What each branch of each rank brings to each parameter: ``[rank][branch][fqn]``."""
    return [laws.two_stage(twin, lambda m, xs=xs: run(m, xs), outputs_of, NAMES) for xs in inputs_of]


def summed(truth, fqn):
    """What the leaf of one rank receives, in double precision."""
    return sum(of[fqn].double().numpy() for of in truth.values() if of.get(fqn) is not None)


def effort_of(truth, fqn):
    """The largest entry that any branch of any rank brings: what rounding is measured against."""
    return max(
        float(of[fqn].abs().max()) for rank in truth for of in rank.values() if of.get(fqn) is not None
    )


def twin_of(model):
    """A copy that knows of no other process, its weights to be set by ``follow``."""
    return copy.deepcopy(model)


def follow(twin, weights):
    with torch.no_grad():
        for fqn, p in twin.named_parameters():
            p.copy_(weights[fqn])


def assert_local(step, truth, rank, *, strip=""):
    """This rank's contributions and total are those of one process alone, to the last bit."""
    assert step.complete
    for p in step:
        fqn = p.fqn.removeprefix(strip)
        assert p.residual == 0.0, p.fqn
        for name in NAMES:
            expected = truth[rank][name][fqn]
            if expected is None:
                assert name in p.absent
            else:
                np.testing.assert_array_equal(p.contribution(name), expected.numpy(), err_msg=p.fqn)


def assert_mean(step, truth, rank, *, strip="", factor=1.0):
    """``other ranks`` is what the others brought, and the scale makes the sum of all the mean."""
    for p in step:
        fqn = p.fqn.removeprefix(strip)
        others = sum(summed(of, fqn) for r, of in enumerate(truth) if r != rank)
        effort = effort_of(truth, fqn)
        found = p.contribution("other ranks") if "other ranks" in p.contributors else 0 * others
        np.testing.assert_allclose(found, others, atol=2e-6 * len(truth) * effort, rtol=0, err_msg=p.fqn)
        np.testing.assert_allclose(p.scale, factor / len(truth), rtol=1e-5, err_msg=p.fqn)
        assert "edited" not in p.contributors or p.norms["edited"] <= 1e-6 * effort
