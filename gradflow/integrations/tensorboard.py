"""TensorBoard: scalars, histograms and figures of recorded steps.

    with gradflow.integrations.tensorboard.Board("runs/triplet", layers=("conv1",)) as board:
        ...
        board.add(flow.recording.last)

A step can be added while training goes on, a whole recording afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from gradflow.errors import need
from gradflow.integrations.scalars import scalars
from gradflow.recording import Recording, Step

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["Board"]


class Board:
    """Writes steps to TensorBoard, each at its own index.

    Args:
        log_dir: Folder to write to, or a ``SummaryWriter`` that you have; yours is left open.
        layers: Module paths whose measures are written one by one, beside those of the whole model.
        histograms: Whether to write the distribution over the parameters of each two branches' cosine, and
            the entries of each contribution whose tensors were kept.
        figures: FQNs of parameters whose equation (contributions, sum, delta) is drawn; their tensors must
            have been kept.
        overview: Whether to draw the contributions of the whole step.

    Raises:
        MissingPackageError: tensorboard is not installed.
    """

    def __init__(
        self,
        log_dir: str | Path | SummaryWriter,
        *,
        layers: Sequence[str] = (),
        histograms: bool = True,
        figures: Sequence[str] = (),
        overview: bool = False,
    ) -> None:
        need("tensorboard", extra="tensorboard", for_="gradflow.integrations.tensorboard.Board")
        from torch.utils.tensorboard import SummaryWriter

        self._is_ours = isinstance(log_dir, str | Path)
        self.writer = SummaryWriter(str(log_dir)) if isinstance(log_dir, str | Path) else log_dir
        self._layers, self._histograms = tuple(layers), histograms
        self._figures, self._overview = tuple(figures), overview

    def add(self, step: Step) -> None:
        """Write one step.

        Raises:
            NoSuchParameterError: a layer or a parameter of that name took no part in it.
            NotKeptError: a figure needs tensors that were not kept.
        """
        for name, value in (*scalars(step, self._layers).items(), *step.scalars.items()):
            self.writer.add_scalar(name, value, step.index)
        if self._histograms:
            self._add_histograms(step)
        self._add_figures(step)

    def add_all(self, recording: Recording) -> None:
        """Write every step of a recording."""
        for step in recording:
            self.add(step)

    def close(self) -> None:
        """Write what is waiting, and close the file if it is ours."""
        self.writer.flush()
        if self._is_ours:
            self.writer.close()

    def __enter__(self) -> Board:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _add_histograms(self, step: Step) -> None:
        for a, b in combinations(step.branches, 2):
            both = [p.cosine(a, b) for p in step if a in p.contributors and b in p.contributors]
            cosines = np.array([c for c in both if np.isfinite(c)])
            if cosines.size:
                self.writer.add_histogram(f"gradflow/cosines/{a}-{b}", cosines, step.index)
        for p in step:
            for name, part in (p.tensors or {}).items():
                if part.size and np.isfinite(part).all():
                    self.writer.add_histogram(f"gradflow/{p.fqn}/{name}", part, step.index)

    def _add_figures(self, step: Step) -> None:
        if not (self._figures or self._overview):
            return
        from gradflow.render import figures

        for fqn in self._figures:
            self._draw(f"gradflow/equation/{fqn}", figures.equation(step, fqn), step)
        if self._overview and step.parameters:
            self._draw("gradflow/contributions", figures.contributions(step).figure, step)

    def _draw(self, name: str, drawn: object, step: Step) -> None:
        from matplotlib.figure import Figure

        assert isinstance(drawn, Figure), "ours are no parts of other figures"
        self.writer.add_figure(name, drawn, step.index, close=True)
