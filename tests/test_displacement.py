"""What each contributor moved over a run, against the weights themselves and numbers made by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import gradflow
from gradflow import storage
from gradflow.displacement import displacement
from gradflow.errors import InvalidArgumentError, NoSuchParameterError, NotKeptError
from gradflow.recording import Recording
from tests import records

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
}


def trained(optimizer, steps=12, keep="tensors", **how):
    """A small triplet run in float64: (its recording, the weights before and after each step)."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()
    trace = [[p.detach().clone() for p in model.parameters()]]
    moving = OPTIMIZERS[optimizer](model.parameters())
    with gradflow.watch(model, moving, branches=records.PATHS, keep=keep, **how) as flow:
        for _ in range(steps):
            a, p, n = (model(torch.randn(6, 4, dtype=torch.float64)) for _ in range(3))
            moving.zero_grad()
            ((a - p).pow(2).sum(1) - (a - n).pow(2).sum(1) + 3).clamp_min(0).mean().backward()
            moving.step()
            trace.append([p.detach().clone() for p in model.parameters()])
    flat = np.array([torch.cat([p.ravel() for p in at]).numpy() for at in trace])
    return flow.recording, flat


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_race_sums_to_how_far_the_weights_really_came(optimizer):
    recording, weights = trained(optimizer)
    run = displacement(recording)
    goal = weights[-1] - weights[0]
    assert run.distance == pytest.approx(np.linalg.norm(goal), rel=1e-12)
    assert run.whole_path == pytest.approx(np.linalg.norm(np.diff(weights, axis=0), axis=1).sum(), rel=1e-12)
    came = (weights[1:] - weights[0]) @ goal / np.linalg.norm(goal)
    np.testing.assert_allclose(run.trail.progress, came, rtol=0, atol=1e-12 * run.distance)
    np.testing.assert_allclose(sum(run.race.values()), came, rtol=0, atol=1e-9 * run.distance)
    assert sum(run.shares.values()) == pytest.approx(1.0, abs=1e-9)


def test_plain_sgd_moves_by_the_contributions():
    """Without momentum or decay a part is -lr times the contribution: an oracle beside the parts."""
    recording, weights = trained("sgd")
    run = displacement(recording)
    goal = (weights[-1] - weights[0]) / np.linalg.norm(weights[-1] - weights[0])
    for name in records.PATHS:
        moves = [-0.05 * np.concatenate([p.contribution(name).ravel() for p in step]) for step in recording]
        assert run.path[name] == pytest.approx(sum(np.linalg.norm(m) for m in moves))
        assert run.net[name] == pytest.approx(np.linalg.norm(sum(moves)))
        np.testing.assert_allclose(run.race[name], np.cumsum(moves, axis=0) @ goal, atol=1e-12)


@pytest.mark.parametrize("where", ["", "2", "0.weight"])
def test_the_path_is_at_least_the_net(where):
    run = displacement(trained("adam")[0], where)
    for name in run.contributors:
        assert run.net[name] <= run.path[name] * (1 + 1e-12)
    assert run.distance <= run.whole_path <= sum(run.path.values())


def test_a_layer_goes_its_own_way():
    recording, weights = trained("adam")
    goal = (weights[-1] - weights[0])[: 4 * 5 + 5]
    assert displacement(recording, "0").distance == pytest.approx(np.linalg.norm(goal))


def test_inner_products_tell_path_lengths_and_no_more():
    kept, products = (displacement(records.recording(4, keep=keep)) for keep in (True, False))
    assert products.path == pytest.approx(kept.path)
    assert products.whole_path == pytest.approx(kept.whole_path)
    assert products.trail is None
    for wanted in ("net", "race", "distance", "shares"):
        with pytest.raises(NotKeptError) as told:
            getattr(products, wanted)
        lines = str(told.value).splitlines()
        assert "'conv1.weight', 'conv1.bias', 'fc.weight'" in lines[0]
        assert lines[1] == f"  where: displacement(recording, '').{wanted}"
        assert 'keep="tensors"' in lines[2]


def test_where_some_tensors_were_kept_it_says_which():
    recording = trained("sgd", steps=2, keep=["0.weight"])[0]
    assert displacement(recording, "0.weight").distance > 0
    with pytest.raises(NotKeptError, match=r"or ask for '0\.weight'"):
        _ = displacement(recording).race


def test_a_file_tells_the_same(tmp_path):
    recording = trained("adam", steps=3)[0]
    again = displacement(storage.load(recording.save(tmp_path / "run.gradflow")))
    assert again.race["anchor"].tolist() == displacement(recording).race["anchor"].tolist()
    assert again.path == displacement(recording).path


def test_steps_that_went_by_unwatched_are_counted():
    run = displacement(trained("sgd", steps=9, every=4)[0])
    assert run.steps == (0, 4, 8)
    assert run.unwatched == 6


def test_weights_that_come_back_have_no_direction():
    there = records.step(0)
    parts = {f: p.delta for f, p in there.parameters.items()}
    back = {
        f: replace(d, parts={n: -a for n, a in d.parts.items()}, tensor=-d.tensor) for f, d in parts.items()
    }
    moved = {f: replace(p, delta=back[f]) for f, p in there.parameters.items()}
    run = displacement(Recording([there, replace(there, index=1, parameters=moved)]))
    assert run.distance == 0.0
    assert np.isnan(run.race["anchor"]).all()
    assert run.whole_path > 0


def test_it_says_what_is_wrong():
    with pytest.raises(NoSuchParameterError, match=r"'conv9\.weight'") as told:
        displacement(records.recording(2), "conv9.weight")
    assert "did you mean 'conv1.weight'" in str(told.value)
    step = records.step()
    still = replace(step, parameters={f: replace(p, delta=None) for f, p in step.parameters.items()})
    for recording in (Recording([still]), Recording()):
        with pytest.raises(InvalidArgumentError, match="no optimizer moved the model"):
            displacement(recording)
