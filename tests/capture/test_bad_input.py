"""A user's mistake gets three lines (what, where, what to do), and nothing stays attached."""

import pytest
import torch
from torch import nn

import gradflow
from tests import laws
from tests.capture.test_branches import NAMES, encoder
from tests.capture.test_steps import sgd, train


def frozen():
    net = encoder()
    return net.requires_grad_(False)


MISTAKES = {
    "no trainable parameter": (lambda _n, _o: gradflow.watch(frozen()), ValueError, "requires_grad"),
    "no module": (lambda _n, _o: gradflow.watch("encoder"), ValueError, "module"),
    "pattern matches nothing": (
        lambda n, o: gradflow.watch(n, o, params=["0.wieght"]),
        KeyError,
        "did you mean '0.weight'",
    ),
    "keep matches nothing": (lambda n, o: gradflow.watch(n, o, keep="conv*"), KeyError, "known:"),
    "branch is no module of the model": (
        lambda n, o: gradflow.watch(n, o, branches={"a": nn.Linear(2, 2)}),
        ValueError,
        "known:",
    ),
    "branch is a module path": (
        lambda n, o: gradflow.watch(n, o, branches={"a": "0"}),
        ValueError,
        "no module of",
    ),
    "branches is one string": (lambda n, o: gradflow.watch(n, o, branches="anchor"), ValueError, "sequence"),
    "a name twice": (lambda n, o: gradflow.watch(n, o, branches=("a", "a")), ValueError, "twice"),
    "optimizer of another model": (
        lambda n, _o: gradflow.watch(n, sgd(encoder())),
        ValueError,
        "holds none of the 4 watched",
    ),
    "no optimizer": (lambda n, _o: gradflow.watch(n, "adam"), ValueError, "torch.optim.Optimizer"),
    "every=0": (lambda n, o: gradflow.watch(n, o, every=0), ValueError, "every=0"),
    "last=-1": (lambda n, o: gradflow.watch(n, o, last=-1), ValueError, "last=-1"),
    "stems": (lambda n, o: gradflow.watch(n, o, stems="yes"), ValueError, "split"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_told_in_three_lines_and_leaves_nothing(mistake):
    act, builtin, words = MISTAKES[mistake]
    net = encoder()
    opt = sgd(net)
    plain = laws.hook_counts(net, [opt])
    with pytest.raises(gradflow.GradflowError) as caught:
        act(net, opt)
    assert isinstance(caught.value, builtin)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("  where: ")
    assert lines[2].startswith("  do:    ")
    assert words in str(caught.value)
    assert laws.hook_counts(net, [opt]) == plain


def test_watching_twice_at_once_is_refused():
    net = encoder()
    with gradflow.watch(net):
        hooked = laws.hook_counts(net)
        with pytest.raises(gradflow.GradflowError, match="another recorder"):
            gradflow.watch(net)
        with pytest.raises(gradflow.GradflowError, match="another recorder"):
            gradflow.watch(nn.Sequential(net[0]))
        assert laws.hook_counts(net) == hooked
    gradflow.watch(net).close()


def test_closed_recorder_says_so():
    flow = gradflow.watch(encoder())
    flow.close()
    for act in (flow.step, flow.resume):
        with pytest.raises(gradflow.GradflowError, match="closed"):
            act()


def test_looking_for_what_is_not_there():
    net = encoder()
    opt = sgd(net)
    with gradflow.watch(net, opt, branches=NAMES) as flow:
        with pytest.raises(IndexError, match="none yet"):
            _ = flow.recording.last
        train(net, opt, steps=2)
    for act, builtin, words in (
        (lambda: flow.recording[99], IndexError, "positions are 0 to 1"),
        (lambda: flow.recording.last["0.wieght"], KeyError, "did you mean '0.weight'"),
        (lambda: flow.recording.last["0.weight"].cosine("anchor", "negativ"), KeyError, "negative"),
        (lambda: flow.recording.last["0.weight"].contribution("anchor"), KeyError, 'keep="tensors"'),
        (lambda: flow.recording.last["0.weight"].total, KeyError, 'keep="tensors"'),
        (lambda: flow.recording.last.layer("1"), KeyError, "known:"),
    ):
        with pytest.raises(builtin, match="do:") as caught:
            act()
        assert isinstance(caught.value, gradflow.GradflowError)
        assert words in str(caught.value)


def test_models_that_share_a_layer_are_watched_together():
    shared = nn.Linear(3, 3)
    one, two = nn.Sequential(shared, nn.Linear(3, 1)), nn.Sequential(shared, nn.Linear(3, 2))
    with gradflow.watch([one, two], branches={"a": one, "b": two}) as flow:
        x = torch.randn(4, 3)
        (one(x).sum() + two(x).square().sum()).backward()
        flow.step()
    step = flow.recording.last
    assert step["0.0.weight"].names == ("0.0.weight", "1.0.weight")
    assert step["1.0.weight"].contributors == ("a", "b")
