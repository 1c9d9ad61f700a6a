"""The hooks on modules: one tells what two tell, and those put on again fit the model as it is by then."""

from functools import partial
from itertools import islice

import pytest
import torch
from torch import nn

import gradflow
from gradflow import zoo
from gradflow.capture import hooks
from tests import laws
from tests.capture.test_branches import NAMES, encoder, triple, triplet
from tests.capture.test_letting_go import assert_same_record


class Block(nn.Module):
    """Layers of torch's own, called in the ways that users call them."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)
        self.cell = nn.LSTMCell(4, 4)

    def forward(self, x):
        self.refuses(x)
        with torch.no_grad():
            self.norm(x)
        h, c = self.cell(self.norm(input=self.linear(x)))
        return self.cell(x, (h, c))[0]

    def refuses(self, x):
        try:
            self.linear(x[:, :3])
        except RuntimeError:
            return
        raise AssertionError("a layer took what does not fit")


def loss_of(net, seed=1):
    return triplet(*map(net, triple(seed)))


def block_loss(net):
    return triplet(*(net(x[:, :4]) for x in triple(1)))


def recorded(build, loss, **options):
    torch.manual_seed(0)
    net = build()
    with gradflow.watch(net, **options) as flow:
        for _ in range(2):
            net.zero_grad()
            loss(net).backward()
            flow.step()
    return flow.recording


@pytest.mark.parametrize(
    ("build", "loss"), [(encoder, loss_of), (Block, block_loss)], ids=["encoder", "layers in every way"]
)
def test_a_layer_with_one_hook_is_recorded_as_with_two(monkeypatch, build, loss):
    lean = recorded(build, loss, branches=NAMES)
    assert any(not hooks.is_in_one_piece(m) for m in build().modules())
    assert any(hooks.is_in_one_piece(m) for m in build().modules())
    monkeypatch.setattr(hooks, "is_in_one_piece", lambda _module: False)
    for here, there in zip(lean, recorded(build, loss, branches=NAMES), strict=True):
        assert here.params
        assert_same_record(here, there)


@pytest.mark.parametrize("name", zoo.names())
def test_every_scene_is_recorded_as_with_two_hooks_on_each_module(monkeypatch, name):
    scene, recordings = zoo.scene(name), []
    for is_lean in (True, False):
        if not is_lean:
            monkeypatch.setattr(hooks, "is_in_one_piece", lambda _module: False)
        torch.manual_seed(0)
        model = scene.build()
        with gradflow.watch(model, branches=scene.watch_branches(model), stems=scene.stems) as flow:
            for batch in islice(scene.batches(seed=0, size=4), 2):
                laws.as_model(model).zero_grad()
                scene.loss(model, batch)[0].backward()
                flow.step()
        recordings.append(flow.recording)
    for here, there in zip(*recordings, strict=True):
        assert_same_record(here, there)


def test_a_layer_whose_forward_was_replaced_has_both_hooks():
    layer = nn.Linear(4, 4)
    assert hooks.is_in_one_piece(layer)
    layer.forward = partial(nn.Linear.forward, layer)
    assert not hooks.is_in_one_piece(layer)
    assert not hooks.is_in_one_piece(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)))
    assert not hooks.is_in_one_piece(nn.MultiheadAttention(4, 1))


class Own(nn.Sequential):
    """A model that tells of its parameters as it likes, as wrappers do."""

    is_quiet = False

    def named_parameters(self, *args, **kwargs):
        for name, param in super().named_parameters(*args, **kwargs):
            if not (self.is_quiet and name.startswith("0.")):
                yield name, param


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


def tells_otherwise(net):
    net.is_quiet = True


CHANGES = (replaces, swaps, unfreezes, freezes, adds, parametrizes, renames, tells_otherwise)


@pytest.mark.parametrize("change", CHANGES)
def test_hooks_that_are_put_on_again_fit_the_model_as_it_is_by_then(change):
    torch.manual_seed(0)
    net = Own(*encoder())
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


def test_hooks_of_an_unchanged_model_are_put_on_again_without_looking_through_it(monkeypatch):
    net, looks = encoder(), []
    look = gradflow.capture.targets.Targets.look
    monkeypatch.setattr(gradflow.capture.targets.Targets, "look", lambda s: looks.append(s) or look(s))
    with gradflow.watch(net, branches=NAMES, every=2) as flow:
        before = len(looks)
        for _ in range(5):
            net.zero_grad()
            loss_of(net).backward()
            flow.step()
        assert len(flow.recording) == 3
        assert len(looks) == before
