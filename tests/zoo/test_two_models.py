from itertools import islice

import pytest
import torch
from torch.nn import functional as F

from gradflow import data
from gradflow.zoo import two_models

KINDS = [
    pytest.param(build, id=build.__name__) for build in (two_models.dense, two_models.conv, two_models.custom)
]


@pytest.fixture
def batch():
    return next(two_models.batches(0, 8))


@pytest.mark.parametrize("build", KINDS)
def test_one_layer_is_in_both_models(build, batch):
    a, b = build()
    assert a.shared is b.shared
    assert a(batch[0]).shape == b(batch[2]).shape == (8, 5)
    common = {id(p) for p in a.parameters()} & {id(p) for p in b.parameters()}
    assert common == {id(p) for p in a.shared.parameters()}


@pytest.mark.parametrize("build", KINDS)
def test_shared_gradient_is_the_sum_and_heads_get_only_their_own(build, batch):
    models = [m.double() for m in build()]
    batch = tuple(x.double() if x.is_floating_point() else x for x in batch)
    shared = next(models[0].shared.parameters())
    loss_a, loss_b = two_models.losses(models, batch)
    part_a, part_b = (torch.autograd.grad(x, [shared], retain_graph=True)[0] for x in (loss_a, loss_b))
    assert torch.autograd.grad(loss_a, [models[1].head.weight], retain_graph=True, allow_unused=True) == (
        None,
    )
    assert torch.autograd.grad(loss_b, [models[0].head.weight], retain_graph=True, allow_unused=True) == (
        None,
    )
    two_models.loss(models, batch)[0].backward()
    assert part_a.norm() > 0
    assert part_b.norm() > 0
    torch.testing.assert_close(shared.grad, part_a + part_b)


def test_custom_layer_is_a_matrix_product():
    layer = two_models.SharedWeightLayer(3, 2)
    assert layer.kernel.abs().max() <= 0.05
    x = torch.rand(4, 3)
    torch.testing.assert_close(layer(x), x @ layer.kernel)


def test_each_model_sees_its_own_digits():
    images, labels = data.digits()
    classes = {image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)}
    for images_a, classes_a, images_b, classes_b in islice(two_models.batches(2, 20), 3):
        assert [classes[x.numpy().tobytes()] for x in images_a] == classes_a.tolist()
        assert [classes[x.numpy().tobytes()] - 5 for x in images_b] == classes_b.tolist()
        assert set(classes_a.tolist()) | set(classes_b.tolist()) <= set(range(5))


def test_loss_agrees_with_hand_calculation(batch):
    models = two_models.dense()
    value, scalars = two_models.loss(models, batch)
    expected = []
    for model, images, classes in zip(models, batch[::2], batch[1::2], strict=True):
        p = model(images).softmax(dim=1)
        expected.append(-p[range(8), classes].log().mean())
    torch.testing.assert_close(scalars["loss_a"], expected[0].detach())
    torch.testing.assert_close(scalars["loss_b"], expected[1].detach())
    torch.testing.assert_close(value, sum(expected))


def test_one_optimizer_for_each_model_and_the_shared_layer_in_the_first():
    models = two_models.dense()
    of_a, of_b = (o.param_groups[0]["params"] for o in two_models.optimizers(models))
    assert [id(p) for p in of_a] == [id(p) for p in models[0].parameters()]
    assert [id(p) for p in of_b] == [id(p) for p in models[1].head.parameters()]


def test_in_turn_each_step_uses_only_its_own_gradient():
    """One round of ``train`` against the same round written with separate gradients."""
    torch.manual_seed(0)
    models = two_models.dense()
    batch = next(two_models.batches(0))
    loss_a = F.cross_entropy(models[0](batch[0]), batch[1])
    adam = torch.optim.Adam(models[0].parameters(), lr=1e-3)
    loss_a.backward()
    adam.step()
    loss_b = F.cross_entropy(models[1](batch[2]), batch[3])  # with the shared layer that A has moved
    assert two_models.train(steps=1) == [pytest.approx((loss_a.item() + loss_b.item()) / 2, rel=1e-6)]
