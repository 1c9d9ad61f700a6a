"""A recording in one file, ``*.gradflow``: an SQLite database that grows while training goes on.

Each step is one transaction. While a :class:`Writer` is open SQLite keeps a write-ahead log beside the file
(``-wal``, ``-shm``): readers never hold up the training, a killed run keeps every finished step (read it
with its log beside it), and the file alone lags at most about a second behind. :meth:`Writer.close` leaves
one file. Reading is lazy, read-only and distrustful: whatever is wrong with a file ends in a
:class:`~gradflow.errors.RecordingFileError`, at the latest when the damaged part is read. Nothing is pickled.
"""

from gradflow.storage.reader import StoredSteps, load
from gradflow.storage.stream import Stream
from gradflow.storage.writer import Writer, save

__all__ = ["StoredSteps", "Stream", "Writer", "load", "save"]
