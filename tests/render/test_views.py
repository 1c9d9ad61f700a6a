import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradflow.render.views import MOST_CELLS, view

SHAPES = [(), (1,), (8,), (9,), (128,), (97,), (3, 5), (16, 1, 3, 3), (64, 3, 7, 7), (5, 4, 3), (128, 256)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_cell_is_a_real_entry_and_none_is_shown_twice(shape):
    shown = view(np.ones(shape))
    used = shown.index[shown.index >= 0]
    assert len(set(used.tolist())) == used.size
    assert max(shown.index.shape) <= MOST_CELLS
    if np.prod(shape, dtype=int) <= MOST_CELLS:
        assert used.size == np.prod(shape, dtype=int)


@given(st.lists(st.integers(1, 9), min_size=0, max_size=5), st.integers(1, 12))
def test_any_shape_fits_any_panel(shape, most):
    shown = view(np.random.default_rng(0).random(shape), most=most)
    assert max(shown.index.shape) <= most
    assert shown.index.max() < np.prod(shape, dtype=int)


def test_the_equation_holds_cell_by_cell_in_a_reduced_view():
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(3, 200, 300))
    shown = view(np.abs(parts).sum(axis=0))
    assert shown.index.shape == (50, 60)
    np.testing.assert_allclose(sum(shown.of(p) for p in parts), shown.of(parts.sum(axis=0)))
    assert "the same in every panel" in shown.sentence


def test_a_block_shows_the_entry_with_the_largest_effort():
    effort = np.zeros((4, 4))
    effort[1, 0], effort[2, 3] = 5.0, 7.0
    assert view(effort, most=2).index[0, 0] == 4
    assert view(effort, most=2).index[1, 1] == 11


def test_kernels_are_tiles_of_a_mosaic():
    kernels = np.arange(16 * 9).reshape(16, 1, 3, 3)
    shown = view(np.ones(kernels.shape))
    cells = shown.of(kernels)
    assert cells.shape == (12, 12)
    assert shown.kernel == (3, 3)
    np.testing.assert_array_equal(cells[:3, :3], kernels[0, 0])
    np.testing.assert_array_equal(cells[9:, 9:], kernels[15, 0])


def test_many_kernels_keep_their_channels():
    kernels = np.arange(20 * 10 * 9).reshape(20, 10, 3, 3)
    cells = view(np.ones(kernels.shape)).of(kernels)
    np.testing.assert_array_equal(cells[3:6, 27:30], kernels[1, 9])


def test_a_vector_that_does_not_fill_its_rows_ends_in_empty_cells():
    shown = view(np.ones(97))
    assert np.isnan(shown.of(np.arange(97.0))).sum() == shown.index.size - 97
