"""Prepared models and optimizers of accelerate: mixed precision, accumulation, clipping."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from gradflow.errors import InvalidArgumentError
from gradflow.integrations import accelerate
from tests import laws
from tests.integrations.triplets import NAMES, batches, encoder, loss_of


def train(watched, *, clips=False, steps=4, options=None, **asked):
    accelerator = Accelerator(cpu=True, **asked)
    net = encoder()
    model, optimizer = accelerator.prepare(net, torch.optim.Adam(net.parameters(), lr=0.01))
    flow = None
    if watched:
        flow = accelerate.watch(
            accelerator, model, optimizer, branches=NAMES, keep="tensors", **(options or {})
        )
    losses, before = [], [laws.copies(net)]
    for batch in batches(steps):
        with accelerator.accumulate(model):
            loss = loss_of(model, batch)
            accelerator.backward(loss)
            if clips and accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 0.01)
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.detach())
        if accelerator.sync_gradients:
            before.append(laws.copies(net))
    if flow is not None:
        flow.close()
    return laws.state_of(net, [optimizer.optimizer], losses), flow, before, net


CASES = [
    pytest.param({}, id="plain"),
    pytest.param({"gradient_accumulation_steps": 2}, id="accumulated"),
    pytest.param({"mixed_precision": "bf16"}, id="bf16"),
    pytest.param({"gradient_accumulation_steps": 2, "clips": True}, id="accumulated and clipped"),
]


@pytest.mark.parametrize("options", CASES)
def test_prepared_training_is_conserved_and_the_same_to_the_last_bit(options):
    state, flow, before, _ = train(True, **options)
    laws.assert_bitwise_equal(state, train(False, **options)[0])
    assert len(flow.recording) == (2 if "gradient_accumulation_steps" in options else 4)
    for i, step in enumerate(flow.recording):
        laws.assert_delta_conserved(step, before[i], before[i + 1])
        if "mixed_precision" not in options:  # summed in half precision, a residual is told
            laws.assert_gradient_conserved(step)
        assert step.branches == NAMES
        assert {p.scale < 1 for p in step} == {"clips" in options}
        for p in step:
            assert "edited" not in p.contributors


def test_contributions_are_those_of_the_oracle_over_the_micro_batches():
    _, flow, before, _ = train(True, gradient_accumulation_steps=2)
    for i, step in enumerate(flow.recording):
        twin = encoder()
        twin.load_state_dict(before[i])
        truths = [
            laws.two_stage(twin, lambda net, b=b: loss_of(net, b) / 2, "", NAMES)
            for b in batches(4)[2 * i : 2 * i + 2]
        ]
        for p in step:
            for name in NAMES:
                expected = sum(truth[name][p.fqn] for truth in truths).numpy()
                np.testing.assert_allclose(p.contribution(name), expected, rtol=1e-5, atol=1e-7)


def test_clipping_what_is_not_yet_summed_shows_as_edited():
    """accelerate clips whenever it is told to: without `sync_gradients` also half of a sum."""
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    net = encoder()
    model, optimizer = accelerator.prepare(net, torch.optim.SGD(net.parameters(), lr=0.01))
    with accelerate.watch(accelerator, model, optimizer, branches=NAMES) as flow:
        for batch in batches(2):
            with accelerator.accumulate(model):
                accelerator.backward(loss_of(model, batch))
                accelerator.clip_grad_norm_(model.parameters(), 0.01)
                optimizer.step()
    assert "edited" in [finding.code for finding in flow.recording.last.findings]


def test_nothing_is_left_behind():
    accelerator = Accelerator(cpu=True)
    net = encoder()
    model, optimizer = accelerator.prepare(net, torch.optim.SGD(net.parameters(), lr=0.01))
    plain = laws.hook_counts(net, [optimizer.optimizer])
    accelerate.watch(accelerator, model, [optimizer], branches={"first": "1", "last": "3"}).close()
    assert laws.hook_counts(net, [optimizer.optimizer]) == plain


def test_an_optimizer_that_was_not_prepared_is_its_own_inside():
    optimizer = torch.optim.SGD(encoder().parameters(), lr=0.1)
    assert accelerate.bare(optimizer) is optimizer


def test_a_missing_accelerator_is_told():
    net = encoder()
    with pytest.raises(InvalidArgumentError) as error:
        accelerate.watch(net, net, torch.optim.SGD(net.parameters(), lr=0.1))
    assert "is no accelerate.Accelerator" in error.value.what
