"""Contributions of all ranks together: summed while training, or merged from the recordings of the ranks."""

import contextlib
import itertools
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch

import gradflow
from gradflow.integrations import distributed
from gradflow.merging import merge
from tests import laws
from tests.distributed import cases_ddp, cases_fsdp
from tests.distributed.training import NAMES, batches, effort_of, oracle, summed, triplet

STEPS = 2


@contextlib.contextmanager
def shared_folder(rank):
    """One folder for all ranks; gone when all are done with it."""
    box = [tempfile.mkdtemp() if rank == 0 else None]
    torch.distributed.broadcast_object_list(box)
    try:
        yield Path(box[0])
        torch.distributed.barrier()
    finally:
        if rank == 0:
            shutil.rmtree(box[0])


def of_all(truth, name, fqn):
    """What a branch brings on all ranks together, in double precision."""
    return sum(of[name][fqn].double().numpy() for of in truth if of[name].get(fqn) is not None)


def assert_global(step, truth, *, strip=""):
    """Contributions are those of one process alone that sees the shards of all ranks."""
    for p in step:
        fqn, effort = p.fqn.removeprefix(strip), effort_of(truth, p.fqn.removeprefix(strip))
        near = {"atol": 1e-6 * len(truth) * effort, "rtol": 0, "err_msg": p.fqn}
        assert set(p.contributors) == {n for n in NAMES if any(of[n].get(fqn) is not None for of in truth)}
        for name in p.contributors:
            np.testing.assert_allclose(p.contribution(name), of_all(truth, name, fqn), **near)
        np.testing.assert_allclose(p.total, sum(summed(of, fqn) for of in truth), **near)
        np.testing.assert_allclose(p.scale, 1 / len(truth), rtol=1e-5)
        laws.assert_gram_tells_the_tensors(p)


def case_all_ranks_of_ddp_together(rank, ranks):
    one = cases_ddp.Run()
    with gradflow.watch(one.net, one.optimizer, branches=NAMES, keep="tensors") as flow:
        distributed.all_reduce(flow)
        for number in range(STEPS):
            inputs, before = one.step(rank, ranks, number)
            step = flow.recording.last
            assert_global(step, oracle(one.twin, inputs))
            laws.assert_delta_conserved(step, before, laws.copies(one.net), tol=2e-6)
            assert [(f.code, f.where) for f in step.findings if f.code.startswith("rank")] == [
                ("ranks", f"rank {rank} of {ranks}")
            ]


def case_together_is_what_training_alone_gives(rank, ranks):
    plain = cases_ddp.Run().train(rank, ranks)
    one = cases_ddp.Run()
    with distributed.all_reduce(gradflow.watch(one.net, one.optimizer, branches=NAMES)):
        watched = one.train(rank, ranks)
    laws.assert_bitwise_equal(watched, plain)


def case_a_branch_that_one_rank_alone_has(rank, ranks):
    one = cases_ddp.Run(cases_ddp.Uneven, run=lambda m, xs: triplet(*m(*xs)), find_unused_parameters=True)
    one.net.uses_extra = rank == 0
    flow = gradflow.watch(one.net, one.optimizer, branches=NAMES, keep="tensors")
    with distributed.all_reduce(flow):
        inputs, before = one.step(rank, ranks, 0)
    truth = []
    for r, xs in enumerate(inputs):
        one.twin.uses_extra = r == 0
        outputs_of = "extra" if r == 0 else "encoder"
        truth.append(laws.two_stage(one.twin, lambda m, xs=xs: triplet(*m(*xs)), outputs_of, NAMES))
    assert_global(flow.recording.last, truth)
    laws.assert_delta_conserved(flow.recording.last, before, laws.copies(one.net), tol=2e-6)


def case_terms_of_the_loss_are_summed_too(rank, ranks):
    one = cases_ddp.Run()

    def run(net, inputs):
        a, p, n = map(net, inputs)
        pull, push = (a - p).square().sum(), (a - n).square().sum()
        pull, push = gradflow.branch.term("pull", pull), gradflow.branch.term("push", push)
        return pull - 0.1 * push

    one.run = run
    with distributed.all_reduce(gradflow.watch(one.net, one.optimizer, branches=NAMES)) as flow:
        inputs, _ = one.step(rank, ranks, 0)
    table = flow.recording.last["one.weight"].terms
    cells = [("anchor", "pull", "positive", 1.0), ("positive", "pull", "anchor", 1.0)]
    cells += [("anchor", "push", "negative", -0.1), ("negative", "push", "anchor", -0.1)]
    for name, term, other, factor in cells:
        expected = sum(term_of(one.twin, xs, name, other, factor) for xs in inputs)
        cell = table.contributors.index(name) * len(table.terms) + table.terms.index(term)
        np.testing.assert_allclose(np.sqrt(table.gram[cell, cell]), np.linalg.norm(expected), rtol=1e-5)


def term_of(twin, inputs, name, other, factor):
    """What one branch brings to the first weight by one squared distance."""
    outputs = dict(zip(NAMES, map(twin, inputs), strict=True))
    distance = (outputs[name] - outputs[other].detach()).square().sum() * factor
    return torch.autograd.grad(distance, twin.one.weight)[0].double().numpy()


def case_all_ranks_of_fsdp_together(rank, ranks):
    one = cases_fsdp.Run(cases_fsdp.shard_layers, optimizer=torch.optim.SGD)
    with distributed.all_reduce(one.watch()) as flow:
        for number in range(STEPS):
            truth, _ = one.step(rank, ranks, number)
            step = flow.recording.last
            assert_global(step, truth)
            for p in step:
                assert "other ranks" not in p.delta.contributors
                for name in NAMES:
                    whole = -0.01 / ranks * of_all(truth, name, p.fqn)
                    expected = cases_fsdp.held_part(one.net, p.fqn, whole)
                    np.testing.assert_allclose(p.delta.part(name), expected, rtol=1e-3, atol=1e-8)


def recorded(run, folder, rank, ranks, *, together=False, keep="tensors"):
    """Train on every rank into a file of its own; give the merged recording, and the oracle of each step."""
    path, steps = distributed.for_rank(folder / "run.gradflow"), []
    assert path.name == f"run.rank{rank}.gradflow"
    with gradflow.watch(run.net, run.optimizer, branches=NAMES, keep=keep, to=path) as flow:
        if together:
            distributed.all_reduce(flow)
        for number in range(STEPS):
            before = (
                laws.copies(run.net) if isinstance(run, cases_ddp.Run) else cases_fsdp.whole_weights(run.net)
            )
            found, _ = run.step(rank, ranks, number)
            truth = oracle(run.twin, found) if isinstance(run, cases_ddp.Run) else found
            after = (
                laws.copies(run.net) if isinstance(run, cases_ddp.Run) else cases_fsdp.whole_weights(run.net)
            )
            steps.append((truth, before, after))
    torch.distributed.barrier()
    every = [gradflow.load(folder / f"run.rank{r}.gradflow") for r in range(ranks)]
    return merge(every[::-1]), every, steps


def case_recordings_of_ddp_are_summed(rank, ranks):
    for together, optimizer in itertools.product((False, True), (cases_ddp.adam, cases_ddp.sgd)):
        with shared_folder(rank) as folder:
            run = cases_ddp.Run(optimizer=optimizer)
            merged, _, steps = recorded(run, folder, rank, ranks, together=together)
            assert len(merged) == STEPS
            for step, (truth, before, after) in zip(merged, steps, strict=True):
                assert_global(step, truth)
                laws.assert_delta_conserved(step, before, after, tol=4e-6)
                assert not [f for f in step.findings if f.severity == "warning"]
                uses = [use.call.partition(":")[0] for use in step["one.weight"].uses]
                assert {*uses} == {f"rank{r}" for r in range(ranks)}


def case_a_mean_moves_alike_whether_ranks_met_while_training_or_after(rank, ranks):
    shares = []
    for together in (False, True):
        with shared_folder(rank) as folder:
            merged, *_ = recorded(cases_ddp.Run(), folder, rank, ranks, together=together)
            shares.append({p.fqn: p.delta.shares for p in merged.last if p.fqn != "two.bias"})
    for fqn, found in shares[0].items():
        for name, share in found.items():
            np.testing.assert_allclose(share, shares[1][fqn][name], rtol=1e-3, atol=1e-4)


def case_inner_products_alone_stay_side_by_side(rank, ranks):
    with shared_folder(rank) as folder:
        merged, every, _ = recorded(cases_ddp.Run(), folder, rank, ranks, keep="gram")
        for i, step in enumerate(merged):
            assert len(step.params) == ranks * len(every[0][i].params)
            for r, of_rank in enumerate(every):
                for p in of_rank[i]:
                    np.testing.assert_array_equal(step[f"rank{r}.{p.fqn}"].gram, p.gram)
                    assert step.layer(f"rank{r}.one").norms == of_rank[i].layer("one").norms
            [told] = [f.text for f in step.findings if f.code == "merged"]
            assert "rank by rank" in told


def case_recordings_of_fsdp(rank, ranks):
    for together in (False, True):
        with shared_folder(rank) as folder:
            run = cases_fsdp.Run(cases_fsdp.shard_layers, optimizer=torch.optim.SGD)
            merged, _, steps = recorded(run, folder, rank, ranks, together=together)
            for step, (truth, before, after) in zip(merged, steps, strict=True):
                assert_global(step, truth)
                for p in step:
                    moved = (after[p.fqn] - before[p.fqn]).double().numpy()
                    np.testing.assert_allclose(p.delta.norm, np.linalg.norm(moved), rtol=1e-6, atol=1e-9)
                    if not together:
                        assert p.delta.contributors == ("unattributed",)
                        continue
                    parts = [-0.01 / ranks * of_all(truth, name, p.fqn).ravel() for name in NAMES]
                    order = [p.delta.contributors.index(name) for name in NAMES]
                    found = p.delta.gram[np.ix_(order, order)]
                    np.testing.assert_allclose(
                        found, np.array(parts) @ np.array(parts).T, rtol=1e-4, atol=1e-12
                    )


def case_an_overflow_on_one_rank_skips_the_step_on_all(rank, ranks):
    one, scaler = cases_ddp.Run(), torch.amp.GradScaler("cpu", init_scale=8.0)
    with gradflow.watch(one.net, one.optimizer, branches=NAMES) as flow:
        for number in range(3):
            one.optimizer.zero_grad()
            overflow = float("inf") if (number, rank) == (1, 0) else 1.0
            loss = cases_ddp.called_thrice(one.ddp, batches(ranks, number)[rank]) * overflow
            scaler.scale(loss).backward()
            scaler.step(one.optimizer)
            scaler.update()
    assert [step.skipped for step in flow.recording] == [False, True, False]
    assert [step.index for step in flow.recording] == [0, 1, 2]
