"""No hook waits for a device: forward, backward and step ask a distant one for one transfer a step alone.

Proved on the host, with tensors that say they are elsewhere (:mod:`tests.capture.distant`) and so take the
way of an accelerator through gradflow. Their numbers are compared with those of the same training here.
"""

import collections
import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

import gradflow
from tests.capture.distant import Distant, journey, send

NAMES = ("anchor", "positive", "negative")
STEPS = 3
FETCH, COPY = ("_to_copy.default", "reduce.py", "fetch"), ("_to_copy.default", "deltas.py", "copied")


def encoder():
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))


def normed():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.0), nn.Linear(8, 4))


def triplet(net, batch):
    return F.triplet_margin_loss(*(net(x) for x in batch), margin=5.0)


class Half(nn.Module):
    """A parametrization: what several calls read of a cached one is a stem."""

    def forward(self, weight):
        return 0.5 * weight


def parametrized():
    net = encoder()
    parametrize.register_parametrization(net[0], "weight", Half())
    return net


def cached(net, batch):
    with parametrize.cached():
        return triplet(net, batch)


class Trunk(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk, self.heads = nn.Linear(6, 8), nn.ModuleDict({"a": nn.Linear(8, 1), "b": nn.Linear(8, 1)})

    def forward(self, x):
        features = self.trunk(x).tanh()
        return self.heads["a"](features).mean() + self.heads["b"](features).square().mean()


def heads(net):
    return dict(net.heads.items())


def by_rows(net, batch):
    z = net(batch.flatten(0, 1))
    rows = {name: slice(8 * i, 8 * i + 8) for i, name in enumerate(NAMES)}
    return F.triplet_margin_loss(*gradflow.branch.rows(z, rows).split(8), margin=5.0)


def in_terms(net, batch):
    a, p, n = (net(x) for x in batch)
    pull = gradflow.branch.term("pull", (a - p).square().mean())
    return pull + gradflow.branch.term("push", (5.0 - (a - n).square().mean()).relu())


def claimed(net, batch):
    with gradflow.branch("text") as b:
        z = b.claim(batch[0] @ net[0].weight.T)
    return z.square().mean() + net(batch[1]).square().mean()


def clip(net):
    nn.utils.clip_grad_norm_(net.parameters(), 0.1)


def edit(net):
    net[0].weight.grad.mul_(2.0).add_(0.1)


SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01)
CASES = {
    "plain": {},
    "watched in part": {"options": {"every": 2, "params": "*.weight"}},
    "tensors": {"options": {"keep": "tensors"}},
    "a file": {"options": {"to": "run.gradflow"}},
    "a file of tensors": {"options": {"to": "run.gradflow", "keep": "0.weight"}},
    "two micro-batches": {"backwards": 2},
    "zeroed in place": {"to_none": False},
    "clipped": {"between": clip},
    "edited": {"between": edit},
    "rows": {"loss": by_rows, "options": {"branches": None}},
    "terms": {"loss": in_terms},
    "a claim": {"loss": claimed, "options": {"branches": None}},
    "a stem": {"make": parametrized, "loss": cached},
    "a trunk told as shared": {"make": Trunk, "loss": lambda net, batch: net(batch[0]), "branches": heads},
    "a trunk that is split": {
        "make": Trunk,
        "loss": lambda net, batch: net(batch[0]),
        "branches": heads,
        "options": {"stems": "split"},
    },
    "a batch-norm": {"make": normed},
    "logged": {"logs": True},
    **{
        name: {"optimizer": functools.partial(getattr(torch.optim, name), lr=0.01)}
        for name in ("Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Adagrad", "Adadelta")
    },
}


class Phases:
    """What was asked of the device, by phase of a step."""

    def __init__(self, journey):
        self._waits = [] if journey is None else journey.waits
        self.by_phase = collections.defaultdict(list)

    def end(self, phase):
        self.by_phase[phase] += self._waits
        self._waits.clear()


def train(
    tmp_path,
    mode=None,
    *,
    make=encoder,
    loss=triplet,
    optimizer=SGD,
    branches=lambda net: NAMES,
    options=None,
    backwards=1,
    to_none=True,
    between=lambda net: None,
    logs=False,
):
    """Train on the host, or far away under a mode; give the recording and what was asked of the device."""
    torch.manual_seed(0)
    net = make() if mode is None else send(make())
    options = {"branches": branches(net)} | (options or {})
    if "to" in options:
        options["to"] = tmp_path / f"{mode is None}.gradflow"
    mover, phases = optimizer(net.parameters(), foreach=False), Phases(mode)
    flow = gradflow.watch(net, mover, **options)
    phases.end("watch")
    for number in range(STEPS):
        mover.zero_grad(set_to_none=to_none)
        for part in range(backwards):
            batch = torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(10 * number + part))
            found = loss(net, batch if mode is None else Distant(batch))
            if logs:
                flow.log(loss=found)
            phases.end("forward")
            found.backward()
            phases.end("backward")
        between(net)
        phases.end("between")
        mover.step()
        phases.end("step")
    flow.close()
    return flow.recording, phases.by_phase


def assert_alike(here, there):
    assert [step.index for step in here] == [step.index for step in there]
    for a, b in zip(here, there, strict=True):
        assert (a.params, a.branches, b.complete) == (b.params, b.branches, True)
        assert a.scalars == b.scalars
        for p, q in zip(a, b, strict=True):
            extra = [name for name in q.contributors if name not in p.contributors]
            assert set(extra) <= {"unclaimed", "edited", "rounding"}
            assert all(q.norms[name] <= 1e-6 * max(q.norms.values()) for name in extra)
            at = [q.contributors.index(name) for name in p.contributors]
            scale = np.abs(p.gram).max(initial=0.0)
            np.testing.assert_allclose(q.gram[np.ix_(at, at)], p.gram, rtol=1e-5, atol=1e-6 * scale)
            assert q.total_norm == pytest.approx(p.total_norm, rel=1e-5, abs=1e-12)
            assert q.residual <= 1e-6
            assert q.delta.norm == pytest.approx(p.delta.norm, rel=1e-5)
            shares = p.delta.shares
            noise = 1e-6 * max(map(abs, shares.values()), default=0.0)  # parts that cancel leave rounding
            for name, share in shares.items():
                close = pytest.approx(share, rel=1e-3 + noise, abs=1e-5, nan_ok=True)
                assert q.delta.shares[name] == close
            assert q.delta.residual <= 1e-6
            for name in p.tensors or {}:
                np.testing.assert_array_equal(p.contribution(name), q.contribution(name))


@pytest.mark.parametrize("case", CASES)
def test_nothing_waits_for_the_device_but_one_transfer_a_step(case, tmp_path):
    options = CASES[case]
    here, _ = train(tmp_path, **options)
    with journey() as mode:
        there, waits = train(tmp_path, mode, **options)
    assert waits["watch"] == waits["forward"] == waits["backward"] == waits["between"] == []
    kinds = collections.Counter(waits["step"])
    assert kinds.pop(FETCH) == len(here)
    tensors = kinds.pop(COPY, 0)
    assert (tensors > 0) == ("keep" in options.get("options", {}))
    assert not kinds
    assert_alike(here, there)


def test_the_distant_device_notes_what_would_wait():
    """Or the test above would say nothing."""
    with journey() as mode:
        far = Distant(torch.tensor([1.0, 0.0]))
        asked = {
            "a number": far[0].item,
            "a truth value": lambda: bool(far[0] > 0),
            "a copy": far.cpu,
            "positions": far.nonzero,
            "equality": lambda: torch.equal(far, far),
            "a mask": lambda: far[far > 0],
        }
        for name, ask in asked.items():
            waits = len(mode.waits)
            exec(compile("ask()", f"{gradflow.__path__[0]}/made_up.py", "exec"), {"ask": ask})
            assert len(mode.waits) == waits + 1, name
            assert mode.waits[-1][1] == "made_up.py"
        quiet = len(mode.waits)
        exec(compile("far * 2 + far.sum()", f"{gradflow.__path__[0]}/made_up.py", "exec"), {"far": far})
        assert len(mode.waits) == quiet
