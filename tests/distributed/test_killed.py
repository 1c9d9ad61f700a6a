"""One rank is killed in the middle of a run: what every rank had finished is there, and merges."""

import numpy as np
import pytest
import torch

import gradflow
from gradflow import cli
from gradflow.merging import merge, rank_of
from tests import laws
from tests.distributed.cases_ddp import adam
from tests.distributed.torchrun import torchrun
from tests.distributed.training import NAMES, Encoder, batches, called_thrice, twin_of

STEPS, VICTIM = 7, 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What a run of two ranks leaves, of which one was killed after its seventh step."""
    folder = tmp_path_factory.mktemp("killed")
    run = torchrun("killed", 2, folder, VICTIM, STEPS)
    assert run.returncode != 0
    assert "Signal 9" in run.stderr
    return folder


@pytest.fixture(scope="module")
def ranks(folder):
    return [gradflow.load(folder / f"run.rank{rank}.gradflow") for rank in range(2)]


def test_every_finished_step_of_every_rank_is_there(folder, ranks):
    for rank, recording in enumerate(ranks):
        finished = int((folder / f"rank{rank}.steps").read_text())
        assert finished >= STEPS
        assert len(recording) in (finished, finished + 1)  # one more may be finished and not announced
        assert {rank_of(step) for step in recording} == {(rank, 2)}
        assert all(step.complete for step in recording)


def test_merged_they_are_what_one_process_computes_of_the_whole_batch(ranks):
    """The oracle: one process, one optimizer, a loss that is the mean over both ranks' shards."""
    torch.manual_seed(0)
    net = Encoder()
    twin, optimizer = twin_of(net), adam(net)
    merged = merge(ranks)
    assert [step.index for step in merged] == list(range(STEPS))
    for step in merged:
        twin.load_state_dict(net.state_dict())
        shards = batches(2, step.index)
        brought = [laws.two_stage(twin, lambda m, xs=xs: called_thrice(m, xs), "", NAMES) for xs in shards]
        optimizer.zero_grad()
        (sum(called_thrice(net, inputs) for inputs in shards) / 2).backward()
        optimizer.step()
        for p in step:
            for name in NAMES:
                expected = sum(of[name][p.fqn].double().numpy() for of in brought)
                effort = max(np.abs(of[n][p.fqn].numpy()).max() for of in brought for n in NAMES)
                np.testing.assert_allclose(p.contribution(name), expected, atol=2e-4 * effort, rtol=0)


def test_the_command_line_merges_them(folder, ranks, capsys):
    out = folder / "merged.gradflow"
    files = [str(folder / f"run.rank{rank}.gradflow") for rank in (1, 0)]
    assert cli.main(["merge", *files, "-o", str(out)]) == 0
    told = capsys.readouterr().out
    assert f"{STEPS} steps of 2 ranks in {out}" in told
    assert ("left out" in told) == (max(map(len, ranks)) > STEPS)
    assert "The contributions are those of 2 ranks together" in told
    table = told[told.index("Norms in step 6") :].splitlines()
    assert [line.split()[0] for line in table[2:]] == [*NAMES, "Σ"]
    for a, b in zip(merge(ranks), gradflow.load(out), strict=True):
        for p in a:
            np.testing.assert_array_equal(p.gram, b[p.fqn].gram)


def test_of_one_rank_alone_nothing_is_merged(folder, capsys):
    command = ["merge", str(folder / "run.rank0.gradflow"), "-o", str(folder / "alone.gradflow")]
    assert cli.main(command) == 2
    assert "these are the ranks [0] of 2" in capsys.readouterr().err
    assert not (folder / "alone.gradflow").exists()
