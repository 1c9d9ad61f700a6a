"""The measures of a Gram matrix are those of the vectors it was made from."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gradflow import metrics
from gradflow.errors import ShapeError

# Moderate numbers: a Gram matrix squares them, and its smallest differences carry half the digits.
moderate = st.floats(-100, 100).filter(lambda x: x == 0.0 or abs(x) > 1e-3)


def vectors(least=1):
    """Contributions as rows: ``[least to 5, 1 to 7]``."""
    shapes = st.tuples(st.integers(least, 5), st.integers(1, 7))
    return shapes.flatmap(lambda shape: hnp.arrays("f8", shape, elements=moderate))


def close(a, b):
    return np.allclose(a, b, rtol=1e-9, atol=1e-6, equal_nan=True)


def cosine_of(a, b):
    scale = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b) / scale if scale else math.nan


@given(vectors())
def test_norms_are_those_of_the_vectors(rows):
    assert close(metrics.norms(rows @ rows.T), np.linalg.norm(rows, axis=1))


@given(vectors())
def test_the_total_is_the_norm_of_the_sum(rows):
    assert close(metrics.total_norm(rows @ rows.T) ** 2, np.linalg.norm(rows.sum(0)) ** 2)


@given(vectors(least=2))
def test_cosine_and_conflict_are_those_of_the_vectors(rows):
    expected = cosine_of(rows[0], rows[1])
    gram = rows @ rows.T
    assert close(metrics.cosine(gram, 0, 1), expected)
    assert close(metrics.conflict(gram, 0, 1), math.nan if math.isnan(expected) else max(0.0, -expected))
    assert metrics.cosine(gram, 0, 1) == metrics.cosine(gram, 1, 0) or math.isnan(expected)


@given(vectors())
def test_cancellation_is_what_the_sum_throws_away(rows):
    effort, total = np.linalg.norm(rows, axis=1).sum(), np.linalg.norm(rows.sum(0))
    value = metrics.cancellation(rows @ rows.T, total=float(total))
    assert close(value, 1 - total / effort if effort else math.nan)
    assert math.isnan(value) or 0.0 <= value <= 1.0


@given(vectors())
def test_shares_are_projections_on_the_sum_and_add_up_to_1(rows):
    total = rows.sum(0)
    whole = total @ total
    if whole < 1e-6:
        return  # the Gram matrix has lost its digits; a test of its own is below
    shares = metrics.shares(rows @ rows.T)
    assert np.allclose(shares, rows @ total / whole, rtol=1e-6, atol=1e-6)
    assert shares.sum() == pytest.approx(1.0)


@given(vectors(), st.randoms())
def test_the_order_of_the_branches_changes_nothing(rows, random):
    order = list(range(len(rows)))
    random.shuffle(order)
    gram, mixed = rows @ rows.T, rows[order] @ rows[order].T
    assert close(metrics.norms(mixed), metrics.norms(gram)[order])
    assert close(metrics.cancellation(mixed), metrics.cancellation(gram))
    if metrics.total_norm(gram) > 1e-3:
        assert np.allclose(metrics.shares(mixed), metrics.shares(gram)[order], rtol=1e-5, atol=1e-5)


@given(vectors(least=2), st.sampled_from([2.0**-20, 0.5, 8.0, 2.0**30]))
def test_a_power_of_two_scales_norms_and_leaves_ratios_as_they_are_to_the_bit(rows, factor):
    gram = rows @ rows.T
    scaled = gram * factor**2
    np.testing.assert_array_equal(metrics.norms(scaled), metrics.norms(gram) * factor)
    np.testing.assert_array_equal(metrics.shares(scaled), metrics.shares(gram))
    for measure in (metrics.cancellation, lambda g: metrics.cosine(g, 0, 1)):
        np.testing.assert_array_equal(measure(scaled), measure(gram))


@given(
    st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5)).flatmap(
        lambda n: st.tuples(*(hnp.arrays("f8", (n[0], k), elements=moderate) for k in n[1:]))
    )
)
def test_gram_matrices_add_up_to_that_of_the_concatenation(pair):
    whole = np.concatenate(pair, axis=1)
    gram = sum(part @ part.T for part in pair)
    assert close(metrics.norms(gram), np.linalg.norm(whole, axis=1))
    assert close(metrics.total_norm(gram) ** 2, np.linalg.norm(whole.sum(0)) ** 2)


def test_two_that_annul_one_another_cancel_wholly_and_have_no_shares():
    gram = np.array([[4.0, -4.0], [-4.0, 4.0]])
    assert metrics.cancellation(gram) == 1.0
    assert metrics.cosine(gram, 0, 1) == -1.0
    assert metrics.conflict(gram, 0, 1) == 1.0
    assert np.isnan(metrics.shares(gram)).all()


def test_zero_contributions_have_no_direction():
    gram = np.zeros((2, 2))
    assert metrics.norms(gram).tolist() == [0.0, 0.0]
    assert math.isnan(metrics.cosine(gram, 0, 1))
    assert math.isnan(metrics.conflict(gram, 0, 1))
    assert math.isnan(metrics.cancellation(gram))
    assert np.isnan(metrics.shares(gram)).all()


def test_a_nan_stays_a_nan():
    gram = np.array([[1.0, math.nan], [math.nan, 1.0]])
    assert math.isnan(metrics.cosine(gram, 0, 1))
    assert math.isnan(metrics.conflict(gram, 0, 1))
    assert math.isnan(metrics.cancellation(gram, total=math.nan))


def test_no_contribution_at_all_is_no_error():
    empty = np.zeros((0, 0))
    assert metrics.norms(empty).shape == (0,)
    assert metrics.total_norm(empty) == 0.0
    assert math.isnan(metrics.cancellation(empty))


@pytest.mark.parametrize("name", ["norms", "total_norm", "cancellation", "shares", "cosine", "conflict"])
@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 2, 2)])
def test_what_is_not_square_is_refused(name, shape):
    rest = (0, 1) if name in ("cosine", "conflict") else ()
    with pytest.raises(ShapeError, match=f"where: gradflow.metrics.{name}"):
        getattr(metrics, name)(np.zeros(shape), *rest)
