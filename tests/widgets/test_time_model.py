"""The unrolled cell, against a formula by hand and autograd with one leaf for each time step."""

import json

import numpy as np
import pytest
import torch

from gradflow.errors import InvalidArgumentError
from gradflow.widgets.playground.time_model import Cell, Time, inputs, score
from gradflow.widgets.playground.time_view import decades, fading, view


def alone(state):
    """Norms of what each time step contributes to both matrices: every step reads leaves of its own."""
    cell = Cell(state["radius"])
    ws = [cell.recurrent.weight.detach().clone().requires_grad_() for _ in range(state["length"])]
    us = [cell.input.weight.detach().clone().requires_grad_() for _ in range(state["length"])]
    h = torch.zeros(4, dtype=torch.float64)
    for x, w, u in zip(inputs(state["length"]), ws, us, strict=True):
        h = w @ h + u @ x
        h = torch.tanh(h) if state["cell"] == "tanh" else h
    found = torch.autograd.grad(score(h), [*ws, *us])
    norms = [g.norm().item() for g in found]
    return {"recurrent": norms[: state["length"]], "input": norms[state["length"] :]}


@pytest.mark.parametrize("cell", ["tanh", "linear"])
@pytest.mark.parametrize("radius", [0.3, 1.0, 1.6])
@pytest.mark.parametrize("length", [2, 9])
def test_norms_are_those_of_autograd_step_by_step(cell, radius, length):
    time = Time({"cell": cell, "radius": radius, "length": length})
    expected = alone(time.state)
    for matrix, norms in expected.items():
        np.testing.assert_allclose(time.norms_of(matrix), norms, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("radius", [0.5, 1.0, 1.5])
def test_in_a_linear_cell_each_step_back_multiplies_by_the_radius(radius):
    time = Time({"cell": "linear", "radius": radius, "length": 30})
    np.testing.assert_allclose(time.norms, radius ** np.arange(29, -1, -1.0), rtol=1e-9)
    shown = view(time)
    np.testing.assert_allclose(shown["norms"], shown["powers"], rtol=1e-9)
    assert shown["fading"] == pytest.approx(radius)


def test_the_spectral_radius_is_the_largest_eigenvalue():
    values = torch.linalg.eigvals(Cell(0.7).recurrent.weight.detach()).abs()
    np.testing.assert_allclose(values, 0.7, rtol=1e-12)


def test_the_first_step_contributes_zero_to_the_recurrent_matrix_and_is_not_absent():
    time = Time({"matrix": "recurrent", "length": 5})
    assert time.norms[0] == 0.0
    assert all(time.norms[1:] > 0)
    assert len(time.step["recurrent.weight"].uses) == 5


def test_with_radius_zero_only_the_last_step_contributes():
    time = Time({"radius": 0.0, "length": 6})
    assert list(time.norms > 0) == [False] * 5 + [True]
    assert view(time)["headline"].startswith("Only the last of 6 steps")


def test_the_sum_is_what_the_leaf_received():
    time = Time({"length": 12})
    cell = Cell(0.7)
    h = torch.zeros(4, dtype=torch.float64)
    for x in inputs(12):
        h = cell(x, h)
    score(h).backward()
    assert view(time)["sum"] == pytest.approx(cell.input.weight.grad.norm().item(), rel=1e-12)
    assert view(time)["residual"] == 0.0


@pytest.mark.parametrize(
    ("start", "word"),
    [
        ({"radius": 0.5}, ": vanishing"),
        ({"radius": 1.5, "cell": "linear"}, ": exploding"),
        ({"radius": 1.0, "cell": "linear"}, ": neither"),
    ],
)
def test_the_headline_names_what_happens(start, word):
    assert word in view(Time(start))["headline"]


def test_a_state_can_be_saved_and_replayed():
    time = Time({"radius": 1.2})
    time.change(length=7, matrix="recurrent", cell="linear")
    again = Time(json.loads(json.dumps(time.state)))
    assert view(again) == view(time)
    time.reset()
    assert time.state["length"] == 20


def test_the_focus_stays_within_the_length():
    time = Time({"focus": 18})
    time.change(length=5)
    assert time.state["focus"] == 5


def test_the_axis_has_room_for_all_but_zeros():
    assert decades([0.0, 3e-7, 0.2]) == [-7, 1]
    assert decades([1.0, 5e11]) == [-1, 12]
    assert fading([0.0, 0.0]) is None


@pytest.mark.parametrize(
    ("start", "line"),
    [
        ({"length": 41}, "give a number from 2 to 40"),
        ({"cell": "relu"}, "known: 'tanh', 'linear'"),
        ({"matrix": "inputs"}, "did you mean 'input'?"),
        ({"radius": "big"}, "give a number from 0 to 2"),
    ],
)
def test_what_a_state_cannot_be_is_said(start, line):
    with pytest.raises(InvalidArgumentError) as raised:
        Time(start)
    assert raised.value.do == line
    assert raised.value.where == "gradflow.playground.time"
