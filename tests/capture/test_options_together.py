"""``every``, ``last``, ``to``, patterns and pauses in pairs: what is kept is what a recording of all keeps.

The oracle is the same training with the same seeds, watched at every step with nothing left out. All that a
step keeps must be the same to the last bit. Only the split of a delta may differ where the optimizer
remembers steps that were not watched: there the law of conservation is the oracle, and the delta the same.
"""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from tests.storage.same import assert_same

NAMES = ("anchor", "positive", "negative")
STEPS = 9
OPTIMIZERS = {
    "SGD": lambda params: torch.optim.SGD(params, lr=0.1),
    "momentum": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9),
    "Adam": lambda params: torch.optim.Adam(params, lr=0.01, weight_decay=0.1),
}
REMEMBERS = ("momentum", "Adam")
FACTORS = {
    "optimizer": tuple(OPTIMIZERS),
    "every": (1, 2, 3),
    "last": (None, 1, 2),
    "to": (False, True),
    "params": (None, "*.weight", ("0.*", "2.bias")),
    "keep": ("tensors", "gram", "0.weight"),
    "paused": ((), ((2, 5),), ((0, 1), (4, 6))),  # from the begin of a step to the begin of another
}


def uncovered_pairs(case, seen):
    return {pair for pair in itertools.combinations(case.items(), 2) if pair not in seen}


def pairwise(factors):
    """Give few cases in which every value of every factor meets every value of every other."""
    cases = [dict(zip(factors, values, strict=True)) for values in itertools.product(*factors.values())]
    every = set().union(*(itertools.combinations(case.items(), 2) for case in cases))
    chosen, seen = [], set()
    while seen != every:
        best = max(cases, key=lambda case: len(uncovered_pairs(case, seen)))
        chosen.append(best)
        seen |= uncovered_pairs(best, seen)
    return chosen


CASES = pairwise(FACTORS)


def train(optimizer, paused=(), **options):
    """Train as ever; give the recording, and the weights before each step and after the last."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
    mover, weights = OPTIMIZERS[optimizer](net.parameters()), []
    with gradflow.watch(net, mover, branches=NAMES, **options) as flow:
        for number in range(STEPS):
            if number in [begin for begin, _ in paused]:
                flow.pause()
            if number in [end for _, end in paused]:
                flow.resume()
            weights.append({name: p.detach().clone().numpy() for name, p in net.named_parameters()})
            batch = torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(number))
            mover.zero_grad()
            loss = F.triplet_margin_loss(*(net(x) for x in batch), margin=5.0)
            flow.log(loss=loss)
            loss.backward()
            mover.step()
            flow.log(after=number)
        weights.append({name: p.detach().clone().numpy() for name, p in net.named_parameters()})
    return flow.recording, weights


@pytest.fixture(scope="module")
def whole():
    """Recordings of everything, by optimizer."""
    return {name: train(name, keep="tensors") for name in OPTIMIZERS}


def expected_indices(every, last, to, paused, **_):
    watched = [i for i in range(STEPS) if i % every == 0 and not any(a <= i < b for a, b in paused)]
    return watched if to or last is None else watched[-last:]


def is_asked_for(fqn, params):
    """What the patterns of the cases mean, spelled out."""
    return {
        None: True,
        "*.weight": fqn in ("0.weight", "2.weight"),
        ("0.*", "2.bias"): fqn in ("0.weight", "0.bias", "2.bias"),
    }[params]


def without_delta(p, *, keep):
    """A parameter as it is without its delta, and without tensors where none were asked for."""
    kept = keep == "tensors" or (keep == "0.weight" and p.fqn == "0.weight")
    p = dataclasses.replace(p, delta=None)
    return p if kept else dataclasses.replace(p, tensors=None, total_tensor=None)


def assert_same_delta(was, delta, before, after, *, remembers, kept):
    for name in ("norm", "parameter_norm", "rule"):
        assert_same(getattr(was, name), getattr(delta, name), name)
    if not remembers:
        bare = {} if kept else {"parts": None, "tensor": None}
        assert_same(dataclasses.replace(was, **bare), delta)
    elif kept:
        assert_same(was.tensor, delta.tensor)
        np.testing.assert_array_equal(delta.tensor, after - before)
        off = np.abs(sum(map(np.asarray, delta.parts.values())) - (after - before))
        effort = np.max(sum(map(np.abs, delta.parts.values())))
        assert np.all(off <= 2 * np.finfo("f4").eps * np.abs(before) + 1e-6 * effort)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_what_is_kept_is_what_a_recording_of_everything_keeps(case, whole, tmp_path):
    path = tmp_path / "run.gradflow"
    options = {name: case[name] for name in ("every", "last", "params", "keep")}
    recording, _ = train(case["optimizer"], case["paused"], to=path if case["to"] else None, **options)
    reference, weights = whole[case["optimizer"]]
    assert [step.index for step in recording] == expected_indices(**case)
    if case["to"]:
        for a, b in zip(recording, gradflow.load(path), strict=True):
            assert_same(dataclasses.replace(a, parameters=dict(a.parameters)), b)
    for step in recording:
        was, missed = reference[step.index], expected_missed(step.index, case)
        assert step.params == tuple(fqn for fqn in was.params if is_asked_for(fqn, case["params"]))
        assert (step.branches, step.scalars, step.complete) == (was.branches, was.scalars, True)
        assert step.scalars["after"] == step.index
        for p in step:
            old = was[p.fqn]
            assert_same(without_delta(old, keep=case["keep"]), dataclasses.replace(p, delta=None))
            assert_same_delta(
                old.delta,
                p.delta,
                weights[step.index][p.fqn],
                weights[step.index + 1][p.fqn],
                remembers=missed and case["optimizer"] in REMEMBERS,
                kept=p.tensors is not None,
            )


def expected_missed(index, case):
    """Whether a step before this one was not watched."""
    return any(i % case["every"] or any(a <= i < b for a, b in case["paused"]) for i in range(index))


def test_every_pair_of_options_is_among_the_cases():
    met = set().union(*(itertools.combinations(case.items(), 2) for case in CASES))
    pairs = itertools.combinations(FACTORS.items(), 2)
    assert len(met) == sum(len(a) * len(b) for (_, a), (_, b) in pairs)
    assert len(CASES) < 30


MOMENTS = ("begin", "forward", "backward")


def train_torn(pause, resume):
    """Pause and resume at moments within steps."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
    mover = torch.optim.SGD(net.parameters(), lr=0.1)
    flow = gradflow.watch(net, mover, branches=NAMES)

    def reach(*moment):
        if moment == pause:
            flow.pause()
        if moment == resume:
            flow.resume()

    for number in range(5):
        batch = torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(number))
        reach(number, "begin")
        mover.zero_grad()
        loss = F.triplet_margin_loss(*(net(x) for x in batch), margin=5.0)
        reach(number, "forward")
        loss.backward()
        reach(number, "backward")
        mover.step()
    return flow.recording


@pytest.mark.parametrize("resume", MOMENTS)
@pytest.mark.parametrize("pause", MOMENTS)
def test_a_step_that_was_watched_in_part_is_told_or_left_out(pause, resume):
    recording = train_torn((1, pause), (3, resume))
    assert [step.index for step in recording] == [0, 3, 4]
    torn = recording[1]
    assert torn.complete == (resume == "begin")
    assert ("incomplete" in [finding.code for finding in torn.findings]) == (resume != "begin")
    assert recording[0].complete
    assert recording[2].complete
    assert "incomplete" not in [finding.code for finding in recording[2].findings]


def test_a_pause_within_one_step_is_told():
    torn = train_torn((2, "forward"), (2, "backward"))[2]
    assert not torn.complete
    assert "paused or resumed within this step" in next(
        f.text for f in torn.findings if f.code == "incomplete"
    )
