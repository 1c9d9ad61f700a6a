"""FSDP2 on as many ranks as there are: the leaf is a parameter that no ``named_parameters()`` knows."""

import copy
import itertools
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

import gradflow
from tests import laws
from tests.distributed.training import (
    NAMES,
    Encoder,
    assert_local,
    batches,
    called_thrice,
    effort_of,
    follow,
    oracle,
    summed,
)

STEPS = 3


def shard_root(net, **options):
    return fully_shard(net, **options)


def shard_layers(net, **options):
    for layer in (net.one, net.two):
        fully_shard(layer, **options)
    return fully_shard(net, **options)


def whole_weights(net):
    """The parameters put together from all ranks."""
    return {fqn: p.full_tensor().detach().clone() for fqn, p in net.named_parameters()}


def held_weights(net):
    """What this rank holds of them."""
    return {fqn: p.to_local().detach().clone() for fqn, p in net.named_parameters()}


def held_part(net, fqn, whole):
    """This rank's rows: FSDP2 cuts the first dimension into as many chunks as there are ranks."""
    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    chunks = torch.chunk(torch.as_tensor(whole), ranks)
    found = chunks[rank] if rank < len(chunks) else torch.as_tensor(whole)[:0]
    assert found.shape == net.get_parameter(fqn).to_local().shape
    return found.numpy()


def state_of(net, optimizer):
    entries = [v for p in optimizer.state for v in optimizer.state[p].values()]
    tensors = [*net.parameters(), *entries]
    return [(t.to_local() if isinstance(t, DTensor) else t).detach().clone() for t in tensors]


class Run:
    """A sharded training run."""

    def __init__(self, shard=shard_root, optimizer=torch.optim.Adam, **options):
        torch.manual_seed(0)
        net = Encoder()
        self.twin = copy.deepcopy(net)
        mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
        self.net = shard(net, mesh=mesh, **options)
        self.optimizer = optimizer(self.net.parameters(), lr=0.01, weight_decay=0.1)

    def step(self, rank, ranks, number, *, between=lambda _net: None):
        follow(self.twin, whole_weights(self.net))
        before, inputs = held_weights(self.net), batches(ranks, number)
        self.optimizer.zero_grad()
        called_thrice(self.net, inputs[rank]).backward()
        between(self.net)
        self.optimizer.step()
        return oracle(self.twin, inputs), before

    def watch(self, **options):
        return gradflow.watch(self.net, self.optimizer, branches=NAMES, keep="tensors", **options)


def assert_delta(run, step, before, *, tol=2e-6):
    """The delta is that of this rank's shard, conserved, and says so."""
    sizes = {fqn: weight.numel() for fqn, weight in before.items()}
    held = replace(step, parameters={p.fqn: p for p in step if sizes[p.fqn]})
    laws.assert_delta_conserved(held, before, held_weights(run.net), tol=tol)
    for p in step:
        mine = sizes[p.fqn]
        assert f"of this rank's shard, {mine} of {np.prod(p.shape)} elements" in p.delta.note
        assert set(p.delta.contributors) >= {*NAMES, "other ranks"} - set(p.absent)


def check(rank, ranks, shard, **options):
    plain = Run(shard, **options)
    for number in range(STEPS):
        plain.step(rank, ranks, number)
    one = Run(shard, **options)
    hooks = laws.hook_counts(one.net, [one.optimizer])
    with one.watch() as flow:
        for number in range(STEPS):
            truth, before = one.step(rank, ranks, number)
            step = flow.recording.last
            assert step.params == tuple(dict(one.net.named_parameters()))
            assert_local(step, truth, rank)
            assert_delta(one, step, before)
            for p in step:
                is_whole = one.net.get_parameter(p.fqn).to_local().shape == p.shape
                assert ("other ranks" in p.contributors) == is_whole  # it is known of this rank's shard alone
                assert p.scale == 1 / ranks
    laws.assert_bitwise_equal(state_of(one.net, one.optimizer), state_of(plain.net, plain.optimizer))
    assert laws.hook_counts(one.net, [one.optimizer]) == hooks
    leaves = [p for m in one.net.modules() for p in m._parameters.values() if p is not None]
    assert not any(p._backward_hooks for p in leaves)


def case_root_and_layers_with_both_ways_to_reshard(rank, ranks):
    for shard, reshard in itertools.product((shard_root, shard_layers), (True, False)):
        check(rank, ranks, shard, reshard_after_forward=reshard)


def case_plain_sgd_tells_what_the_others_brought_to_this_shard(rank, ranks):
    one = Run(optimizer=torch.optim.SGD)
    with one.watch() as flow:
        truth, before = one.step(rank, ranks, 0)
    assert_delta(one, flow.recording.last, before)
    for p in flow.recording.last:
        for name in NAMES:
            expected = held_part(one.net, p.fqn, truth[rank][name][p.fqn]) * (-0.01 / ranks)
            np.testing.assert_allclose(p.delta.part(name), expected, rtol=1e-5, atol=1e-9)
        others = sum(summed(of, p.fqn) for r, of in enumerate(truth) if r != rank)
        expected = held_part(one.net, p.fqn, others) * (-0.01 / ranks)
        atol = 1e-7 * effort_of(truth, p.fqn)
        np.testing.assert_allclose(p.delta.part("other ranks"), expected, rtol=1e-4, atol=atol)


def case_micro_batches_without_synchronization(rank, ranks):
    for silent in (0, 1):
        one = Run(shard_layers)
        follow(one.twin, whole_weights(one.net))
        with one.watch() as flow:
            for number in range(2):
                before = held_weights(one.net)
                one.optimizer.zero_grad()
                truth = [{name: dict.fromkeys(before, 0) for name in NAMES} for _ in range(ranks)]
                for micro in range(2):
                    one.net.set_requires_gradient_sync(micro >= silent)
                    inputs = batches(ranks, 2 * number + micro)
                    follow(one.twin, whole_weights(one.net))
                    brought = oracle(one.twin, inputs)
                    for r, name, fqn in itertools.product(range(ranks), NAMES, before):
                        truth[r][name][fqn] = truth[r][name][fqn] + brought[r][name][fqn]
                    called_thrice(one.net, inputs[rank]).backward()
                one.optimizer.step()
                assert_local(flow.recording.last, truth, rank)
                assert_delta(one, flow.recording.last, before)


def case_clipping_scales_all_ranks_alike(rank, ranks):
    coefficients = []

    def clip(net):
        norm = nn.utils.clip_grad_norm_(net.parameters(), 1e-2).full_tensor()
        coefficients.append(1e-2 / (float(norm) + 1e-6))

    one = Run()
    with one.watch() as flow:
        for number in range(STEPS):
            truth, before = one.step(rank, ranks, number, between=clip)
            assert_local(flow.recording.last, truth, rank)
            assert_delta(one, flow.recording.last, before, tol=4e-6)
            for fqn in ("one.weight", "one.bias", "two.weight"):
                np.testing.assert_allclose(
                    flow.recording.last[fqn].scale, coefficients[-1] / ranks, rtol=1e-5
                )


def case_a_divisor_of_ones_own(rank, ranks):
    one = Run()
    one.net.set_gradient_divide_factor(8.0)
    one.net.set_force_sum_reduction_for_comms(True)  # gloo has no other way to divide by a number of ours
    with one.watch() as flow:
        truth, before = one.step(rank, ranks, 0)
    assert_local(flow.recording.last, truth, rank)
    assert_delta(one, flow.recording.last, before)
    assert {p.scale for p in flow.recording.last} == {1 / 8}


def case_mixed_precision(rank, ranks):
    one = Run(mp_policy=MixedPrecisionPolicy(torch.bfloat16, torch.float32))
    with one.watch() as flow:
        before, inputs = held_weights(one.net), batches(ranks, 0)
        follow(one.twin, whole_weights(one.net))
        half = copy.deepcopy(one.twin).bfloat16()
        called_thrice(one.net, inputs[rank]).backward()
        one.optimizer.step()
    truth = [
        {name: {fqn: g.float() for fqn, g in of.items()} for name, of in brought.items()}
        for brought in oracle(half, [[x.bfloat16() for x in xs] for xs in inputs])
    ]
    assert_local(flow.recording.last, truth, rank)
    assert_delta(one, flow.recording.last, before)


def case_pause_and_resume_and_every_second_step(rank, ranks):
    one = Run(shard_layers)
    with one.watch(every=2) as flow:
        for number in range(4):
            if number == 2:
                flow.pause()
                flow.resume()
            truth, before = one.step(rank, ranks, number)
            if number % 2 == 0:
                assert_local(flow.recording.last, truth, rank)
                assert_delta(one, flow.recording.last, before)
    assert [step.index for step in flow.recording] == [0, 2]


def case_an_optimizer_that_needs_the_whole_matrix_is_shown_whole(rank, ranks):
    one = Run(optimizer=lambda params, **options: torch.optim.Muon([p for p in params if p.dim() == 2]))
    with one.watch() as flow:
        truth, _ = one.step(rank, ranks, 0)
    step = flow.recording.last
    assert_local(step, truth, rank)
    for p in (step["one.weight"], step["two.weight"]):
        assert p.delta.contributors == ("unattributed",)
        assert "sharded" in p.delta.note
