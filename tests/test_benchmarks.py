"""The harness of benchmarks/ runs; no time is asserted."""

from benchmarks import measures
from benchmarks.__main__ import _row
from benchmarks.nets import NETS, Net, chain, sgd
from benchmarks.timing import Spread

TINY = Net("tiny", "a chain of two", chain(2, 4, 2, 2), 99.0)


def test_a_net_is_timed_in_every_variant():
    times = measures.watched_times(TINY, rounds=2, steps=1)
    assert set(times) == {"plain", "bare", "watched", "every 10th", "plain Adam", "deltas"}
    assert all(len(t.cpu) == len(t.wall) == 2 for t in times.values())
    assert _row(TINY, times).count("|") == 9


def test_every_net_builds_a_job():
    assert all(net.build(sgd).model is not None for net in NETS.values() if net.name not in ("B32", "ViT"))


def test_live_bytes_are_counted_at_their_peak():
    import torch

    most = measures.peak_bytes(lambda: torch.ones(1000).add(1.0))
    assert 8000 <= most < 8100  # and the number 1.0 itself


def test_quartiles_of_a_spread():
    assert Spread.of([1.0, 2.0, 3.0, 4.0, 5.0]) == Spread(3.0, 2.0, 4.0)
