"""Facts of autograd that make an attribution wrong, and our defence against each."""

import gc

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

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


@pytest.mark.proves(row=3, situation="old weight_norm, spectral_norm", verdict="exact")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_old_weight_norm_and_spectral_norm():
    inputs = triple()
    net, twin = (nn.utils.weight_norm(nn.Linear(6, 4)) for _ in range(2))  # it cannot be copied
    twin.load_state_dict(net.state_dict())
    outputs = [twin(x) for x in inputs]
    slopes = torch.autograd.grad(triplet(*outputs), outputs, retain_graph=True)
    params = dict(twin.named_parameters())
    truth = {}
    for name, out, slope in zip(NAMES, outputs, slopes, strict=True):
        found = torch.autograd.grad(out, params.values(), slope, retain_graph=True)
        truth[name] = dict(zip(params, found, strict=True))
    assert_is(record(net, lambda: triplet(*map(net, inputs)), branches=NAMES), truth, 1e-6)
    net = parametrizations.spectral_norm(nn.Linear(6, 4))
    truth = laws.two_stage(net, lambda m: triplet(*map(m, inputs)), "", NAMES)
    step = record(net, lambda: triplet(*map(net, inputs)), branches=NAMES)
    assert_is(step, truth, 1e-6)
    assert len(step["parametrizations.weight.original"].uses) > 3  # several edges a call


@pytest.mark.proves(row=4, situation="weight tying: one parameter under two names", verdict="exact")
def test_tied_weights_keep_all_their_names_and_uses():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.out = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
            self.out.weight = self.embed.weight

        def forward(self, tokens):
            return self.out(self.embed(tokens))

    net, tokens = Tied(), torch.tensor([1, 2, 2, 5])
    branches = {"input": net.embed, "output": net.out}
    step = record(net, lambda: F.cross_entropy(net(tokens), tokens), branches=branches)
    p = step["embed.weight"]
    assert p.names == ("embed.weight", "out.weight")
    assert step["out.weight"] is p
    assert p.contributors == ("input", "output")
    laws.assert_gradient_conserved(step)
    twin = net.embed.weight.detach()
    one, two = twin.clone().requires_grad_(), twin.clone().requires_grad_()
    F.cross_entropy(F.linear(F.embedding(tokens, one), two), tokens).backward()
    np.testing.assert_array_equal(p.contribution("input"), one.grad.numpy())
    np.testing.assert_array_equal(p.contribution("output"), two.grad.numpy())


@pytest.mark.proves(row=5, situation="a weight used twice in one node, or in slices", verdict="exact")
def test_weight_used_twice_in_one_node_and_in_slices():
    class Square(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(6, 4))

        def forward(self, x):
            return x @ (self.w * self.w) + x[:, :3] @ self.w[:3] + x[:, 3:] @ self.w[3:]

    net, inputs = Square(), triple()
    truth = by_alias(net, inputs)
    step = record(net, lambda: triplet(*map(net, inputs)), branches=NAMES)
    assert_is(step, truth, 1e-6)
    assert len({(use.node, use.index) for use in step["w"].uses if "Mul" in use.node}) == 2


@pytest.mark.proves(row=8, situation="nn.GRU, nn.RNN: never fused on the CPU", verdict="exact per call")
@pytest.mark.parametrize("make", [nn.GRU, nn.RNN])
def test_unfused_recurrent_layers_use_their_matrix_once_a_step(make):
    net, x = make(3, 4), torch.randn(3, 5, 2, 3)
    step = record(net, lambda: triplet(*(net(part)[0][-1] for part in x)), branches=NAMES)
    laws.assert_gradient_conserved(step)
    uses = [use for use in step["weight_hh_l0"].uses if use.branch == "anchor"]
    assert len(uses) == 5


@pytest.mark.proves(row=9, situation="nn.MultiheadAttention, self and cross", verdict="exact per call")
@pytest.mark.parametrize("crossed", [False, True], ids=["self", "cross"])
def test_attention_with_packed_projections(crossed):
    net, x = nn.MultiheadAttention(8, 2), torch.randn(3, 4, 2, 8)
    memory = torch.randn(5, 2, 8)
    inputs = [(part, memory, memory) if crossed else (part, part, part) for part in x]

    def loss(outputs):
        return triplet(*(out[0].mean(0) for out in outputs))

    truth = laws.leaf_aliases(net, dict(zip(NAMES, inputs, strict=True)), lambda out: loss(out.values()))
    step = record(net, lambda: loss([net(*part) for part in inputs]), branches=NAMES)
    assert_is(step, truth, 1e-6)


@pytest.mark.proves(row=11, situation="in-place activations and writes into a slice", verdict="exact")
def test_in_place_changes_after_the_branch_returned():
    net, inputs = encoder(), triple()

    def loss(m):
        outputs = [m(x) for x in inputs]
        outputs[0].relu_()
        outputs[1][:, 1:] *= 2
        return triplet(*outputs)

    truth = {}
    leaves = {n: {k: p.detach().clone().requires_grad_() for k, p in net.named_parameters()} for n in NAMES}
    outs = [torch.func.functional_call(net, leaves[n], (x,)) for n, x in zip(NAMES, inputs, strict=True)]
    outs[0].relu_()
    outs[1][:, 1:] *= 2
    triplet(*outs).backward()
    truth = {n: {k: p.grad for k, p in own.items()} for n, own in leaves.items()}
    assert_is(record(net, lambda: loss(net), branches=NAMES), truth)


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


@pytest.mark.proves(row=25, situation="sparse gradients", verdict="exact")
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


@pytest.mark.proves(row=26, situation="complex and half-precision parameters", verdict="exact")
@pytest.mark.filterwarnings("ignore:Complex modules")
@pytest.mark.parametrize("dtype", [torch.complex64, torch.bfloat16, torch.float16])
def test_complex_and_half_precision_parameters(dtype):
    net, inputs = nn.Linear(6, 4).to(dtype), [x.to(dtype) for x in triple()]

    def loss(outputs):
        return sum((i + 1) * out.abs().float().square().sum() for i, out in enumerate(outputs))

    truth = laws.leaf_aliases(
        net, {n: (x,) for n, x in zip(NAMES, inputs, strict=True)}, lambda out: loss(out.values())
    )
    step = record(net, lambda: loss([net(x) for x in inputs]), branches=NAMES)
    for p in step:
        assert p.residual == 0.0
        assert p.contributors == NAMES
        rows = []
        for name in NAMES:
            found = truth[name][p.fqn]
            wide = found if found.is_complex() else found.float()
            np.testing.assert_array_equal(p.contribution(name), wide.numpy())
            rows.append(wide.numpy().astype(np.complex128).ravel())
        rows = np.stack(rows)
        np.testing.assert_allclose(p.gram, (rows @ rows.conj().T).real, rtol=1e-6)


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


@pytest.mark.proves(
    row=40, situation="contributions that cancel exactly", verdict="exact: total 0, parts not"
)
def test_last_bias_of_a_translation_invariant_loss_cancels():
    net, inputs = encoder().double(), [x.double() for x in triple()]
    step = record(net, lambda: triplet(*map(net, inputs)), branches=NAMES)
    bias = step["2.bias"]
    assert min(bias.norms.values()) > 0.1
    assert bias.total_norm < 1e-12
    assert bias.cancellation == pytest.approx(1.0, abs=1e-10)


@pytest.mark.proves(row=41, situation="lazy modules, initialised in their first forward", verdict="exact")
def test_lazy_modules_are_taken_in_when_they_come_to_life():
    net, inputs = nn.Sequential(nn.LazyLinear(8), nn.Tanh(), nn.LazyLinear(4)), triple()
    net(inputs[0])  # torch demands a dry run before an optimizer; watching does not
    fresh = nn.Sequential(nn.LazyLinear(8), nn.Linear(8, 4))
    step = record(fresh, lambda: triplet(*map(fresh, inputs)), branches=NAMES)
    laws.assert_gradient_conserved(step)
    assert step["0.weight"].contributors == NAMES
