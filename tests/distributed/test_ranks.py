"""Several processes: each rank's contributions are exact, and the mean over the ranks is told apart."""

import pytest

from tests.distributed.torchrun import assert_all_pass


@pytest.mark.proves(
    row=16, situation="DDP: a gradient that is averaged over ranks", verdict="exact; `other ranks` shown"
)
def test_ddp_contributions_are_local_and_the_mean_is_told_apart():
    assert_all_pass("cases_ddp", 2)


def test_ddp_of_four_ranks():
    assert_all_pass("cases_ddp", 4)


@pytest.mark.proves(
    row=17, situation="FSDP2: sharded parameters", verdict="exact; delta of this rank's shard, and it says so"
)
def test_fsdp_contributions_are_local_and_the_delta_is_that_of_the_shard():
    assert_all_pass("cases_fsdp", 2)


def test_contributions_of_all_ranks_are_summed_on_request_and_recordings_merged():
    assert_all_pass("cases_meet", 2)
