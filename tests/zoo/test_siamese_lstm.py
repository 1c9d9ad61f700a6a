import numpy as np
import pytest
import torch

from gradflow.zoo import siamese_lstm


def lstm_by_hand(rows, w_ih, w_hh, bias):
    """The textbook recurrence in numpy: input, forget, cell, output gate, in torch's order."""
    h = c = np.zeros((len(rows), w_hh.shape[1]))
    for t in range(rows.shape[1]):
        gates = np.split(rows[:, t] @ w_ih.T + h @ w_hh.T + bias, 4, axis=1)
        i, f, o = (1 / (1 + np.exp(-gates[k])) for k in (0, 1, 3))
        c = f * c + i * np.tanh(gates[2])
        h = o * np.tanh(c)
    return h


@pytest.mark.parametrize("encoder", [siamese_lstm.LastState(5, 3), siamese_lstm.LastStateCellByCell(5, 3)])
def test_last_state_agrees_with_hand_calculation(encoder):
    encoder = encoder.double()
    rows = torch.rand(2, 7, 5, dtype=torch.float64)
    w_ih, w_hh, b_ih, b_hh = (p.detach().numpy() for p in encoder.parameters())
    expected = lstm_by_hand(rows.numpy(), w_ih, w_hh, b_ih + b_hh)
    np.testing.assert_allclose(encoder(rows).detach().numpy(), expected, rtol=1e-10)


def test_cell_by_cell_trains_like_the_whole_lstm():
    """Same weights, same loss, same gradients: unrolling changes only what can be seen."""
    torch.manual_seed(3)
    whole = siamese_lstm.SiameseLSTM().double()
    cells = siamese_lstm.cell_by_cell().double()
    for one, other in zip(cells.parameters(), whole.parameters(), strict=True):
        one.data.copy_(other.data)
    batch = tuple(x.double() for x in next(siamese_lstm.batches(0, 6)))
    for network in (whole, cells):
        siamese_lstm.loss(network, batch)[0].backward()
    for one, other in zip(cells.parameters(), whole.parameters(), strict=True):
        assert other.grad.norm() > 0
        torch.testing.assert_close(one.grad, other.grad)


def test_rows_are_read_from_top_to_bottom():
    """Neither the columns nor the rows from below give the same state."""
    encoder = siamese_lstm.LastState()
    image = torch.rand(1, 28, 28)
    assert not torch.allclose(encoder(image), encoder(image.transpose(1, 2)))
    assert not torch.allclose(encoder(image), encoder(image.flip(1)))


def test_distance_is_the_l2_distance_of_both_states():
    network = siamese_lstm.SiameseLSTM()
    left, right = torch.rand(2, 4, 1, 28, 28)
    states = [network.encoder(x.squeeze(1)).detach().numpy() for x in (left, right)]
    expected = np.sqrt(((states[0] - states[1]) ** 2).sum(1))
    np.testing.assert_allclose(network(left, right).detach().numpy(), expected, rtol=1e-4)


def test_each_row_is_a_use_only_cell_by_cell():
    def calls(network, kind):
        count = []
        for module in network.modules():
            if isinstance(module, kind):
                module.register_forward_hook(lambda *_: count.append(1))
        network(torch.rand(1, 1, 28, 28), torch.rand(1, 1, 28, 28))
        return len(count)

    assert calls(siamese_lstm.SiameseLSTM(), torch.nn.LSTM) == 2
    assert calls(siamese_lstm.cell_by_cell(), torch.nn.LSTMCell) == 2 * 28
