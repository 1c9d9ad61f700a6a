import numpy as np
import pytest
import torch

from gradflow import data
from gradflow.zoo import contrastive


class Fixed(torch.nn.Module):
    """A network that embeds nothing: the images are the embeddings."""

    def forward(self, left, right):
        return left, right


def test_seed_architecture():
    shapes = [tuple(p.shape) for p in contrastive.SiameseNetwork().parameters()]
    assert shapes == [(32, 1, 3, 3), (32,), (128, 32 * 13 * 13), (128,)]


def test_both_images_go_through_the_same_layers():
    left, right = contrastive.SiameseNetwork()(*[torch.rand(2, 1, 28, 28)] * 2)
    assert torch.equal(left, right)


def test_one_means_dissimilar():
    """With label 0 (similar) distance costs; with label 1 (dissimilar) nearness costs."""
    near, far = torch.tensor([0.1]), torch.tensor([0.9])
    similar, dissimilar = torch.tensor([0.0]), torch.tensor([1.0])
    assert contrastive.contrastive_loss(near, similar) < contrastive.contrastive_loss(far, similar)
    assert contrastive.contrastive_loss(near, dissimilar) > contrastive.contrastive_loss(far, dissimilar)


@pytest.mark.parametrize(("label", "sign"), [(0.0, +1), (1.0, -1)])
def test_similar_pull_and_dissimilar_push(label, sign):
    distance = torch.tensor([0.5], requires_grad=True)
    contrastive.contrastive_loss(distance, torch.tensor([label])).backward()
    assert distance.grad.item() == pytest.approx(sign * 1.0)  # 2·d, and −2·(m − d)


def test_loss_agrees_with_hand_calculation():
    rng = np.random.default_rng(0)
    left, right = 0.4 * rng.normal(size=(2, 60, 3))
    y = np.arange(60) % 2
    value, scalars = contrastive.loss(Fixed(), tuple(torch.tensor(x) for x in (left, right, y)))
    d = np.sqrt(((left - right) ** 2).sum(1))
    assert d[y == 1].min() < 1 < d[y == 1].max()  # both sides of the margin are there
    expected = np.where(y == 0, d**2, np.maximum(0, 1 - d) ** 2).mean()
    np.testing.assert_allclose(value.item(), expected, rtol=1e-5)
    np.testing.assert_allclose(scalars["d_same"].item(), d[y == 0].mean(), rtol=1e-5)
    np.testing.assert_allclose(scalars["d_other"].item(), d[y == 1].mean(), rtol=1e-5)


def test_satisfied_pairs_are_silent():
    distance = torch.tensor([0.0, 1.0, 7.0], requires_grad=True)
    value = contrastive.contrastive_loss(distance, torch.tensor([0.0, 1.0, 1.0]))
    value.backward()
    assert value.item() == 0.0
    assert torch.equal(distance.grad, torch.zeros(3))


def test_batches_tell_the_truth_about_their_pairs():
    images, labels = data.digits()
    left, right, dissimilar = next(contrastive.batches(4, 32))
    classes = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    for a, b, y in zip(left, right, dissimilar, strict=True):
        assert (classes[a.numpy().tobytes()] != classes[b.numpy().tobytes()]) == bool(y)
    assert dissimilar.sum().item() == 16


def test_gradient_is_the_sum_over_both_calls():
    network = contrastive.SiameseNetwork().double()
    left, right, y = (x.double() for x in next(contrastive.batches(0, 6)))
    value, _ = contrastive.loss(network, (left, right, y))
    (total,) = torch.autograd.grad(value, [network.conv1.weight])
    parts = []
    for kept in (0, 1):
        out = [
            network.forward_once(x) if i == kept else network.forward_once(x).detach()
            for i, x in enumerate((left, right))
        ]
        value, _ = contrastive.loss(Fixed(), (*out, y))
        parts.append(torch.autograd.grad(value, [network.conv1.weight])[0])
    assert all(part.norm() > 0 for part in parts)
    torch.testing.assert_close(sum(parts), total)
