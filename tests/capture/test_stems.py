"""Parts of the graph that several branches go through before a parameter, split inside one backward."""

import gc
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

import gradflow
from gradflow.capture.calls import Mark
from gradflow.capture.passes import Split
from tests import laws
from tests.capture.test_branches import NAMES, encoder, triple, triplet


def truth_of(net, inputs, loss=triplet, *, autocast=False):
    """Every branch with leaves of its own; under autocast without its cache, so that each casts its own."""
    calls = {name: (x,) for name, x in zip(NAMES, inputs, strict=True)}
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast, cache_enabled=False):
        return laws.leaf_aliases(net, calls, lambda out: loss(*out.values()))


def watched(net, loss, **options):
    with gradflow.watch(net, keep="tensors", **options) as flow:
        loss().backward()
        flow.step()
    return flow.recording.last


def assert_close(step, truth, tol):
    for p in step:
        for name, found in truth.items():
            expected = found[p.fqn].numpy()
            scale = max(np.abs(f[p.fqn].numpy()).max() for f in truth.values())
            np.testing.assert_allclose(
                p.contribution(name), expected, atol=tol * scale, rtol=0, err_msg=p.fqn
            )


def float_triplet(a, p, n):
    return triplet(a.float(), p.float(), n.float())


@pytest.mark.proves(row=1, situation="autocast's weight cache", verdict="exact with stems; `rounding` shown")
@pytest.mark.parametrize("cached", [True, False], ids=["cache", "no cache"])
def test_autocast_weight_cache_is_split_and_grad_is_untouched(cached):
    net, inputs = encoder(), triple()

    def loss():
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=cached):
            outputs = [net(x) for x in inputs]
        return float_triplet(*outputs)

    loss().backward()
    plain = {n: p.grad.clone() for n, p in net.named_parameters()}
    net.zero_grad()
    step = watched(net, loss, branches=NAMES)
    assert_close(step, truth_of(net, inputs, float_triplet, autocast=True), 0.0)
    for p in step:
        assert torch.equal(net.get_parameter(p.fqn).grad, plain[p.fqn])
        assert p.residual == 0.0
        assert ("rounding" in p.contributors) <= cached
        whole = sum(t.astype(np.float64) for t in p.tensors.values())
        np.testing.assert_allclose(whole, p.total, atol=1e-6 * sum(p.norms.values()))
    assert any("rounding" in p.contributors for p in step) == cached


def test_cast_read_outside_any_call_is_not_given_to_the_branch_that_made_it():
    net, (x, _, _) = nn.Linear(6, 6, bias=False), triple()

    def loss():
        with torch.autocast("cpu", torch.bfloat16):
            with gradflow.branch("inside"):
                y = net(x)
            z = F.linear(x, net.weight)
        return (y.float() * 2).sum() + (z.float() * 3).sum()

    step = watched(net, loss)
    weight = step["weight"]
    assert set(weight.contributors) - {"rounding"} == {"inside", "unclaimed"}
    total = net.weight.grad.numpy()
    np.testing.assert_allclose(weight.contribution("inside"), total * 2 / 5, rtol=2e-2)
    np.testing.assert_allclose(weight.contribution("unclaimed"), total * 3 / 5, rtol=2e-2)


@pytest.mark.proves(row=2, situation="parametrizations, cached or not", verdict="exact with stems")
def test_cached_parametrization_is_split():
    net, inputs = parametrizations.weight_norm(nn.Linear(6, 4)), triple()
    truth = truth_of(net, inputs)

    def loss():
        with parametrize.cached():
            return triplet(*map(net, inputs))

    step = watched(net, loss, branches=NAMES)
    assert_close(step, truth, 1e-6)
    for p in step:
        assert set(p.contributors) - {"rounding"} == set(NAMES)
        laws.assert_gradient_conserved(step)


def test_uncached_parametrization_needs_no_splitting():
    net, inputs = parametrizations.weight_norm(nn.Linear(6, 4)), triple()
    step = watched(net, lambda: triplet(*map(net, inputs)), branches=NAMES)
    assert_close(step, truth_of(net, inputs), 0.0)


@pytest.mark.proves(
    row=6, situation="a packed weight taken apart by chunk or split", verdict="exact with stems"
)
def test_packed_weight_is_split_by_branch():
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Parameter(torch.randn(12, 6))

        def forward(self, x):
            q, k, v = self.qkv.chunk(3)
            with gradflow.branch("query") as b:
                q = b.claim(x @ q.T)
            with gradflow.branch("key") as b:
                k = b.claim(x @ k.T)
            with gradflow.branch("value") as b:
                v = b.claim(x @ v.T)
            return F.softmax(q @ k.T, dim=1) @ v

    net, (x, _, _) = Packed(), triple()
    step = watched(net, lambda: net(x).square().sum())
    weight = step["qkv"]
    assert weight.contributors == ("query", "key", "value")
    laws.assert_gradient_conserved(step)
    total = net.qkv.grad.numpy()
    for i, name in enumerate(weight.contributors):
        expected = np.zeros_like(total)
        expected[4 * i : 4 * i + 4] = total[4 * i : 4 * i + 4]
        np.testing.assert_array_equal(weight.contribution(name), expected)


class Tasks(nn.Module):
    """A trunk under three heads."""

    def __init__(self, normed=True):
        super().__init__()
        layers = [nn.Linear(6, 12), nn.BatchNorm1d(12)] if normed else [nn.Linear(6, 12)]
        self.trunk = nn.Sequential(*layers, nn.Tanh(), nn.Linear(12, 8))
        self.heads = nn.ModuleDict({name: nn.Linear(8, 1) for name in NAMES})

    def forward(self, x):
        z = torch.tanh(self.trunk(x))
        return [head(z).square().mean() * (i + 1) for i, head in enumerate(self.heads.values())]


def per_loss(net, x):
    twin = laws.clean_copy(net)
    losses, params = twin(x), dict(twin.named_parameters())
    grads = [
        torch.autograd.grad(loss, params.values(), retain_graph=True, allow_unused=True) for loss in losses
    ]
    return {name: dict(zip(params, found, strict=True)) for name, found in zip(NAMES, grads, strict=True)}


@pytest.mark.proves(
    row=32, situation="a trunk under several heads", verdict="exact with stems, else `shared`"
)
def test_multi_task_trunk_is_split_exactly_on_request():
    net, (x, _, _) = Tasks(), triple()
    truth = per_loss(net, x)
    modules = dict(net.heads.items())
    step = watched(net, lambda: sum(net(x)), branches=modules, stems="split")
    for p in step:
        assert p.residual == 0.0
        for name in NAMES:
            if truth[name][p.fqn] is None:
                assert name in p.absent
            else:
                np.testing.assert_array_equal(p.contribution(name), truth[name][p.fqn].numpy())
    laws.assert_gradient_conserved(step)


def test_multi_task_trunk_is_reported_as_shared_otherwise():
    net, (x, _, _) = Tasks(), triple()
    step = watched(net, lambda: sum(net(x)), branches=dict(net.heads.items()))
    laws.assert_gradient_conserved(step)
    assert step["trunk.0.weight"].contributors == ("shared",)
    assert step["heads.anchor.weight"].contributors == ("anchor",)
    codes = [finding.code for finding in step.findings]
    assert "shared" in codes
    assert "by-reader" not in codes  # nothing counts as that of one branch


def test_trunk_that_the_loss_reads_too_keeps_that_apart():
    net, (x, _, _) = Tasks(normed=False), triple()

    def loss(m):
        z = torch.tanh(m.trunk(x))
        return sum(head(z).square().mean() for head in m.heads.values()) + z.abs().mean()

    twin = laws.clean_copy(net)
    z = torch.tanh(twin.trunk(x))
    (expected,) = torch.autograd.grad(z.abs().mean(), [twin.trunk[0].weight])
    step = watched(net, lambda: loss(net), branches=dict(net.heads.items()), stems="split")
    found = step["trunk.0.weight"].contribution("unclaimed")
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


def test_trunk_is_split_under_autocast_and_with_cached_parametrizations():
    net, (x, _, _) = Tasks(normed=False), triple()
    parametrizations.weight_norm(net.trunk[0])

    def losses(m):
        with parametrize.cached(), torch.autocast("cpu", torch.bfloat16):
            return [loss.float() for loss in m(x)]

    twin = laws.clean_copy(net)
    params = dict(twin.named_parameters())
    truth = {}
    for name, loss in zip(NAMES, losses(twin), strict=True):
        found = torch.autograd.grad(loss, params.values(), retain_graph=True, allow_unused=True)
        truth[name] = dict(zip(params, found, strict=True))
    step = watched(net, lambda: sum(losses(net)), branches=dict(net.heads.items()), stems="split")
    for p in step:
        if not p.fqn.startswith("trunk"):
            continue
        for name in NAMES:
            found, expected = p.contribution(name), truth[name][p.fqn].numpy()
            assert np.abs(found - expected).max() <= 0.02 * np.abs(expected).max()


@pytest.mark.parametrize("kind", ["cast", "parametrization", "trunk"])
def test_hook_of_the_user_on_a_weight_is_called_once_and_with_the_whole(kind):
    net, (x, _, _) = Tasks(normed=False), triple()
    if kind == "parametrization":
        parametrizations.weight_norm(net.trunk[0])
    seen = []
    weight = (
        net.trunk[0].parametrizations.weight.original1 if kind == "parametrization" else net.trunk[0].weight
    )
    handle = weight.register_hook(lambda grad: seen.append(grad.clone()))

    def loss():
        if kind == "trunk":
            return sum(net(x))
        with parametrize.cached(), torch.autocast("cpu", torch.bfloat16, enabled=kind == "cast"):
            return sum(net.trunk(n * x).float().square().mean() for n in (1, 2, 3))

    branches = dict(net.heads.items()) if kind == "trunk" else NAMES
    with gradflow.watch(net, branches=branches, stems="split" if kind == "trunk" else "report") as flow:
        for _ in range(3):
            net.zero_grad()
            seen.clear()
            loss().backward()
            flow.step()
            assert len(seen) == 1
            assert torch.equal(seen[0], weight.grad)
    assert all(len(param.contributors) > 2 for param in flow.recording.last if "trunk.0" in param.fqn)
    handle.remove()
    assert not weight._backward_hooks


def test_hook_that_is_taken_off_during_a_pass_stays_off_and_the_others_keep_their_order():
    net, (x, _, _), order = Tasks(normed=False), triple(), []
    weight = net.trunk[0].weight
    first, second = (weight.register_hook(lambda _, n=name: order.append(n)) for name in ("first", "second"))

    def end(*_):
        first.remove()
        if len(weight._backward_hooks) < 3:  # the second, and the recorder's
            weight.register_hook(lambda _: order.append("third"))

    net.trunk[2].register_full_backward_hook(end)
    with gradflow.watch(net, branches=dict(net.heads.items()), stems="split") as flow:
        sum(net(x)).backward()
        flow.step()
        order.clear()
        sum(net(x)).backward()
        flow.step()
        assert set(flow.recording.last["trunk.0.weight"].contributors) >= set(NAMES)
    assert order == ["second", "third"]
    second.remove()
    assert len(weight._backward_hooks) == 1


def test_recorder_that_is_closed_during_a_pass_leaves_no_hook():
    net, (x, _, _) = Tasks(normed=False), triple()
    flow = gradflow.watch(net, branches=dict(net.heads.items()), stems="split")
    net.trunk[2].register_full_backward_hook(lambda *_: flow.close())
    sum(net(x)).backward()
    assert not any(p._backward_hooks for p in net.parameters())


def in_threads(losses):
    threads = [threading.Thread(target=loss.backward) for loss in losses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_hooks_of_the_user_run_in_every_thread_whoever_splits_a_stem_meanwhile():
    net, calls = parametrizations.weight_norm(nn.Linear(300, 300)), []
    weight = net.parametrizations.weight.original1
    weight.register_hook(lambda _: calls.append(1))

    def loss():
        with parametrize.cached():
            a, b = net(torch.ones(2, 300)), net(torch.zeros(2, 300))
        return (a - b).square().sum()

    with gradflow.watch(net, branches=("a", "b")) as flow:
        for _ in range(10):
            in_threads([loss() for _ in range(4)])
            flow.step()
    assert len(calls) == 40


def test_threads_that_run_backwards_at_once_do_not_keep_one_another_from_splitting():
    net = nn.Sequential(*(parametrizations.weight_norm(nn.Linear(200, 200)) for _ in range(6)))

    def loss():
        with parametrize.cached():
            with gradflow.branch("left"):
                left = net(torch.ones(2, 200))
            with gradflow.branch("right"):
                right = net(torch.zeros(2, 200))
        return (left - right).square().sum()

    with gradflow.watch(net) as flow:
        for _ in range(10):
            in_threads([loss() for _ in range(4)])
            flow.step()
    names = {name for step in flow.recording for param in step for name in param.contributors}
    assert names <= {"left", "right", "rounding"}


@pytest.mark.parametrize("is_own", [True, False])
def test_fence_of_a_pass_stops_nothing_that_another_thread_sends(is_own):
    net = Tasks(normed=False)
    with gradflow.watch(net) as flow:
        passes, mark = flow._observer.passes, Mark(flow._observer.window())
        thread = threading.get_ident() if is_own else threading.get_ident() + 1
        passes._split = Split(thread, task=0, name="left", is_term=False, region=set())
        assert passes.fence(mark, (torch.ones(2),)) == ((None,) if is_own else None)
        assert (passes.split is not None) == is_own
        passes._split = None


@pytest.mark.parametrize("params", [None, ["0.weight"]], ids=["all", "one"])
def test_nothing_of_a_cast_is_kept_once_the_backward_is_over(params):
    net = nn.Sequential(*(nn.Linear(37, 37, bias=False) for _ in range(4)))
    with gradflow.watch(net, branches=("a", "b"), params=params) as flow:
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16):
                loss = (net(torch.ones(2, 37)) - net(torch.zeros(2, 37))).float().square().sum()
            loss.backward()
            flow.step()
    gc.collect()
    shape, kept = (37, 37), [one for one in gc.get_objects() if type(one) is torch.Tensor]
    assert not [one for one in kept if one.dtype == torch.bfloat16 and one.shape == shape]
    assert loss.requires_grad


@pytest.mark.filterwarnings("error")
def test_complex_cast_of_a_real_weight_is_split_without_a_warning():
    weight, (x, y, _) = nn.Parameter(torch.ones(6)), triple()
    net = nn.ParameterDict({"w": weight})
    with gradflow.watch(net) as flow:
        cast = weight.to(torch.complex64)
        with gradflow.branch("left") as left:
            one = left.claim((x * cast).abs().sum())
        with gradflow.branch("right") as right:
            other = right.claim((y * cast * 1j).abs().sum())
        (one + other).backward()
        flow.step()
    param = flow.recording.last["w"]
    assert set(param.contributors) >= {"left", "right"}
    np.testing.assert_allclose(param.norms["left"], x.abs().sum(0).norm().item(), rtol=1e-6)


def test_splitting_changes_nothing_of_the_training():
    def run(**options):
        torch.manual_seed(0)
        net = Tasks()
        opt = torch.optim.Adam(net.parameters())
        flow = gradflow.watch(net, opt, branches=dict(net.heads.items()), **options) if options else None
        losses = []
        for seed in range(5):
            opt.zero_grad()
            loss = sum(net(triple(seed)[0]))
            loss.backward()
            opt.step()
            losses.append(loss)
        if flow is not None:
            flow.close()
        return laws.state_of(net, [opt], losses)

    laws.assert_bitwise_equal(run(stems="split"), run())


def two_readers(net, x, factor):
    z = net["trunk"](x)
    with gradflow.branch("a"):
        y = net["head"](z)
    return y.sum() + factor * z.sum()


def test_trunk_that_the_loss_reads_beside_one_branch_is_not_given_to_it():
    net, (x, _, _) = nn.ModuleDict({"trunk": nn.Linear(6, 3), "head": nn.Linear(3, 3)}), triple()
    alone = watched(net, lambda: two_readers(net, x, 0.0))["trunk.weight"]
    net.zero_grad()
    reported = watched(net, lambda: two_readers(net, x, 100.0))
    assert reported["trunk.weight"].contributors == ("shared",)
    assert reported["head.weight"].contributors == ("a",)
    net.zero_grad()
    split = watched(net, lambda: two_readers(net, x, 100.0), stems="split")["trunk.weight"]
    assert set(split.contributors) - {"rounding"} == {"a", "unclaimed"}
    np.testing.assert_allclose(split.contribution("a"), alone.total, rtol=1e-5)
    expected = 100 * np.tile(x.sum(0).numpy(), (3, 1))
    np.testing.assert_allclose(split.contribution("unclaimed"), expected, rtol=1e-4)


@pytest.mark.proves(
    row=47,
    situation="a backward of its own from inside a trunk that one branch reads",
    verdict="exact with stems, else `shared`",
)
@pytest.mark.parametrize(("stems", "expected"), [("report", {"shared"}), ("split", {"unclaimed"})])
@pytest.mark.parametrize("is_first", [True, False])
def test_what_comes_from_inside_a_trunk_is_not_given_to_its_one_reader(stems, expected, is_first):
    net = nn.ModuleDict({"below": nn.Linear(6, 3), "above": nn.Linear(3, 3), "head": nn.Linear(3, 3)})
    x = triple()[0]
    with gradflow.watch(net, stems=stems, keep="tensors") as flow:
        inside = net["below"](x)
        features = net["above"](torch.relu(inside))
        with gradflow.branch("a"):
            main = net["head"](features).sum()
        if not is_first:
            main.backward(retain_graph=True)
            net.zero_grad()
        (100 * inside).sum().backward()
        flow.step()
    step = flow.recording.last
    assert set(step["below.weight"].contributors) == expected
    expected_sum = 100 * np.tile(x.sum(0).numpy(), (3, 1))
    np.testing.assert_allclose(step["below.weight"].total, expected_sum, rtol=1e-4)


def residual(net, x, factor):
    """A trunk in which three nodes read one, and the loss may read that as well."""
    inside = net["below"](x)
    features = inside + net["above"](inside) + torch.tanh(inside)
    with gradflow.branch("a"):
        main = net["head"](features).sum()
    return main + factor * inside.sum() if factor else main


def test_what_several_nodes_of_a_trunk_send_is_told_from_what_the_loss_sends_beside_them():
    net = nn.ModuleDict({"below": nn.Linear(6, 3), "above": nn.Linear(3, 3), "head": nn.Linear(3, 3)})
    x = triple()[0]
    alone = watched(net, lambda: residual(net, x, 0.0))["below.weight"]
    assert alone.contributors == ("a",)
    net.zero_grad()
    reported = watched(net, lambda: residual(net, x, 100.0))["below.weight"]
    assert reported.contributors == ("shared",)
    net.zero_grad()
    split = watched(net, lambda: residual(net, x, 100.0), stems="split")["below.weight"]
    assert set(split.contributors) - {"rounding"} == {"a", "unclaimed"}
    np.testing.assert_allclose(split.contribution("a"), alone.total, rtol=1e-5, atol=1e-5)
    expected = 100 * np.tile(x.sum(0).numpy(), (3, 1))
    np.testing.assert_allclose(split.contribution("unclaimed"), expected, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_trunk_of_many_nodes_hides_nothing_in_their_rounding(dtype):
    net = nn.ModuleDict({"below": nn.Linear(6, 3), "head": nn.Linear(3, 3)}).to(dtype)
    x = triple()[0].to(dtype)

    def loss(factor):
        inside = net["below"](x)
        features = inside
        for _ in range(60):
            features = features + 0.01 * torch.tanh(inside)
        with gradflow.branch("a"):
            main = net["head"](features).sum()
        return main + factor * inside.sum() if factor else main

    assert watched(net, lambda: loss(0.0))["below.weight"].contributors == ("a",)
    net.zero_grad()
    assert watched(net, lambda: loss(2.0))["below.weight"].contributors == ("shared",)


class Viewing(nn.Module):
    """A trunk that leaves the view of its weight where anybody may read it."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 6))

    def forward(self, x):
        self.view = self.w.t()
        return torch.relu(x @ self.view)


def test_view_of_a_shared_trunks_weight_that_the_loss_reads_too_keeps_that_apart():
    net = nn.ModuleDict({"trunk": Viewing(), "a": nn.Linear(3, 2), "b": nn.Linear(3, 2)})
    x, y, _ = triple()

    def loss():
        z = net["trunk"](x)
        return net["a"](z).sum() + net["b"](z).sum() + (y @ net["trunk"].view).sum()

    step = watched(net, loss, branches={"a": net["a"], "b": net["b"]})
    assert set(step["trunk.w"].contributors) == {"shared", "unclaimed"}
    expected = np.tile(y.sum(0).numpy(), (3, 1))
    np.testing.assert_allclose(step["trunk.w"].contribution("unclaimed"), expected, rtol=1e-4)


@pytest.mark.parametrize("stems", ["report", "split"])
def test_what_two_claims_share_is_given_to_neither_alone(stems):
    net = nn.Module()
    net.t, net.W = nn.Linear(6, 3), nn.Parameter(torch.randn(3, 3))
    x = triple()[0]

    def loss():
        m = torch.relu(net.t(x))
        with gradflow.branch("a") as b:
            za = b.claim(m @ net.W)
        with gradflow.branch("b") as b:
            zb = b.claim(m @ net.W)
        return za.sum() + 100 * zb.sum()

    step = watched(net, loss, stems=stems)
    assert step["W"].contributors == ("a", "b")
    np.testing.assert_allclose(step["W"].contribution("b"), 100 * step["W"].contribution("a"), rtol=1e-5)
    trunk = step["t.weight"]
    if stems == "report":
        assert trunk.contributors == ("shared",)
    else:
        np.testing.assert_allclose(trunk.contribution("b"), 100 * trunk.contribution("a"), rtol=1e-5)


def test_weight_made_outside_and_read_by_two_claims_is_shared():
    net, x = nn.Module(), triple()[0]
    net.W = nn.Parameter(torch.randn(6, 3))

    def loss():
        w = torch.tanh(net.W)
        with gradflow.branch("a") as b:
            za = b.claim(x @ w)
        with gradflow.branch("b") as b:
            zb = b.claim(x @ w)
        return za.sum() + 100 * zb.sum()

    assert watched(net, loss)["W"].contributors == ("shared",)
    net.zero_grad()
    weight = watched(net, loss, stems="split")["W"]
    np.testing.assert_allclose(weight.contribution("b"), 100 * weight.contribution("a"), rtol=1e-5)


def test_stretch_left_unclaimed_in_one_branch_is_not_given_to_the_next():
    net, x = nn.Module(), triple()[0]
    net.W, net.lin = nn.Parameter(torch.randn(6, 3)), nn.Linear(3, 3)

    def loss():
        with gradflow.branch("a"):
            z = x @ net.W
        with gradflow.branch("b"):
            return net.lin(z).sum()

    step = watched(net, loss)
    assert step["W"].contributors == ("unclaimed",)
    assert step["W"].residual == 0.0
    assert set(step.branches) == {"a", "b"}


def test_stretch_in_an_inner_branch_is_not_given_to_the_outer():
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.W, self.V = nn.Parameter(torch.randn(6, 3)), nn.Parameter(torch.randn(3, 3))

        def forward(self, x):
            with gradflow.branch("inner"):
                z = x @ self.W
            return z @ self.V

    net, x = Inner(), triple()[0]

    def loss():
        with gradflow.branch("outer"):
            return net(x).sum()

    step = watched(net, loss)
    assert step["W"].contributors == ("unclaimed",)
    assert step["V"].contributors == ("outer",)


def test_stretch_before_a_call_inside_the_same_branch_is_its_own():
    net, x = nn.Module(), triple()[0]
    net.W, net.lin = nn.Parameter(torch.randn(6, 3)), nn.Linear(3, 3)

    def loss():
        outputs = []
        for name in ("a", "b"):
            with gradflow.branch(name):
                outputs.append(net.lin(x @ net.W).sum())
        return outputs[0] + 2 * outputs[1]

    weight = watched(net, loss)["W"]
    assert weight.contributors == ("a", "b")
    np.testing.assert_array_equal(weight.contribution("b"), 2 * weight.contribution("a"))


def test_reader_of_the_inside_of_a_split_trunk_is_kept_apart():
    net, (x, _, _) = Tasks(normed=False), triple()
    heads = dict(net.heads.items())

    def loss(m, factor):
        inner = m.trunk[0](x)
        z = torch.tanh(m.trunk[2](torch.tanh(inner)))
        return sum(head(z).square().mean() for head in m.heads.values()) + factor * inner.sum()

    alone = watched(net, lambda: loss(net, 0.0), branches=heads, stems="split")
    net.zero_grad()
    step = watched(net, lambda: loss(net, 100.0), branches=heads, stems="split")
    weight = step["trunk.0.weight"]
    expected = 100 * np.tile(x.sum(0).numpy(), (12, 1))
    np.testing.assert_allclose(weight.contribution("unclaimed"), expected, rtol=1e-4, atol=1e-3)
    for name in NAMES:
        found = alone["trunk.0.weight"].contribution(name)
        np.testing.assert_allclose(weight.contribution(name), found, rtol=1e-5, atol=1e-7)
    net.zero_grad()
    reported = watched(net, lambda: loss(net, 100.0), branches=heads)
    assert reported["trunk.0.weight"].contributors == ("shared",)


class Heads(nn.Module):
    """Two heads behind a trunk, with or without glue and necks of no branch in between."""

    def __init__(self):
        super().__init__()
        for name in ("trunk", "neck_a", "neck_b", "a", "b"):
            setattr(self, name, nn.Linear(6, 6))

    def glued(self, x):
        z = self.trunk(x)
        return self.a(z).square().sum(), 100 * self.b(torch.relu(z)).square().sum()

    def necked(self, x):
        z = self.trunk(x)
        one, two = torch.relu(self.neck_a(z)), torch.relu(self.neck_b(z))
        return self.a(one).square().sum(), 100 * self.b(two).square().sum()

    def read_by_the_loss(self, x):
        z = self.trunk(x)
        return self.a(torch.relu(z)).square().sum(), 100 * z.square().sum()


@pytest.mark.parametrize("way", ["glued", "necked", "read_by_the_loss"])
def test_what_lies_between_trunk_and_heads_is_told_apart(way):
    net, x = Heads(), triple()[0]
    twin = laws.clean_copy(net)
    names = ("a", "unclaimed") if way == "read_by_the_loss" else ("a", "b")
    params = dict(twin.named_parameters())
    truth = {}
    for name, part in zip(names, getattr(twin, way)(x), strict=True):
        found = torch.autograd.grad(part, params.values(), retain_graph=True, allow_unused=True)
        truth[name] = dict(zip(params, found, strict=True))
    branches = {"a": net.a, "b": net.b}
    step = watched(net, lambda: sum(getattr(net, way)(x)), branches=branches, stems="split")
    for p in step:
        brought = {name: found[p.fqn] for name, found in truth.items() if found[p.fqn] is not None}
        assert set(p.contributors) - {"rounding"} == set(brought), p.fqn
        for name, found in brought.items():
            np.testing.assert_allclose(p.contribution(name), found.numpy(), rtol=1e-4, atol=1e-4)
    net.zero_grad()
    reported = watched(net, lambda: sum(getattr(net, way)(x)), branches=branches)
    assert reported["trunk.weight"].contributors == ("shared",)


@pytest.mark.parametrize("stems", ["report", "split"])
def test_branch_before_a_trunk_keeps_its_own(stems):
    net = nn.ModuleDict({name: nn.Linear(6, 6) for name in ("enc", "mid", "head")})
    x = triple()[0]

    def loss():
        with gradflow.branch("e"):
            e = net["enc"](x)
        m = net["mid"](e)
        with gradflow.branch("h"):
            h = net["head"](m)
        return h.square().sum() + m.square().sum()

    step = watched(net, loss, stems=stems)
    assert step["enc.weight"].contributors == ("e",)
    assert step["head.weight"].contributors == ("h",)
    expected = {"report": {"shared"}, "split": {"h", "unclaimed", "rounding"}}[stems]
    assert set(step["mid.weight"].contributors) | {"rounding"} == expected | {"rounding"}
