"""Forwards run again, and graphs built, inside a backward; optimizers that compute gradients themselves."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import gradflow
from tests import laws
from tests.capture.test_branches import NAMES, encoder, triple, triplet
from tests.capture.test_steps import loss_of, sgd


def inputs_with_grad():
    return [x.requires_grad_() for x in triple()]


class Checkpointed(nn.Module):
    """A net that checkpoints itself."""

    def __init__(self, reentrant):
        super().__init__()
        self.net, self.reentrant = encoder(), reentrant

    def forward(self, x):
        return checkpoint(self.net, x, use_reentrant=self.reentrant)


def in_the_loop(net, xs, reentrant):
    return [checkpoint(net, x, use_reentrant=reentrant) for x in xs]


def in_branches(net, xs, reentrant):
    outputs = []
    for name, x in zip(NAMES, xs, strict=True):
        with gradflow.branch(name):
            outputs.append(checkpoint(net, x, use_reentrant=reentrant))
    return outputs


@pytest.mark.proves(row=12, situation="checkpointing that is not re-entrant", verdict="exact")
@pytest.mark.parametrize("where", ["loop", "branches", "module"])
def test_checkpoint_that_is_not_reentrant_keeps_the_names_and_the_order_of_the_paths(where):
    assert_checkpointed_paths_are_exact(where, reentrant=False)


@pytest.mark.proves(
    row=13, situation="re-entrant checkpointing: producers unseen from the loss", verdict="exact"
)
@pytest.mark.parametrize("where", ["loop", "branches", "module"])
def test_checkpointed_paths_keep_their_names(where):
    assert_checkpointed_paths_are_exact(where, reentrant=True)


def assert_checkpointed_paths_are_exact(where, *, reentrant):
    net, xs = encoder(), inputs_with_grad()
    truth = laws.two_stage(net, lambda m: triplet(*map(m, xs)), "", NAMES)
    run = {"loop": in_the_loop, "branches": in_branches}.get(where)
    watched, names = net, None if where == "branches" else NAMES
    if where == "module":
        watched = Checkpointed(reentrant)
        watched.net = net
    with gradflow.watch(watched, branches=names, keep="tensors") as flow:
        outputs = [watched(x) for x in xs] if run is None else run(net, xs, reentrant)
        triplet(*outputs).backward()
        flow.step()
    step = flow.recording.last
    laws.assert_gradient_conserved(step)
    assert step.branches == NAMES
    for p in step:
        for name in NAMES:
            np.testing.assert_array_equal(
                p.contribution(name), truth[name][p.fqn.removeprefix("net.")].numpy()
            )


def test_checkpoint_of_the_same_input_twice_is_not_guessed():
    net, (x, y, _) = encoder(), inputs_with_grad()
    with gradflow.watch(net, branches=NAMES) as flow:
        triplet(*in_the_loop(net, [x, x, y], True)).backward()
        flow.step()
    weight = flow.recording.last["0.weight"]
    assert weight.contributors == ("negative", "unclaimed")
    assert weight.residual == 0.0


def test_evaluation_without_gradients_is_not_taken_for_a_checkpoint():
    net, xs = encoder(), inputs_with_grad()
    with gradflow.watch(net, branches=NAMES) as flow:
        with torch.no_grad():
            net(xs[0])
        triplet(*in_the_loop(net, xs, True)).backward()
        flow.step()
    assert flow.recording.last["0.weight"].contributors == NAMES


@pytest.mark.proves(row=22, situation="gradient penalties", verdict="exact; both orders in one")
@pytest.mark.parametrize("layer", ["linear", "conv"])
def test_gradient_penalty_is_conserved_and_belongs_to_its_path(layer):
    net = (
        encoder() if layer == "linear" else nn.Sequential(nn.Conv1d(1, 3, 3), nn.Flatten(), nn.Linear(12, 4))
    )
    xs = [x if layer == "linear" else x[:, None] for x in triple()]
    anchor = xs[0].requires_grad_()

    def penalty(out):
        (slope,) = torch.autograd.grad(out.square().sum(), [anchor], create_graph=True)
        return slope.square().sum()

    twin = laws.clean_copy(net)
    expected = torch.autograd.grad(penalty(twin(anchor)), list(twin.parameters()), allow_unused=True)
    with gradflow.watch(net, keep="tensors") as flow:
        with gradflow.branch("anchor"):
            out = net(anchor)
        penalty(out).backward()
        flow.step()
    step = flow.recording.last
    laws.assert_gradient_conserved(step)
    for p, found in zip(step, [g for g in expected if g is not None], strict=True):
        np.testing.assert_allclose(p.contribution("anchor"), found.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.proves(row=18, situation="backward(create_graph=True)", verdict="exact")
@pytest.mark.filterwarnings("ignore:Using backward")
def test_create_graph_keeps_no_graph_alive():
    net, xs = encoder(), triple()
    truth = laws.two_stage(net, lambda m: triplet(*map(m, xs)), "", NAMES)
    with gradflow.watch(net, branches=NAMES, keep="tensors") as flow:
        triplet(*map(net, xs)).backward(create_graph=True)
        sums = [t for account in flow._observer.accounts.values() for t in account.sums.values()]
        assert sums
        assert not any(t.requires_grad for t in sums)
        flow.step()
    for name in NAMES:
        found = flow.recording.last["0.weight"].contribution(name)
        np.testing.assert_array_equal(found, truth[name]["0.weight"].numpy())
    net.zero_grad()


@pytest.mark.proves(
    row=35,
    situation="LBFGS, and closures that run more than once",
    verdict="contributions exact, delta whole",
)
def test_lbfgs_shows_its_delta_whole_and_says_why():
    net = encoder()
    opt = torch.optim.LBFGS(net.parameters(), max_iter=5)

    def closure():
        opt.zero_grad()
        loss = loss_of(net)
        loss.backward()
        return loss

    with gradflow.watch(net, opt, branches=NAMES, keep="tensors") as flow:
        before = laws.copies(net)
        opt.step(closure)
        opt.step(closure)
    assert len(flow.recording) == 2
    first = flow.recording[0]["0.weight"]
    assert first.contributors == NAMES
    assert first.delta.contributors == ("unattributed",)
    assert "closure" in first.delta.note
    assert first.delta.shares == {"unattributed": 1.0}
    assert first.delta.norm > 0
    moved = sum(step["0.weight"].delta.tensor.astype(np.float64) for step in flow.recording)
    np.testing.assert_allclose(moved, (net[0].weight - before["0.weight"]).detach().numpy(), atol=1e-6)


@pytest.mark.proves(row=36, situation="optimizers that step inside the backward", verdict="exact")
@pytest.mark.parametrize("order", ["watch first", "hooks first"])
def test_optimizer_in_backward_is_one_step_with_its_deltas(order):
    torch.manual_seed(0)
    net = encoder()
    opts = {p: torch.optim.SGD([p], lr=0.1) for p in net.parameters()}
    truth = laws.two_stage(net, lambda m: triplet(*map(m, triple(1))), "", NAMES)

    def step_now(p):
        opts[p].step()
        opts[p].zero_grad()

    def hook_all():
        for p in net.parameters():
            p.register_post_accumulate_grad_hook(step_now)

    if order == "hooks first":
        hook_all()
    with gradflow.watch(net, list(opts.values()), branches=NAMES, keep="tensors") as flow:
        if order == "watch first":
            hook_all()
        for seed in (1, 2):
            before = laws.copies(net)
            loss_of(net, seed).backward()
            laws.assert_delta_conserved(flow.recording.last, before, laws.copies(net))
    assert len(flow.recording) == 2
    for name in NAMES:
        found = flow.recording[0]["0.weight"].contribution(name)
        np.testing.assert_array_equal(found, truth[name]["0.weight"].numpy())


@pytest.mark.proves(row=33, situation="GradScaler, with skipped steps", verdict="exact, scale shown")
def test_scaler_that_overflows_closes_the_step_as_skipped():
    net = encoder()
    opt = sgd(net, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with gradflow.watch(net, opt, branches=NAMES, keep="tensors") as flow:
        for seed, factor in enumerate((1.0, float("inf"), 1.0)):
            opt.zero_grad()
            truth = laws.two_stage(net, lambda m, s=seed: triplet(*map(m, triple(s))), "", NAMES)
            before = laws.copies(net)
            scaler.scale(loss_of(net, seed) * factor).backward()
            scaler.step(opt)
            scaler.update()
            if factor == 1.0:
                step = flow.recording.last
                scale = 1024.0 if seed == 0 else 512.0
                assert step["0.weight"].scale == pytest.approx(1 / scale)
                laws.assert_delta_conserved(step, before, laws.copies(net))
                found = step["0.weight"].contribution("anchor") / scale
                np.testing.assert_allclose(found, truth["anchor"]["0.weight"].numpy(), rtol=1e-6)
    assert [step.skipped for step in flow.recording] == [False, True, False]
    assert "skipped" in [finding.code for finding in flow.recording[1].findings]


@pytest.mark.proves(
    row=39, situation="forwards inside a backward (GradCache)", verdict="exact when named, else told"
)
def test_encoder_run_inside_a_backward_is_told_or_named():
    net, xs = encoder(), triple()

    def cached_loss(named):
        with torch.no_grad():
            outputs = [net(x) for x in xs]
        leaves = [out.requires_grad_() for out in outputs]
        loss = triplet(*leaves)
        slopes = torch.autograd.grad(loss, leaves)
        gate = torch.zeros((), requires_grad=True)

        def again(_grad):
            with torch.enable_grad():
                for name, x, slope in zip(NAMES, xs, slopes, strict=True):
                    if named:
                        with gradflow.branch(name):
                            out = net(x)
                    else:
                        out = net(x)
                    out.backward(slope)

        gate.register_hook(again)
        return gate * 1.0

    truth = laws.two_stage(net, lambda m: triplet(*map(m, xs)), "", NAMES)
    with gradflow.watch(net, keep="tensors") as flow:
        for named in (True, False):
            net.zero_grad()
            cached_loss(named).backward()
            flow.step()
    named, unnamed = flow.recording
    for name in NAMES:
        found = named["0.weight"].contribution(name)
        np.testing.assert_allclose(found, truth[name]["0.weight"].numpy(), rtol=1e-5, atol=1e-6)
    assert unnamed["0.weight"].contributors == ("unclaimed",)


@pytest.mark.proves(row=7, situation="nn.LSTM: a fused kernel", verdict="reported as one; cells are exact")
def test_fused_lstm_is_one_use_and_cells_are_one_per_step():
    xs = [torch.randn(4, 2, 3) for _ in range(2)]

    def cells(net, x):
        h = c = torch.zeros(2, 5)
        for row in x:
            h, c = net(row, (h, c))
        return h

    fused, cell = nn.LSTM(3, 5), nn.LSTMCell(3, 5)
    for net, run, uses in ((fused, lambda m, x: m(x)[0][-1], 1), (cell, cells, 4)):
        with gradflow.watch(net, branches=("left", "right")) as flow:
            F.pairwise_distance(*(run(net, x) for x in xs)).sum().backward()
            flow.step()
        for p in flow.recording.last:
            assert [use.branch for use in p.uses].count("left") == uses
        codes = [finding.code for finding in flow.recording.last.findings]
        assert ("fused" in codes) == (net is fused)


def test_model_compiled_after_watch_is_told():
    net, xs = encoder(), triple()
    with gradflow.watch(net, branches=NAMES) as flow:
        compiled = torch.compile(net, backend="eager")
        triplet(*map(compiled, xs)).backward()
        flow.step()
    step = flow.recording.last
    assert {p.contributors for p in step} == {("unclaimed",)}
    assert "unseen" in [finding.code for finding in step.findings]


@pytest.mark.proves(row=14, situation="a compiled encoder called three times", verdict="exact")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_model_is_watched_as_it_is(backend):
    net, xs = encoder(), triple()
    truth = laws.two_stage(net, lambda m: triplet(*map(m, xs)), "", NAMES)
    compiled = torch.compile(net, backend=backend)
    with gradflow.watch(compiled, branches=NAMES, keep="tensors") as flow:
        triplet(*map(compiled, xs)).backward()
        flow.step()
    step = flow.recording.last
    laws.assert_gradient_conserved(step)
    for p in step:
        for name in NAMES:
            found = truth[name][p.fqn.removeprefix("_orig_mod.")].numpy()
            np.testing.assert_allclose(p.contribution(name), found, rtol=1e-5, atol=1e-7)


class Twice(torch.optim.SGD):
    """Runs its closure twice, as line searches do, and leaves the step to SGD."""

    def step(self, closure):
        closure()
        return super().step(closure)


class Renamed(torch.optim.SGD):
    """Calls the step of its base, whose hooks fire inside its own."""

    def step(self, closure=None):
        loss = super().step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                torch._foreach_mul_(group["params"], 0.99)
        return loss


@pytest.mark.proves(
    row=43, situation="an optimizer whose step calls the step of its base", verdict="one step"
)
def test_a_step_inside_a_step_of_the_same_optimizer_is_one_step():
    net = encoder()
    torch.optim.SGD(net.parameters(), lr=0.1)  # from now on steps of SGD itself call hooks
    opt = Renamed(net.parameters(), lr=0.1)
    with gradflow.watch(net, opt, branches=NAMES, keep="tensors") as flow:
        for seed in range(2):
            before = laws.copies(net)
            opt.zero_grad()
            loss_of(net, seed).backward()
            opt.step()
    assert [len(step) for step in flow.recording] == [len(before)] * 2
    moved = (net[0].weight - before["0.weight"]).detach().numpy()
    delta = flow.recording.last["0.weight"].delta
    np.testing.assert_array_equal(delta.tensor, moved)
    assert "overrides the step of SGD" in delta.note


def run_with_closure(kind, watched, *, by_keyword=False, steps=3):
    torch.manual_seed(0)
    net = encoder()
    opt = kind(net.parameters())
    losses, before = [], [laws.copies(net)]
    flow = gradflow.watch(net, opt, branches=NAMES, keep="tensors") if watched else None
    for seed in range(steps):

        def closure(seed=seed):
            opt.zero_grad()
            loss = loss_of(net, seed)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 0.1)
            return loss

        losses.append(opt.step(closure=closure) if by_keyword else opt.step(closure))
        before.append(laws.copies(net))
    if flow is not None:
        flow.close()
    return laws.state_of(net, [opt], losses), flow, before


KINDS = [
    partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
    partial(torch.optim.Adam, lr=0.01, weight_decay=0.1),
]


@pytest.mark.proves(row=42, situation="a closure that runs once, as Lightning's", verdict="exact")
@pytest.mark.parametrize("by_keyword", [False, True], ids=["by place", "by keyword"])
@pytest.mark.parametrize("kind", KINDS, ids=["SGD", "Adam"])
def test_a_closure_that_runs_once_is_split_like_any_step(kind, by_keyword):
    state, flow, before = run_with_closure(kind, True, by_keyword=by_keyword)
    laws.assert_bitwise_equal(state, run_with_closure(kind, False, by_keyword=by_keyword)[0])
    assert len(flow.recording) == 3
    for i, step in enumerate(flow.recording):
        laws.assert_gradient_conserved(step)
        laws.assert_delta_conserved(step, before[i], before[i + 1])
        weight = step["0.weight"]
        assert set(NAMES) <= set(weight.delta.contributors)
        assert "unattributed" not in weight.delta.contributors
        assert 0 < weight.scale < 1  # clipped inside the closure


def test_a_closure_that_runs_twice_is_shown_whole():
    kind = partial(Twice, lr=0.1)
    state, flow, _ = run_with_closure(kind, True)
    laws.assert_bitwise_equal(state, run_with_closure(kind, False)[0])
    for step in flow.recording:
        assert step["0.weight"].delta.contributors == ("unattributed",)
        assert "2 times" in step["0.weight"].delta.note


def test_what_a_closure_raises_passes_through_and_the_next_step_is_split():
    net = encoder()
    opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    with gradflow.watch(net, opt, branches=NAMES) as flow:
        with pytest.raises(ZeroDivisionError):
            opt.step(lambda: 1 / 0)
        loss_of(net).backward()
        opt.step()
    assert set(flow.recording.last["0.weight"].delta.contributors) == set(NAMES)


def test_what_a_reentrant_checkpoint_makes_before_a_module_is_told_by_its_branch_and_not_by_where_it_lies():
    torch.manual_seed(0)
    layer, scale = torch.nn.Linear(6, 6), torch.nn.Parameter(torch.ones(6))
    layer.register_parameter("scale", scale)
    sizes = np.random.default_rng(0)

    def region(x):
        return layer(torch.tanh(x * scale))  # the layer's input is made anew, where memory is free

    with gradflow.watch(layer) as flow:
        for _ in range(30):
            held = [torch.empty(int(n)) for n in sizes.choice([4, 24, 30], sizes.integers(30))]
            del held[::2]  # so that what is freed lies elsewhere each time
            outputs = []
            for name in ("a", "b"):
                with gradflow.branch(name):
                    x = torch.randn(4, 6).requires_grad_()
                    outputs.append(checkpoint(region, x, use_reentrant=True))
            (outputs[0].sum() + outputs[1].square().sum()).backward()
            flow.step()
    assert {p.contributors for step in flow.recording for p in step} == {("a", "b")}
