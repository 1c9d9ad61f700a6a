"""The laws over every scene of the zoo, with its own optimizers, as a learner would watch it."""

from itertools import islice

import numpy as np
import pytest
import torch

import gradflow
from gradflow import zoo
from tests import laws


def run(scene, watched, steps=3, **options):
    torch.manual_seed(0)
    model = scene.build()
    optimizers = scene.optimizers(model)
    flow = None
    if watched:
        flow = gradflow.watch(
            model, optimizers, branches=scene.watch_branches(model), stems=scene.stems, **options
        )
    losses, before = [], []
    for batch in islice(scene.batches(seed=0, size=4), steps):
        before.append(weights(model))
        loss, _ = scene.loss(model, batch)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss)
    before.append(weights(model))
    recording = None
    if flow is not None:
        recording = flow.recording
        flow.close()
    return laws.state_of(laws.as_model(model), optimizers, losses), recording, before


def weights(model):
    return laws.copies(laws.as_model(model))


HEAVY = [
    pytest.param(name, marks=pytest.mark.slow) for name in zoo.names(heavy=True) if zoo.scene(name).heavy
]


@pytest.mark.parametrize("name", [*zoo.names(), *HEAVY])
def test_laws_hold_on_every_scene(name):
    scene = zoo.scene(name)
    state, recording, before = run(scene, watched=True, keep="tensors")
    plain, _, _ = run(scene, watched=False)
    laws.assert_bitwise_equal(state, plain)
    assert len(recording) == 3
    for i, step in enumerate(recording):
        laws.assert_gradient_conserved(step)
        laws.assert_delta_conserved(step, before[i], before[i + 1])
        for p in step:
            laws.assert_gram_tells_the_tensors(p)
        assert not [f for f in step.findings if f.code in ("incomplete", "branches-misfit", "edited")]


@pytest.mark.parametrize("name", [n for n in zoo.names() if zoo.scene(n).stems == "report"])
def test_branches_of_every_scene_arrive_somewhere(name):
    scene = zoo.scene(name)
    _, recording, _ = run(scene, watched=True, steps=1)
    step = recording.last
    assert set(scene.branches) <= set(step.branches)
    arrived = {name for p in step for name in p.contributors}
    absent = set(scene.branches) - arrived
    assert absent == ({"view 2"} if name == "simsiam_one_sided" else set())
    shared = [p for p in step if len(set(p.contributors) & set(scene.branches)) > 1]
    assert shared or name in ("twins", "simsiam_one_sided")


def test_layer_and_model_are_sums_over_their_parameters():
    _, recording, _ = run(zoo.scene("triplet"), watched=True, steps=1, keep="tensors")
    step = recording.last
    whole = step.layer("")
    for a in whole.contributors:
        rows = [p.contribution(a).astype(np.float64).ravel() for p in step]
        np.testing.assert_allclose(whole.norms[a], np.linalg.norm(np.concatenate(rows)), rtol=1e-12)
