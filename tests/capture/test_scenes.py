"""The laws over the scenes of the zoo: real digits, real optimizers, ordinary loops."""

from itertools import islice

import numpy as np
import pytest
import torch

import gradflow
from gradflow import zoo
from tests import laws

ENDS = {"triplet": "", "contrastive": "fc1"}  # the module whose outputs end the branches
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.2, weight_decay=1e-2),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3, weight_decay=1e-2),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=1e-2),
}


def in_dtype(batch, dtype):
    return tuple(t.to(dtype) if t.is_floating_point() else t for t in batch)


def train_step(scene, model, optimizer, batch):
    optimizer.zero_grad()
    loss, scalars = scene.loss(model, batch)
    loss.backward()
    optimizer.step()
    return loss, scalars


@pytest.mark.parametrize("name", ENDS)
def test_contributions_equal_the_two_stage_oracle_bit_for_bit(name):
    scene = zoo.scene(name)
    model = scene.build()
    optimizer = OPTIMIZERS["adam"](model.parameters())
    with gradflow.watch(model, optimizer, branches=scene.branches, keep="tensors") as flow:
        for batch in islice(scene.batches(seed=0, size=8), 5):
            truth = laws.two_stage(
                model, lambda m, b=batch: scene.loss(m, b)[0], ENDS[scene.name], scene.branches
            )
            loss, scalars = train_step(scene, model, optimizer, batch)
            flow.log(loss=loss, **scalars)
            assert_is(flow.recording.last, truth, scene.branches)
    assert len(flow.recording) == 5
    assert set(flow.recording.last.scalars) >= {"loss"}


def assert_is(step, truth, branches):
    assert step.branches == branches
    laws.assert_gradient_conserved(step)
    for p in step:
        laws.assert_gram_tells_the_tensors(p)
        assert p.contributors == branches
        for branch in branches:
            expected = truth[branch][p.fqn].numpy()
            np.testing.assert_array_equal(p.contribution(branch), expected, err_msg=f"{branch} {p.fqn}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", ENDS)
def test_delta_is_conserved_over_fifty_steps(name, optimizer, dtype):
    if name == "contrastive" and dtype == torch.float64 and optimizer in ("sgd", "nesterov"):
        steps = 10  # the large dense layer: a slice is enough, the rules are the same
    else:
        steps = 50
    torch.manual_seed(0)
    scene = zoo.scene(name)
    model = scene.build().to(dtype)
    opt = OPTIMIZERS[optimizer](model.parameters())
    with gradflow.watch(model, opt, branches=scene.branches, keep="tensors", last=1) as flow:
        for batch in islice(scene.batches(seed=1, size=4), steps):
            before = laws.copies(model)
            train_step(scene, model, opt, in_dtype(batch, dtype))
            laws.assert_delta_conserved(flow.recording.last, before, laws.copies(model), dtype)


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
@pytest.mark.parametrize("name", ENDS)
def test_training_is_bitwise_the_same_with_and_without(name, optimizer):
    def run(watched):
        torch.manual_seed(0)
        scene = zoo.scene(name)
        model = scene.build()
        opt = OPTIMIZERS[optimizer](model.parameters())
        flow = gradflow.watch(model, opt, branches=scene.branches) if watched else None
        losses = []
        for batch in islice(scene.batches(seed=0, size=4), 20):
            losses.append(train_step(scene, model, opt, batch)[0])
        if flow is not None:
            assert len(flow.recording) == 20
            flow.close()
        return laws.state_of(model, [opt], losses)

    laws.assert_bitwise_equal(run(True), run(False))
