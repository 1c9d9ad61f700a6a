"""How a tensor of any shape is shown as a matrix of cells, without ever averaging.

Averages over blocks of signed values lie: +1 and -1 look like nothing. So each cell shows one real
entry, and every panel of an equation shows *the same* entry there; the equation then holds cell by cell.
Where a tensor is too large, a cell stands for a block and shows the entry of it where the contributors'
magnitudes add up to most.

Shapes: ``R``, ``K`` are the rows and columns of cells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_CELLS", "View", "view"]

MOST_CELLS = 64  # rows or columns of cells that a panel can show apart
_NUMBERED = 8  # a vector longer than this is wrapped
_LOOSE_KERNELS = 64  # so many kernels are laid out freely; more keep their rows and columns


@dataclass(frozen=True, slots=True)
class View:
    """Which entry of a tensor each cell shows.

    Attributes:
        index: Position in the flattened tensor, ``-1`` where a cell shows nothing. Shape ``[R, K]``.
        sentence: What the rows and columns are and what was left out, for the caption; may be empty.
        kernel: Rows and columns of one kernel, where cells are grouped by kernels; else ``(0, 0)``.
    """

    index: NDArray[np.intp]
    sentence: str = ""
    kernel: tuple[int, int] = (0, 0)

    def of(self, tensor: NDArray) -> NDArray[np.float64]:
        """Give the cells of a tensor, ``nan`` where a cell shows nothing. Shape ``[R, K]``."""
        values = np.asarray(tensor, dtype=np.float64).ravel()
        return np.where(self.index < 0, np.nan, values[self.index])


def view(effort: NDArray, *, most: int = MOST_CELLS) -> View:
    """Choose the view of a tensor.

    Args:
        effort: Sum of the contributors' magnitudes, elementwise; tells which entry stands for a block.
            Any shape, gradient units.
        most: Most rows and columns of cells.

    Example:
        >>> view(np.ones((2, 3))).index.tolist()
        [[0, 1, 2], [3, 4, 5]]
        >>> view(np.ones(20)).sentence
        '20 entries, wrapped into rows of 4'
        >>> view(np.ones((300, 64))).sentence
        'each cell is one of 5×1 entries: the one where Σ|contribution| is largest, the same in every panel'
    """
    whole = _laid_out(effort.shape)
    if max(whole.index.shape) <= most:
        return whole
    return _reduced(whole, effort, most)


def _laid_out(shape: tuple[int, ...]) -> View:
    size = math.prod(shape)
    flat = np.arange(size, dtype=np.intp)
    if len(shape) <= 1:
        return _wrapped(flat)
    if len(shape) == 4 and shape[2] * shape[3] > 1:
        return _mosaic(flat.reshape(shape))
    rows = flat.reshape(shape[0], -1) if size else flat.reshape(1, 0)
    told = shape[1:] if len(shape) > 2 and math.prod(shape[2:]) > 1 else ()
    columns = "×".join(map(str, told))
    return View(rows, f"columns are the {columns} trailing dimensions, flattened" if told else "")


def _wrapped(flat: NDArray[np.intp]) -> View:
    """A vector: a column while it is short, else rows of equal length."""
    if flat.size <= _NUMBERED:
        return View(flat.reshape(-1, 1))
    width = _columns(flat.size, 1.0)
    return View(_filled(flat, width), f"{flat.size} entries, wrapped into rows of {width}")


def _mosaic(flat: NDArray[np.intp]) -> View:
    """Kernels side by side: few of them freely, many as output channels by input channels."""
    out, into, height, width = flat.shape
    if out * into <= _LOOSE_KERNELS or min(out, into) == 1:
        across = _columns(out * into, height / width)
        grid = _filled(np.arange(out * into, dtype=np.intp), across)
        kernels = flat.reshape(out * into, height, width)
        tiles = np.where(grid[..., None, None] < 0, -1, kernels[grid])
        said = f"{out * into} kernels of {height}×{width}, {across} to a row"
    else:
        tiles = flat
        said = f"kernels of {height}×{width}; {out} output channels down, {into} input channels across"
    rows, columns = tiles.shape[:2]
    cells = tiles.transpose(0, 2, 1, 3).reshape(rows * height, columns * width)
    return View(cells, said, (height, width))


def _columns(count: int, aspect: float) -> int:
    """How many to a row, so that the whole is about square; a divisor of ``count`` where one is near."""
    ideal = math.sqrt(count * aspect)
    near = [n for n in range(1, count + 1) if count % n == 0 and 0.6 * ideal <= n <= 1.7 * ideal]
    return min(near, key=lambda n: abs(math.log(n / ideal))) if near else math.ceil(ideal)


def _filled(flat: NDArray[np.intp], width: int) -> NDArray[np.intp]:
    """Rows of ``width``, the last one filled up with ``-1``."""
    missing = -len(flat) % width
    return np.concatenate([flat, np.full(missing, -1, dtype=np.intp)]).reshape(-1, width)


def _reduced(whole: View, effort: NDArray, most: int) -> View:
    rows, columns = whole.index.shape
    down, across = math.ceil(rows / most), math.ceil(columns / most)
    weight = np.nan_to_num(np.asarray(effort, dtype=np.float64).ravel(), nan=np.inf)
    cells = [
        [_largest(whole.index[top:bottom, left:right], weight) for left, right in _cuts(columns, across)]
        for top, bottom in _cuts(rows, down)
    ]
    said = (
        f"each cell is one of {down}×{across} entries: "
        "the one where Σ|contribution| is largest, the same in every panel"
    )
    return View(np.array(cells, dtype=np.intp), "; ".join(s for s in (whole.sentence, said) if s))


def _cuts(length: int, size: int) -> list[tuple[int, int]]:
    return list(pairwise([*range(0, length, size), length]))


def _largest(block: NDArray[np.intp], weight: NDArray[np.float64]) -> int:
    """Index of the entry of the block that weighs most; ``-1`` if the block is empty."""
    inside = block[block >= 0]
    return int(inside[np.argmax(weight[inside])]) if inside.size else -1
