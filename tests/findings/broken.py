"""Small training runs, each broken in one way, and the same ones mended: ``{code: Case}``.

``broken()`` and ``healthy()`` train a few steps and give the recording. They differ in one thing only.
"""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from unittest import mock

import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from gradflow.capture.ledger import Account
from gradflow.checks import sharing
from gradflow.recording import Recording

NAMES = ("anchor", "positive", "negative")


@dataclass(frozen=True)
class Case:
    severity: str
    broken: Callable[[], Recording]
    healthy: Callable[[], Recording]


def train(model, loss, *, steps=4, optimizer=None, clear=True, between=None, **watch):
    """Train as ever, watched; ``loss(step)`` gives a loss, or a loss and what is logged beside it."""
    optimizers = optimizer or torch.optim.SGD(nn.ModuleList(as_list(model)).parameters(), lr=0.01)
    with gradflow.watch(model, optimizers, **watch) as flow:
        for step in range(steps):
            if clear:
                for one in as_list(optimizers):
                    one.zero_grad()
            given = loss(step)
            value, scalars = given if isinstance(given, tuple) else (given, {})
            value.backward()
            if between is not None:
                between()
            flow.log(loss=value, **scalars)
            for one in as_list(optimizers):
                one.step()
        return flow.recording


def as_list(one):
    return list(one) if isinstance(one, list | tuple) else [one]


def encoder(*, norm=False, bias=False):
    torch.manual_seed(0)
    middle = [nn.BatchNorm1d(6)] if norm else []
    return nn.Sequential(nn.Linear(4, 6, bias=bias), *middle, nn.Tanh(), nn.Linear(6, 3, bias=False))


def data(step=0, rows=8):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(3, rows, 4, generator=generator)


def hinge(a, p, n, margin):
    return F.relu(F.pairwise_distance(a, p) - F.pairwise_distance(a, n) + margin)


def triplet(*, margin=1.0, norm=False, bias=False, change=lambda z: z, log=lambda h: {}, model=None, **how):
    """A triplet network; ``change`` does something to the positive's embedding."""
    net = model or encoder(norm=norm, bias=bias)

    def loss(step):
        a, p, n = (net(x) for x in data(step))
        each = hinge(a, change(p), n, margin)
        return each.mean(), log(each)

    return train(net, loss, **{"branches": NAMES, **how})


def pair(*, shared, **how):
    left = encoder()
    both = nn.ModuleDict({"left": left, "right": left if shared else copy.deepcopy(left)})

    def loss(step):
        x, y, _ = data(step)
        with gradflow.branch("left"):
            one = both["left"](x)
        with gradflow.branch("right"):
            other = both["right"](y)
        return (one - other).square().mean()

    return train(both, loss, **how)


def towers(weight, *, other=1.0):
    """One weight, two branches: ``(w - 1)^2`` and ``other * (w - weight)^2``."""
    torch.manual_seed(0)
    layer = nn.Linear(3, 3, bias=False)

    def loss(step):
        x = data(step)[0][:, :3]
        with gradflow.branch("task a"):
            one = layer(x)
        with gradflow.branch("task b"):
            two = layer(x)
        return (one - x).square().mean() + other * (two - weight * x).square().mean()

    return train(layer, loss)


def dead(fraction):
    return lambda each: {"dead": fraction(each)}


def zeros(each):
    return (each == 0).float().mean()


def collapsed(*, collapsed, log_margin):
    """Embeddings that are one point: all distances are 0, the loss is the margin, and only decay moves."""
    net = encoder(bias=True)
    if collapsed:
        with torch.no_grad():
            net[0].weight.zero_()
    margin = {"margin": 1.0} if log_margin else {}
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3 if log_margin else 1e-5)
    return triplet(model=net, log=lambda each: margin, optimizer=optimizer, steps=22)


def partly(*, whole):
    net = encoder()
    optimizer = torch.optim.SGD((net if whole else net[-1]).parameters(), lr=0.01)
    return triplet(model=net, optimizer=optimizer)


def twice(*, twice):
    net = encoder()
    first = torch.optim.SGD(net.parameters(), lr=0.01)
    return triplet(
        model=net, optimizer=[first, torch.optim.SGD(net[-1].parameters(), lr=0.01)] if twice else first
    )


def clipped(*, by_value):
    net = encoder()
    clip = nn.utils.clip_grad_value_ if by_value else nn.utils.clip_grad_norm_
    return triplet(model=net, between=lambda: clip(net.parameters(), 1e-3))


def replaced(*, anew):
    net = encoder()
    before = torch.optim.SGD(net.parameters(), lr=0.01)
    net[-1] = nn.Linear(6, 3, bias=False)
    return triplet(model=net, optimizer=torch.optim.SGD(net.parameters(), lr=0.01) if anew else before)


def modes(*, change=lambda net: None, norm=True):
    net = encoder(norm=norm)
    change(net)
    return triplet(model=net)


def root(*, eps):
    """The positive goes through a square root of exact zeros, whose slope is infinite."""
    return triplet(change=lambda z: (z.relu() * 0 + eps).sqrt() + z)


def recurrent(*, fused):
    torch.manual_seed(0)
    net = nn.LSTM(4, 3) if fused else nn.LSTMCell(4, 3)

    def loss(step):
        x, y, _ = data(step)
        (one, _), (other, _) = net(x), net(y)
        return (one - other).square().mean()

    return train(net, loss, branches=("left", "right"))


def compiled(*, whole_step):
    torch.manual_seed(0)
    net = nn.Linear(4, 3, bias=False)

    def forward(x, y):
        return (net(x) - net(y)).square().mean()

    step = torch.compile(forward, backend="eager") if whole_step else forward
    torch._dynamo.reset()
    return train(net, lambda i: step(*data(i)[:2]), branches=("left", "right"))


def compiled_encoder(*, compiled):
    net = encoder()
    model = torch.compile(net, backend="eager") if compiled else net
    torch._dynamo.reset()
    return triplet(model=model)


def bare(*, claimed):
    """A weight that is read without any module call."""
    torch.manual_seed(0)
    net = encoder()
    net.register_parameter("extra", nn.Parameter(torch.randn(3, 2)))

    def loss(step):
        z = net(data(step)[0])
        with gradflow.branch("anchor") as b:
            y = z @ net.extra
            if claimed:
                b.claim(y)
        return y.square().mean()

    return train(net, loss)


def heads(*, trunk_is_shared, stems="report"):
    torch.manual_seed(0)
    net = nn.ModuleDict({"trunk": nn.Linear(4, 4), "a": nn.Linear(4, 2), "b": nn.Linear(4, 2)})
    branches = {"a": net["a"], "b": net["b"]}

    def loss(step):
        z = net["trunk"](data(step)[0])
        own = z if trunk_is_shared else z.detach()
        return net["a"](own).square().mean() + net["b"](own).square().mean()

    return train(net, loss, branches=branches, stems=stems)


def one_head(*, trunk_is_named):
    torch.manual_seed(0)
    net = nn.ModuleDict({"trunk": nn.Linear(4, 4), "a": nn.Linear(4, 2)})
    branches = {"a": net["a"], "below": net["trunk"]} if trunk_is_named else {"a": net["a"]}
    return train(net, lambda step: net["a"](net["trunk"](data(step)[0])).square().mean(), branches=branches)


def calls(*, count):
    net = encoder()
    return train(
        net, lambda i: sum(net(x).square().mean() for x in data(i)[:count]), branches=("one", "two", "three")
    )


def terms(*, margin):
    net = encoder()

    def loss(step):
        a, p, n = (net(x) for x in data(step))
        pull = gradflow.branch.term("pull", F.pairwise_distance(a, p).mean())
        push = gradflow.branch.term("push", F.relu(margin - F.pairwise_distance(a, n)).mean())
        return pull + push

    return train(net, loss, branches=NAMES)


def scaled(*, overflow):
    net = encoder()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    with gradflow.watch(net, optimizer, branches=NAMES) as flow:
        for step in range(4):
            optimizer.zero_grad()
            a, p, n = (net(x) for x in data(step))
            loss = hinge(a, p, n, 1.0).mean() * (torch.inf if step == overflow else 1.0)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        optimizer.zero_grad()
        return flow.recording


def late(*, late):
    net = encoder()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    if late:
        net(data()[0]).square().mean().backward()
        optimizer.step()
    return triplet(model=net, optimizer=optimizer)


def unreadable(*, fails):
    """A model that cannot be looked at; the recording goes on."""
    if not fails:
        return triplet()
    with mock.patch.object(sharing, "findings", side_effect=ZeroDivisionError("on purpose.")):
        return triplet()


def failing(*, fails):
    """Something of ours fails; the training goes on."""
    net = encoder()
    if not fails:
        return triplet(model=net)
    with (
        mock.patch.object(Account, "receive", side_effect=ZeroDivisionError("on purpose.")),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        return triplet(model=net)


CASES = {
    "accumulated": Case("warning", lambda: triplet(clear=False), triplet),
    "bias-before-norm": Case("note", lambda: triplet(norm=True, bias=True), lambda: triplet(norm=True)),
    "branch-absent": Case("warning", lambda: triplet(change=lambda z: z.detach()), triplet),
    "branch-zero": Case("warning", lambda: triplet(margin=-100.0), triplet),
    "branches-misfit": Case("warning", lambda: calls(count=2), lambda: calls(count=3)),
    "built-alike": Case(
        "note",
        lambda: modes_of_pair(shared=False),
        lambda: modes_of_pair(shared=True),
    ),
    "by-reader": Case("note", lambda: one_head(trunk_is_named=False), lambda: one_head(trunk_is_named=True)),
    "cancellation": Case("note", lambda: towers(-1.0), lambda: towers(1.0)),
    "cancellation-lasting": Case("note", lambda: towers(-1.0), lambda: towers(1.0)),
    "collapse": Case(
        "warning",
        lambda: collapsed(collapsed=True, log_margin=True),
        lambda: collapsed(collapsed=False, log_margin=True),
    ),
    "compiled": Case(
        "note", lambda: compiled_encoder(compiled=True), lambda: compiled_encoder(compiled=False)
    ),
    "conflict": Case("note", lambda: towers(-1.0), lambda: towers(1.0)),
    "conflict-lasting": Case("note", lambda: towers(-1.0), lambda: towers(1.0)),
    "copies": Case("warning", lambda: pair(shared=False), lambda: pair(shared=True)),
    "dead-hinge": Case(
        "warning", lambda: triplet(margin=-100.0, log=dead(zeros)), lambda: triplet(log=dead(zeros))
    ),
    "dominating": Case("note", lambda: towers(1.0, other=100.0), lambda: towers(1.0)),
    "edited": Case("warning", lambda: clipped(by_value=True), lambda: clipped(by_value=False)),
    "evaluating": Case("note", lambda: modes(change=lambda net: net.eval()), modes),
    "frozen": Case("note", lambda: modes(change=lambda net: net[0].requires_grad_(False)), modes),
    "frozen-norm": Case("warning", lambda: modes(change=lambda net: net[1].eval()), modes),
    "fused": Case("note", lambda: recurrent(fused=True), lambda: recurrent(fused=False)),
    "history": Case("note", lambda: late(late=True), lambda: late(late=False)),
    "incomplete": Case("warning", lambda: failing(fails=True), lambda: failing(fails=False)),
    "loss-stuck": Case(
        "note",
        lambda: collapsed(collapsed=True, log_margin=False),
        lambda: collapsed(collapsed=False, log_margin=False),
    ),
    "moving-norm": Case("note", lambda: modes(change=lambda net: net[1].requires_grad_(False)), modes),
    "noise": Case("note", lambda: triplet(norm=True, bias=True), lambda: triplet(norm=True)),
    "nonfinite": Case("warning", lambda: root(eps=0.0), lambda: root(eps=1.0)),
    "not-moved": Case("warning", lambda: partly(whole=False), lambda: partly(whole=True)),
    "not-optimized": Case("warning", lambda: partly(whole=False), lambda: partly(whole=True)),
    "nothing-shared": Case("note", lambda: pair(shared=False), lambda: pair(shared=True)),
    "optimized-twice": Case("warning", lambda: twice(twice=True), lambda: twice(twice=False)),
    "passes": Case("note", lambda: terms(margin=100.0), triplet),
    "shared": Case("note", lambda: heads(trunk_is_shared=True), lambda: heads(trunk_is_shared=False)),
    "skipped": Case("note", lambda: scaled(overflow=0), lambda: scaled(overflow=None)),
    "stranger": Case("warning", lambda: replaced(anew=False), lambda: replaced(anew=True)),
    "term-zero": Case("note", lambda: terms(margin=-1.0), lambda: terms(margin=100.0)),
    "unchecked": Case("note", lambda: unreadable(fails=True), lambda: unreadable(fails=False)),
    "unclaimed": Case("warning", lambda: bare(claimed=False), lambda: bare(claimed=True)),
    "unseen": Case("warning", lambda: compiled(whole_step=True), lambda: compiled(whole_step=False)),
}


def modes_of_pair(*, shared):
    """Two encoders that began differently, or one."""
    left = encoder()
    torch.manual_seed(1)
    right = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, 3, bias=False))
    both = nn.ModuleDict({"left": left, "right": left if shared else right})
    return train(both, partial(_distance, both))


def _distance(both, step):
    x, y, _ = data(step)
    return (both["left"](x) - both["right"](y)).square().mean()
