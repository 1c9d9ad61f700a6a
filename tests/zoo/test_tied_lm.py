import copy
from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn

from gradflow import data
from gradflow.zoo import tied_lm


def parts(model, batch):
    """Gradients of the input use and of the output use: from an untied copy of the model."""
    untied = copy.deepcopy(model)
    untied.decoder.weight = nn.Parameter(model.embedding.weight.detach().clone())
    value, _ = tied_lm.loss(untied, batch)
    return torch.autograd.grad(value, [untied.embedding.weight, untied.decoder.weight])


def test_one_matrix_under_two_names():
    model = tied_lm.TinyLM()
    assert model.decoder.weight is model.embedding.weight
    assert {"embedding.weight", "decoder.weight"} <= set(model.state_dict())


def test_logits_agree_with_hand_calculation():
    model = tied_lm.TinyLM(width=4).double()
    contexts = torch.randint(0, 45, (3, tied_lm.CONTEXT))
    table, w, b = (p.detach().numpy() for p in model.parameters())
    read = table[contexts.numpy()].reshape(3, -1)
    expected = np.tanh(read @ w.T + b) @ table.T
    np.testing.assert_allclose(model(contexts).detach().numpy(), expected, rtol=1e-10)


def test_batches_are_places_in_the_text():
    characters = tied_lm.vocabulary()
    contexts, following = next(tied_lm.batches(1, 50))
    for context, token in zip(contexts.tolist(), following.tolist(), strict=True):
        assert "".join(characters[t] for t in [*context, token]) in data.zen()


def test_gradient_is_the_sum_of_both_uses():
    model = tied_lm.TinyLM().double()
    batch = next(tied_lm.batches(0, 16))
    read, written = parts(model, batch)
    tied_lm.loss(model, batch)[0].backward()
    assert read.norm() > 0
    assert written.norm() > 0
    torch.testing.assert_close(model.embedding.weight.grad, read + written)


def test_reading_touches_the_rows_that_were_read_and_writing_all():
    batch = next(tied_lm.batches(0, 2))
    read, written = parts(tied_lm.TinyLM().double(), batch)
    touched = set(read.norm(dim=1).nonzero().flatten().tolist())
    assert touched == set(batch[0].flatten().tolist())
    assert (written.norm(dim=1) > 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_writing_is_the_louder_use_in_the_first_steps(seed):
    torch.manual_seed(seed)
    model = tied_lm.TinyLM()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    ratios = []
    for batch in islice(tied_lm.batches(seed), 20):
        read, written = parts(model, batch)
        ratios.append((written.norm() / read.norm()).item())
        optimizer.zero_grad()
        tied_lm.loss(model, batch)[0].backward()
        optimizer.step()
    assert np.mean(ratios) > 1.3


def test_the_text_can_be_learnt_by_heart():
    torch.manual_seed(0)
    model = tied_lm.TinyLM()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for batch in islice(tied_lm.batches(0, 64), 300):
        optimizer.zero_grad()
        value, scalars = tied_lm.loss(model, batch)
        value.backward()
        optimizer.step()
    assert scalars["accuracy"] > 0.8
