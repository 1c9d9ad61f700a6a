"""Steps to a file: the writer that training appends to, and ``save`` for a whole recording."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import suppress
from pathlib import Path

from gradflow.errors import ClosedRecorderError, GradflowError, InvalidArgumentError
from gradflow.recording import Recording, Step
from gradflow.storage import database
from gradflow.storage.encode import Batch, Ends, encode, encode_again
from gradflow.storage.rows import Phrase, StepRow

__all__ = ["Writer", "save"]

CHECKPOINT_EVERY_S = 1.0


def save(recording: Recording, path: str | Path) -> Path:
    """Write a recording to one file, all of it or nothing.

    Args:
        recording: The recording.
        path: The file, by custom ``*.gradflow``. A recording that is there already is replaced.

    Returns:
        The path of the file.

    Raises:
        RecordingFileError: the file cannot be written, or there is something else than a recording.
    """
    path = Path(path)
    database.refuse_unless_free(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with Writer(part) as writer:
            for step in recording:
                writer.append(step)
        with database.writing(path):
            database.remove_logs(path)
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


class Writer:
    """Appends steps to a new file; a step is safe from a crash of the program once ``append`` returns.

    Args:
        path: The file. A recording that is there already is replaced.

    Raises:
        RecordingFileError: the file cannot be written, is being written by somebody else, or there is
            something else than a recording.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        database.refuse_unless_free(self.path)
        self._lock = threading.Lock()
        self._ends, self._phrases = Ends(), dict[Phrase, int]()
        self._newest: StepRow | None = None
        self._checkpointed = time.monotonic()
        with database.writing(self.path):
            database.remove_logs(self.path)
            self.path.unlink(missing_ok=True)
            self._db: sqlite3.Connection | None = database.create(self.path)

    def append(self, step: Step) -> None:
        """Write one step.

        Raises:
            ClosedRecorderError: the writer was closed.
            RecordingFileError: the file cannot be written (a full disk); steps before this one are safe.
            ShapeError, InvalidArgumentError: the step is malformed; nothing of it was written.
        """
        with self._lock:
            self._write(encode(step, self._ends, self._phrases))

    def amend(self, step: Step) -> None:
        """Write the newest step again with other scalars, branches or reports; its parameters stay.

        Raises:
            InvalidArgumentError: no step was written yet, or it had other parameters.
            ClosedRecorderError: the writer was closed.
            RecordingFileError: the file cannot be written.
        """
        with self._lock:
            newest = self._newest
            if newest is None or self._phrases.get(step.params) != newest.params:
                raise InvalidArgumentError(
                    f"step {step.index} is not the newest one, which had other parameters",
                    where=f"Writer({str(self.path)!r}).amend",
                    do="append it",
                )
            self._write(encode_again(step, newest, self._ends, self._phrases))

    def _write(self, batch: Batch) -> None:
        if self._db is None:
            raise ClosedRecorderError(
                f"the file {self.path.name!r} was closed",
                where=f"Writer({str(self.path)!r})",
                do="open another Writer, on another file",
            )
        with database.writing(self.path):
            with database.transaction(self._db):
                for table, rows in batch.rows.items():
                    database.put(self._db, table, rows)
            self._ends, self._newest = batch.ends, StepRow(*batch.rows["step"][0])
            self._phrases.update(batch.fresh)
            self._checkpoint(self._db)

    def _checkpoint(self, db: sqlite3.Connection) -> None:
        """Move what the log holds into the file, now and then: it costs a wait for the disk."""
        if time.monotonic() - self._checkpointed > CHECKPOINT_EVERY_S:
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            self._checkpointed = time.monotonic()

    def close(self) -> None:
        """Leave one whole file. Does nothing the second time."""
        with self._lock:
            db, self._db = self._db, None
            if db is not None:
                with database.writing(self.path):
                    database.finish(db, self._ends.step)

    def __len__(self) -> int:
        """The number of steps written."""
        return self._ends.step

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_db", None) is not None:
            with suppress(GradflowError):
                self.close()
