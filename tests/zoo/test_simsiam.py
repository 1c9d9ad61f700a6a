from itertools import islice

import numpy as np
import pytest
import torch

from gradflow import zoo
from gradflow.zoo import simsiam


@pytest.fixture
def network():
    return simsiam.SimSiam().double()


@pytest.fixture
def batch():
    return tuple(x.double() for x in next(simsiam.batches(0, 8)))


def cosine(a, b):
    return ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean()


def test_losses_agree_with_hand_calculation(network, batch):
    p1, p2, z1, z2 = (x.detach().numpy() for x in network(*batch))
    symmetric = -(cosine(p1, z2) + cosine(p2, z1)) / 2
    assert simsiam.loss(network, batch)[0].item() == pytest.approx(symmetric, rel=1e-8)
    assert simsiam.loss_without_stop(network, batch)[0].item() == pytest.approx(symmetric, rel=1e-8)
    assert simsiam.loss_one_sided(network, batch)[0].item() == pytest.approx(-cosine(p1, z2), rel=1e-8)


def gradients_at_embeddings(network, batch, loss):
    """What arrives at ``z1`` and ``z2``, by watching the encoder's outputs; None where nothing does."""
    outputs = []
    handle = network.encoder.register_forward_hook(lambda *a: outputs.append(a[2]))
    value, _ = loss(network, batch)
    handle.remove()
    return torch.autograd.grad(value, outputs, allow_unused=True)


def test_targets_get_no_gradient(network, batch):
    """Symmetric: what arrives at ``z1`` comes through the first guess alone."""
    p1, _, _, z2 = network(*batch)
    outputs = []
    network.encoder.register_forward_hook(lambda *a: outputs.append(a[2]))
    guess = -simsiam.similarity(network.predictor(network.encoder(batch[0])), z2.detach()) / 2
    (expected,) = torch.autograd.grad(guess, [outputs[0]])
    arrived = gradients_at_embeddings(network, batch, simsiam.loss)
    torch.testing.assert_close(arrived[0], expected)
    assert p1.requires_grad
    assert arrived[1].norm() > 0


def test_one_sided_leaves_the_second_view_absent(network, batch):
    first, second = gradients_at_embeddings(network, batch, simsiam.loss_one_sided)
    assert first.norm() > 0
    assert second is None


def test_without_stop_the_targets_get_more(network, batch):
    stopped = gradients_at_embeddings(network, batch, simsiam.loss)
    free = gradients_at_embeddings(network, batch, simsiam.loss_without_stop)
    assert not any(torch.allclose(x, y) for x, y in zip(stopped, free, strict=True))


@pytest.mark.parametrize(("name", "collapsed"), [("simsiam", False), ("simsiam_without_stop", True)])
def test_only_without_the_stop_gradient_do_embeddings_collapse(name, collapsed):
    scene = zoo.scene(name)
    torch.manual_seed(0)
    network = scene.build()
    (optimizer,) = scene.optimizers(network)
    for batch in islice(scene.batches(0), 40):
        value, scalars = scene.loss(network, batch)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert scalars["spread"] < 0.15 if collapsed else scalars["spread"] > 0.4


def test_spread_agrees_with_hand_calculation():
    z = np.random.default_rng(0).normal(size=(500, 6))
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    expected = unit.std(axis=0).mean() * 6**0.5
    assert simsiam.spread(torch.tensor(z)).item() == pytest.approx(expected, rel=1e-10)
    assert expected == pytest.approx(1.0, abs=0.05)
