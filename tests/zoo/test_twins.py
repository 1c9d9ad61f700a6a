from itertools import islice

import pytest
import torch

from gradflow import zoo
from gradflow.zoo import contrastive, twins


def twins_of_a_seed(*, shared):
    torch.manual_seed(5)
    return twins.Twins(shared=shared).double()


@pytest.fixture
def batch():
    return tuple(x.double() for x in next(twins.batches(0, 8)))


def test_copies_start_alike_and_are_not_the_same():
    network = twins.Twins()
    for one, other in zip(network.left.parameters(), network.right.parameters(), strict=True):
        assert torch.equal(one, other)
        assert one.data_ptr() != other.data_ptr()


def test_shared_is_one_encoder_under_two_names():
    network = twins.Twins(shared=True)
    assert network.left is network.right
    assert len(list(network.parameters())) == 4
    assert len(list(twins.Twins().parameters())) == 8


def test_shared_gradient_is_the_sum_of_the_copies_gradients(batch):
    copies, one = twins_of_a_seed(shared=False), twins_of_a_seed(shared=True)
    values = []
    for network in (copies, one):
        value, _ = twins.loss(network, batch)
        value.backward()
        values.append(value.item())
    assert values[0] == values[1]
    for left, right, both in zip(
        *(m.parameters() for m in (copies.left, copies.right, one.left)), strict=True
    ):
        assert not torch.allclose(left.grad, right.grad)
        torch.testing.assert_close(left.grad + right.grad, both.grad)


def test_shared_twins_are_the_contrastive_network(batch):
    torch.manual_seed(5)
    siamese = contrastive.SiameseNetwork().double()
    one = twins_of_a_seed(shared=True)
    assert twins.loss(one, batch)[0].item() == pytest.approx(
        contrastive.loss(siamese, batch)[0].item(), rel=1e-12
    )


@pytest.mark.parametrize("shared", [False, True])
def test_copies_drift_apart_and_a_shared_encoder_cannot(shared):
    torch.manual_seed(0)
    network = twins.Twins(shared=shared)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    drifts = []
    for batch in islice(twins.batches(0, 8), 4):
        value, scalars = twins.loss(network, batch)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        drifts.append(scalars["drift"].item())
    if shared:
        assert drifts == [0.0] * 4
    else:
        assert drifts[0] == 0.0
        assert drifts[1] > 0.003
        assert drifts[1:] == sorted(drifts[1:])


def test_copies_learn_worse_than_a_shared_encoder():
    held_out = next(twins.batches(99, 128))
    reached = {}
    for shared in (False, True):
        torch.manual_seed(0)
        network = twins.Twins(shared=shared)
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-4)
        for batch in islice(twins.batches(0), 40):
            optimizer.zero_grad()
            twins.loss(network, batch)[0].backward()
            optimizer.step()
        with torch.no_grad():
            reached[shared] = twins.loss(network, held_out)[0].item()
    assert reached[True] < 0.9 * reached[False]


def test_drift_agrees_with_hand_calculation():
    network = twins.Twins()
    before = sum(p.square().sum() for p in network.left.parameters()).sqrt()
    with torch.no_grad():
        network.right.fc1.bias += 0.5
    expected = (128 * 0.25) ** 0.5 / before
    torch.testing.assert_close(twins.drift(network), expected)


def test_branches_are_the_copies():
    scene = zoo.scene("twins")
    network = scene.build()
    assert scene.watch_branches(network) == {"left": network.left, "right": network.right}
