"""Which path a use belongs to: named stretches, named modules, and paths found by counting."""

import contextvars
import random
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from gradflow.capture import branches
from tests import laws

NAMES = ("anchor", "positive", "negative")


def encoder():
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))


def triple(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(5, 6, generator=generator) for _ in range(3)]


def triplet(a, p, n):
    return F.triplet_margin_loss(a, p, n, margin=5.0)


def backward_step(flow, loss):
    loss.backward()
    flow.step()
    return flow.recording.last


def assert_is(step, truth):
    """Every contribution equals the oracle's, bit for bit."""
    laws.assert_gradient_conserved(step)
    for p in step:
        for name, found in truth.items():
            if found.get(p.fqn) is None:
                assert name not in p.contributors
            else:
                np.testing.assert_array_equal(p.contribution(name), found[p.fqn].numpy())


class Wrapper(nn.Module):
    """The second idiom: a wrapper whose inner net is called three times."""

    def __init__(self):
        super().__init__()
        self.net = encoder()

    def forward(self, a, p, n):
        return self.net(a), self.net(p), self.net(n)


class Joined(nn.Module):
    """Takes arrays, names its paths itself, and joins what they give before it returns."""

    def __init__(self):
        super().__init__()
        self.net = encoder()

    def forward(self, *inputs):
        found = []
        for name, x in zip(NAMES, inputs, strict=True):
            with gradflow.branch(name):
                found.append(self.net(torch.from_numpy(x)))
        return torch.cat(found)


def test_module_that_is_given_no_tensor_and_joins_its_named_paths_shares_nothing():
    net, inputs = Joined(), triple()
    calls = {name: (x,) for name, x in zip(NAMES, inputs, strict=True)}
    truth = laws.leaf_aliases(net.net, calls, lambda out: triplet(*out.values()))
    with gradflow.watch(net, keep="tensors") as flow:
        step = backward_step(flow, triplet(*net(*(x.numpy() for x in inputs)).split(5)))
    assert_is(step, {n: {f"net.{k}": g for k, g in found.items()} for n, found in truth.items()})


class Judged(nn.Module):
    """Takes arrays; two heads read what its three paths give, so that all of these meet inside it."""

    def __init__(self, make):
        super().__init__()
        self.net, self.heads = make(), nn.ModuleList([nn.Linear(4, 1), nn.Linear(4, 2)])

    def judge(self, a, p, n):
        return sum(head(a * p - n).square().mean() for head in self.heads)

    def forward(self, *inputs):
        return self.judge(*(self.net(torch.from_numpy(x)) for x in inputs))


class Packed(nn.Module):
    """An encoder that reads views of one weight, residually."""

    def __init__(self):
        super().__init__()
        self.packed, self.inner = nn.Parameter(torch.randn(12, 6) / 4), nn.Linear(6, 6)

    def forward(self, x):
        into, out = self.packed.split([6, 6])
        return torch.tanh(x + self.inner(x) @ into) @ out[:, :4]


@pytest.mark.parametrize("make", [encoder, Packed])
@pytest.mark.parametrize("branches", [NAMES, None])
def test_paths_that_meet_inside_a_module_that_is_given_no_tensor_are_counted(make, branches):
    net, inputs = Judged(make), triple()
    calls = {f"net#{i}" if branches is None else NAMES[i]: (x,) for i, x in enumerate(inputs)}
    truth = laws.leaf_aliases(net.net, calls, lambda out: net.judge(*out.values()))
    with gradflow.watch(net, branches=branches, keep="tensors") as flow:
        step = backward_step(flow, net(*(x.numpy() for x in inputs)))
    for param in step:
        if param.fqn.startswith("net."):
            assert param.contributors == tuple(truth)
            for name, found in truth.items():
                np.testing.assert_array_equal(param.contribution(name), found[param.fqn[4:]].numpy())
        else:
            assert param.contributors == (param.fqn.rpartition(".")[0],)
    laws.assert_gradient_conserved(step)


class Policy(nn.Module):
    """Gives a distribution, whose spread is a parameter that no module holds."""

    def __init__(self):
        super().__init__()
        self.net, self.log_std = encoder(), nn.Parameter(torch.zeros(4))

    def forward(self, x):
        return torch.distributions.Independent(torch.distributions.Normal(self.net(x), self.log_std.exp()), 1)


def test_what_a_module_puts_into_a_distribution_is_seen():
    net, inputs, action = Policy(), triple(), torch.ones(5, 4)
    calls = {name: (x,) for name, x in zip(NAMES, inputs, strict=True)}
    truth = laws.leaf_aliases(net, calls, lambda out: sum(d.log_prob(action).mean() for d in out.values()))
    with gradflow.watch(net, branches=NAMES, keep="tensors") as flow:
        step = backward_step(flow, sum(net(x).log_prob(action).mean() for x in inputs))
    assert step["log_std"].contributors == NAMES
    assert_is(step, truth)


class Slotted:
    """Holds what it is given, without a dictionary."""

    __slots__ = ("nodes",)

    def __init__(self, nodes):
        self.nodes = nodes


class Passing(nn.Module):
    """Takes and gives an object, as layers of graph networks do."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.own = kind, nn.Parameter(torch.randn(6, 6) / 3)

    def forward(self, graph):
        return self.kind(nodes=torch.tanh(graph.nodes @ self.own))


@pytest.mark.parametrize(
    "kind", [SimpleNamespace, Slotted, lambda nodes: SimpleNamespace(nodes=nodes, of=[nodes])]
)
def test_objects_that_hold_tensors_carry_a_path_from_call_to_call(kind):
    net, inputs = nn.Sequential(Passing(kind), Passing(kind)), triple()
    head = nn.Linear(6, 4)
    whole = nn.ModuleList([net, head])
    calls = {name: (kind(nodes=x),) for name, x in zip(NAMES, inputs, strict=True)}
    truth = laws.leaf_aliases(net, calls, lambda out: triplet(*(head(g.nodes) for g in out.values())))
    with gradflow.watch(whole, branches=NAMES, keep="tensors") as flow:
        step = backward_step(flow, triplet(*(head(net(kind(nodes=x)).nodes) for x in inputs)))
    assert step["1.weight"].contributors == NAMES
    for name, found in truth.items():
        for fqn, gradient in found.items():
            np.testing.assert_array_equal(step[f"0.{fqn}"].contribution(name), gradient.numpy())


def test_large_objects_are_not_searched():
    class Watched(dict):
        def values(self):
            raise AssertionError("searched")

    words = Watched({i: i for i in range(100)})
    net = encoder()
    net.register_forward_hook(lambda _net, _inputs, out: SimpleNamespace(out=out, words=words))
    with gradflow.watch(net, branches=NAMES) as flow:
        step = backward_step(flow, triplet(*(net(x).out for x in triple())))
    assert step.complete


class ForwardOnce(nn.Module):
    """The third idiom: a method called twice, never the module itself."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Linear(6, 8)
        self.fc1 = nn.Linear(8, 4)

    def forward_once(self, x):
        return torch.relu(self.fc1(torch.relu(self.conv1(x)).view(-1, 8)))

    def forward(self, left, right):
        return self.forward_once(left), self.forward_once(right)


def test_encoder_called_three_times():
    net, inputs = encoder(), triple()
    truth = laws.two_stage(net, lambda m: triplet(*map(m, inputs)), "", NAMES)
    with gradflow.watch(net, branches=NAMES, keep="tensors") as flow:
        step = backward_step(flow, triplet(*map(net, inputs)))
    assert step.branches == NAMES
    assert_is(step, truth)
    assert [use.call for use in step["0.weight"].uses] == ["0#2", "0#1", "0#0"]


def test_wrapper_whose_inner_net_is_called_three_times():
    net, inputs = Wrapper(), triple()
    truth = laws.two_stage(net, lambda m: triplet(*m(*inputs)), "net", NAMES)
    with gradflow.watch(net, branches=NAMES, keep="tensors") as flow:
        step = backward_step(flow, triplet(*net(*inputs)))
    assert_is(step, truth)
    assert step.branches == NAMES


def test_forward_once_called_twice():
    net, (a, b, _) = ForwardOnce(), triple()
    names = ("left", "right")
    truth = laws.two_stage(net, lambda m: F.pairwise_distance(*m(a, b)).sum(), "fc1", names)
    with gradflow.watch(net, branches=names, keep="tensors") as flow:
        step = backward_step(flow, F.pairwise_distance(*net(a, b)).sum())
    assert_is(step, truth)


def test_later_module_follows_its_input_and_not_its_count():
    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.f, self.h = nn.Linear(6, 8), nn.Linear(8, 4)

        def forward(self, x, y):
            zx, zy = self.f(x), self.f(y)
            hy, hx = self.h(zy), self.h(zx)  # the other way round
            return hx, hy

    net, (a, b, _) = Crossed(), triple()
    names = ("x", "y")
    truth = laws.two_stage(net, lambda m: F.pairwise_distance(*m(a, b)).sum(), "h", ("y", "x"))
    with gradflow.watch(net, branches=names, keep="tensors") as flow:
        step = backward_step(flow, F.pairwise_distance(*net(a, b)).sum())
    assert_is(step, truth)


def test_without_names_paths_are_numbered():
    net, inputs = Wrapper(), triple()
    with gradflow.watch(net) as flow:
        step = backward_step(flow, triplet(*net(*inputs)))
    assert step.branches == ("net#0", "net#1", "net#2")
    with gradflow.watch(net.net) as flow:
        step = backward_step(flow, triplet(*map(net.net, inputs)))
    assert step.branches == ("Sequential#0", "Sequential#1", "Sequential#2")


def test_module_called_once_over_two_paths_is_a_path_of_its_own():
    class Compared(nn.Module):
        def __init__(self):
            super().__init__()
            self.f, self.head = nn.Linear(6, 8), nn.Linear(16, 1)

        def forward(self, x, y):
            return self.head(torch.cat([self.f(x), self.f(y)], dim=1))

    net, (a, b, _) = Compared(), triple()
    with gradflow.watch(net, branches=("left", "right")) as flow:
        step = backward_step(flow, net(a, b).square().sum())
    assert step["f.weight"].contributors == ("left", "right")
    assert step["f.weight"].absent == ("head",)
    assert step["head.weight"].contributors == ("head",)


def test_chain_of_calls_is_one_path_unless_every_call_has_a_name():
    cell, x = nn.RNNCell(3, 4), torch.randn(5, 2, 3)

    def run():
        h = torch.zeros(2, 4)
        for row in x:
            h = cell(row, h)
        return h.square().sum()

    with gradflow.watch(cell) as flow:
        step = backward_step(flow, run())
    assert step.branches == ("RNNCell#0",)
    assert len(step["weight_hh"].uses) == 5
    names = tuple(f"t{i}" for i in range(5))
    with gradflow.watch(cell, branches=names) as flow:
        step = backward_step(flow, run())
    assert step["weight_hh"].contributors == names


def test_two_sequences_through_one_cell_are_two_paths():
    cell, x = nn.GRUCell(3, 4), torch.randn(2, 5, 2, 3)

    def run():
        ends = []
        for sequence in x:
            h = torch.zeros(2, 4)
            for row in sequence:
                h = cell(row, h)
            ends.append(h)
        return F.pairwise_distance(*ends).sum()

    with gradflow.watch(cell, branches=("left", "right")) as flow:
        step = backward_step(flow, run())
    assert step["weight_ih"].contributors == ("left", "right")
    assert [use.branch for use in step["weight_ih"].uses].count("left") == 5


def test_names_that_fit_nothing_are_told_once_and_not_guessed():
    net, inputs = encoder(), triple()
    with gradflow.watch(net, branches=NAMES) as flow:
        with pytest.warns(RuntimeWarning, match="fit no set of paths"):
            step = backward_step(flow, F.pairwise_distance(net(inputs[0]), net(inputs[1])).sum())
        assert step.branches == ("Sequential#0", "Sequential#1")
        assert "branches-misfit" in [finding.code for finding in step.findings]
        step = backward_step(flow, net(torch.cat(inputs)).sum())
    assert step.branches == ("Sequential",)
    assert "branches-misfit" in [finding.code for finding in step.findings]


def test_named_stretches_decide_and_the_innermost_wins():
    net, (a, p, n) = encoder(), triple()
    with gradflow.watch(net) as flow:
        with gradflow.branch("outer"):
            za = net(a)
            with gradflow.branch("inner"):
                zp = net(p)
            zn = net(n)
        step = backward_step(flow, triplet(za, zp, zn))
    assert set(step.branches) == {"outer", "inner"}
    weight = step["0.weight"]
    assert sorted(use.branch for use in weight.uses) == ["inner", "outer", "outer"]


def test_named_modules_are_branches_and_their_trunk_is_shared():
    class Tasks(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk, self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 1), nn.Linear(8, 1)

        def forward(self, x):
            z = torch.tanh(self.trunk(x))
            return self.a(z), self.b(z)

    net, (x, _, _) = Tasks(), triple()
    with gradflow.watch(net, branches={"task_a": net.a, "task_b": net.b}) as flow:
        one, two = net(x)
        step = backward_step(flow, one.square().sum() + two.abs().sum())
        assert step["a.weight"].contributors == ("task_a",)
        assert step["trunk.weight"].contributors == ("shared",)
        net.zero_grad()
        step = backward_step(flow, net(x)[0].square().sum())
        assert step["b.weight" if "b.weight" in step.params else "a.weight"].fqn == "a.weight"
        assert step.branches == ("task_a", "task_b")


def test_trunk_read_by_one_branch_only_belongs_to_it():
    trunk, head = nn.Linear(6, 8), nn.Linear(8, 1)
    net = nn.ModuleList([trunk, head])
    with gradflow.watch(net) as flow:
        z = torch.relu(trunk(triple()[0]))
        with gradflow.branch("task"):
            out = head(z)
        step = backward_step(flow, out.sum())
    assert step["0.weight"].contributors == ("task",)
    assert "by-reader" in [finding.code for finding in step.findings]


def test_stretch_without_module_calls_is_unclaimed_and_can_be_claimed():
    class Clip(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.proj = nn.Linear(6, 8), nn.Parameter(torch.randn(8, 4))

    net, (x, y, _) = Clip(), triple()

    def run(claims):
        with gradflow.branch("text") as b:
            z = net.encoder(x) @ net.proj
            z = b.claim(z) if claims else z
        with gradflow.branch("image") as b:
            v = net.encoder(y) @ net.proj
            v = b.claim(v) if claims else v
        return (z * v).sum()

    with gradflow.watch(net, keep="tensors") as flow:
        step = backward_step(flow, run(claims=False))
        assert step["proj"].contributors == ("unclaimed",)
        assert step["proj"].residual > 0
        assert "unclaimed" in [finding.code for finding in step.findings]
        np.testing.assert_array_equal(step["proj"].contribution("unclaimed"), net.proj.grad.numpy())
        net.zero_grad()
        step = backward_step(flow, run(claims=True))
    assert step["proj"].contributors == ("text", "image")
    laws.assert_gradient_conserved(step)


@pytest.mark.parametrize("is_read_before", [False, True])
def test_stretch_that_calls_of_two_windows_read_is_shared_whoever_read_it_before(is_read_before):
    net, x = nn.ModuleDict({name: nn.Linear(4, 4) for name in "abcde"}), torch.ones(2, 4)
    with gradflow.watch(net) as flow:
        z = torch.tanh(net["a"](x))
        if is_read_before:
            net["b"](z)
        with gradflow.branch("left"):
            left = net["c"](z)
        net["d"](x).sum().backward()  # the window is over
        right = net["e"](z)
        (left.sum() + 0.0 * right.sum()).backward()
        flow.step()
    assert flow.recording.last["a.weight"].contributors == ("shared",)


def test_stretch_that_is_over_is_found_among_many(monkeypatch):
    draw, seen, made = random.Random(0), [], 0
    monkeypatch.setattr(branches, "_nodes_made", lambda: made)

    def grow(depth):
        nonlocal made
        for number in range(draw.randrange(5)):
            made += draw.randrange(3)
            start, name = made, f"{9 - depth}.{number}"
            with gradflow.branch(name):
                if depth < 4:
                    grow(depth + 1)
                made += draw.randrange(3)
            seen.append((depth, start, made, name))

    def look():
        while len(seen) < 3 * branches._REMEMBERED:
            grow(0)
        kept = seen[-branches._REMEMBERED :]
        for number in range(made + 2):
            around = [one for one in kept if one[1] <= number < one[2]]
            assert branches.closed_stretch(number) == (max(around)[3] if around else None)

    contextvars.Context().run(look)


def test_term_of_the_loss_on_the_weights_is_unclaimed():
    net, inputs = encoder(), triple()
    with gradflow.watch(net, branches=NAMES, keep="tensors") as flow:
        loss = triplet(*map(net, inputs)) + 0.1 * net[0].weight.square().sum()
        step = backward_step(flow, loss)
    weight = step["0.weight"]
    assert weight.contributors == (*NAMES, "unclaimed")
    assert weight.residual > 0
    expected = 0.2 * net[0].weight.detach().numpy()
    np.testing.assert_allclose(weight.contribution("unclaimed"), expected, rtol=1e-4, atol=1e-6)
    assert step["0.bias"].contributors == NAMES


@pytest.mark.proves(row=31, situation="threads", verdict="exact")
def test_thread_does_not_inherit_a_branch_and_labels_hold_in_threads():
    net, inputs = encoder(), triple()
    outputs = {}

    def forward(name, x):
        with gradflow.branch(name):
            outputs[name] = net(x)

    with gradflow.watch(net, keep="tensors") as flow:
        with gradflow.branch("main"):
            threads = [
                threading.Thread(target=forward, args=pair) for pair in zip(NAMES, inputs, strict=True)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        step = backward_step(flow, triplet(*(outputs[name] for name in NAMES)))
    truth = laws.leaf_aliases(
        net, {n: (x,) for n, x in zip(NAMES, inputs, strict=True)}, lambda out: triplet(*out.values())
    )
    assert set(step.branches) == set(NAMES)
    for p in step:
        for name in NAMES:
            expected = truth[name][p.fqn].numpy()
            np.testing.assert_allclose(p.contribution(name), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.proves(row=24, situation="frozen, detached and dead paths", verdict="exact: absent is not zero")
def test_detached_branch_is_absent_and_a_dead_one_is_zero():
    net, (a, p, n) = encoder(), triple()
    with gradflow.watch(net, branches=NAMES) as flow:
        step = backward_step(flow, triplet(net(a), net(p), net(n).detach()))
        assert step["0.weight"].contributors == ("anchor", "positive")
        assert step["0.weight"].absent == ("negative",)
        assert "branch-absent" in [finding.code for finding in step.findings]
        net.zero_grad()
        step = backward_step(flow, F.triplet_margin_loss(net(a), net(a), net(n) + 100, margin=0.1))
        assert step["0.weight"].absent == ()
        assert step["0.weight"].norms == dict.fromkeys(NAMES, 0.0)
        assert np.isnan(step["0.weight"].cosine("anchor", "negative"))


@pytest.mark.parametrize("name", ["", "unclaimed", "decay", 3])
def test_names_that_cannot_be_branches_are_refused(name):
    with pytest.raises(gradflow.GradflowError, match="do:"):
        gradflow.branch(name)
    with pytest.raises(gradflow.GradflowError, match="do:"):
        gradflow.watch(encoder(), branches=(name, "other"))


def test_a_module_without_parameters_that_is_used_again_is_no_path():
    act = torch.nn.ReLU()
    net = torch.nn.Sequential(torch.nn.Linear(5, 6), act, torch.nn.Linear(6, 6), act, torch.nn.Linear(6, 2))
    with gradflow.watch(net) as flow:
        net(torch.randn(3, 5)).square().sum().backward()
        flow.step()
    assert {p.contributors for p in flow.recording.last} == {("Sequential",)}
    with gradflow.watch(net, branches=("left", "right")) as flow:
        (net(torch.randn(3, 5)) * net(torch.randn(3, 5))).sum().backward()
        flow.step()
    assert {p.contributors for p in flow.recording.last} == {("left", "right")}


def test_a_module_without_parameters_places_what_lies_behind_it_in_its_branch():
    act, weight = torch.nn.ReLU(), torch.nn.Parameter(torch.randn(5, 4))
    net = torch.nn.Module()
    net.act, net.weight = act, weight
    with gradflow.watch(net) as flow:
        with gradflow.branch("left"):
            left = act(torch.randn(3, 5) @ weight)
        with gradflow.branch("right"):
            right = act(torch.randn(3, 5) @ weight)
        (left - right).square().sum().backward()
        flow.step()
    assert flow.recording.last["weight"].contributors == ("left", "right")


@pytest.mark.parametrize("is_named_before", [False, True])
def test_what_a_module_without_parameters_makes_of_a_weight_belongs_to_the_call_around_it(is_named_before):
    """Whether a branch was ever named on a thread decides if such modules are told of, and nothing else."""
    made = []

    def train():
        if is_named_before:
            with gradflow.branch("before"):
                pass
        torch.manual_seed(0)
        net = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(5, 4))
        with gradflow.watch(net, branches=("left", "right")) as flow:
            (net(torch.randn(3, 5)) * net(torch.randn(3, 5))).sum().backward()
            flow.step()
        made.append(flow.recording.last)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert {p.contributors for p in made[0]} == {("left", "right")}
