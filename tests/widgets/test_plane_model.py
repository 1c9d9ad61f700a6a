"""The embedding plane's numbers, against formulas by hand and autograd branch by branch."""

import json

import numpy as np
import pytest
import torch

from gradflow.errors import InvalidArgumentError
from gradflow.widgets.playground.plane_model import Plane
from gradflow.widgets.playground.plane_state import BRANCHES
from gradflow.widgets.playground.plane_view import condition, view

LOSSES = ("triplet", "contrastive", "infonce")
FAR = (3.5, 3.5)


def unit(v):
    return v / np.hypot(*v)


def by_hand(state):
    """Gradients of the loss at the three embeddings, written out on paper; numpy only."""
    w = np.array(state["weight"])
    a, p, n = (w @ np.array(state["points"][b]) for b in BRANCHES)
    near, far, m = np.hypot(*(a - p)), np.hypot(*(a - n)), state["margin"]
    if state["loss"] == "triplet":
        on = float(near - far + m > 0)
        return on * (unit(a - p) - unit(a - n)), -on * unit(a - p), on * unit(a - n)
    if state["loss"] == "contrastive":
        push = -2 * max(0.0, m - far) * unit(a - n)
        return 2 * (a - p) + push, -2 * (a - p), -push
    t = state["temperature"]
    cos = lambda u, v: unit(u) @ unit(v)  # noqa: E731
    slope = lambda u, v: (unit(v) - cos(u, v) * unit(u)) / np.hypot(*u)  # noqa: E731  d cos(u, v) / d u
    wrong = 1 / (1 + np.exp((cos(a, p) - cos(a, n)) / t)) / t  # the softmax of the negative, over t
    return wrong * (slope(a, n) - slope(a, p)), -wrong * slope(p, a), wrong * slope(n, a)


def alone(state):
    """Contributions by autograd, each branch through a leaf of its own."""
    leaves = [torch.tensor(state["weight"], dtype=torch.float64, requires_grad=True) for _ in BRANCHES]
    x = [torch.tensor(state["points"][b], dtype=torch.float64) for b in BRANCHES]
    a, p, n = (leaf @ point for leaf, point in zip(leaves, x, strict=True))
    if state["loss"] == "infonce":
        u = torch.nn.functional.normalize(torch.stack([a, p, n]), dim=1)
        logits = (u[:1] @ u[1:].T) / state["temperature"]
        value = torch.nn.functional.cross_entropy(logits, torch.tensor([0]))
    else:
        near, far = torch.dist(a, p), torch.dist(a, n)
        m = state["margin"]
        parts = (near - far + m).clamp(min=0), near**2 + (m - far).clamp(min=0) ** 2
        value = parts[LOSSES.index(state["loss"])]
    return value.item(), dict(zip(BRANCHES, torch.autograd.grad(value, leaves), strict=True))


@pytest.fixture(params=LOSSES)
def plane(request):
    return Plane({"loss": request.param})


@pytest.fixture(params=range(6))
def anywhere(request, plane):
    """Inputs and weight drawn at random."""
    rng = np.random.default_rng(request.param)
    points = {b: rng.uniform(-2, 2, 2).tolist() for b in BRANCHES}
    plane.change(points=points, weight=rng.normal(size=(2, 2)).tolist(), margin=float(rng.uniform(0.1, 3)))
    return plane


def test_contributions_are_those_of_autograd_branch_by_branch(anywhere):
    value, expected = alone(anywhere.state)
    seen = anywhere.outcome.seen
    assert anywhere.outcome.loss == pytest.approx(value, rel=1e-12, abs=1e-15)
    for b in BRANCHES:
        np.testing.assert_allclose(seen.contribution(b), expected[b], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(seen.total, sum(expected.values()), rtol=1e-9, atol=1e-12)
    assert seen.residual == 0.0


def test_pulls_and_contributions_are_those_of_the_formula_by_hand(anywhere):
    state, outcome = anywhere.state, anywhere.outcome
    for b, slope in zip(BRANCHES, by_hand(state), strict=True):
        np.testing.assert_allclose(outcome.pulls[b], -slope, rtol=1e-9, atol=1e-12)
        expected = np.outer(slope, state["points"][b])
        np.testing.assert_allclose(outcome.seen.contribution(b), expected, rtol=1e-9, atol=1e-12)


def test_plain_descent_moves_the_matrix_by_the_rate_times_the_sum(anywhere):
    before, rate = np.array(anywhere.state["weight"]), anywhere.state["rate"]
    _, expected = alone(anywhere.state)
    anywhere.step()
    after = before - rate * sum(g.numpy() for g in expected.values())
    np.testing.assert_allclose(anywhere.state["weight"], after, rtol=1e-9, atol=1e-12)
    assert anywhere.state["steps"] == 1


@pytest.mark.parametrize("optimizer", ["SGD", "momentum", "Adam"])
def test_many_steps_are_those_of_a_plain_loop_that_keeps_its_optimizer(plane, optimizer):
    plane.change(optimizer=optimizer)
    w = torch.tensor(plane.state["weight"], dtype=torch.float64, requires_grad=True)
    known = {"SGD": {}, "momentum": {"momentum": 0.9}, "Adam": {}}[optimizer]
    loop = (torch.optim.Adam if optimizer == "Adam" else torch.optim.SGD)(
        [w], lr=plane.state["rate"], **known
    )
    for _ in range(7):
        w.grad = sum(alone({**plane.state, "weight": w.tolist()})[1].values())
        loop.step()
    plane.step(7)
    np.testing.assert_allclose(plane.state["weight"], w.detach(), rtol=1e-7, atol=1e-10)


def test_a_stopped_branch_is_absent_and_a_dead_one_is_zero():
    plane = Plane()
    plane.stop("positive", stopped=True)
    assert plane.outcome.seen.absent == ("positive",)
    assert [condition(plane.outcome, b) for b in BRANCHES] == ["pulls", "absent", "pulls"]
    assert "positive" not in plane.outcome.pulls
    plane.reset()
    plane.move("negative", FAR)
    assert plane.outcome.seen.absent == ()
    assert [condition(plane.outcome, b) for b in BRANCHES] == ["zero"] * 3
    assert not plane.outcome.seen.total.any()


def test_stopping_one_branch_leaves_what_the_others_bring(plane):
    _, expected = alone(plane.state)
    plane.stop("anchor", stopped=True)
    for b in ("positive", "negative"):
        np.testing.assert_allclose(plane.outcome.seen.contribution(b), expected[b], rtol=1e-9, atol=1e-12)


def test_with_every_branch_stopped_nothing_moves(plane):
    for b in BRANCHES:
        plane.stop(b, stopped=True)
    before = plane.state
    plane.step(3)
    assert plane.state == before
    shown = view(plane)
    assert set(shown["conditions"].values()) == {"absent"}
    assert shown["entries"][0] == {
        "name": "W[0,0]",
        "parts": dict.fromkeys(BRANCHES),
        "sum": None,
        "update": None,
    }
    assert "nothing can be learnt" in shown["headline"]


@pytest.mark.parametrize("kind", ["triplet", "contrastive"])
@pytest.mark.parametrize("just", [1 - 1e-6, 1 + 1e-6])
def test_the_hinge_dies_at_the_radius_that_is_shaded(kind, just):
    plane = Plane({"loss": kind, "margin": 0.7})
    anchor = plane.outcome.embeddings["anchor"]
    plane.place("negative", anchor + just * plane.outcome.radius * np.array([0.6, 0.8]))
    assert (condition(plane.outcome, "negative") == "zero") == (just > 1)
    assert ("dead" in view(plane)["headline"]) == (just > 1)


def test_infonce_has_no_hinge():
    assert Plane({"loss": "infonce"}).outcome.radius is None


def test_an_embedding_lands_where_it_is_put(plane):
    plane.place("negative", [0.4, -1.1])
    np.testing.assert_allclose(plane.outcome.embeddings["negative"], [0.4, -1.1], atol=1e-12)
    np.testing.assert_allclose(
        np.array(plane.state["weight"]) @ plane.state["points"]["negative"], [0.4, -1.1], atol=1e-12
    )


def test_a_flat_encoder_leaves_the_embeddings_where_they_are():
    plane = Plane({"weight": [[1.0, 1.0], [1.0, 1.0]]})
    before = plane.state
    plane.place("negative", [1.0, -1.0])
    assert not plane.can_place
    assert plane.state == before


def test_a_state_can_be_printed_saved_and_replayed(plane):
    plane.change(optimizer="Adam", margin=2.0, stopped=["anchor"])
    plane.move("positive", [0.2, 0.9])
    plane.step(3)
    again = Plane(json.loads(json.dumps(plane.state)))
    assert again.state == plane.state
    plane.step(2)
    again.step(2)
    assert again.state == plane.state
    assert json.loads(json.dumps(view(again)))["entries"] == view(plane)["entries"]


def test_reset_goes_back_to_the_start(plane):
    before = plane.state
    plane.move("anchor", [1, 1])
    plane.step(4)
    assert plane.trail
    plane.reset()
    assert plane.state == before
    assert not plane.trail


def test_a_new_optimizer_remembers_nothing():
    plane = Plane({"optimizer": "momentum"})
    plane.step(2)
    assert plane.state["memory"]
    assert "history" in view(plane)["shares"]
    plane.change(optimizer="Adam")
    assert plane.state["memory"] == {}


def test_inputs_stay_within_reach():
    plane = Plane()
    plane.move("anchor", [100, -100])
    assert plane.state["points"]["anchor"] == [4.0, -4.0]


@pytest.mark.parametrize(
    ("start", "line"),
    [
        ({"los": "triplet"}, "did you mean 'loss'?"),
        ({"loss": "tripled"}, "did you mean 'triplet'?"),
        ({"points": {"pos": [0, 0]}}, "did you mean 'positive'?"),
        ({"points": {"anchor": [0, float("nan")]}}, "give finite numbers"),
        ({"points": {"anchor": [0, float("inf")]}}, "give finite numbers"),
        ({"points": {"anchor": 3}}, "give a pair, such as [0.5, -1.0]"),
        ({"margin": 9}, "give a number from 0 to 3"),
        ({"steps": 0.5}, "give a whole number"),
        ({"weight": [[1, 2], [3]]}, "give a pair, such as [0.5, -1.0]"),
        ({"weight": [[1, 2], [3, 4], [5, 6]]}, "give two rows of two"),
    ],
)
def test_what_a_state_cannot_be_is_said(start, line):
    with pytest.raises(InvalidArgumentError) as raised:
        Plane(start)
    assert raised.value.do == line
    assert raised.value.where == "gradflow.playground.plane"
