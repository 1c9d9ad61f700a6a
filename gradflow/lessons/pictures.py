"""Small pictures for the lessons that no other place has: images in rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import FigureBase

from gradflow.errors import ShapeError
from gradflow.render.picture import new_figure, tell
from gradflow.render.theme import applied, style

__all__ = ["show"]

_CELL_IN, _LABEL_IN, _MOST = 0.62, 0.95, 10


def show(*, theme: str = "light", **rows: Any) -> FigureBase:  # Any: tensors or arrays
    """Show batches of grey images, one batch in a row, each row under its name.

    Args:
        theme: ``"light"`` or ``"dark"``.
        rows: Name and images, ``[B, 1, H, W]`` or ``[B, H, W]``, in ``[0, 1]``; ten of each are shown.

    Returns:
        A figure that shows itself in a notebook, with alternative text.

    Raises:
        ShapeError: a row is not a batch of grey images.

    Example:
        >>> show(anchor=np.zeros((4, 1, 28, 28)), negative=np.ones((4, 1, 28, 28))).get_label()
        '2 rows of 4 images: anchor, negative.'
    """
    batches = {name: _grey(name, images)[:_MOST] for name, images in rows.items()}
    most = max(len(images) for images in batches.values())
    width, height = _LABEL_IN + most * _CELL_IN, len(batches) * _CELL_IN
    with applied(theme) as look:
        figure = new_figure(width, height)
        for i, (name, images) in enumerate(batches.items()):
            ax = figure.add_axes(
                (_LABEL_IN / width, 1 - (i + 1) / len(batches), 1 - _LABEL_IN / width, 0.94 / len(batches))
            )
            gap = np.full((images.shape[1], 2), np.nan)
            strip = np.concatenate([part for image in images for part in (image, gap)], axis=1)
            ax.imshow(1 - strip, cmap="gray", vmin=0, vmax=1, aspect="equal")
            ax.set_axis_off()
            ax.set_anchor("W")
            colour = style(name, list(batches)).colour if len(batches) > 1 else look.ink
            figure.text(0, 1 - (i + 0.5) / len(batches), name, va="center", weight="bold", color=colour)
    count = "1 row" if len(batches) == 1 else f"{len(batches)} rows"
    tell(figure, f"{count} of {most} images: {', '.join(batches)}.")
    return figure


def _grey(name: str, images: Any) -> np.ndarray:  # Any: tensors or arrays
    array = np.asarray(images, dtype=np.float64)
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 3 or not len(array):
        raise ShapeError(
            f"{name!r} has shape {list(np.shape(images))}",
            where="gradflow.lessons.show",
            do="give a batch of grey images, [B, 1, H, W]",
        )
    return array
