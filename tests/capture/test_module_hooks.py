"""The hooks on modules: those put on again fit the model as it is by then, and nothing is kept for them."""

import gc
import weakref

import pytest
import torch
from torch import nn

import gradflow
from gradflow.capture import targets
from tests.capture.test_branches import NAMES, encoder, triple, triplet


def loss_of(net, seed=1):
    return triplet(*map(net, triple(seed)))


def train(net, flow, steps):
    for number in range(steps):
        net.zero_grad()
        loss_of(net, number).backward()
        flow.step()


class Own(nn.Sequential):
    """A model that tells of its parameters as it likes, as wrappers do."""

    is_quiet = False

    def named_parameters(self, *args, **kwargs):
        for name, param in super().named_parameters(*args, **kwargs):
            if not (self.is_quiet and name.startswith("0.")):
                yield name, param


class Quiet(nn.Sequential):
    """Another class that a model may become."""

    def named_parameters(self, *args, **kwargs):
        return [pair for pair in super().named_parameters(*args, **kwargs) if pair[0].startswith("2.")]


def replaces(net):
    net[0].weight = nn.Parameter(net[0].weight.detach().clone())


def swaps(net):
    net[0] = nn.Linear(6, 8)


def unfreezes(net):
    net[0].weight.requires_grad_(True)


def freezes(net):
    net[2].weight.requires_grad_(False)


def adds(net):
    net[0].register_parameter("gain", nn.Parameter(torch.ones(())))
    net[0].register_forward_hook(lambda layer, _inputs, output: output * layer.gain)


def parametrizes(net):
    nn.utils.parametrizations.weight_norm(net[0])


def renames(net):
    net._modules = {f"layer{name}": layer for name, layer in net._modules.items()}


def becomes_another(net):
    net.__class__ = Quiet


def tells_otherwise(net):
    net.is_quiet = True


def tells_otherwise_by_itself(net):
    tell = net.named_parameters
    net.named_parameters = lambda **how: [pair for pair in tell(**how) if not pair[0].startswith("0.")]


CHANGES = (replaces, swaps, unfreezes, freezes, adds, parametrizes, renames)
STORIES = (tells_otherwise, tells_otherwise_by_itself, becomes_another)


@pytest.mark.parametrize("change", CHANGES + STORIES)
def test_hooks_that_are_put_on_again_fit_the_model_as_it_is_by_then(change):
    torch.manual_seed(0)
    net = Own(*encoder()) if change is tells_otherwise else encoder()
    net[0].weight.requires_grad_(change is not unfreezes)
    with gradflow.watch(net, branches=NAMES, every=2, keep="tensors") as flow:
        for number in range(3):
            if number == 1:
                change(net)
            net.zero_grad()
            loss_of(net, number).backward()
            received = {
                name: p.grad.numpy().copy() for name, p in net.named_parameters() if p.grad is not None
            }
            flow.step()
    first, last = flow.recording
    assert set(last.params) == set(received)
    assert set(last.params) != set(first.params) or change in (replaces, swaps)
    for param in last:
        assert param.contributors == NAMES
        assert (param.total == received[param.fqn]).all()
        assert param.residual == 0.0


@pytest.fixture
def looks(monkeypatch):
    found, look = [], targets.Targets.look
    monkeypatch.setattr(targets.Targets, "look", lambda s: found.append(s) or look(s))
    return found


def test_hooks_of_an_unchanged_model_are_put_on_again_without_looking_through_it(looks):
    net = encoder()
    with gradflow.watch(net, branches=NAMES, every=2) as flow:
        looks.clear()
        train(net, flow, steps=5)
        assert len(flow.recording) == 3
        assert not looks


def test_model_is_not_looked_through_for_each_leaf_that_is_not_watched(looks):
    net, other = encoder(), nn.Linear(4, 4)
    with gradflow.watch(net, params="0.weight") as flow:
        looks.clear()
        for number in range(3):
            inputs = [x.requires_grad_() for x in triple(number)]
            triplet(*(other(net(x)) for x in inputs)).backward()
            flow.step()
        assert not looks
    assert flow.recording.last.params == ("0.weight",)


@pytest.mark.parametrize("is_seen_before", [False, True])
def test_parameter_that_was_not_watched_is_watched_once_the_model_has_it(is_seen_before):
    net, other = encoder(), nn.Linear(6, 6)
    with gradflow.watch(net, branches=NAMES, keep="tensors") as flow:
        if is_seen_before:
            for number in range(2):
                net.zero_grad()
                triplet(*(net(other(x)) for x in triple(number))).backward()
                flow.step()
            assert not any(fqn.startswith("other") for fqn in flow.recording.last.params)
        net.other = other
        net.zero_grad()
        with gradflow.branch("whole"):
            triplet(*(nn.Sequential.forward(net[:3], net.other(x)) for x in triple())).backward()
        flow.step()
    param = flow.recording.last["other.weight"]
    assert (param.total == other.weight.grad.numpy()).all()


@pytest.mark.parametrize("every", [1, 2])
def test_module_that_is_taken_out_is_not_kept(every):
    net = encoder()
    net.teacher = nn.Linear(6, 8).requires_grad_(False)
    with gradflow.watch(net, branches=NAMES, every=every):
        seen = weakref.ref(net.teacher)
        net.teacher = None
        gc.collect()
        assert seen() is None


@pytest.mark.parametrize("every", [1, 2])
def test_nothing_is_kept_for_a_next_step_after_close(every):
    net = encoder()
    with gradflow.watch(net, branches=NAMES, every=every) as flow:
        train(net, flow, steps=3)
    kept = flow._observer
    assert not any((kept._hooks.are_known, kept._resting, kept.accounts, kept.targets.holdings))


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
def test_traced_model_is_watched():
    layer = nn.Linear(6, 4)
    traced = torch.jit.trace(layer, torch.ones(5, 6))
    with gradflow.watch(traced, branches=NAMES, every=2, keep="tensors") as flow:
        for number in range(3):
            traced.zero_grad()
            triplet(*map(traced, triple(number))).backward()
            flow.step()
    assert len(flow.recording) == 2
    for param in flow.recording.last:
        assert param.contributors == NAMES
        assert (param.total == dict(traced.named_parameters())[param.fqn].grad.numpy()).all()


@pytest.mark.parametrize("place", ["register_forward_pre_hook", "register_forward_hook"])
@pytest.mark.parametrize("act", ["pause", "close", "step"])
def test_hooks_may_be_taken_off_by_a_hook_of_the_user(place, act):
    net, flows = encoder(), []
    getattr(net[0], place)(lambda *_: getattr(flows.pop(), act)() if flows else None)
    flow = gradflow.watch(net, branches=NAMES, every=2)
    flows.append(flow)
    net.zero_grad()
    loss_of(net).backward()
    if act == "close":
        return
    flow.resume()
    flow.step()
    if act == "pause":
        train(net, flow, steps=1)  # not watched: the second of two
    train(net, flow, steps=1)
    (param, *_) = flow.recording.last
    assert param.contributors == NAMES
    assert [use.call for use in param.uses] == ["0#2", "0#1", "0#0"]
    flow.close()


class Scaled(nn.Module):
    """Reads a parameter outside any call, before and behind a module that has none."""

    def __init__(self):
        super().__init__()
        self.gain, self.act = nn.Parameter(torch.ones(6)), nn.Sequential(nn.Tanh())

    def branch(self, name, x):
        with gradflow.branch(name):
            return self.act(self.gain * x)


def paths_of_gain(net, flow):
    left, right, _ = triple(0)
    (net.branch("left", left) * net.branch("right", right)).sum().backward()
    flow.step()
    return [(use.branch, use.call, use.norm) for use in flow.recording.last["gain"].uses]


def test_hooks_of_the_user_stand_behind_those_that_were_there():
    net = Scaled()
    with gradflow.watch(net) as flow:
        net.act.register_forward_hook(lambda _act, _inputs, out: out * 2)
        assert [branch for branch, *_ in paths_of_gain(net, flow)] == ["right", "left"]
        for module in net.modules():
            (first, *_), (last, *_) = module._forward_pre_hooks.values(), module._forward_hooks.values()
            assert type(first).__name__ == "EnterHook"
            assert type(last).__name__ == "LeaveHook"
