import numpy as np
import pytest
import torch

from gradflow.zoo import multitask


@pytest.fixture
def network():
    return multitask.MultiTask().double()


@pytest.fixture
def batch():
    images, classes = next(multitask.batches(0, 8))
    return images.double(), classes


def test_losses_agree_with_hand_calculation(network, batch):
    value, scalars = multitask.loss(network, batch)
    images, classes = batch[0].numpy(), batch[1].numpy()
    digit, odd, drawing = (y.detach().numpy() for y in network(batch[0]))
    p = np.exp(digit) / np.exp(digit).sum(1, keepdims=True)
    p_odd = 1 / (1 + np.exp(-odd))
    expected = {
        "digit": -np.log(p[range(8), classes]).mean(),
        "parity": -np.log(np.where(classes % 2 == 1, p_odd, 1 - p_odd)).mean(),
        "drawing": ((drawing - images) ** 2).mean(),
    }
    assert {name: x.item() for name, x in scalars.items()} == pytest.approx(expected, rel=1e-6)
    assert value.item() == pytest.approx(sum(expected.values()), rel=1e-6)


def test_drawings_are_pixels(network, batch):
    drawing = network(batch[0])[2]
    assert drawing.shape == batch[0].shape
    assert drawing.min() > 0
    assert drawing.max() < 1


def test_heads_get_only_their_own_task_and_the_trunk_the_sum(network, batch):
    """Each task's gradient alone, by silencing the other two heads."""
    features = network.trunk(batch[0])
    heads = list(multitask.modules(network).values())
    weight = network.trunk[0].weight
    images, classes = batch
    losses = (
        torch.nn.functional.cross_entropy(network.digit(features), classes),
        torch.nn.functional.binary_cross_entropy(
            torch.sigmoid(network.parity(features)[:, 0]), (classes % 2).double()
        ),
        (torch.sigmoid(network.drawing(features)) - images.flatten(1)).square().mean(),
    )
    parts = []
    for i, value in enumerate(losses):
        wanted = [weight, *(head.weight for head in heads)]
        grads = torch.autograd.grad(value, wanted, retain_graph=True, allow_unused=True)
        assert [g is not None for g in grads[1:]] == [j == i for j in range(3)]
        parts.append(grads[0])
    multitask.loss(network, batch)[0].backward()
    assert all(part.norm() > 0 for part in parts)
    torch.testing.assert_close(weight.grad, sum(parts))


def test_trunk_runs_once(network, batch):
    calls = []
    network.trunk.register_forward_hook(lambda *_: calls.append(1))
    multitask.loss(network, batch)
    assert len(calls) == 1
