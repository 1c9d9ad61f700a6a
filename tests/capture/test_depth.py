"""What a very deep graph or model must not do: end the process, or take ever longer for each node."""

import contextlib
import sys
import threading
import weakref

import pytest
import torch
from torch import nn

import gradflow
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
def test_each_call_takes_as_long_however_long_the_chain(with_memory):
    sizes, net = [], Chains(1)
    for steps in (500, 2000):
        with gradflow.watch(net):
            sizes.append(
                python_calls(lambda n=steps: net(torch.ones(1, 2), n, with_memory=with_memory)) / steps
            )
    assert 0 < sizes[1] < 2 * sizes[0]


def in_thread_with_small_stack(run):
    """Run something in a thread with a stack of 256 kB, where 2000 nodes freed by recursion are too many."""
    before, failures = threading.stack_size(1 << 18), []

    def guarded():
        try:
            run()
        except BaseException as error:
            failures.append(error)

    try:
        thread = threading.Thread(target=guarded)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert not failures, failures


class Steps(nn.Module):
    """Makes as many nodes in a row as it is told to, or two rows at once."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))

    def forward(self, h, count=3, g=None):
        for _ in range(count // 2):
            h = h * self.w + 1.0
        return h if g is None else (h, torch.tanh(g * self.w))


class Parts(nn.Module):
    """Takes its input apart and puts it together again."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(2))

    def forward(self, h):
        return torch.cat([*(h * self.w).split(1)])


def small_calls_and_one_large(net):
    h = torch.ones(1)
    for _ in range(3):
        for count in (*[100] * 49, 5100):
            h = net(h, count)
    return h


def two_states(net):
    h = g = torch.ones(1)
    for _ in range(8000):
        h, g = net(h, 2, g)
    return h, g


def readout_that_is_dropped(net):
    h = torch.ones(1)
    for _ in range(10_000):
        h = net(h, 6)
        net(h, 6).sum().item()
    return h


def two_chains_of_unequal_calls(net):
    h = g = torch.ones(1)
    for _ in range(3000):
        h, g = net(h, 16), net(g, 10)
    return h, g


def long_skips(net):
    h = kept = torch.ones(1)
    for at in range(8000):
        h = net(h)
        if at % 97 == 0:
            h, kept = h + kept, h
    return h


def nodes_that_take_much_stack(_net):
    h = torch.ones(2, requires_grad=True)
    parts = Parts()
    with gradflow.watch(parts, branches=None):
        for _ in range(4000):
            h = parts(h)
    return h


CHAINS = [
    nodes_that_take_much_stack,
    small_calls_and_one_large,
    two_states,
    readout_that_is_dropped,
    two_chains_of_unequal_calls,
    long_skips,
]


@pytest.mark.parametrize("chain", CHAINS)
def test_chain_that_grew_in_any_manner_is_freed_where_the_stack_is_small(chain):
    def run():
        net = Steps()
        with gradflow.watch(net, branches=None):
            ends = chain(net)
            del ends

    in_thread_with_small_stack(run)


def test_chain_over_many_backwards_that_keep_it_is_freed_where_the_stack_is_small():
    def run():
        net, h = Steps(), torch.ones(1)
        with gradflow.watch(net, branches=None, last=1) as flow:
            for _ in range(6):
                for _ in range(1200):
                    h = net(h)
                h.sum().backward(retain_graph=True)
                flow.step()
            del h
        assert flow.recording.last["w"].residual == 0.0

    in_thread_with_small_stack(run)


def test_graph_that_nobody_watches_is_freed_after_a_trace_where_the_stack_is_small():
    def run():
        h = torch.ones(3, requires_grad=True)
        for _ in range(20_000):
            h = h + 1.0
        traced = gradflow.trace(h.sum())
        del h, traced

    in_thread_with_small_stack(run)


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
