"""DDP, on as many ranks as there are: local contributions exact, the mean told apart."""

import contextlib

import numpy as np
import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import gradflow
from tests import laws
from tests.distributed.training import (
    NAMES,
    Encoder,
    Wrapper,
    assert_local,
    assert_mean,
    batches,
    called_thrice,
    follow,
    oracle,
    summed,
    triplet,
    twin_of,
)

STEPS = 3


def adam(net):
    return torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=0.1)


def sgd(net):
    return torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)


def no_change(_net):
    """What happens between backward and step: nothing."""


class Run:
    """A training run under DDP, watched or not."""

    def __init__(self, make=Encoder, optimizer=adam, run=called_thrice, **options):
        torch.manual_seed(0)
        self.net = make()
        self.twin = twin_of(self.net)
        self.run = run
        self.ddp = DistributedDataParallel(self.net, **options)
        self.optimizer = optimizer(self.net)

    def step(self, rank, ranks, number, *, between=no_change, to_none=True):
        """One step; gives what one process alone computes of every rank's, and the weights before."""
        before, inputs = laws.copies(self.net), batches(ranks, number)
        follow(self.twin, before)
        self.optimizer.zero_grad(set_to_none=to_none)
        self.run(self.ddp, inputs[rank]).backward()
        between(self.net)
        self.optimizer.step()
        return inputs, before

    def train(self, rank, ranks, **how):
        for number in range(STEPS):
            self.step(rank, ranks, number, **how)
        return laws.state_of(self.net, [self.optimizer], [])


def check(
    rank, ranks, make=Encoder, run=called_thrice, *, outputs_of="", optimizer=adam, how=None, **options
):
    """The laws, the oracle, the mean, and that nothing is harmed or left behind."""
    how = how or {}
    plain = Run(make, optimizer, run, **options).train(rank, ranks, **how)
    one = Run(make, optimizer, run, **options)
    hooks = laws.hook_counts(one.ddp, [one.optimizer])
    with gradflow.watch(one.net, one.optimizer, branches=NAMES, keep="tensors") as flow:
        for number in range(STEPS):
            inputs, before = one.step(rank, ranks, number, **how)
            step = flow.recording.last
            truth = oracle(one.twin, inputs, run, outputs_of)
            assert_local(step, truth, rank)
            assert_mean(step, truth, rank)
            laws.assert_delta_conserved(step, before, laws.copies(one.net), tol=2e-6)
            assert [f.where for f in step.findings if f.code == "rank"] == [f"rank {rank} of {ranks}"]
            assert "edited" not in [f.code for f in step.findings]
    laws.assert_bitwise_equal(laws.state_of(one.net, [one.optimizer], []), plain)
    assert laws.hook_counts(one.ddp, [one.optimizer]) == hooks


def case_three_calls(rank, ranks):
    check(rank, ranks)


def case_three_calls_and_momentum(rank, ranks):
    check(rank, ranks, optimizer=sgd)


def case_a_wrapper_that_calls_its_encoder(rank, ranks):
    check(rank, ranks, Wrapper, lambda m, xs: triplet(*m(*xs)), outputs_of="encoder")


def case_gradients_that_are_views_of_buckets(rank, ranks):
    check(rank, ranks, gradient_as_bucket_view=True)


def case_gradients_zeroed_in_place(rank, ranks):
    check(rank, ranks, how={"to_none": False})
    check(rank, ranks, how={"to_none": False}, gradient_as_bucket_view=True)


def case_a_static_graph(rank, ranks):
    check(rank, ranks, static_graph=True)


class Checkpointed(nn.Module):
    """An encoder whose every call is run again in the backward, by a backward of its own."""

    def __init__(self):
        super().__init__()
        self.encoder = Encoder()

    def forward(self, x):
        return checkpoint(self.encoder, x.clone().requires_grad_(), use_reentrant=True)


class CalledThrice(nn.Module):
    """What DDP wants: all that a step computes in one forward."""

    def __init__(self):
        super().__init__()
        self.net = Checkpointed()

    def forward(self, *inputs):
        return [self.net(x) for x in inputs]


def case_a_static_graph_with_reentrant_checkpoints(rank, ranks):
    make = {"make": CalledThrice, "run": lambda m, xs: triplet(*m(*xs)), "static_graph": True}
    plain = Run(**make).train(rank, ranks)
    one = Run(**make)
    with gradflow.watch(one.net, one.optimizer, branches=NAMES, keep="tensors") as flow:
        for number in range(STEPS):
            inputs, before = one.step(rank, ranks, number)
            truth = oracle(one.twin.net.encoder, inputs)
            assert_local(flow.recording.last, truth, rank, strip="net.encoder.")
            assert_mean(flow.recording.last, truth, rank, strip="net.encoder.")
            laws.assert_delta_conserved(flow.recording.last, before, laws.copies(one.net), tol=2e-6)
    laws.assert_bitwise_equal(laws.state_of(one.net, [one.optimizer], []), plain)


def case_the_wrapped_model_is_watched_through_the_wrapper(rank, ranks):
    one = Run()
    with gradflow.watch(one.ddp, one.optimizer, branches=NAMES, keep="tensors") as flow:
        inputs, _ = one.step(rank, ranks, 0)
    truth = oracle(one.twin, inputs)
    assert_local(flow.recording.last, truth, rank, strip="module.")
    assert_mean(flow.recording.last, truth, rank, strip="module.")


class Uneven(nn.Module):
    """A second layer that some ranks alone use."""

    def __init__(self):
        super().__init__()
        self.encoder, self.extra = Encoder(), nn.Linear(3, 3)
        self.uses_extra = True

    def forward(self, a, p, n):
        outputs = [self.encoder(x) for x in (a, p, n)]
        return [self.extra(y) for y in outputs] if self.uses_extra else outputs


def case_a_parameter_that_some_ranks_do_not_use(rank, ranks):
    one = Run(Uneven, run=lambda m, xs: triplet(*m(*xs)), find_unused_parameters=True)
    one.net.uses_extra = rank == 0
    with gradflow.watch(one.net, one.optimizer, branches=NAMES, keep="tensors") as flow:
        inputs, before = one.step(rank, ranks, 0)
    step, truth = flow.recording.last, []
    for r, xs in enumerate(inputs):
        one.twin.uses_extra = r == 0
        outputs_of = "extra" if r == 0 else "encoder"
        truth.append(laws.two_stage(one.twin, lambda m, xs=xs: triplet(*m(*xs)), outputs_of, NAMES))
    assert_local(step, truth, rank)
    extra = step["extra.weight"]
    assert extra.absent == (() if rank == 0 else NAMES)
    expected = 0.0 if rank == 0 else summed(truth[0], "extra.weight")
    found = extra.contribution("other ranks") if rank else 0.0
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert ("other ranks" in extra.contributors) == (rank != 0)
    laws.assert_delta_conserved(step, before, laws.copies(one.net), tol=2e-6)


def accumulate(one, rank, ranks, silent):
    """Two micro-batches in a step, the first (or both) under ``no_sync``; gives what each rank brings."""
    before, both = laws.copies(one.net), [batches(ranks, 0), batches(ranks, 1)]
    follow(one.twin, before)
    one.optimizer.zero_grad()
    for i, inputs in enumerate(both):
        with one.ddp.no_sync() if i < silent else contextlib.nullcontext():
            called_thrice(one.ddp, inputs[rank]).backward()
    one.optimizer.step()
    parts = [oracle(one.twin, inputs) for inputs in both]
    truth = [
        {name: {fqn: a[r][name][fqn] + b[r][name][fqn] for fqn in before} for name in NAMES}
        for a, b in [parts]
        for r in range(ranks)
    ]
    return truth, before


def case_micro_batches_under_no_sync(rank, ranks):
    for options in ({}, {"gradient_as_bucket_view": True}):
        for silent in (0, 1):
            one = Run(**options)
            with gradflow.watch(one.net, one.optimizer, branches=NAMES, keep="tensors") as flow:
                truth, before = accumulate(one, rank, ranks, silent)
            assert_local(flow.recording.last, truth, rank)
            assert_mean(flow.recording.last, truth, rank)
            laws.assert_delta_conserved(flow.recording.last, before, laws.copies(one.net), tol=2e-6)


def case_a_step_that_never_synchronized_is_this_ranks_own(rank, ranks):
    one = Run()
    with gradflow.watch(one.net, one.optimizer, branches=NAMES, keep="tensors") as flow:
        truth, before = accumulate(one, rank, ranks, silent=2)
    step = flow.recording.last
    assert_local(step, truth, rank)
    for p in step:
        assert p.contributors == NAMES
        assert p.scale == 1.0
    laws.assert_delta_conserved(step, before, laws.copies(one.net), tol=2e-6)


def case_clipping_scales_all_ranks_alike(rank, ranks):
    coefficients = []

    def clip(net):
        norm = nn.utils.clip_grad_norm_(net.parameters(), 1e-2)
        coefficients.append(1e-2 / (float(norm) + 1e-6))

    one = Run()
    with gradflow.watch(one.net, one.optimizer, branches=NAMES, keep="tensors") as flow:
        for number in range(STEPS):
            inputs, before = one.step(rank, ranks, number, between=clip)
            truth = oracle(one.twin, inputs)
            assert_local(flow.recording.last, truth, rank)
            assert_mean(flow.recording.last, truth, rank, factor=coefficients[-1])
            laws.assert_delta_conserved(flow.recording.last, before, laws.copies(one.net), tol=4e-6)


def case_a_gradient_changed_by_hand_is_edited(rank, ranks):
    def edit(net):
        net.one.weight.grad[0] += 1.0

    one = Run()
    with gradflow.watch(one.net, one.optimizer, branches=NAMES, keep="tensors") as flow:
        inputs, before = one.step(rank, ranks, 0, between=edit)
    step, truth = flow.recording.last, oracle(one.twin, inputs)
    expected = np.zeros((7, 5))
    expected[0] = 1.0
    np.testing.assert_allclose(step["one.weight"].contribution("edited"), expected, atol=1e-5)
    np.testing.assert_allclose(step["one.weight"].scale, 1 / ranks)
    others = sum(summed(of, "one.weight") for r, of in enumerate(truth) if r != rank)
    np.testing.assert_allclose(step["one.weight"].contribution("other ranks"), others, atol=1e-5)
    laws.assert_delta_conserved(step, before, laws.copies(one.net), tol=2e-6)


def case_a_gradient_left_over_is_edited_and_not_the_others(rank, ranks):
    one = Run(optimizer=sgd)
    with gradflow.watch(one.net, one.optimizer, branches=NAMES, keep="tensors") as flow:
        one.step(rank, ranks, 0)
        left = {fqn: p.grad.clone() for fqn, p in one.net.named_parameters()}
        before, inputs = laws.copies(one.net), batches(ranks, 1)
        follow(one.twin, before)
        called_thrice(one.ddp, inputs[rank]).backward()
        one.optimizer.step()
    step, truth = flow.recording.last, oracle(one.twin, inputs)
    assert_local(step, truth, rank)
    for p in step:
        others = sum(summed(of, p.fqn) for r, of in enumerate(truth) if r != rank)
        np.testing.assert_allclose(p.contribution("other ranks"), others, atol=2e-5)
        np.testing.assert_allclose(p.contribution("edited"), left[p.fqn].numpy(), atol=1e-6)
    laws.assert_delta_conserved(step, before, laws.copies(one.net), tol=2e-6)


def case_a_communication_hook_is_told(rank, ranks):
    one = Run()
    one.ddp.register_comm_hook(None, default_hooks.fp16_compress_hook)
    with gradflow.watch(one.net, one.optimizer, branches=NAMES, keep="tensors") as flow:
        inputs, before = one.step(rank, ranks, 0)
    step = flow.recording.last
    assert_local(step, oracle(one.twin, inputs), rank)
    laws.assert_delta_conserved(step, before, laws.copies(one.net), tol=2e-6)
    [told] = [f.text for f in step.findings if f.code == "comm-hook"]
    assert "fp16_compress_hook" in told


def case_every_second_step_and_few_parameters(rank, ranks):
    one = Run()
    options = {"branches": NAMES, "keep": "tensors", "every": 2, "params": "one.*"}
    with gradflow.watch(one.net, one.optimizer, **options) as flow:
        for number in range(STEPS):
            inputs, _ = one.step(rank, ranks, number)
            if number % 2 == 0:
                truth = oracle(one.twin, inputs)
                assert_local(flow.recording.last, truth, rank)
                assert_mean(flow.recording.last, truth, rank)
    assert [step.index for step in flow.recording] == [0, 2]
    assert flow.recording.params == ("one.weight", "one.bias")


def case_without_an_optimizer(rank, ranks):
    one = Run()
    with gradflow.watch(one.net, branches=NAMES, keep="tensors") as flow:
        inputs = batches(ranks, 0)
        called_thrice(one.ddp, inputs[rank]).backward()
        flow.step()
    truth = oracle(one.twin, inputs)
    assert_local(flow.recording.last, truth, rank)
    assert_mean(flow.recording.last, truth, rank)


def case_a_model_that_was_watched_before_it_was_wrapped(rank, ranks):
    torch.manual_seed(0)
    net = Encoder()
    twin, optimizer, inputs = twin_of(net), adam(net), batches(ranks, 0)
    with gradflow.watch(net, optimizer, branches=NAMES, keep="tensors") as flow:
        called_thrice(DistributedDataParallel(net), inputs[rank]).backward()
        optimizer.step()
    truth = oracle(twin, inputs)
    assert_local(flow.recording.last, truth, rank)
    assert_mean(flow.recording.last, truth, rank)
