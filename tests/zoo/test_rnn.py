import numpy as np
import torch

from gradflow import data, zoo
from gradflow.zoo import rnn


def test_logits_agree_with_hand_calculation():
    network = rnn.RowReader(hidden=5).double()
    images = torch.rand(3, 1, 14, 14, dtype=torch.float64)
    w_ih, w_hh, b_ih, b_hh, w, b = (p.detach().numpy() for p in network.parameters())
    h = np.zeros((3, 5))
    for t in range(14):
        h = np.tanh(images.numpy()[:, 0, t] @ w_ih.T + b_ih + h @ w_hh.T + b_hh)
    np.testing.assert_allclose(network(images).detach().numpy(), h @ w.T + b, rtol=1e-10)


def test_branches_are_as_many_as_calls_of_the_cell():
    network = rnn.RowReader()
    calls = []
    network.cell.register_forward_hook(lambda *_: calls.append(1))
    network(next(rnn.batches(0, 2))[0])
    assert len(calls) == len(zoo.scene("rnn").branches) == rnn.ROWS


def test_batches_are_halved_digits_with_their_class():
    images, labels = data.digits()
    small = images.reshape(-1, 14, 2, 14, 2).mean((2, 4))
    got, classes = next(rnn.batches(0, 4))
    for image, label in zip(got[:, 0].numpy(), classes.tolist(), strict=True):
        nearest = ((small - image) ** 2).sum((1, 2)).argmin()
        np.testing.assert_allclose(image, small[nearest], atol=1e-6)
        assert labels[nearest] == label


def contributions_of_rows(network, batch):
    """Gradient of ``weight_hh`` by row: one alias of the weight for each call."""
    images, classes = batch
    cell = network.cell
    h, aliases = images.new_zeros(len(images), cell.hidden_size), []
    for row in images.squeeze(1).unbind(dim=1):
        aliases.append(cell.weight_hh.detach().clone().requires_grad_())
        h = torch.tanh(row @ cell.weight_ih.T + cell.bias_ih + h @ aliases[-1].T + cell.bias_hh)
    value = torch.nn.functional.cross_entropy(network.head(h), classes)
    return torch.autograd.grad(value, aliases)


def test_rows_sum_to_the_gradient_and_the_first_row_gives_zeros():
    network = rnn.RowReader().double()
    images, classes = next(rnn.batches(0, 8))
    batch = (images.double(), classes)
    rnn.loss(network, batch)[0].backward()
    parts = contributions_of_rows(network, batch)
    torch.testing.assert_close(sum(parts), network.cell.weight_hh.grad)
    assert torch.equal(parts[0], torch.zeros_like(parts[0]))


def test_early_rows_contribute_less_than_late_ones():
    """The vanishing gradient that the scene is there to show, at initialisation."""
    norms = [g.norm().item() for g in contributions_of_rows(rnn.RowReader(), next(rnn.batches(0, 16)))]
    assert max(norms[1:4]) < 0.1 * max(norms[-3:])
