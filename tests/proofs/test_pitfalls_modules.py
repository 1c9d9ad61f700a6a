"""Recurrent nets, attention, batch-norm, in-place activations, and what cancels or comes to nothing."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from gradflow import findings
from tests import laws
from tests.proofs.holding import NAMES, assert_exact, batches, loss_of, recorded, truth_of

RECURRENT = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}


pytestmark = pytest.mark.filterwarnings("ignore:TF32 acceleration")  # mkldnn.flags() says so everywhere


def uses_of(step, fqn, name="anchor"):
    return [use for use in step[fqn].uses if use.branch == name]


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "unrolled"])
@pytest.mark.parametrize("kind", RECURRENT)
def test_recurrent_nets_are_exact_for_every_branch(kind, fused):
    net, xs = RECURRENT[kind](3, 5, num_layers=2, bidirectional=True), batches(4, 2, 3)
    loss = lambda *out: loss_of(*(o[0][-1] for o in out))  # noqa: E731
    with torch.backends.mkldnn.flags(enabled=fused):
        step = recorded(net, lambda: loss(*map(net, xs)))
        assert_exact(step, truth_of(net, xs, loss))


@pytest.mark.proves(
    row=8,
    situation="nn.GRU, nn.RNN and the unfused nn.LSTM",
    verdict="a use per step; the input's product is one",
)
@pytest.mark.parametrize("kind", RECURRENT)
def test_time_steps_of_an_unrolled_net_are_uses_of_its_recurrent_weight(kind):
    net, xs = RECURRENT[kind](3, 5), batches(4, 2, 3)
    with torch.backends.mkldnn.flags(enabled=False):
        step = recorded(net, lambda: loss_of(*(net(x)[0][-1] for x in xs)))
    assert len(uses_of(step, "weight_hh_l0")) == 4
    assert len(uses_of(step, "weight_ih_l0")) == 1


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("way", ["projected", "packed"])
def test_lstm_that_cannot_be_fused(way):
    net, xs = nn.LSTM(3, 5, proj_size=2 if way == "projected" else 0), batches(4, 2, 3)

    def pack(x):
        return nn.utils.rnn.pack_padded_sequence(x, [4, 2]) if way == "packed" else x

    loss = lambda *out: loss_of(*(o[1][0][0] for o in out))  # noqa: E731
    step = recorded(net, lambda: loss(*(net(pack(x)) for x in xs)))
    assert_exact(step, truth_of(net, [(pack(x),) for x in xs], loss))
    assert len(uses_of(step, "weight_hh_l0")) == 4


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_time_steps_of_a_cell_are_exact(kind):
    cell, x = kind(3, 5), batches(2, 3, count=4)
    names = tuple(f"t{i}" for i in range(4))

    def run(call):
        state = torch.zeros(2, 5)
        state = (state, state) if kind is nn.LSTMCell else state
        for name, row in zip(names, x, strict=True):
            state = call(name, row, state)
        return (state[0] if kind is nn.LSTMCell else state).square().sum()

    leaves = {n: {k: p.detach().clone().requires_grad_() for k, p in cell.named_parameters()} for n in names}
    loss = run(lambda name, row, state: torch.func.functional_call(cell, leaves[name], (row, state)))
    truth = {}
    for name, own in leaves.items():
        grads = torch.autograd.grad(loss, own.values(), retain_graph=True, allow_unused=True)
        truth[name] = dict(zip(own, grads, strict=True))
    step = recorded(cell, lambda: run(lambda _n, row, state: cell(row, state)), branches=names)
    assert_exact(step, truth, 1e-6)


def attend(net, kind):
    """Queries from each branch's batch; keys and values from it too, or from elsewhere."""
    others = batches(2, 3, 8, count=2)
    keys = {"self": lambda x: (x, x), "cross": lambda _: (others[0],) * 2, "three": lambda _: others}[kind]
    return lambda x: net(x, *keys(x), need_weights=False)[0]


@pytest.mark.proves(row=9, situation="nn.MultiheadAttention, self and cross", verdict="exact per call")
@pytest.mark.parametrize("kind", ["self", "cross", "three"])
def test_attention_is_exact_for_every_branch(kind):
    net, xs = nn.MultiheadAttention(8, 2), batches(2, 3, 8)
    call = attend(net, kind)
    inputs = [(x, *((x, x) if kind == "self" else attended(kind))) for x in xs]
    loss = lambda *out: loss_of(*(o[0] for o in out))  # noqa: E731
    step = recorded(net, lambda: loss_of(*map(call, xs)))
    assert_exact(step, truth_of(net, inputs, loss), 1e-6)


def attended(kind):
    others = batches(2, 3, 8, count=2)
    return (others[0], others[0]) if kind == "cross" else tuple(others)


def test_packed_projection_of_self_attention_is_one_use():
    net, xs = nn.MultiheadAttention(8, 2), batches(2, 3, 8)
    step = recorded(net, lambda: loss_of(*map(attend(net, "self"), xs)))
    assert [use.node for use in uses_of(step, "in_proj_weight")] == ["TBackward0"]


def normed():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 4))


def test_batch_norm_is_exact_and_its_statistics_move_as_without_us():
    net, xs = normed(), batches(5, 6)
    twin = laws.clean_copy(net)
    truth = truth_of(net, xs)
    step = recorded(net, lambda: loss_of(*map(net, xs)))
    assert_exact(step, truth)
    loss_of(*map(twin, xs)).backward()
    for name, kept in twin.state_dict().items():
        assert torch.equal(net.state_dict()[name], kept)
    assert int(net[1].num_batches_tracked) == 3


def test_bias_before_batch_norm_is_noise_and_its_angles_are_not_shown():
    net, xs = normed(), batches(5, 6)
    step = recorded(net, lambda: loss_of(*map(net, xs)))
    assert 0 < max(step["0.bias"].norms.values()) < findings.noise_floor(step)
    assert all(f.where != "0.bias" for f in step.findings if f.code in ("conflict", "cancellation"))


def test_concatenating_before_batch_norm_changes_the_gradient_itself():
    net, xs = normed(), batches(5, 6)
    truth = truth_of(net, xs)
    joint = laws.clean_copy(net)
    loss_of(*joint(torch.cat(xs)).split(5)).backward()
    separate = sum(own["0.weight"] for own in truth.values())
    assert (joint[0].weight.grad - separate).norm() > 0.1 * separate.norm()
    step = recorded(net, lambda: loss_of(*net(torch.cat(xs)).split(5)), branches=None)
    assert len(step["0.weight"].contributors) == 1


@pytest.mark.proves(row=11, situation="in-place activations and writes into a slice", verdict="exact")
@pytest.mark.parametrize("where", ["inside", "after", "slice"])
def test_in_place_operations_keep_their_labels(where):
    act = nn.ReLU(inplace=True) if where == "inside" else nn.Tanh()
    net, xs = nn.Sequential(nn.Linear(6, 8), act, nn.Linear(8, 4)), batches(5, 6)

    def changed(*outputs):
        if where == "after":
            outputs = [out.mul_(2).add_(1) for out in outputs]
        if where == "slice":
            for out in outputs:
                out[:, :2] *= 3
        return loss_of(*outputs)

    step = recorded(net, lambda: changed(*map(net, xs)))
    assert_exact(step, truth_of(net, xs, changed))


def test_one_branch_added_in_place_to_another():
    net, xs = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)), batches(5, 6)
    added = lambda a, p, n: (a.add_(p).mul_(n)).square().sum()  # noqa: E731
    step = recorded(net, lambda: added(*map(net, xs)))
    assert_exact(step, truth_of(net, xs, added))


def test_absent_is_not_zero():
    net = nn.ModuleDict({"used": nn.Linear(6, 4), "idle": nn.Linear(6, 4), "frozen": nn.Linear(4, 4)})
    net["frozen"].requires_grad_(False)
    a, p, n = batches(5, 6)

    def loss():
        with gradflow.branch("anchor"):
            one = net["frozen"](net["used"](a))
        with gradflow.branch("positive"):
            two = net["used"](p)
        with gradflow.branch("negative"), torch.no_grad():
            three = net["used"](n)
        return loss_of(one, two, three)

    step = recorded(net, loss, branches=None)
    assert step.params == ("used.weight", "used.bias")
    assert step["used.weight"].absent == ("negative",)
    assert "branch-absent" in [finding.code for finding in step.findings]
    assert net["idle"].weight.grad is None


@pytest.mark.proves(
    row=40, situation="contributions that cancel exactly", verdict="exact: total 0, parts not"
)
def test_exact_cancellation_leaves_the_parts():
    net, xs = nn.Linear(6, 4).double(), batches(5, 6, dtype=torch.float64)
    moved = lambda a, p, n: F.relu((a - p).square().sum(1) - (a - n).square().sum(1) + 99).mean()  # noqa: E731
    step = recorded(net, lambda: moved(*map(net, xs)))
    assert_exact(step, truth_of(net, xs, moved))
    bias = step["bias"]
    assert bias.total_norm < 1e-12
    assert min(bias.norms.values()) > 0.1
    assert bias.cancellation == pytest.approx(1.0)
    np.testing.assert_allclose(sum(bias.contribution(name) for name in NAMES), 0.0, atol=1e-12)
