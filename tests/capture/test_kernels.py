"""The compiled reading of gradients, against exact rational sums and torch's own additions."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradflow.capture import compiling, kernels

SIZES = (1, 7, 2047, 2048, 2049, 10_000)
DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
FEW = settings(max_examples=50, deadline=None, derandomize=True, database=None)


class Marked(torch.Tensor):
    """A tensor that may mean something else by its storage."""


def rows_of(count, size, dtype):
    generator = torch.Generator().manual_seed(size)
    return [torch.randn(size, dtype=dtype, generator=generator) for _ in range(count)]


def total_of(rows):
    total = rows[0].clone()
    for row in rows[1:]:
        total = total + row
    return total


def exactly(left, right):
    """Give the inner product as a rational number, rounded once at the end."""
    parts = [torch.view_as_real(t).reshape(-1) if t.is_complex() else t for t in (left, right)]
    pairs = zip(*(part.tolist() for part in parts), strict=True)
    return float(sum(Fraction(a) * Fraction(b) for a, b in pairs))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES[:5])
def test_inner_products_are_those_of_rational_arithmetic(size, dtype):
    rows = rows_of(3, size, dtype)
    total = total_of(rows)
    lengths = [exactly(row, row) ** 0.5 for row in rows]
    found = kernels.survey(rows, total)
    for matrix in (kernels.gram(rows), found.gram):
        for i, left in enumerate(rows):
            for j, right in enumerate(rows):
                assert abs(matrix[i, j] - exactly(left, right)) <= 1e-14 * lengths[i] * lengths[j]
    np.testing.assert_allclose(kernels.squares(rows), [length**2 for length in lengths], rtol=1e-14)
    np.testing.assert_allclose(found.square, [exactly(total, total)], rtol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_rows_are_a_sum_only_to_the_last_bit_and_only_in_their_order(count, size, dtype):
    rows = rows_of(count, size, dtype)
    total = total_of(rows)
    assert kernels.is_sum(rows, total)
    assert kernels.survey(rows, total).is_sum
    for position in {0, size // 2, size - 1}:
        off = total.clone()
        real = torch.view_as_real(off) if off.is_complex() else off
        real[position] = torch.nextafter(real[position], torch.full_like(real[position], torch.inf))
        assert not kernels.is_sum(rows, off)
        assert not kernels.survey(rows, off).is_sum
    if count == 7 and size > 7:
        assert not kernels.is_sum(rows[::-1], total)


def test_nan_equals_nan_and_minus_zero_equals_zero_and_nothing_else_does():
    nan, zero = torch.tensor([torch.nan, 1.0]), torch.tensor([0.0, 1.0])
    assert kernels.is_sum([nan], nan.clone())
    assert kernels.is_sum([nan, zero], nan + zero)
    assert not kernels.is_sum([nan], zero)
    assert not kernels.is_sum([zero], nan)
    assert kernels.is_sum([-torch.zeros(3)], torch.zeros(3))
    assert np.isnan(kernels.survey([nan, zero], nan + zero).gram[0, 0])


def test_a_row_that_is_its_total_is_read_as_such():
    row = torch.randn(5000)
    found = kernels.survey([row], row)
    assert found.is_sum
    assert found.square.item() == found.gram.item() == pytest.approx(exactly(row, row), rel=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("owners", [(0, 0, 0), (0, 1, 0, 0, 1), (0, 1, 2, 3), (0, 1, 1, 2, 0, 3, 3)])
@pytest.mark.parametrize("size", [1, 1025])
def test_rows_of_one_owner_are_added_as_torch_would_add_them(size, owners, dtype):
    rows = rows_of(len(owners), size, dtype)
    pairs = list(zip(rows, owners, strict=True))
    sums = [total_of([row for row, own in pairs if own == k]) for k in range(max(owners) + 1)]
    found = kernels.survey(rows, total_of(rows), owners)
    assert found.is_sum
    for i, left in enumerate(sums):
        for j, right in enumerate(sums):
            slack = 1e-14 * (exactly(left, left) * exactly(right, right)) ** 0.5
            assert abs(found.gram[i, j] - exactly(left, right)) <= slack
    np.testing.assert_allclose(found.squares, [exactly(row, row) for row in rows], rtol=1e-14)
    assert not kernels.survey(rows, total_of(rows) + 1, owners).is_sum


@FEW
@given(st.lists(st.lists(st.floats(width=32), min_size=3, max_size=3), min_size=1, max_size=5))
def test_any_floats_are_summed_as_torch_sums_them(values):
    rows = [torch.tensor(row, dtype=torch.float32) for row in values]
    total = total_of(rows)
    assert kernels.is_sum(rows, total)
    assert kernels.survey(rows, total).is_sum


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3, 8)[:, ::2],
        torch.randn(4).expand(3, 4),
        torch.randn(12, dtype=torch.bfloat16),
        torch.arange(12),
        torch.randn(3, 4).to_sparse(),
        torch.randn(12, device="meta"),
        torch.randn(12, dtype=torch.complex64).conj(),
        torch.randn(12, dtype=torch.complex64).conj().imag,
        torch.randn(12).as_subclass(Marked),
    ],
    ids=["strided", "repeated", "half", "integer", "sparse", "elsewhere", "conjugate", "negated", "subclass"],
)
def test_what_the_compiled_code_would_misread_is_left_to_torch(tensor):
    assert not kernels.are_readable([tensor])


@pytest.mark.parametrize("turn", [lambda t: t.transpose(0, 2), lambda t: t.permute(1, 2, 0)])
def test_rows_that_lie_in_one_order_are_read_in_it_and_others_are_left_to_torch(turn):
    rows = [turn(torch.randn(3, 4, 5)) for _ in range(3)]
    total = rows[0] + rows[1] + rows[2]
    assert total.stride() == rows[0].stride()
    assert kernels.are_readable([total, *rows])
    found = kernels.survey(rows, total)
    assert found.is_sum
    np.testing.assert_allclose(
        found.gram,
        np.array([[float((a.double() * b.double()).sum()) for a in rows] for b in rows]),
        rtol=1e-12,
    )
    assert not kernels.are_readable([total, rows[0].contiguous()])
    assert not kernels.are_readable([rows[0].contiguous(), total])


def test_rows_of_different_sizes_or_dtypes_are_left_to_torch():
    assert kernels.are_readable([torch.zeros(4), torch.nn.Parameter(torch.zeros(2, 2))])
    assert not kernels.are_readable([torch.zeros(4), torch.zeros(5)])
    assert not kernels.are_readable([torch.zeros(4), torch.zeros(4, dtype=torch.float64)])


def products_of(size, dtype):
    """Give three contributors' products: an elementwise factor, a number, and the sum of two."""
    momenta, factor = rows_of(4, size, dtype), rows_of(1, size + 1, dtype)[0][:size].contiguous()
    return [[(factor, momenta[0])], [(-0.1, momenta[1])], [(0.3, momenta[2]), (factor, momenta[3])]]


@pytest.mark.parametrize("dtype", DTYPES[:2])
@pytest.mark.parametrize("size", SIZES[:5])
def test_parts_of_a_delta_are_weighed_as_torch_would_multiply_them_out(size, dtype):
    products = products_of(size, dtype)
    parts = [total_of([factor * tensor for factor, tensor in pairs]) for pairs in products]
    before = torch.randn(size, dtype=dtype, generator=torch.Generator().manual_seed(1))
    after = before + total_of(parts)
    after[-1] += 0.01
    found = kernels.weigh(products, after, before)
    for i, left in enumerate(parts):
        for j, right in enumerate(parts):
            slack = 1e-14 * (exactly(left, left) * exactly(right, right)) ** 0.5
            assert abs(found.gram[i, j] - exactly(left, right)) <= slack
    delta = after - before
    np.testing.assert_allclose(found.norms**2, [exactly(delta, delta), exactly(before, before)], rtol=1e-13)
    exact = [part.double().numpy() for part in parts]
    off = np.abs(delta.double().numpy() - sum(exact))
    eps = torch.finfo(dtype).eps
    beyond = (off - 2 * eps * np.abs(before.double().numpy())).max()
    effort = sum(np.abs(part) for part in exact).max()
    assert found.residual.item() == pytest.approx(beyond / effort, rel=1e-3)


def test_parts_that_explain_the_delta_leave_no_residual_and_nan_is_never_explained():
    before = torch.full((3000,), 2.0)
    part = torch.full((3000,), 0.25)
    assert kernels.weigh([[(1.0, part)]], before + part, before).residual.item() == 0.0
    part[2999] = torch.nan
    assert kernels.weigh([[(1.0, part)]], before + part, before).residual.item() == np.inf


def test_compiled_code_works_where_nothing_can_be_written(monkeypatch):
    def refuse(*_arguments):
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr("numba.core.caching.CacheImpl.__init__", refuse)

    @compiling.compiled()
    def double(number):
        return 2 * number

    assert double(21) == 42


@pytest.mark.parametrize("dtype", DTYPES[:2])
@pytest.mark.parametrize("size", SIZES[:5])
def test_a_number_over_a_root_is_worked_out_as_torch_would(size, dtype):
    squares, *momenta = rows_of(3, size, dtype)
    over = kernels.OverRoot(squares.abs(), -1e-3, 0.3, 1e-8)
    factor = kernels.make(over)
    expected = over.number / (over.second.double().sqrt() / over.root + over.eps)
    torch.testing.assert_close(factor.double(), expected, rtol=4 * torch.finfo(dtype).eps, atol=0)
    before = torch.randn(size, dtype=dtype, generator=torch.Generator().manual_seed(1))
    after = before + total_of([factor * momentum for momentum in momenta])
    found = kernels.weigh([[(over, momentum)] for momentum in momenta], after, before)
    known = kernels.weigh([[(factor, momentum)] for momentum in momenta], after, before)
    np.testing.assert_allclose(found.gram, known.gram, rtol=1e-13)  # a rounding elsewhere would tell 1e-8
    np.testing.assert_allclose(found.norms, known.norms, rtol=1e-13)
    assert found.residual.item() <= 1e-6


@pytest.mark.parametrize("dtype", DTYPES[:2])
@pytest.mark.parametrize("size", SIZES[:5])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_any_number_of_parts_over_a_root_is_weighed_as_torch_would_multiply_them_out(count, size, dtype):
    squares, *momenta = rows_of(count + 1, size, dtype)
    before = torch.randn(size, dtype=dtype, generator=torch.Generator().manual_seed(1))
    over = kernels.OverRoot(squares.abs(), -1e-5, 0.3, 1e-3)
    factor = kernels.make(over)  # which the test above holds to exact arithmetic
    parts = [factor * momentum for momentum in momenta]
    after = before + total_of(parts)
    after[-1] += 0.01
    found = kernels.weigh([[(over, momentum)] for momentum in momenta], after, before)
    exact = np.stack([part.double().numpy() for part in parts])
    np.testing.assert_allclose(found.gram, exact @ exact.T, rtol=1e-12, atol=1e-13 * (exact**2).sum())
    delta = (after - before).double().numpy()
    lengths = [np.linalg.norm(delta), np.linalg.norm(before.double().numpy())]
    np.testing.assert_allclose(found.norms, lengths, rtol=1e-13)
    slack = 2 * torch.finfo(dtype).eps * np.abs(before.double().numpy())
    beyond = (np.abs(delta - exact.sum(0)) - slack).max() / np.abs(exact).sum(0).max()
    assert found.residual.item() == pytest.approx(beyond, rel=1e-3)
    momenta[-1][size // 2] = torch.nan
    assert kernels.weigh([[(over, m)] for m in momenta], after, before).residual.item() == np.inf


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("owners", [(0,), (0, 1, 2), (0, 1, 0)])
@pytest.mark.parametrize("size", [1, 1025, 5000])
def test_parts_of_a_whole_are_read_with_what_they_leave(size, owners, dtype):
    parts = rows_of(len(owners), size, dtype)
    whole = total_of(parts) * (1 + 1e-3)
    pairs, left = list(zip(parts, owners, strict=True)), whole
    for part in parts:
        left = left - part
    rows = [total_of([part for part, own in pairs if own == k]) for k in range(max(owners) + 1)] + [left]
    rest = torch.empty_like(whole)
    found = kernels.divide(parts, whole, owners, rest)
    assert torch.equal(rest, left)
    assert not found.is_sum
    for i, one in enumerate(rows):
        for j, other in enumerate(rows):
            slack = 1e-14 * (exactly(one, one) * exactly(other, other)) ** 0.5
            assert abs(found.gram[i, j] - exactly(one, other)) <= slack
    np.testing.assert_allclose(found.squares, [exactly(part, part) for part in parts], rtol=1e-14)
    np.testing.assert_allclose(found.square, exactly(whole, whole), rtol=1e-14)


def test_parts_that_leave_nothing_have_no_row_for_it():
    parts = [torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.25])]
    found = kernels.divide(parts, parts[0] + parts[1], [0, 1])
    assert found.is_sum
    assert found.gram.shape == (2, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("size", "step"), [(1, 1), (7, 3), (256, 1), (1000, 33), (1001, 33)])
@pytest.mark.parametrize("owners", [(0,), (0, 1), (0, 1, 2), (0, 1, 0), (0, 1, 2, 3)])
def test_a_sample_is_every_so_many_th_element_of_the_total(owners, size, step, dtype):
    rows = rows_of(len(owners), size, dtype)
    total = total_of(rows)
    found = kernels.survey(rows, total, owners, sampled_by=step)
    assert found.has_sample
    assert found.sample.tolist() == total[::step].tolist()
    assert found.is_sum
    np.testing.assert_allclose(found.squares, [exactly(row, row) for row in rows], rtol=1e-14)
    kept = found.sample.copy()
    total += 1
    assert found.sample.tolist() == kept.tolist()


@pytest.mark.parametrize("owners", [(0,), (0, 1), (0, 0)])
def test_nothing_is_sampled_that_is_not_asked_for_or_lies_otherwise(owners):
    for rows, step in (
        (rows_of(len(owners), 12, torch.float32), 0),
        (rows_of(len(owners), 12, torch.complex64), 3),
        ([row.reshape(3, 4).T for row in rows_of(len(owners), 12, torch.float32)], 3),
    ):
        found = kernels.survey(rows, total_of(rows), owners, sampled_by=step)
        assert not found.has_sample
        assert found.sample.size == 0
        assert found.is_sum


def test_a_survey_is_written_over_what_nobody_needs_if_it_fits():
    rows = rows_of(2, 100, torch.float32)
    total = total_of(rows)
    fresh = kernels.survey(rows, total, sampled_by=3)
    room = np.full(fresh.numbers.size, np.nan)
    found = kernels.survey(rows, total, sampled_by=3, room=room)
    assert found.numbers is room
    assert found.numbers.tolist() == fresh.numbers.tolist()
    for other in (np.zeros(room.size - 1), np.zeros(room.size + 1)):
        found = kernels.survey(rows, total, sampled_by=3, room=other)
        assert found.numbers is not other
        assert not other.any()
        assert found.numbers.tolist() == fresh.numbers.tolist()
