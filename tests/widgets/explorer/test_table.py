"""Every number of the explorer against the record's own measures, one row at a time."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from gradflow.findings import noise_floor
from gradflow.recording import Step
from gradflow.widgets.explorer.rows import tree_of
from gradflow.widgets.explorer.table import FIXED, columns_of, measured
from tests import records

LANES = ("anchor", "positive", "negative")


def motley():
    """A step with an absent branch, zeros, reserved contributors, a tied weight, no delta, and pure noise."""
    some = [
        records.param_step("stem.weight", seed=1),
        records.param_step(
            "body.0.conv.weight", (3, 2), ("anchor", "negative"), seed=2, absent=("positive",)
        ),
        records.param_step("body.0.bn.weight", (3,), (*LANES, "unclaimed"), seed=3, residual=0.25),
        records.param_step("body.0.bn.bias", (3,), (*LANES, "edited"), seed=4),
        records.param_step(
            "body.1.weight", (2, 2), seed=5, names=("body.1.weight", "head.weight"), delta=None
        ),
        records.param_step("head.bias", (2,), seed=6, gram=np.zeros((3, 3)), total_norm=0.0),
        records.param_step("scale", (), seed=7),
    ]
    faint = records.param_step("body.1.bias", (2,), seed=8)
    some.append(replace(faint, gram=1e-16 * faint.gram, total_norm=1e-8 * faint.total_norm))
    return Step(7, {p.fqn: p for p in some}, LANES)


def table(step):
    tree, parameters = tree_of(step.params), list(step)
    columns = columns_of([step], parameters)
    return tree, columns, measured(parameters, tree.members(parameters), columns, noise_floor(step))


STEP = motley()
TREE, COLUMNS, TABLE = table(STEP)
FIXED_AT = {name: len(COLUMNS.contributors) + i for i, name in enumerate(FIXED)}


@pytest.fixture(params=TREE.rows, ids=lambda row: row.place or "model")
def row(request):
    return request.param


def numbers(row):
    return TABLE[TREE.at[row.place]]


def truth(row):
    return STEP[row.place] if row.is_parameter else STEP.layer(row.place)


def same(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-15)


def test_the_tree_has_a_row_for_every_parameter_and_every_module_of_several():
    assert [(row.place, row.members) for row in TREE.rows if not row.is_parameter] == [
        ("", 8), ("body", 5), ("body.0", 3), ("body.0.bn", 2), ("body.1", 2)
    ]  # fmt: skip
    assert [row.place for row in TREE.rows if row.is_parameter] == list(STEP.params)
    assert all(row.parent < i for i, row in enumerate(TREE.rows))


def test_norms_are_those_of_the_record_and_absent_is_not_zero(row):
    wanted = truth(row)
    for i, name in enumerate(COLUMNS.contributors):
        if name in wanted.contributors:
            same(numbers(row)[i], wanted.norms[name])
        else:
            assert np.isnan(numbers(row)[i])


def test_the_sum_and_what_cancels(row):
    same(numbers(row)[FIXED_AT["total"]], truth(row).total_norm)
    same(numbers(row)[FIXED_AT["cancellation"]], truth(row).cancellation)


def test_the_cosines(row):
    wanted = truth(row)
    first = len(COLUMNS.contributors) + len(FIXED) + len(COLUMNS.deltas)
    assert COLUMNS.pairs == list(combinations(range(5), 2))
    for k, (i, j) in enumerate(COLUMNS.pairs):
        a, b = COLUMNS.contributors[i], COLUMNS.contributors[j]
        known = {a, b} <= set(wanted.contributors)
        same(numbers(row)[first + k], wanted.cosine(a, b) if known else np.nan)


def test_the_smallest_cosine_is_between_two_branches_above_the_noise(row):
    wanted, floor = truth(row), noise_floor(STEP)
    heard = [b for b in LANES if wanted.norms.get(b, 0.0) > floor]
    found = {(a, b): wanted.cosine(a, b) for a, b in combinations(heard, 2)}
    if not found:
        assert np.isnan(numbers(row)[FIXED_AT["least"]])
        assert np.isnan(numbers(row)[FIXED_AT["pair"]])
        return
    pair = min(found, key=found.get)
    same(numbers(row)[FIXED_AT["least"]], found[pair])
    i, j = COLUMNS.pairs[int(numbers(row)[FIXED_AT["pair"]])]
    assert (COLUMNS.contributors[i], COLUMNS.contributors[j]) == pair


def test_the_delta_and_its_shares(row):
    wanted = truth(row).delta
    shares = len(COLUMNS.contributors) + len(FIXED)
    if wanted is None:
        assert np.isnan(numbers(row)[[FIXED_AT["delta"], FIXED_AT["relative"], shares]]).all()
        return
    same(numbers(row)[FIXED_AT["delta"]], wanted.norm)
    same(numbers(row)[FIXED_AT["relative"]], wanted.relative)
    for i, name in enumerate(COLUMNS.deltas):
        same(numbers(row)[shares + i], wanted.shares.get(name, np.nan))


def test_the_residual_is_the_largest_of_the_members(row):
    members = [p for p in STEP if row.place == p.fqn or not row.place or p.fqn.startswith(row.place + ".")]
    assert numbers(row)[FIXED_AT["residual"]] == max(p.residual for p in members)


def test_this_step_has_all_that_is_difficult():
    assert COLUMNS.contributors == (*LANES, "unclaimed", "edited")
    assert COLUMNS.branches == 3
    noise = TABLE[TREE.at["body.1.bias"]]
    assert noise[0] > 0
    assert np.isnan(noise[FIXED_AT["least"]])
    assert TREE.members(list(STEP))[TREE.at["body.1"]].sum() == 2


def test_a_step_without_gradients_is_a_table_of_nothing():
    tree = tree_of(STEP.params)
    empty = measured([], tree.members([]), columns_of([], []), 0.0)
    assert np.isnan(empty).all()


def test_too_many_contributors_have_no_pairs_but_still_the_smallest_cosine():
    many = tuple(f"step {i}" for i in range(20))
    step = Step(0, {"w": records.param_step("w", (9,), many)}, many)
    _, columns, found = table(step)
    assert columns.pairs == []
    least = min(step["w"].cosine(a, b) for a, b in combinations(many, 2))
    same(found[1][len(many) + FIXED.index("least")], least)
