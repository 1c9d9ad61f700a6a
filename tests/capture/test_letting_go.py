"""Contributions are let go of once they are read, where nobody asks for them later: nothing else changes.

What is recorded is held to a run with ``keep="tensors"``, which keeps everything to the end of the step.
"""

import weakref
from itertools import islice

import numpy as np
import pytest
import torch

import gradflow
from gradflow import zoo
from tests import laws
from tests.capture.test_branches import NAMES, encoder, triple, triplet


def loss_of(net, seed=1):
    return triplet(*map(net, triple(seed)))


def who_was_let_go(flow):
    """Name the parameters whose contributions of the open step are gone."""
    accounts = flow._observer.accounts
    return {flow._targets.names[key][0] for key, account in accounts.items() if account.gone}


def assert_same_record(here, there):
    """Compare two records in all that is not a tensor; sums of squares may be made in another order."""
    assert (here.params, here.branches, here.complete) == (there.params, there.branches, there.complete)
    for p, q in zip(here, there, strict=True):
        assert p.contributors == q.contributors
        assert (p.absent, p.residual, p.shape) == (q.absent, q.residual, q.shape)
        np.testing.assert_allclose(p.gram, q.gram, rtol=1e-12, atol=1e-14 * np.abs(q.gram).max(initial=0))
        assert p.total_norm == pytest.approx(q.total_norm, rel=1e-12)
        assert p.scale == pytest.approx(q.scale, rel=1e-6)
        assert list(map(place_of, p.uses)) == list(map(place_of, q.uses))
        assert [use.norm for use in p.uses] == pytest.approx([use.norm for use in q.uses], rel=1e-12)


def place_of(use):
    return (use.branch, use.call, use.node, use.index)


def train(keep, between=lambda _net: None, steps=3, backwards=lambda _step: 1):
    """Train without a watched optimizer; give the recording and who was let go of in each step."""
    torch.manual_seed(0)
    net = encoder()
    optimizer, gone = torch.optim.SGD(net.parameters(), lr=0.1), []
    with gradflow.watch(net, branches=NAMES, keep=keep) as flow:
        for number in range(steps):
            optimizer.zero_grad()
            for part in range(backwards(number)):
                loss_of(net, 10 * number + part).backward()
            gone.append(who_was_let_go(flow))
            between(net)
            optimizer.step()
            flow.step()
    return flow.recording, gone


@pytest.mark.parametrize("name", zoo.names())
def test_every_scene_is_recorded_as_if_nothing_were_let_go_of(name):
    scene, runs = zoo.scene(name), []
    for keep in ("gram", "tensors"):
        torch.manual_seed(0)
        model = scene.build()
        optimizers, gone = scene.optimizers(model), []
        with gradflow.watch(
            model, branches=scene.watch_branches(model), stems=scene.stems, keep=keep
        ) as flow:
            for batch in islice(scene.batches(seed=0, size=4), 3):
                for optimizer in optimizers:
                    optimizer.zero_grad()
                scene.loss(model, batch)[0].backward()
                gone.append(len(who_was_let_go(flow)))
                for optimizer in optimizers:
                    optimizer.step()
                flow.step()
        runs.append((laws.state_of(laws.as_model(model), optimizers, []), flow.recording, gone))
    (state, lean, gone), (kept_state, kept, none) = runs
    laws.assert_bitwise_equal(state, kept_state)
    assert none == [0, 0, 0]
    assert gone[0] == 0
    assert gone[1] == gone[2]
    assert gone[1] > 0
    for here, there in zip(lean, kept, strict=True):
        assert_same_record(here, there)


def test_memory_of_a_contribution_is_free_before_the_step_is_over(monkeypatch):
    net, seen = encoder(), []
    arrive = gradflow.capture.ledger.Account.arrive

    def spy(self, task, edge, gradient):
        seen.append(weakref.ref(gradient))
        arrive(self, task, edge, gradient)

    monkeypatch.setattr(gradflow.capture.ledger.Account, "arrive", spy)
    with gradflow.watch(net, branches=NAMES) as flow:
        for number in range(2):
            seen.clear()
            net.zero_grad()
            loss_of(net, number).backward()
            alive = [one() for one in seen if one() is not None]
            assert len(alive) == (len(seen) if number == 0 else 0)
            flow.step()


def by_norm(net):
    torch.nn.utils.clip_grad_norm_(net.parameters(), 0.01)


def by_hand(net):
    for p in net.parameters():
        p.grad.mul_(-0.25)


def one_element(net):
    net[0].weight.grad[0, 0] += 1.0


def replaced(net):
    for p in net.parameters():
        p.grad = torch.ones_like(p)


def zeroed(net):
    net.zero_grad(set_to_none=False)


def removed(net):
    net.zero_grad()


@pytest.mark.parametrize(
    "between", [by_norm, by_hand, one_element, replaced, zeroed, removed], ids=lambda act: act.__name__
)
def test_what_became_of_grad_is_told_as_if_nothing_were_let_go_of(between):
    lean, gone = train("gram", between)
    kept, _ = train("tensors", between)
    assert [bool(names) for names in gone] == [False, True, True]
    for here, there in zip(lean, kept, strict=True):
        assert_same_record(here, there)


def test_a_hook_that_changes_a_gradient_at_once_is_seen():
    def halve(param):
        param.grad.mul_(0.5)

    def halved(keep):
        torch.manual_seed(0)
        net = encoder()
        for p in net.parameters():
            p.register_post_accumulate_grad_hook(halve)
        with gradflow.watch(net, branches=NAMES, keep=keep) as flow:
            for seed in range(2):
                net.zero_grad()
                loss_of(net, seed).backward()
                flow.step()
        return flow.recording

    for here, there in zip(halved("gram"), halved("tensors"), strict=True):
        assert_same_record(here, there)
    assert {p.scale for p in halved("gram").last} == {0.5}


def test_several_uses_by_one_path_are_read_as_its_sum():
    def sequence(keep):
        torch.manual_seed(0)
        cell, gone = torch.nn.LSTMCell(3, 4), []
        with gradflow.watch(cell, keep=keep) as flow:
            for seed in range(2):
                cell.zero_grad()
                state = None
                for x in torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(seed)):
                    state = cell(x, state)
                state[0].square().mean().backward()
                gone.append(len(who_was_let_go(flow)))
                flow.step()
        return flow.recording, gone

    (lean, gone), (kept, _) = sequence("gram"), sequence("tensors")
    assert gone == [0, 4]
    assert [len(p.uses) for p in lean.last] == [5, 5, 5, 5]
    for here, there in zip(lean, kept, strict=True):
        assert_same_record(here, there)


def test_whoever_accumulates_keeps_contributions_from_the_start():
    lean, gone = train("gram", backwards=lambda _step: 2)
    kept, _ = train("tensors", backwards=lambda _step: 2)
    assert gone == [set(), set(), set()]
    for here, there in zip(lean, kept, strict=True):
        assert_same_record(here, there)


@pytest.mark.proves(
    row=46,
    situation="a second backward in a later step, where no optimizer is watched and none had one before",
    verdict="told; exact from the next step on",
)
def test_a_second_backward_after_all_is_told_once_and_never_again():
    count = [1, 1, 3, 3]
    lean, gone = train("gram", steps=4, backwards=count.__getitem__)
    kept, _ = train("tensors", steps=4, backwards=count.__getitem__)
    assert [bool(names) for names in gone] == [False, True, False, False]
    for position in (0, 1, 3):
        assert_same_record(lean[position], kept[position])
        assert not lean[position].findings or lean[position].complete
    step, whole = lean[2], kept[2]
    assert not step.complete
    told = [f for f in step.findings if f.code == "incomplete"]
    assert [f.text.split(" where ")[0] for f in told] == [
        "A second backward added to .grad of 4 of 4 parameters,"
    ]
    for p, q in zip(step, whole, strict=True):
        assert p.contributors == (*NAMES, "unclaimed")
        assert p.total_norm == pytest.approx(q.total_norm, rel=1e-12)
        assert p.gram.sum() == pytest.approx(q.gram.sum(), rel=1e-5)  # still all that was received
        assert [use.branch for use in p.uses] == ["unclaimed"] * 3 + [u.branch for u in q.uses[3:]]
        assert [use.norm for use in p.uses] == pytest.approx([use.norm for use in q.uses], rel=1e-12)


def test_gradients_cleared_between_two_backwards_are_not_missed():
    net = encoder()
    with gradflow.watch(net, branches=NAMES) as flow:
        for clears in (False, True, False):
            net.zero_grad()
            loss_of(net, 1).backward()
            if clears:
                net.zero_grad()
                loss_of(net, 2).backward()
            assert bool(who_was_let_go(flow)) == bool(len(flow.recording))
            flow.step()


def test_what_is_not_a_number_is_kept_and_told():
    def broken(keep):
        torch.manual_seed(0)
        net, gone = encoder(), []
        with gradflow.watch(net, branches=NAMES, keep=keep) as flow:
            for factor in (1.0, float("inf"), 1.0):
                net.zero_grad()
                (factor * loss_of(net, 1)).backward()
                gone.append(bool(who_was_let_go(flow)))
                flow.step()
        return flow.recording, gone

    (lean, gone), (kept, _) = broken("gram"), broken("tensors")
    assert gone == [False, False, True]
    np.testing.assert_array_equal(lean[1]["0.weight"].gram, kept[1]["0.weight"].gram)


def test_gradients_for_their_own_sake_let_go_of_nothing():
    net = encoder()
    with gradflow.watch(net, branches=NAMES) as flow:
        for seed in range(2):
            net.zero_grad()
            loss = loss_of(net, seed)
            torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
            assert not who_was_let_go(flow)
            loss.backward()
            flow.step()
    assert all(len(p.uses) == 3 and p.contributors == NAMES for step in flow.recording for p in step)


def test_a_watched_optimizer_keeps_contributions_to_split_its_step():
    net = encoder()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with gradflow.watch(net, optimizer, branches=NAMES) as flow:
        for seed in range(3):
            optimizer.zero_grad()
            loss_of(net, seed).backward()
            assert not who_was_let_go(flow)
            optimizer.step()
    assert all(p.delta.contributors == NAMES for step in flow.recording for p in step)


def test_what_is_read_later_is_written_over_nothing_that_was_recorded():
    net, told = encoder(), []
    with gradflow.watch(net, branches=NAMES) as flow:
        for number in range(4):
            net.zero_grad()
            loss_of(net, number).backward()
            flow.step()
            told.append([(p.gram.copy(), p.total_norm, p.uses) for p in flow.recording.last])
    for step, before in zip(flow.recording, told, strict=True):
        for param, (gram, total_norm, uses) in zip(step, before, strict=True):
            assert (param.gram == gram).all()
            assert (param.total_norm, param.uses) == (total_norm, uses)
    assert len({step["0.weight"].total_norm for step in flow.recording}) == 4


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_autograd_grad_brings_is_not_read_into_the_numbers_of_a_backward(when):
    def run(keep):
        torch.manual_seed(0)
        net = encoder()
        with gradflow.watch(net, branches=NAMES, keep=keep) as flow:
            for number in range(3):
                net.zero_grad()
                if when == "before":
                    torch.autograd.grad(loss_of(net, 50 + number), list(net.parameters()))
                loss_of(net, number).backward()
                if when == "after":
                    torch.autograd.grad(loss_of(net, 50 + number), list(net.parameters()))
                flow.step()
        return flow.recording

    for here, there in zip(run("gram"), run("tensors"), strict=True):
        assert_same_record(here, there)
