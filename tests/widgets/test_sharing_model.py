"""Shared, copied and averaged encoders, against plain loops that know nothing of gradflow."""

import json

import numpy as np
import pytest
import torch

from gradflow.errors import InvalidArgumentError
from gradflow.widgets.playground.sharing_model import MARGIN, START, Sharing, triplets
from gradflow.widgets.playground.sharing_state import BRANCHES, MODES
from gradflow.widgets.playground.sharing_view import view

OPTIMIZERS = {
    "SGD": lambda ws: torch.optim.SGD(ws, lr=0.1),
    "momentum": lambda ws: torch.optim.SGD(ws, lr=0.1, momentum=0.9),
    "Adam": lambda ws: torch.optim.Adam(ws, lr=0.1),
}


def gradients(weights):
    """The loss, and each branch's gradient through a leaf of its own."""
    leaves = [w.detach().clone().requires_grad_() for w in weights]
    a, p, n = (x @ leaf.T for x, leaf in zip(triplets().values(), leaves, strict=True))
    value = ((a - p).norm(dim=1) - (a - n).norm(dim=1) + MARGIN).clamp(min=0).mean()
    return value.item(), torch.autograd.grad(value, leaves)


def plainly(mode, steps, optimizer):
    """Train with gradients put in by hand: the sum, each its own, or the mean."""
    count = 1 if mode == "shared" else 3
    weights = [torch.tensor(START, dtype=torch.float64, requires_grad=True) for _ in range(count)]
    loop = OPTIMIZERS[optimizer](weights)
    for _ in range(steps):
        _, parts = gradients((weights * 3)[:3])
        means = [sum(parts) / 3] * 3
        for w, g in zip(
            weights, {"shared": [sum(parts)], "copied": parts, "averaged": means}[mode], strict=True
        ):
            w.grad = g.clone()
        loop.step()
    return [w.detach().numpy() for w in (weights * 3)[:3]]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("mode", MODES)
def test_weights_are_those_of_a_plain_loop(mode, optimizer):
    sharing = Sharing({"mode": mode, "optimizer": optimizer, "steps": 6})
    for b, expected in zip(BRANCHES, plainly(mode, 6, optimizer), strict=True):
        np.testing.assert_allclose(sharing.moment.weights[b], expected, rtol=1e-6, atol=1e-9)


def test_contributions_of_the_last_update_are_those_of_autograd_branch_by_branch():
    for mode in MODES:
        sharing = Sharing({"mode": mode, "steps": 5})
        before = sharing.trainings[mode].at(4).weights
        _, expected = gradients([torch.tensor(before[b]) for b in BRANCHES])
        for i, b in enumerate(BRANCHES):
            seen = sharing.moment.step["weight" if mode == "shared" else f"{i}.weight"]
            np.testing.assert_allclose(seen.contribution(b), expected[i], rtol=1e-9, atol=1e-12)


def test_a_copy_gets_nothing_from_the_other_branches():
    rows = view(Sharing({"mode": "copied", "steps": 3}))["updates"]
    for row in rows:
        assert {b for b, part in row["parts"].items() if part is not None} == {row["owner"]}
    (row,) = view(Sharing({"mode": "shared", "steps": 3}))["updates"]
    assert all(part > 0 for part in row["parts"].values())


def test_one_weight_cannot_drift_and_copies_do():
    sharing = Sharing({"steps": 20})
    drifts = {mode: [m.drift for m in t.moments] for mode, t in sharing.trainings.items()}
    assert set(drifts["shared"]) == set(drifts["averaged"]) == {0.0}
    assert drifts["copied"][0] == 0.0
    assert np.all(np.diff(drifts["copied"]) > 0)


def test_the_mean_moves_a_third_as_far_as_the_sum_under_plain_descent():
    sharing = Sharing({"steps": 1})
    start = np.array(START)
    moved = {mode: t.at(1).weights["anchor"] - start for mode, t in sharing.trainings.items()}
    np.testing.assert_allclose(3 * moved["averaged"], moved["shared"], rtol=1e-9)


def test_adam_hides_the_difference_of_mean_and_sum():
    sharing = Sharing({"steps": 5, "optimizer": "Adam"})
    one, other = (sharing.trainings[mode].at(5).weights["anchor"] for mode in ("shared", "averaged"))
    np.testing.assert_allclose(one, other, rtol=1e-5)


def test_spots_and_outlines_are_the_matrix_times_the_point():
    shown = view(Sharing({"probe": [0.5, -1.5]}))
    for b in BRANCHES:
        (p, q), (r, s) = shown["weights"][b]
        assert shown["spots"][b] == pytest.approx([0.5 * p - 1.5 * q, 0.5 * r - 1.5 * s])
        corners = [0, 0, p, r, p + q, r + s, q, s]
        assert np.ravel(shown["outlines"][b]) == pytest.approx(corners)


def test_one_can_look_back_and_on_without_training_anew():
    sharing = Sharing({"steps": 6})
    there = sharing.moment
    sharing.change(steps=2)
    sharing.step(4)
    assert sharing.moment is there
    sharing.change(mode="shared", probe=[0, 1])
    assert sharing.trainings["copied"].at(6) is there


def test_a_state_can_be_saved_and_replayed():
    sharing = Sharing({"optimizer": "momentum", "steps": 3})
    sharing.change(mode="averaged", steps=5, probe=[0.1, 0.2])
    again = Sharing(json.loads(json.dumps(sharing.state)))
    assert again.state == sharing.state
    assert view(again) == view(sharing)
    again.reset()
    assert again.state == sharing.state
    sharing.reset()
    assert sharing.state["steps"] == 3


def test_looking_on_ends_at_the_last_step():
    sharing = Sharing({"steps": 98})
    sharing.step(10)
    assert sharing.state["steps"] == 100


@pytest.mark.parametrize(
    ("steps", "mode", "words"),
    [
        (0, "copied", "equal at the start"),
        (4, "copied", "drifted"),
        (4, "averaged", "stay equal"),
        (4, "shared", "sum of three"),
    ],
)
def test_the_headline_tells_what_is_seen(steps, mode, words):
    assert words in view(Sharing({"steps": steps, "mode": mode}))["headline"]


@pytest.mark.parametrize(
    ("start", "line"),
    [
        ({"mode": "share"}, "did you mean 'shared'?"),
        ({"steps": 101}, "give a number from 0 to 100"),
        ({"optimiser": "SGD"}, "did you mean 'optimizer'?"),
        ({"probe": "ab"}, "give a pair, such as [0.5, -1.0]"),
    ],
)
def test_what_a_state_cannot_be_is_said(start, line):
    with pytest.raises(InvalidArgumentError) as raised:
        Sharing(start)
    assert raised.value.do == line
    assert raised.value.where == "gradflow.playground.sharing"
