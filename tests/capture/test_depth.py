"""What a very deep graph or model must not do: end the process, or take ever longer for each node."""

import contextlib
import sys
import threading
import weakref

import pytest
import torch
from torch import nn

import gradflow
from gradflow.capture import marking
from tests.capture.test_growth import python_calls


def test_very_deep_call_is_freed_without_recursion():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(3))

        def forward(self, x):
            y = x * self.w
            for _ in range(120_000):
                y = y + 1.0
            return y

    net = Deep()
    with gradflow.watch(net, branches=None) as flow:
        net(torch.ones(3)).sum().backward()
        flow.step()
    assert flow.recording.last["w"].residual == 0.0


class Chains(nn.Module):
    """Recurrent cells that take turns, each with a state of its own; all may read one memory."""

    def __init__(self, count):
        super().__init__()
        self.cells = nn.ModuleList([nn.RNNCell(2, 2) for _ in range(count)])
        self.memory = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3000)))

    def forward(self, x, steps, *, with_memory=False):
        states = [torch.zeros(1, 2) for _ in self.cells]
        memory = self.memory(x) if with_memory else 0.0
        for _ in range(steps):
            states = [cell(x, h) * 1.0 + memory for cell, h in zip(self.cells, states, strict=True)]
        return states


@pytest.mark.parametrize("count", [1, 2])
def test_chain_of_many_calls_is_freed_without_recursion(count):
    net = Chains(count)
    with gradflow.watch(net, last=1) as flow:
        torch.cat(net(torch.ones(1, 2), 12_000)).sum().backward()
        flow.step()
    assert [len(param.uses) for param in flow.recording.last] == [12_000] * 4 * count
    assert all(param.residual == 0.0 for param in flow.recording.last)


def test_graph_of_a_differentiated_chain_is_freed_without_recursion():
    net = Chains(1)
    with gradflow.watch(net):
        (state,) = net(torch.ones(1, 2), 12_000)
        (grad,) = torch.autograd.grad(state.sum(), net.cells[0].bias_hh, create_graph=True)
        del state
        assert grad.requires_grad


def test_graph_that_is_searched_for_recorders_is_freed_without_recursion():
    value = torch.ones(3, requires_grad=True)
    for _ in range(100_000):
        value = value + 1.0
    gradflow.branch.term("pull", value.sum())


@pytest.mark.parametrize("is_watched", [False, True])
def test_graph_that_threads_made_one_after_another_is_freed(is_watched):
    net, kept = nn.ParameterDict({"gain": nn.Parameter(torch.ones(2))}), []
    net.end = nn.Linear(2, 1)

    class Thing:
        """Lives as long as a node holds it."""

    def grow(before, grown):  # each thread counts its nodes from 0
        z = before
        for _ in range(2900):
            z = before + z * net["gain"]
        thing = z.grad_fn.metadata["thing"] = Thing()
        kept.append(weakref.ref(thing))
        grown.append(z)

    with gradflow.watch(net) if is_watched else contextlib.nullcontext():
        z = torch.ones(1, 2)
        for _ in range(4):
            grown = []
            thread = threading.Thread(target=grow, args=(z, grown))
            thread.start()
            thread.join()
            z = grown.pop()
        z = net.end(z)
        gradflow.branch.term("pull", z.sum())
        assert all(one() is not None for one in kept)
        del z
        assert all(one() is None for one in kept)


@pytest.mark.parametrize("with_memory", [False, True])
def test_easing_looks_at_each_node_about_as_often_however_long_the_chain(monkeypatch, with_memory):
    met, sizes = [], []
    look = marking.ease_behind
    monkeypatch.setattr(marking, "ease_behind", lambda root: met.append(look(root)) or met[-1])
    net = Chains(1)
    for steps in (2000, 8000):
        met.clear()
        with gradflow.watch(net):
            (state,) = net(torch.ones(1, 2), steps, with_memory=with_memory)
            sizes.append(sum(met) / steps)
            del state
    assert 0 < sizes[1] < 2 * sizes[0]


class Gated(nn.Module):
    """A block with a layer of its own and one that all share; it is called once, and so is no path."""

    def __init__(self, shared):
        super().__init__()
        self.own, self.shared = nn.Linear(2, 2), shared

    def forward(self, x):
        return x * torch.sigmoid(self.shared(self.own(x)))


class Stack(nn.Module):
    """Gated blocks; in a sum, what each reads derives from all before."""

    def __init__(self, depth, *, is_sum):
        super().__init__()
        shared = nn.Linear(2, 2)
        self.blocks, self.is_sum = nn.ModuleList([Gated(shared) for _ in range(depth)]), is_sum

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x) if self.is_sum else block(x)
        return x


def test_blocks_that_derive_from_all_before_are_not_told_apart_by_every_way_back():
    counts = []
    for depth in (4, 8, 16):
        net = Stack(depth, is_sum=True)
        with gradflow.watch(net) as flow:
            loss = net(torch.ones(1, 2)).sum()
            counts.append(python_calls(loss.backward))
            flow.step()
        assert len(flow.recording.last["blocks.0.shared.weight"].uses) == depth
    assert counts[2] < 3 * counts[1] < 9 * counts[0]


@pytest.mark.parametrize("is_sum", [False, True])
def test_more_blocks_than_python_may_call_inside_one_another(is_sum):
    owners = []
    for depth in (4, sys.getrecursionlimit() + 200):
        net = Stack(depth, is_sum=is_sum)
        with gradflow.watch(net) as flow:
            net(torch.ones(1, 2)).sum().backward()
            flow.step()
        assert flow.recording.last.complete
        owners.append([flow.recording.last[f"blocks.{i}.own.weight"].contributors for i in range(4)])
    assert owners[0] == owners[1]
    assert owners[0][1] == ("blocks.0.shared#0",)
