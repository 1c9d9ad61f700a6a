import numpy as np
import torch
from torch.nn import functional as F

from gradflow import data
from gradflow.zoo import triplet


def test_seed_architecture():
    shapes = {name: tuple(p.shape) for name, p in triplet.Encoder().named_parameters()}
    convolutions = [shapes[f"blocks.{i}.conv.weight"] for i in range(5)]
    assert convolutions == [(16, 1, 3, 3), (32, 16, 3, 3), (64, 32, 3, 3), (128, 64, 3, 3), (256, 128, 3, 3)]
    assert shapes["fc.weight"] == (128, 256)


def test_each_embedding_is_a_unit_vector_of_its_own():
    encoder = triplet.Encoder().eval()  # eval: batch-norm does not couple the samples
    images = torch.rand(5, 1, 32, 32)
    together = encoder(images)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(5))
    alone = torch.cat([encoder(image[None]) for image in images])
    torch.testing.assert_close(together, alone)


def test_seed_input_size_runs():
    assert triplet.Encoder((3, 4, 4, 4, 4, 4), embedding=7)(torch.rand(2, 3, 112, 112)).shape == (2, 7)


def test_batches_are_enlarged_digits_of_the_drawn_triplets():
    images, labels = data.digits()
    chosen = data.triplets(labels, 4, rng=np.random.default_rng(3))
    for got, indices in zip(next(triplet.batches(3, 4, side=40)), chosen, strict=True):
        assert got.shape == (4, 1, 40, 40)
        expected = F.interpolate(torch.tensor(images[indices]), size=40, mode="bilinear")
        torch.testing.assert_close(got, expected)


def test_loss_agrees_with_hand_calculation():
    rng = np.random.default_rng(0)
    a, p, n = rng.normal(size=(3, 50, 4))
    value, scalars = triplet.triplet_loss(*(torch.tensor(x) for x in (a, p, n)))
    d_ap = np.sqrt(((a - p) ** 2).sum(1))
    d_an = np.sqrt(((a - n) ** 2).sum(1))
    hinge = np.maximum(0, d_ap - d_an + 0.2)
    assert 0 < (hinge == 0).mean() < 1  # both kinds are there
    np.testing.assert_allclose(value.item(), hinge.mean(), rtol=1e-5)
    np.testing.assert_allclose(scalars["dead"].item(), (hinge == 0).mean(), rtol=1e-6)
    np.testing.assert_allclose(scalars["d_ap"].item(), d_ap.mean(), rtol=1e-5)
    np.testing.assert_allclose(scalars["d_an"].item(), d_an.mean(), rtol=1e-5)


def test_loss_agrees_with_torch():
    batch = tuple(torch.rand(3, 20, 4, dtype=torch.float64))
    value, _ = triplet.triplet_loss(*batch, margin=0.5)
    torch.testing.assert_close(value, F.triplet_margin_loss(*batch, margin=0.5))


def test_dead_triplets_give_exactly_zero():
    anchor = torch.zeros(3, 2, requires_grad=True)
    far = torch.full((3, 2), 5.0)
    value, scalars = triplet.triplet_loss(anchor, torch.zeros(3, 2), far)
    value.backward()
    assert value.item() == 0.0
    assert scalars["dead"].item() == 1.0
    assert torch.equal(anchor.grad, torch.zeros(3, 2))


def test_collapsed_embeddings_cost_the_margin_and_give_no_nan():
    same = torch.ones(3, 2, requires_grad=True)
    value, _ = triplet.triplet_loss(same, same, same)
    value.backward()
    torch.testing.assert_close(value.detach(), torch.tensor(0.2))
    assert torch.isfinite(same.grad).all()


def test_gradient_is_the_sum_over_the_three_roles():
    """The claim of the file, checked by detaching two of three roles at a time."""
    encoder = triplet.Encoder((1, 4, 4, 8, 8, 8), embedding=5).double()
    batch = tuple(images.double() for images in next(triplet.batches(0, 6)))
    weight = encoder.blocks[0].conv.weight
    value, _ = triplet.loss(encoder, batch)
    (total,) = torch.autograd.grad(value, [weight])
    parts = []
    for kept in range(3):
        outputs = [encoder(x) if i == kept else encoder(x).detach() for i, x in enumerate(batch)]
        value, _ = triplet.triplet_loss(*outputs)
        parts.append(torch.autograd.grad(value, [weight])[0])
    assert all(part.norm() > 0 for part in parts)
    torch.testing.assert_close(sum(parts), total)
