"""Facts of autograd that make an attribution wrong, and our defence against each."""

import gc

import numpy as np
import pytest
import torch
from torch import nn

import gradflow
from tests import laws
from tests.capture.test_branches import NAMES, encoder, triple, triplet
from tests.capture.test_steps import loss_of, sgd


def record(net, loss, **options):
    with gradflow.watch(net, keep="tensors", **options) as flow:
        loss().backward()
        flow.step()
    return flow.recording.last


def assert_is(step, truth, tol=0.0):
    """Every contribution is what leaves of its own receive, to a fraction of the largest entry."""
    laws.assert_gradient_conserved(step)
    for p in step:
        scale = max(g[p.fqn].abs().max().item() for g in truth.values() if g.get(p.fqn) is not None)
        for name, found in truth.items():
            if found.get(p.fqn) is not None:
                expected = found[p.fqn].detach().numpy()
                np.testing.assert_allclose(p.contribution(name), expected, atol=tol * scale, rtol=0)


def by_alias(net, inputs, loss=triplet):
    calls = {name: (x,) for name, x in zip(NAMES, inputs, strict=True)}
    return laws.leaf_aliases(net, calls, lambda out: loss(*out.values()))


@pytest.mark.proves(row=15, situation="a whole step compiled into one graph", verdict="told, with the remedy")
def test_whole_compiled_step_is_told():
    net, inputs = encoder(), triple()
    step_of = torch.compile(lambda a, p, n: triplet(net(a), net(p), net(n)), backend="eager")
    with gradflow.watch(net, branches=NAMES) as flow:
        step_of(*inputs).backward()
        flow.step()
    step = flow.recording.last
    assert {p.contributors for p in step} == {("unclaimed",)}
    told = {finding.code: finding for finding in step.findings}
    assert "compile the model and not the step" in told["unseen"].do


@pytest.mark.proves(row=21, situation="backward(inputs=...)", verdict="exact")
def test_backward_with_inputs_counts_only_what_accumulated():
    net, inputs = encoder(), triple()
    truth = laws.two_stage(net, lambda m: triplet(*map(m, inputs)), "", NAMES)
    with gradflow.watch(net, branches=NAMES, keep="tensors") as flow:
        triplet(*map(net, inputs)).backward(inputs=[net[0].weight])
        flow.step()
    step = flow.recording.last
    assert step.params == ("0.weight",)
    for name in NAMES:
        found = step["0.weight"].contribution(name)
        np.testing.assert_array_equal(found, truth[name]["0.weight"].numpy())


def test_sparse_embeddings_and_their_delta():
    net = nn.Embedding(10, 4, sparse=True)
    opt = torch.optim.SparseAdam(net.parameters())
    tokens = [torch.tensor(t) for t in ([1, 2, 2], [2, 3, 9], [0, 0, 1])]
    dense = nn.Embedding(10, 4)
    dense.load_state_dict(net.state_dict())
    truth = laws.two_stage(dense, lambda m: triplet(*map(m, tokens)), "", NAMES)
    with gradflow.watch(net, opt, branches=NAMES, keep="tensors") as flow:
        before = laws.copies(net)
        triplet(*map(net, tokens)).backward()
        opt.step()
    step = flow.recording.last
    laws.assert_gradient_conserved(step)
    laws.assert_delta_conserved(step, before, laws.copies(net))
    weight = step["weight"]
    for name in NAMES:
        np.testing.assert_allclose(weight.contribution(name), truth[name]["weight"].numpy(), atol=1e-7)
    laws.assert_gram_tells_the_tensors(weight)


@pytest.mark.proves(row=27, situation="what is kept is not overwritten by what comes later", verdict="exact")
@pytest.mark.parametrize("calls", [1, 3])
def test_record_survives_what_happens_to_grad(calls):
    net, inputs = encoder(), triple()[:calls]
    opt = sgd(net)

    def loss(m):
        return sum(m(x).square().sum() for x in inputs)

    twin = laws.clean_copy(net)
    loss(twin).backward()
    with gradflow.watch(net, opt, keep="tensors") as flow:
        loss(net).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1e-3)
        opt.step()
        loss(net).backward()
        opt.zero_grad(set_to_none=False)
    for p in flow.recording[0]:
        np.testing.assert_array_equal(p.total, twin.get_parameter(p.fqn).grad.numpy())
        whole = sum(p.contribution(name) for name in p.contributors)
        np.testing.assert_allclose(whole, p.total, rtol=1e-4, atol=1e-5)


@pytest.mark.proves(row=29, situation="the garbage collector between forward and backward", verdict="exact")
def test_garbage_collector_takes_no_hook():
    net, inputs = encoder(), triple()
    truth = laws.two_stage(net, lambda m: triplet(*map(m, inputs)), "", NAMES)

    def loss():
        value = triplet(*map(net, inputs))
        gc.collect()
        return value

    assert_is(record(net, loss, branches=NAMES), truth)


@pytest.mark.proves(
    row=37, situation="somebody else's hook changes a gradient", verdict="told: residual, edited"
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_foreign_hooks_that_change_gradients_are_told(when):
    net = encoder()
    opt = sgd(net)
    if when == "before":
        net[0].weight.register_hook(lambda g: g * 0.5)
    with gradflow.watch(net, opt, branches=NAMES, keep="tensors") as flow:
        if when == "after":
            net[0].weight.register_hook(lambda g: g * 0.5)
        before = laws.copies(net)
        loss_of(net).backward()
        opt.step()
    step = flow.recording.last
    laws.assert_delta_conserved(step, before, laws.copies(net))
    weight = step["0.weight"]
    if when == "before":
        assert weight.residual > 0.5
        assert "unclaimed" in weight.contributors
    else:
        assert weight.scale == pytest.approx(0.5)
    assert step["0.bias"].residual == 0.0


@pytest.mark.proves(row=38, situation="foreach and fused optimizers", verdict="exact, training untouched")
@pytest.mark.parametrize("way", [{"foreach": True}, {"fused": True}, {}], ids=["foreach", "fused", "plain"])
def test_foreach_and_fused_optimizers_are_untouched(way):
    def run(watched):
        torch.manual_seed(0)
        net = encoder()
        opt = torch.optim.Adam(net.parameters(), **way)
        flow = gradflow.watch(net, opt, branches=NAMES, keep="tensors") if watched else None
        for seed in range(5):
            before = laws.copies(net)
            opt.zero_grad()
            loss_of(net, seed).backward()
            opt.step()
            if flow is not None:
                laws.assert_delta_conserved(flow.recording.last, before, laws.copies(net))
        if flow is not None:
            flow.close()
        return laws.state_of(net, [opt], [])

    laws.assert_bitwise_equal(run(True), run(False))
