"""The SQLite file that holds a recording: made, opened with distrust, written safely, and replaced.

What its tables hold is the business of :mod:`gradflow.storage.rows`.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gradflow.errors import GradflowError, RecordingFileError, did_you_mean
from gradflow.storage.rows import COLUMNS, TABLES, sealed

__all__ = [
    "WaryConnection",
    "close_reader",
    "create",
    "finish",
    "is_ended",
    "open_readonly",
    "put",
    "reading",
    "refuse_unless_free",
    "remove_logs",
    "transaction",
    "writing",
]

APPLICATION_ID = 0x67666C77  # "gflw", in the header of the file
VERSION = 1

_TYPES = {str: "TEXT", int: "INTEGER", bytes: "BLOB"}
# Asked apart, for only so does SQLite go straight to either end of the table and read none of it in between.
_OLDEST, _NEWEST = (f"(SELECT ifnull({end}(id), 0) FROM step)" for end in ("min", "max"))
_HEADER = struct.Struct(">16s44xi4xi")  # magic, user_version at 60, application_id at 68


def _schema() -> dict[str, str]:
    """Give the statement that makes each table; a file with any other schema is refused."""
    made = {"ending": "CREATE TABLE ending (steps INTEGER NOT NULL)"}  # one row, once the writer has closed
    for table, row in TABLES.items():
        columns = [f"{name} {_TYPES[kind]} NOT NULL" for name, kind in COLUMNS[row].items()]
        columns[0] = "id INTEGER PRIMARY KEY"
        made[table] = f"CREATE TABLE {table} ({', '.join(columns)}, crc INTEGER NOT NULL)"
    return made


def create(path: Path) -> sqlite3.Connection:
    """Make a new file with empty tables, open for writing."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        with transaction(db):
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {VERSION}")
            for statement in _schema().values():
                db.execute(statement)
        # Only now the log: thus the file alone is a recording from the first moment on.
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
        db.execute("SELECT count(*) FROM step").fetchall()  # makes the log: a sign that this is being written
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Write all that happens inside, or nothing of it."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with suppress(sqlite3.Error):  # a full disk may have rolled it back already
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def put(db: sqlite3.Connection, table: str, rows: list[tuple[Any, ...]]) -> None:
    """Add rows, each with its checksum; a row takes the place of the one with its ``id``."""
    if rows:
        marks = ", ".join("?" * (len(rows[0]) + 1))
        db.executemany(f"REPLACE INTO {table} VALUES ({marks})", map(sealed, rows))


def finish(db: sqlite3.Connection, steps: int) -> None:
    """Note the number of steps, move everything into the one file, and close it."""
    try:
        with transaction(db):
            db.execute("INSERT INTO ending VALUES (?)", (steps,))
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        with suppress(sqlite3.OperationalError):  # a reader has it open: its log stays beside it, empty
            db.execute("PRAGMA journal_mode = DELETE").fetchall()
    finally:
        db.close()


class _Patience:
    """Counts what a query takes; ends one that takes more than the size of its file explains."""

    EACH, LEAST, PER_BYTE = 100_000, 10_000_000, 10  # instructions of SQLite's machine

    def __init__(self) -> None:
        self.taken = self.file_bytes = 0

    def __call__(self) -> bool:
        self.taken += self.EACH
        return self.taken > max(self.LEAST, self.PER_BYTE * self.file_bytes)


class WaryConnection(sqlite3.Connection):
    """A connection that ends queries without end: the pages of a hostile file may lead in circles."""

    _patience: _Patience

    def start(self) -> None:
        """Begin to watch over queries."""
        self._patience = _Patience()
        self.set_progress_handler(self._patience, _Patience.EACH)

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:  # Any: as in the base
        """Begin a query."""
        self._patience.taken = 0
        return super().execute(sql, parameters)

    def measure(self) -> int:
        """Give the bytes of the file, all of which a query may need to see."""
        [(pages,)] = self.execute("PRAGMA page_count").fetchall()
        [(page_bytes,)] = self.execute("PRAGMA page_size").fetchall()
        self._patience.file_bytes = pages * page_bytes
        return self._patience.file_bytes


def open_readonly(path: Path) -> WaryConnection:
    """Open a recording for reading only, after looking whether it is one.

    Of the steps only the first and the last are looked for: a gap between is told when it is read.

    Raises:
        RecordingFileError: there is no such file, or it is no recording, damaged, or of a newer version.
    """
    _check_header(path)
    with reading(path, "the file"):
        db = _connect(path)
        try:
            _check_tables(db)
        except BaseException:
            db.close()
            raise
    return db


def _check_header(path: Path) -> None:
    where = f"gradflow.load({str(path)!r})"
    with reading(path, "the file"):  # even to look may fail: a name too long, a folder that is not ours
        if path.is_dir():
            raise RecordingFileError(f"{path.name!r} is a directory", where=where, do=_recordings_in(path))
        if not path.is_file():
            do = _recordings_in(path.parent, path.name)
            raise RecordingFileError(f"there is no file {path.name!r}", where=where, do=do)
        found = _header(path)
    if found is None:
        raise RecordingFileError(
            f"{path.name!r} is not a recording of gradflow ({path.stat().st_size} bytes of something else)",
            where=where,
            do="load a file that recording.save(path) or gradflow.watch(..., to=path) wrote",
        )
    if found > VERSION:
        raise RecordingFileError(
            f"{path.name!r} has format {found}, this gradflow reads formats up to {VERSION}",
            where=where,
            do="load it with the newer gradflow that wrote it",
        )


def _recordings_in(folder: Path, name: str = "") -> str:
    """Say which recordings are there, nearest name first."""
    found = sorted(p.name for p in folder.glob("*.gradflow")) if folder.is_dir() else []
    if not found:
        return "pass the path of a file that recording.save(path) or gradflow.watch(..., to=path) wrote"
    return did_you_mean(name, found)


def _header(path: Path) -> int | None:
    """Give the format of a recording; None if the file is something else."""
    with path.open("rb") as file:
        head = file.read(_HEADER.size)
    if len(head) < _HEADER.size:
        return None
    magic, version, application = _HEADER.unpack(head)
    ours = magic == b"SQLite format 3\0" and application == APPLICATION_ID and version > 0
    return int(version) if ours else None


def _connect(path: Path) -> WaryConnection:
    """Open for reading only: without locks where there is no log, for then nobody is writing."""
    uri = path.resolve().as_uri() + "?mode=ro"
    return _connect_to(uri if _log(path).exists() else uri + "&immutable=1")


_DISTRUST = (
    "query_only = ON",
    "trusted_schema = OFF",
    "cell_size_check = ON",
    "mmap_size = 0",
    "cache_size = -2000",  # kilobytes: a file may ask for more
)


def _connect_to(uri: str) -> WaryConnection:
    db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, factory=WaryConnection)
    try:
        db.start()
        for pragma in _DISTRUST:
            db.execute(f"PRAGMA {pragma}").fetchall()
        db.execute("SELECT count(*) FROM sqlite_master").fetchall()
    except BaseException:
        db.close()
        raise
    return db


def _check_tables(db: WaryConnection) -> None:
    tables = dict(db.execute(f"SELECT name, sql FROM sqlite_master LIMIT {len(_schema()) + 1}").fetchall())
    if tables != _schema():
        raise ValueError("its tables are not those of a recording")
    ends = db.execute("SELECT steps FROM ending LIMIT 2").fetchall()  # first: the file may end meanwhile
    [(oldest, newest)] = db.execute(f"SELECT {_OLDEST}, {_NEWEST}").fetchall()
    fits = newest <= db.measure()  # a step takes more than one byte
    if oldest != min(newest, 1) or ends not in ([], [(newest,)]) or not fits:
        raise ValueError("steps are missing")


def is_ended(db: sqlite3.Connection) -> bool:
    """Tell whether the writer has closed the file, so that nothing in it will change."""
    return bool(db.execute("SELECT steps FROM ending LIMIT 1").fetchall())


@contextmanager
def reading(path: Path, part: str) -> Iterator[None]:
    """Turn whatever a damaged or hostile file can cause into one error of ours."""
    try:
        yield
    except GradflowError:
        raise
    except (sqlite3.Error, OSError, ValueError, TypeError, LookupError) as error:
        raise _unreadable(path, part, error) from error
    except (ArithmeticError, RecursionError, MemoryError) as error:
        raise _unreadable(path, part, error) from error


def _unreadable(path: Path, part: str, error: BaseException) -> RecordingFileError:
    is_endless = getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT"
    why = "its pages lead in circles" if is_endless else error
    return RecordingFileError(
        f"{path.name!r} is damaged or cannot be opened: {part} cannot be read ({why})",
        where=f"gradflow.load({str(path)!r})",
        do="copy it anew, with its '-wal' file if it has one, to where you may write; "
        "steps before the damage can be read",
    )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong while writing into one error of ours."""
    try:
        yield
    except GradflowError:
        raise
    except (sqlite3.Error, OSError, ValueError) as error:
        raise RecordingFileError(
            f"{path.name!r} cannot be written ({error})",
            where=str(path),
            do="see that its folder exists, may be written, and is on a disk with room",
        ) from error


def refuse_unless_free(path: Path) -> None:
    """See that a new recording may take the place of what is at ``path``.

    Raises:
        RecordingFileError: there is something else than a recording, or one that is still being written.
    """
    where = str(path)
    with writing(path):
        if path.is_dir():
            do = f"give a file, such as {str(path / 'run.gradflow')!r}"
            raise RecordingFileError(f"{path.name!r} is a directory", where=where, do=do)
        if not path.exists() or not path.stat().st_size:
            return
        if _header(path) is None:
            raise RecordingFileError(
                f"{path.name!r} exists and is not a recording, so it is not replaced",
                where=where,
                do="choose another path, or remove that file yourself",
            )
        _refuse_if_open(path)


def remove_logs(path: Path) -> None:
    """Remove what a run that was killed left beside its file: it would spoil the next one."""
    for ending in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + ending).unlink(missing_ok=True)


def close_reader(db: sqlite3.Connection, path: Path) -> None:
    """Close, and remove the log that a writer had to leave behind because of this reader."""
    db.close()
    with suppress(OSError, sqlite3.Error):
        if _log(path).stat().st_size == 0:
            writer = sqlite3.connect(path, isolation_level=None, timeout=0.0)
            try:
                writer.execute("PRAGMA journal_mode = DELETE").fetchall()  # fails where others are left
            finally:
                writer.close()


def _log(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _refuse_if_open(path: Path) -> None:
    """Give up the log, which works only where nobody else has the file open."""
    db = sqlite3.connect(path, isolation_level=None, timeout=0.2)
    try:
        db.execute("PRAGMA journal_mode = DELETE").fetchall()
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise RecordingFileError(
                f"{path.name!r} is still being written, or read from a run that never closed it",
                where=str(path),
                do="close that recorder first (flow.close()), or choose another path",
            ) from error
    except sqlite3.DatabaseError:
        pass  # damaged, and about to go
    finally:
        db.close()
