import numpy as np
import pytest
import torch

from gradflow import data
from gradflow.zoo import infonce


def by_hand(first, second, temperature):
    z = np.concatenate([first, second])
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    b, terms = len(first), []
    for i in range(2 * b):
        others = [k for k in range(2 * b) if k != i]
        scores = {k: np.exp(z[i] @ z[k] / temperature) for k in others}
        terms.append(-np.log(scores[(i + b) % (2 * b)] / sum(scores.values())))
    return np.mean(terms)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
def test_loss_agrees_with_hand_calculation(temperature):
    first, second = np.random.default_rng(0).normal(size=(2, 5, 4))
    value, _ = infonce.info_nce(torch.tensor(first), torch.tensor(second), temperature=temperature)
    assert value.item() == pytest.approx(by_hand(first, second, temperature), rel=1e-10)


def test_found_is_the_fraction_of_twins_that_are_nearest():
    first = torch.eye(4)
    assert infonce.info_nce(first, first)[1].item() == 1.0
    assert infonce.info_nce(first, first.roll(1, dims=0))[1].item() == 0.0


def test_without_any_structure_the_loss_is_a_guess_among_all_others():
    same = torch.ones(6, 3)
    assert infonce.info_nce(same, same)[0].item() == pytest.approx(np.log(11), rel=1e-5)


def test_the_pull_of_the_twin_is_the_sum_of_the_pushes_of_the_others():
    """Of the gradient on the scores: the twin gets p − 1, the others p, and the row sums to zero."""
    scores = torch.randn(1, 7, dtype=torch.float64, requires_grad=True)
    torch.nn.functional.cross_entropy(scores, torch.tensor([2])).backward()
    pull, pushes = scores.grad[0, 2], scores.grad[0, [0, 1, 3, 4, 5, 6]]
    assert pull < 0
    assert (pushes > 0).all()
    torch.testing.assert_close(-pull, pushes.sum())


def test_gradient_is_the_sum_over_both_views():
    encoder = infonce.Encoder().double()
    batch = [x.double() for x in next(infonce.batches(0, 6))]
    value, _ = infonce.loss(encoder, batch)
    (total,) = torch.autograd.grad(value, [encoder.conv1.weight])
    parts = []
    for kept in (0, 1):
        z = [encoder(x) if i == kept else encoder(x).detach() for i, x in enumerate(batch)]
        parts.append(torch.autograd.grad(infonce.info_nce(*z)[0], [encoder.conv1.weight])[0])
    assert all(part.norm() > 0 for part in parts)
    torch.testing.assert_close(sum(parts), total)


def test_views_of_a_row_are_one_digit_and_differ():
    images, _ = data.digits()
    first, second = next(infonce.batches(0, 16))
    assert not torch.equal(first, second)
    chosen = images[np.random.default_rng(0).choice(len(images), size=16, replace=False)]
    ink = chosen.sum((1, 2, 3))
    for views in (first, second):  # noise adds ink to all alike; the order of how much there is stays
        assert np.corrcoef(views.numpy().sum((1, 2, 3)), ink)[0, 1] > 0.95
