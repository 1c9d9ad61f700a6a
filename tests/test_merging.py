"""Recordings of several ranks become one: summed where that can be done, side by side where it cannot."""

from dataclasses import replace

import numpy as np
import pytest

from gradflow.averaging import ALL, Averaged, averaging
from gradflow.errors import InvalidArgumentError, NoSuchParameterError, NotKeptError
from gradflow.merging import merge, rank_of
from gradflow.record import Delta, Finding
from gradflow.recording import Recording, Step
from tests import records

LR = 0.1


def told(rank, ranks, code="rank"):
    return (Finding("note", code, "whose the contributions are", where=f"rank {rank} of {ranks}"),)


def of_rank(rank, ranks, step, others=None):
    """A step as one rank records it: plain SGD over the mean of what all ranks brought."""
    if others is None:
        return replace(step, reports=told(rank, ranks), scalars={"loss": float(rank)})
    parameters = {}
    for p in step:
        tensors = {**p.tensors, "other ranks": others[p.fqn]}
        rows = np.stack([t.ravel() for t in tensors.values()])
        parts = {name: -LR / ranks * t for name, t in tensors.items()}
        tensor = sum(parts.values())
        gram = rows @ rows.T
        small = gram * (LR / ranks) ** 2
        delta = Delta(tuple(parts), small, float(np.linalg.norm(tensor)), 2.0, 0.0, "SGD", "", parts, tensor)
        scale = 1 / ranks
        parameters[p.fqn] = replace(
            p, contributors=tuple(tensors), gram=gram, tensors=tensors, delta=delta, scale=scale
        )
    return of_rank(rank, ranks, replace(step, parameters=parameters))


def two_ranks(steps=3, *, keep=True):
    """The recordings of two ranks, each with what the other brought."""
    first = [records.step(i, keep=keep) for i in range(steps)]
    second = [replace(records.step(i + 50, keep=keep), index=i) for i in range(steps)]
    if not keep:
        return [Recording([of_rank(r, 2, s) for s in run]) for r, run in enumerate((first, second))]
    runs = ((first, second), (second, first))
    return [
        Recording([of_rank(r, 2, s, {p.fqn: p.total for p in o}) for s, o in zip(own, other, strict=True)])
        for r, (own, other) in enumerate(runs)
    ]


def test_what_was_kept_is_summed_over_the_ranks():
    ranks = two_ranks()
    merged = merge(ranks)
    assert [step.index for step in merged] == [0, 1, 2]
    for step, *each in zip(merged, *ranks, strict=True):
        assert rank_of(step) is None
        for p in step:
            here = [one[p.fqn] for one in each]
            assert p.contributors == records.PATHS
            for name in records.PATHS:
                expected = sum(one.contribution(name) for one in here)
                np.testing.assert_allclose(p.contribution(name), expected, rtol=1e-12)
                part = -LR / 2 * expected
                np.testing.assert_allclose(p.delta.part(name), part, rtol=1e-12)
            rows = np.stack([p.contribution(name).ravel() for name in p.contributors])
            np.testing.assert_allclose(p.gram, rows @ rows.T, rtol=1e-12)
            np.testing.assert_allclose(p.total, sum(one.total for one in here), rtol=1e-12)
            assert p.total_norm == pytest.approx(np.linalg.norm(p.total))
            assert p.delta.residual < 1e-12
            assert sum(p.delta.shares.values()) == pytest.approx(1.0)
        assert step.scalars == {"loss (rank 0)": 0.0, "loss (rank 1)": 1.0}
        assert [f.code for f in step.reports] == ["merged"]


def test_the_order_of_the_files_means_nothing():
    ranks = two_ranks()
    for one, other in zip(merge(ranks), merge(ranks[::-1]), strict=True):
        for p in one:
            np.testing.assert_array_equal(p.gram, other[p.fqn].gram)


def test_inner_products_stay_as_each_rank_has_them():
    ranks = two_ranks(keep=False)
    step = merge(ranks).last
    assert step.params == tuple(f"rank{r}.{fqn}" for fqn in ranks[0].params for r in (0, 1))
    for r, one in enumerate(ranks):
        for p in one.last:
            found = step[f"rank{r}.{p.fqn}"]
            assert found.gram is p.gram
            assert found.delta is p.delta
    [finding] = [f for f in step.findings if f.code == "merged"]
    assert "3 parameters are shown rank by rank" in finding.text
    assert 'keep="tensors"' in finding.do


def test_steps_that_a_killed_rank_lacks_are_left_out():
    first, second = two_ranks(5)
    assert [step.index for step in merge([first, second[:3]])] == [0, 1, 2]
    assert len(merge([first[:2], second[3:]])) == 0


def test_ranks_that_met_while_training_are_taken_once():
    ranks = [Recording([replace(records.step(0), reports=told(rank, 2, "ranks"))]) for rank in range(2)]
    for p, q in zip(merge(ranks).last, ranks[0].last, strict=True):
        assert p.gram is q.gram
        assert p.tensors is q.tensors
        assert [use.call for use in p.uses] == [f"rank{r}:{use.call}" for r in (0, 1) for use in q.uses]


def sharded(rank, gram, code="ranks"):
    delta = Delta(
        ("a", "b"),
        gram,
        float(np.sqrt(gram.sum())),
        1.5,
        0.0,
        "SGD",
        "of this rank's shard, 6 of 12 elements",
    )
    p = records.param_step(contributors=("a", "b"), delta=delta)
    return Recording([Step(0, {p.fqn: p}, ("a", "b"), reports=told(rank, 2, code))])


def test_deltas_of_shards_add_up():
    grams = [np.array([[4.0, 1.0], [1.0, 2.0]]), np.array([[1.0, -1.0], [-1.0, 5.0]])]
    delta = merge([sharded(r, gram) for r, gram in enumerate(grams)]).last["conv1.weight"].delta
    np.testing.assert_array_equal(delta.gram, grams[0] + grams[1])
    assert delta.norm == pytest.approx(np.sqrt(8.0 + 4.0))
    assert delta.parameter_norm == pytest.approx(1.5 * np.sqrt(2))
    assert "shard" not in delta.note


def test_shards_split_by_one_rank_each_are_shown_whole():
    recordings = [sharded(r, np.eye(2), "rank") for r in range(2)]
    delta = merge(recordings).last["conv1.weight"].delta
    assert delta.contributors == ("unattributed",)
    assert delta.norm == pytest.approx(2.0)
    assert "all_reduce" in delta.note


def test_parts_that_do_not_add_up_are_not_shown_as_parts():
    first, second = two_ranks(1)
    p = second[0]["fc.weight"]
    parts = {name: 2 * part for name, part in p.delta.parts.items()}
    broken = replace(p, delta=replace(p.delta, parts=parts))
    second = Recording([replace(second[0], parameters={**second[0].parameters, p.fqn: broken})])
    delta = merge([first, second]).last["fc.weight"].delta
    assert delta.contributors == ("unattributed",)
    assert "miss it by" in delta.note


def test_weights_that_moved_apart_are_told():
    first, second = two_ranks(1)
    p = second[0]["fc.weight"]
    moved = replace(p, delta=replace(p.delta, norm=2 * p.delta.norm))
    second = Recording([replace(second[0], parameters={**second[0].parameters, p.fqn: moved})])
    [finding] = [f for f in merge([first, second]).last.findings if f.code == "ranks-differ"]
    assert (finding.severity, finding.where) == ("warning", "fc.weight")


def reshaped(p, **changes):
    """The parameter with all of its tensors in one row."""
    tensors = {name: tensor.reshape(1, -1) for name, tensor in p.tensors.items()}
    return replace(p, tensors=tensors, total_tensor=p.total.reshape(1, -1), **changes)


@pytest.mark.parametrize("sums", [lambda ranks: merge(ranks).last, averaging], ids=["merge", "averaging"])
def test_tensors_of_other_shapes_are_not_stretched_to_fit(sums):
    first, second = two_ranks(1)
    p = second[0]["fc.weight"]
    second = Recording([replace(second[0], parameters={**second[0].parameters, p.fqn: reshaped(p)})])
    with pytest.raises(
        InvalidArgumentError, match=r"'fc.weight' is of shape \(4, 3\) on one rank, \(1, 12\)"
    ):
        sums([first, second])


def test_shards_may_be_of_several_sizes():
    first, second = two_ranks(1)
    shards = []
    for rank, rows in ((first, slice(0, 3)), (second, slice(3, 4))):
        p = rank[0]["fc.weight"]
        note = f"of this rank's shard, {p.delta.tensor[rows].size} of 12 elements"
        delta = replace(p.delta, parts=None, tensor=p.delta.tensor[rows], note=note)
        shards.append(Recording([replace(rank[0], parameters={p.fqn: replace(p, delta=delta)})]))
    delta = merge(shards).last["fc.weight"].delta
    norms = [shard.last["fc.weight"].delta.norm for shard in shards]
    assert delta.norm == pytest.approx(np.hypot(*norms))


@pytest.mark.parametrize(
    ("recordings", "message"),
    [
        (lambda first, _: [first], r"these are the ranks \[0\] of 2"),
        (lambda first, _: [first, first], r"these are the ranks \[0, 0\] of 2"),
        (
            lambda first, _: [first, records.recording(2)],
            "recording 2 of 2 is not that of one of several ranks",
        ),
        (lambda first, _: [first, Recording()], "recording 2 of 2 is not"),
        (lambda *_: [], "there is nothing to merge"),
    ],
    ids=["one missing", "one twice", "not of a rank", "empty", "none"],
)
def test_what_cannot_be_merged_is_refused(recordings, message):
    with pytest.raises(InvalidArgumentError, match=message):
        merge(recordings(*two_ranks()))


def test_the_mean_keeps_what_ranks_agree_on():
    ranks = two_ranks()
    found = averaging(ranks, "fc.weight")
    each = [one.last["fc.weight"] for one in ranks]
    for name in records.PATHS:
        a, b = (p.contribution(name).ravel() for p in each)
        assert found[name].norms == pytest.approx((np.linalg.norm(a), np.linalg.norm(b)))
        assert found[name].mean == pytest.approx(np.linalg.norm((a + b) / 2))
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert found[name].smallest_cosine == pytest.approx(cosine)
        assert found[name].kept == pytest.approx(
            2 * found[name].mean / (np.linalg.norm(a) + np.linalg.norm(b))
        )
    assert found[ALL].mean == pytest.approx(np.linalg.norm(each[0].total + each[1].total) / 2)


def test_means_of_all_parameters_add_their_inner_products():
    ranks = two_ranks()
    whole = averaging(ranks)["anchor"].gram
    np.testing.assert_allclose(whole, sum(averaging(ranks, fqn)["anchor"].gram for fqn in ranks[0].params))
    assert str(averaging(ranks)).splitlines()[1].split() == [
        "contributor",
        *["rank", "0", "rank", "1", "mean", "kept", "smallest", "cosine"],
    ]


def test_a_rank_that_brought_nothing_agrees_with_nobody():
    alone = Averaged("extra", np.array([[4.0, 0.0], [0.0, 0.0]]))
    assert (alone.norms, alone.mean, alone.kept) == ((2.0, 0.0), 1.0, 1.0)
    assert np.isnan(alone.smallest_cosine)


def test_means_need_tensors_and_a_parameter_that_is_there():
    with pytest.raises(NotKeptError, match="none of one rank with another"):
        averaging(two_ranks(keep=False))
    with pytest.raises(NoSuchParameterError, match="wieght"):
        averaging(two_ranks(), "fc.wieght")
