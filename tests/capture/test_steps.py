"""When a step ends, what counts towards it, and what follows ``.grad``."""

import numpy as np
import pytest
import torch

import gradflow
from tests import laws
from tests.capture.test_branches import NAMES, encoder, triple, triplet


def sgd(net, **options):
    return torch.optim.SGD(net.parameters(), lr=0.1, **options)


def loss_of(net, seed=1):
    return triplet(*map(net, triple(seed)))


def train(net, optimizer, flow=None, steps=3, **log):
    for i in range(steps):
        optimizer.zero_grad()
        loss_of(net, seed=i).backward()
        optimizer.step()
        if flow is not None and log:
            flow.log(**log)


def test_micro_batches_add_up_to_one_step():
    net = encoder()
    opt = sgd(net)
    truths = [laws.two_stage(net, lambda m, s=s: triplet(*map(m, triple(s))), "", NAMES) for s in range(4)]
    with gradflow.watch(net, opt, branches=NAMES, keep="tensors") as flow:
        opt.zero_grad()
        for seed in range(4):
            loss_of(net, seed).backward()
        total = {n: p.grad.clone() for n, p in net.named_parameters()}
        opt.step()
    assert len(flow.recording) == 1
    step = flow.recording.last
    laws.assert_gradient_conserved(step)
    for p in step:
        np.testing.assert_array_equal(p.total, total[p.fqn].numpy())
        for name in NAMES:
            expected = sum(truth[name][p.fqn].double() for truth in truths)
            np.testing.assert_allclose(p.contribution(name), expected.numpy(), rtol=1e-5, atol=1e-6)
        assert len(p.uses) == 12


@pytest.mark.proves(row=23, situation="accumulation, and zero_grad between backwards", verdict="exact")
@pytest.mark.parametrize("to_none", [True, False], ids=["to_none", "to_zero"])
def test_gradients_cleared_before_the_step_do_not_count(to_none):
    net = encoder()
    opt = sgd(net)
    with gradflow.watch(net, opt, branches=NAMES, keep="tensors") as flow:
        opt.zero_grad(set_to_none=to_none)
        (1000 * loss_of(net, 1)).backward()
        opt.zero_grad(set_to_none=to_none)
        truth = laws.two_stage(net, lambda m: triplet(*map(m, triple(2))), "", NAMES)
        loss_of(net, 2).backward()
        opt.step()
    assert len(flow.recording) == 1
    for p in flow.recording.last:
        assert p.contributors == NAMES
        for name in NAMES:
            np.testing.assert_array_equal(p.contribution(name), truth[name][p.fqn].numpy())


def test_zeroed_in_place_gradients_are_the_same_as_none():
    records = []
    for to_none in (True, False):
        torch.manual_seed(0)
        net = encoder()
        opt = sgd(net, momentum=0.9)
        with gradflow.watch(net, opt, branches=NAMES, keep="tensors") as flow:
            for i in range(3):
                opt.zero_grad(set_to_none=to_none)
                loss_of(net, i).backward()
                opt.step()
        records.append(flow.recording)
    for one, other in zip(*records, strict=True):
        for p, q in zip(one, other, strict=True):
            assert p.contributors == q.contributors == NAMES
            assert (p.scale, p.total_norm) == (q.scale, q.total_norm)
            np.testing.assert_array_equal(p.total, q.total)


def test_forgotten_zero_grad_shows_as_edited():
    net = encoder()
    opt = sgd(net)
    with gradflow.watch(net, opt, branches=NAMES, keep="tensors") as flow:
        loss_of(net, 1).backward()
        opt.step()
        left = {n: p.grad.clone() for n, p in net.named_parameters()}
        loss_of(net, 2).backward()
        opt.step()
    for p in flow.recording.last:
        assert p.contributors == (*NAMES, "edited")
        np.testing.assert_allclose(p.contribution("edited"), left[p.fqn].numpy(), rtol=1e-4, atol=1e-6)
        assert "edited" in p.delta.contributors


@pytest.mark.proves(row=34, situation="clipping by norm", verdict="exact; parts scaled")
@pytest.mark.parametrize("by", ["norm", "hand"])
def test_clipping_scales_the_parts_and_not_the_contributions(by):
    net = encoder()
    opt = sgd(net)
    truth = laws.two_stage(net, lambda m: triplet(*map(m, triple(1))), "", NAMES)
    with gradflow.watch(net, opt, branches=NAMES, keep="tensors") as flow:
        before = laws.copies(net)
        loss_of(net, 1).backward()
        if by == "norm":
            factor = 0.01 / torch.nn.utils.clip_grad_norm_(net.parameters(), 0.01).item()
        else:
            factor = -0.25
            for p in net.parameters():
                p.grad.mul_(factor)
        opt.step()
    step = flow.recording.last
    laws.assert_gradient_conserved(step)
    laws.assert_delta_conserved(step, before, laws.copies(net))
    for p in step:
        assert p.contributors == NAMES
        assert p.scale == pytest.approx(factor, rel=1e-5)
        for name in NAMES:
            found = truth[name][p.fqn].numpy()
            np.testing.assert_array_equal(p.contribution(name), found)
            np.testing.assert_allclose(p.delta.part(name), -0.1 * factor * found, rtol=1e-5, atol=1e-9)


def test_gradient_changed_by_hand_is_edited():
    net = encoder()
    opt = sgd(net)
    with gradflow.watch(net, opt, branches=NAMES, keep="tensors") as flow:
        before = laws.copies(net)
        loss_of(net, 1).backward()
        net[0].weight.grad.clamp_(-0.01, 0.01)
        net[2].bias.grad += 1.0
        opt.step()
    step = flow.recording.last
    laws.assert_delta_conserved(step, before, laws.copies(net))
    assert step["0.weight"].contributors == (*NAMES, "edited")
    np.testing.assert_allclose(step["2.bias"].contribution("edited"), np.ones(4), atol=1e-6)
    assert step["2.weight"].contributors == NAMES
    assert step["2.bias"].delta.shares["edited"] == pytest.approx(1.0, abs=1e-5)


def test_several_optimizers_without_a_backward_between_are_one_step():
    net = encoder()
    opts = [torch.optim.SGD(net[0].parameters(), lr=0.1), torch.optim.Adam(net[2].parameters(), lr=0.01)]
    with gradflow.watch(net, opts, branches=NAMES) as flow:
        for seed in range(3):
            net.zero_grad()
            loss_of(net, seed).backward()
            for opt in opts:
                opt.step()
    assert len(flow.recording) == 3
    assert [p.delta.rule for p in flow.recording.last] == ["SGD", "SGD", "Adam", "Adam"]


def test_alternating_optimizers_are_steps_of_their_own():
    net = encoder()
    opts = [torch.optim.SGD(net[0].parameters(), lr=0.1), torch.optim.SGD(net[2].parameters(), lr=0.1)]
    with gradflow.watch(net, opts, branches=NAMES) as flow:
        for seed in range(4):
            net.zero_grad()
            loss_of(net, seed).backward()
            opts[seed % 2].step()
        assert len(flow.recording) == 4
    moved = [[p.fqn for p in step if p.delta is not None] for step in flow.recording]
    assert moved == [["0.weight", "0.bias"], ["2.weight", "2.bias"]] * 2


def test_two_optimizers_over_one_parameter_add_their_parts():
    net = encoder()
    opts = [sgd(net), sgd(net)]
    with gradflow.watch(net, opts, branches=NAMES, keep="tensors") as flow:
        before = laws.copies(net)
        loss_of(net).backward()
        for opt in opts:
            opt.step()
        laws.assert_delta_conserved(flow.recording.last, before, laws.copies(net))


def test_without_an_optimizer_flow_step_ends_a_step():
    net = encoder()
    with gradflow.watch(net, branches=NAMES) as flow:
        for seed in range(2):
            net.zero_grad()
            loss_of(net, seed).backward()
            flow.step()
    assert len(flow.recording) == 2
    assert flow.recording.last["0.weight"].delta is None


def test_every_kth_step_is_watched_and_nothing_is_planted_between():
    net = encoder()
    opt = sgd(net, momentum=0.9)
    plain = laws.hook_counts(net)
    with gradflow.watch(net, opt, branches=NAMES, every=3) as flow:
        for i in range(7):
            is_plain = laws.hook_counts(net) == plain
            assert is_plain == (i % 3 != 0)
            train(net, opt, steps=1)
        assert [step.index for step in flow.recording] == [0, 3, 6]
        assert "history" in flow.recording.last["0.weight"].delta.contributors
        assert "history" in [finding.code for finding in flow.recording.last.findings]
        assert "history" not in [finding.code for finding in flow.recording[0].findings]


def test_last_keeps_the_newest_steps():
    net = encoder()
    opt = sgd(net)
    with gradflow.watch(net, opt, branches=NAMES, last=2) as flow:
        train(net, opt, steps=5)
    assert [step.index for step in flow.recording] == [3, 4]


def test_pause_and_resume():
    net = encoder()
    opt = sgd(net)
    plain = laws.hook_counts(net)
    with gradflow.watch(net, opt, branches=NAMES) as flow:
        train(net, opt, steps=1)
        flow.pause()
        assert laws.hook_counts(net) == plain
        train(net, opt, steps=2)
        flow.resume()
        train(net, opt, steps=1)
    assert [step.index for step in flow.recording] == [0, 3]


def test_scalars_go_to_the_step_they_belong_to():
    net = encoder()
    opt = sgd(net)
    with gradflow.watch(net, opt, branches=NAMES) as flow:
        for i in range(3):
            opt.zero_grad()
            loss = loss_of(net, i)
            flow.log(loss=loss)
            loss.backward()
            opt.step()
            flow.log(after=i)
    assert [step.scalars["after"] for step in flow.recording] == [0.0, 1.0, 2.0]
    assert all(step.scalars["loss"] > 0 for step in flow.recording)


def test_evaluation_without_gradients_counts_nothing():
    net = encoder()
    opt = sgd(net)
    with gradflow.watch(net, opt, branches=NAMES) as flow:
        for seed in range(2):
            opt.zero_grad()
            with torch.no_grad():
                net(triple()[0])
            loss_of(net, seed).backward()
            with torch.no_grad():
                net(triple()[0])
            opt.step()
    assert all(step.branches == NAMES for step in flow.recording)


@pytest.mark.proves(row=20, situation="autograd.grad before backward", verdict="exact: not counted")
def test_autograd_grad_accumulates_nothing_and_is_not_counted():
    net = encoder()
    opt = sgd(net)
    truth = laws.two_stage(net, lambda m: triplet(*map(m, triple(1))), "", NAMES)
    with gradflow.watch(net, opt, branches=NAMES, keep="tensors") as flow:
        loss = loss_of(net)
        for _ in range(20):
            torch.autograd.grad(loss, [net[0].weight], retain_graph=True)
        loss.backward()
        opt.step()
    step = flow.recording.last
    laws.assert_gradient_conserved(step)
    for name in NAMES:
        found = truth[name]["0.weight"].numpy()
        np.testing.assert_array_equal(step["0.weight"].contribution(name), found)


@pytest.mark.proves(row=19, situation="two backwards, retain_graph", verdict="exact")
def test_two_backwards_through_one_graph_count_twice():
    net = encoder()
    opt = sgd(net)
    truth = laws.two_stage(net, lambda m: triplet(*map(m, triple(1))), "", NAMES)
    with gradflow.watch(net, opt, branches=NAMES, keep="tensors") as flow:
        loss = loss_of(net)
        loss.backward(retain_graph=True)
        loss.backward()
        opt.step()
    step = flow.recording.last
    laws.assert_gradient_conserved(step)
    for name in NAMES:
        found = 2 * truth[name]["2.weight"].numpy()
        np.testing.assert_array_equal(step["2.weight"].contribution(name), found)


def test_parameters_frozen_replaced_and_unfrozen_later():
    net = encoder()
    net[0].weight.requires_grad_(False)
    with gradflow.watch(net, branches=NAMES) as flow:
        loss_of(net).backward()
        flow.step()
        assert "0.weight" not in flow.recording.last.params
        net[0].weight.requires_grad_(True)
        net[2].bias = torch.nn.Parameter(torch.zeros(4))
        net.zero_grad()
        loss_of(net).backward()
        flow.step()
        step = flow.recording.last
    laws.assert_gradient_conserved(step)
    assert step["0.weight"].contributors == step["2.bias"].contributors == NAMES
    assert laws.hook_counts(net) == laws.hook_counts(laws.clean_copy(net))


def test_streaming_to_a_file_records_the_same_as_memory(tmp_path):
    recordings = []
    for to in (None, tmp_path / "run.gradflow"):
        torch.manual_seed(0)
        net = encoder()
        opt = torch.optim.Adam(net.parameters())
        with gradflow.watch(net, opt, branches=NAMES, keep=["2.*"], to=to) as flow:
            train(net, opt, flow, steps=3, after=1.0)
            assert len(flow.recording) == 3
            assert flow.recording[0].index == 0
        recordings.append(flow.recording)
    in_memory, in_file = recordings[0], gradflow.load(tmp_path / "run.gradflow")
    assert len(in_file) == len(recordings[1]) == 3
    for one, other in zip(in_memory, in_file, strict=True):
        assert one.scalars == other.scalars == {"after": 1.0}
        for p, q in zip(one, other, strict=True):
            assert (p.fqn, p.contributors, p.uses) == (q.fqn, q.contributors, q.uses)
            np.testing.assert_array_equal(p.gram, q.gram)
            np.testing.assert_array_equal(p.delta.gram, q.delta.gram)
    kept = in_file.last["2.weight"].contribution("anchor")
    np.testing.assert_array_equal(kept, in_memory.last["2.weight"].contribution("anchor"))


def test_recorder_tells_its_story():
    net = encoder()
    opt = sgd(net)
    with gradflow.watch(net, opt, branches=NAMES) as flow:
        assert "watching 4 parameters of Sequential, 0 steps" in repr(flow)
        train(net, opt, steps=2)
        assert "2 steps" in repr(flow)
        assert "anchor" in repr(flow)
        assert "anchor" in flow._repr_html_()
    assert "closed" in repr(flow)
