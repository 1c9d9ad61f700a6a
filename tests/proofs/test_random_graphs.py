"""Random graphs of shared modules in random branches, against leaves of their own for every branch."""

import os

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, reject, settings
from hypothesis import strategies as st

import gradflow
from tests import laws
from tests.proofs.programs import BINARY, MAKERS, OUTSIDE, UNARY, Op, Oracle, Parts, Program, Whole, run

NAMES = ("anchor", "positive", "negative")
WAYS = ((), *((name,) for name in NAMES), ("anchor", "positive"), ("negative", "anchor", "negative"))
PATHS = ("first", "second", "third", "fourth")
TOLERANCE = 1e-12  # of the largest entry that any contributor brings; the sums run in another order
COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}
FIXED = settings(max_examples=100, derandomize=True, **COMMON)
DEEP = settings(max_examples=int(os.environ.get("GRADFLOW_EXAMPLES", "3000")), **COMMON)


@st.composite
def programs(draw):
    """Draw a program: two to nine operations over one to three inputs."""
    inputs = draw(st.integers(1, 3))
    ops, data, weights = [], list(range(inputs)), {}
    trunk = draw(st.integers(0, 3))
    for position in range(inputs, inputs + trunk + draw(st.integers(2, 7))):
        path = () if position < inputs + trunk else draw(st.sampled_from(WAYS))
        op = draw(_ops(path, data, weights))
        ops.append(op)
        if op.kind == "weigh":
            weights[position] = op.path
        else:
            data.append(position)
    made = [i for i in data if i >= inputs]
    assume(made)
    lately = made[-3:] if draw(st.booleans()) else made
    ends = draw(st.lists(st.sampled_from(lately), min_size=1, max_size=4, unique=True))
    flags = {name: draw(st.booleans()) for name in ("decay", "inside")}
    program = Program(inputs, tuple(ops), tuple(ends), rounds=draw(st.integers(1, 2)), **flags)
    assume(program.branches)
    return program


@st.composite
def _ops(draw, path, data, weights):
    kind = draw(st.sampled_from(("call", "call", "call", "use", "use", "weigh", "mix", "detach")))
    one = st.sampled_from(data + 2 * data[-3:])  # rather what was made lately, so that graphs grow deep
    if kind == "call":
        part = draw(st.sampled_from(UNARY + BINARY))
        args = [draw(one) for _ in range(1 if part in UNARY else 2)]
        return Op(kind, tuple(args), part, path)
    if kind == "weigh":
        part = draw(st.sampled_from(MAKERS))
        return Op(kind, (), part, path if part == "made" else ())  # a bare view knows no branch
    if kind == "detach":
        return Op(kind, (draw(one),))
    if kind == "use":
        read = [draw(one)]
        known = [weight for weight, place in weights.items() if path or not place]
        if known and draw(st.booleans()):
            read.append(draw(st.sampled_from(known)))
        return Op(kind, tuple(read), "", path)
    both = [draw(one) for _ in range(2)]
    return Op(kind, tuple(both), draw(st.sampled_from(("sum", "product"))), path)


@st.composite
def chains(draw):
    """Draw two to four paths through the same chain of modules, layer by layer or path by path, shuffled."""
    count = draw(st.integers(2, 4))
    parts = draw(st.lists(st.sampled_from((*UNARY, "twofold", "mix")), min_size=1, max_size=4))
    assume(parts[0] != "mix")
    turns = draw(st.permutations(range(1, count))) if len(parts) > 1 else []
    orders = [(layer, path) for layer in range(len(parts)) for path in range(count)]
    if draw(st.booleans()):
        orders.sort(key=lambda turn: (turn[1], turn[0]))
    elif turns:
        orders = [t for t in orders if t[0] == 0] + [
            (layer, path) for layer in range(1, len(parts)) for path in (*turns, 0)
        ]
    newest, ops = list(range(count)), []
    for layer, path in orders:
        reads = (newest[path],) * (1 if parts[layer] in UNARY else 2)
        kind = "mix" if parts[layer] == "mix" else "call"
        ops.append(Op(kind, reads, "product" if kind == "mix" else parts[layer], (PATHS[path],)))
        newest[path] = count + len(ops) - 1
    return Program(
        count, tuple(ops), tuple(newest), inside=draw(st.booleans()), rounds=draw(st.integers(1, 2))
    )


def model_of():
    torch.manual_seed(0)
    return Whole(Parts())


def backwards(program, model):
    losses = []
    for round_ in range(program.rounds):
        losses.append(run(program, model, program.data(round_)))
        losses[-1].backward()
    return losses


def assert_right(program, truth, **options):
    """Hold the laws, and every contribution of a run to what the oracle says."""
    found = [g for own in truth.values() for g in own.values() if g is not None]
    if not found:
        reject()
    model = model_of()
    plain = laws.state_of(model, [], backwards(program, model))
    watched, hooks = model_of(), laws.hook_counts(model)
    with gradflow.watch(watched, keep="tensors", **options) as flow:
        losses = backwards(program, watched)
        flow.step()
    step = flow.recording.last
    laws.assert_bitwise_equal(laws.state_of(watched, [], losses), plain)
    assert laws.hook_counts(watched) == hooks
    assert step.complete
    assert {n for n, p in model.named_parameters() if p.grad is not None} == set(step.params)
    scale = max(g.abs().max().item() for g in found)
    for p in step:
        np.testing.assert_array_equal(p.total, model.get_parameter(p.fqn).grad.numpy())
        assert_contributions(p, truth, scale)
    if program.rounds == 1:
        assert_let_go(program, step, **options)


def assert_let_go(program, kept, **options):
    """Hold a second step, whose contributions are let go of as they are read, to the same one kept whole."""
    model = model_of()
    with gradflow.watch(model, **options) as flow:
        for _ in range(2):
            model.zero_grad()
            backwards(program, model)
            flow.step()
    step = flow.recording.last
    assert step.complete
    assert step.params == kept.params
    for p, whole in zip(step, kept, strict=True):
        assert p.contributors == whole.contributors
        scale = np.abs(whole.gram).max(initial=0.0)
        np.testing.assert_allclose(p.gram, whole.gram, rtol=1e-9, atol=1e-12 * scale)
        assert p.residual == whole.residual
        assert [use.branch for use in p.uses] == [use.branch for use in whole.uses]


def assert_contributions(p, truth, scale):
    fqn = p.fqn.removeprefix("parts.")
    expected = {name: own[fqn].numpy() for name, own in truth.items() if own.get(fqn) is not None}
    tolerance = TOLERANCE if p.tensors[p.contributors[0]].dtype == np.float64 else 1e-6
    for name in {*p.contributors, *expected}:
        found = p.tensors.get(name, 0.0)
        np.testing.assert_allclose(
            found, expected.get(name, 0.0), atol=tolerance * scale, rtol=0, err_msg=f"{name} of {fqn}"
        )
    if not any(name == OUTSIDE for name in expected):
        assert p.residual == 0.0


def assert_split(program):
    assert_right(program, Oracle(program, model_of(), splits=True).contributions(), stems="split")


def assert_told(program):
    assert_right(program, Oracle(program, model_of(), splits=False).contributions())


def assert_counted(program):
    truth = Oracle(program, model_of(), splits=False).contributions()
    truth.pop(OUTSIDE, None)
    assert_right(program.without_names(), truth, branches=PATHS[: program.inputs])


READ_BACK = (
    Op("call", (0,), "one"),  # 1: outside any branch
    Op("use", (1,), "", ("anchor",)),  # 2: a branch reads it
    Op("mix", (1, 2), "sum"),  # 3: and outside meets both again
    Op("use", (3,), "", ("anchor",)),  # makes 3 a trunk; the loss does not read it
)


@pytest.mark.proves(
    row=45, situation="a trunk that leads through a branch and back", verdict="exact with stems"
)
def test_a_trunk_that_leads_through_a_branch_is_split_without_what_the_branch_brings():
    assert_split(Program(1, READ_BACK, ends=(3,)))


@pytest.mark.parametrize("kind", ["sum", "product"])
def test_a_trunk_that_leads_through_a_branch_twice_is_split_without_what_the_branch_brings(kind):
    again = (Op("mix", (3, 4), kind), Op("use", (5,), "", ("positive",)))
    assert_split(Program(1, (*READ_BACK, *again), ends=(5, 6)))


def test_a_made_weight_is_split_although_one_of_its_readers_is_itself_shared():
    ops = (
        Op("weigh", (), "made"),  # 1
        Op("use", (0, 1)),  # 2: outside, read by the branch and by the loss
        Op("use", (2, 1), "", ("anchor",)),  # 3
    )
    assert_told(Program(1, ops, ends=(2, 3)))


@FIXED
@given(programs())
def test_random_graphs_are_split_exactly(program):
    assert_split(program)


@FIXED
@given(programs())
def test_random_graphs_are_exact_or_told_as_shared(program):
    assert_told(program)


@FIXED
@given(chains())
def test_paths_found_by_counting_are_those_of_the_inputs(program):
    assert_counted(program)


@pytest.mark.slow
@pytest.mark.parametrize("hold", [assert_split, assert_told, assert_counted])
def test_many_more_random_graphs(hold):
    DEEP(given(chains() if hold is assert_counted else programs())(hold))()
