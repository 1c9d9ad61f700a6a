"""Steps that go to a file as they come and are read back from it: what a recorder streams to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import overload

from gradflow.recording import Step
from gradflow.storage.reader import StoredSteps
from gradflow.storage.writer import Writer

__all__ = ["Stream"]


class Stream(Sequence[Step]):
    """Writes steps to a new file and reads them back on demand; the newest is kept at hand.

    Args:
        path: The file. A recording that is there already is replaced.

    Raises:
        RecordingFileError: the file cannot be written, is being written by somebody else, or there is
            something else than a recording.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     steps = Stream(Path(folder) / "run.gradflow")
        ...     steps.append(Step(0, {}))
        ...     steps.append(Step(1, {}))
        ...     [step.index for step in steps], steps[-1].index
        ...     steps.close()
        ([0, 1], 1)
    """

    def __init__(self, path: str | Path) -> None:
        self._writer = Writer(path)
        self._read: StoredSteps | None = None
        self._newest: Step | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self._writer.path

    def append(self, step: Step) -> None:
        """Put a step at the end; it is safe once this returns."""
        self._writer.append(step)
        self._newest = step

    def amend(self, step: Step) -> None:
        """Put a step in place of the newest, with the same parameters."""
        self._writer.amend(step)
        self._newest = step

    def close(self) -> None:
        """Leave one whole file, from which the steps can still be read."""
        if self._read is not None:
            self._read.close()  # it would keep the writer from leaving one file
            self._read = None
        self._writer.close()

    @property
    def params(self) -> tuple[str, ...]:
        """FQNs of all parameters seen, in the order they first appeared."""
        return self._stored().params

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of all branches seen, in the order of their lanes."""
        return self._stored().branches

    def _stored(self) -> StoredSteps:
        if self._read is None:
            self._read = StoredSteps(self.path)
        return self._read

    def __len__(self) -> int:
        return len(self._writer)

    @overload
    def __getitem__(self, position: int) -> Step: ...
    @overload
    def __getitem__(self, position: slice) -> list[Step]: ...
    def __getitem__(self, position: int | slice) -> Step | list[Step]:
        if self._newest is not None and position in (-1, len(self) - 1):
            return self._newest
        return self._stored()[position]

    def __reduce__(self) -> tuple[object, ...]:
        return StoredSteps, (self.path,)
