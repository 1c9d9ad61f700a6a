"""Steps from a file, each read when it is asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import overload

from numpy.typing import NDArray

from gradflow.errors import NoSuchStepError
from gradflow.record import ParamStep
from gradflow.recording import Recording, Step
from gradflow.storage import database
from gradflow.storage.decode import decode_array, decode_param, decode_step, distinct
from gradflow.storage.rows import (
    TABLES,
    ArrayRow,
    ParamRow,
    Phrase,
    PhraseRow,
    Row,
    StepRow,
    to_phrase,
    to_row,
)

__all__ = ["StoredSteps", "load"]

CACHED_STEPS, CACHED_BYTES = 32, 1 << 28
NAME_BYTES = 100  # of one parameter of a step that was not read yet

_TABLE = {kind: name for name, kind in TABLES.items()}


def load(path: str | Path) -> Recording:
    """Open a recording; its steps are read when they are asked for.

    A file that is still being written grows under the recording that was loaded from it.

    Raises:
        RecordingFileError: there is no such file, or it is no recording, damaged, or of a newer version.
    """
    return Recording(StoredSteps(path))


class StoredSteps(Sequence[Step]):
    """The steps of a file, read on demand; the last few that were read are kept.

    Args:
        path: The file.

    Raises:
        RecordingFileError: there is no such file, or it is no recording, damaged, or of a newer version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.RLock()
        self._cache: OrderedDict[int, tuple[Step, _StoredParameters]] = OrderedDict()
        self._phrases: dict[int, Phrase] = {}
        self._db, self._ended = database.open_readonly(self.path), False
        self._file_bytes, self._phrase_bytes, self._read_bytes = 0, 0, 0

    def __len__(self) -> int:
        with database.reading(self.path, "the list of steps"):
            [(newest,)] = self._db.execute("SELECT ifnull(max(id), 0) FROM step").fetchall()
            return int(newest)

    @overload
    def __getitem__(self, position: int) -> Step: ...
    @overload
    def __getitem__(self, position: slice) -> list[Step]: ...
    def __getitem__(self, position: int | slice) -> Step | list[Step]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        if position < 0:
            position += len(self)
        with self._lock:
            if position not in self._cache:
                step, parameters = self._step(position)
                if not self._is_final(position):
                    return step
                self._cache[position] = step, parameters
                self._forget()
            self._cache.move_to_end(position)
            return self._cache[position][0]

    def _is_final(self, position: int) -> bool:
        """The newest step of a file that is being written may be amended yet."""
        with database.reading(self.path, "its end"):
            self._ended = self._ended or database.is_ended(self._db)
            return self._ended or position < len(self) - 1

    def _forget(self) -> None:
        """Drop the steps used longest ago, till the rest is small; the newest always stays."""
        sizes = [parameters.bytes for _, parameters in self._cache.values()]
        kept = sum(sizes)
        for size in sizes[:-1]:
            if len(self._cache) <= CACHED_STEPS and kept <= CACHED_BYTES:
                break
            self._cache.popitem(last=False)
            kept -= size

    def _step(self, position: int) -> tuple[Step, _StoredParameters]:
        if not 0 <= position < len(self):
            raise NoSuchStepError(
                f"no step at position {position} of {len(self)}",
                where=f"StoredSteps({str(self.path)!r})",
                do="positions are from 0 to len() - 1",
            )
        with database.reading(self.path, f"step {position}"):
            [row] = self._rows(StepRow, position + 1, 1)
            rows = {fqn: row.first + i for i, fqn in enumerate(distinct(self._phrase(row.params)))}
            parameters = _StoredParameters(self, rows, row.kept_bytes)
            return decode_step(row, parameters, self._phrase), parameters

    def param(self, number: int, fqn: str) -> tuple[ParamStep, int]:
        """Read one parameter of one step from its row, with the tensors kept of it; give its bytes too."""
        with self._lock, database.reading(self.path, f"row {number} of the parameters"):
            before = self._read_bytes
            [row] = self._rows(ParamRow, number, 1)
            p = decode_param(row, self._phrase, self._arrays)
            if p.fqn != fqn:
                raise ValueError(f"it is of {p.fqn!r}, the step says {fqn!r}")
            return p, self._read_bytes - before

    def _arrays(self, first: int, count: int) -> list[NDArray]:
        return [decode_array(row, self._phrase) for row in self._rows(ArrayRow, first, count)]

    def _phrase(self, number: int) -> Phrase:
        if number not in self._phrases:
            [row] = self._rows(PhraseRow, number, 1)
            self._phrase_bytes += len(row.json)
            self._check_room(self._phrase_bytes)
            self._phrases[number] = to_phrase(row.json)
        return self._phrases[number]

    def _rows(self, kind: type[Row], first: int, count: int) -> list[Row]:
        """Rows ``first`` to ``first + count - 1`` of a table."""
        query = f"SELECT * FROM {_TABLE[kind]} WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?"
        found, size = list[Row](), 0
        for columns in self._db.execute(query, (first, first + count - 1, count)):
            size += sum(len(value) for value in columns if isinstance(value, bytes | str))
            self._check_room(size)
            found.append(to_row(kind, columns))
        if len(found) != count:
            raise ValueError(f"{count - len(found)} of {count} rows of {_TABLE[kind]!r} are missing")
        self._read_bytes += size
        return found

    def _check_room(self, size: int) -> None:
        """See that rows hold no more than the file: those of a hostile one may share their bytes."""
        if size > self._file_bytes:
            self._file_bytes = self._db.measure()  # it may have grown
            if size > self._file_bytes:
                raise ValueError(f"its rows hold {size} bytes, the file {self._file_bytes}")

    @property
    def params(self) -> tuple[str, ...]:
        """FQNs of all parameters seen, in the order they first appeared."""
        return self._names("params")

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of all branches seen, in the order of their lanes."""
        return self._names("branches")

    def _names(self, column: str) -> tuple[str, ...]:
        length = len(self)  # first: a file that is being written may grow meanwhile
        with self._lock, database.reading(self.path, f"the names of the {column}"):
            self._db.measure()
            query = f"SELECT {column}, count(*) FROM step GROUP BY {column} ORDER BY min(id)"
            found = self._db.execute(query).fetchall()
            if sum(count for _, count in found) < length:
                raise ValueError("steps are missing")
            return tuple(dict.fromkeys(name for n, _ in found for name in distinct(self._phrase(n))))

    def close(self) -> None:
        """Close the file; what was not read from it can be read no more."""
        database.close_reader(self._db, self.path)

    def __del__(self) -> None:
        if hasattr(self, "_db"):
            self.close()

    def __reduce__(self) -> tuple[object, ...]:
        return StoredSteps, (self.path,)


class _StoredParameters(Mapping[str, ParamStep]):
    """The parameters of one step, by FQN: each is read when it is first asked for."""

    def __init__(self, steps: StoredSteps, rows: dict[str, int], kept_bytes: int) -> None:
        self._steps, self._rows = steps, rows
        self._read: dict[str, ParamStep] = {}
        self._kept_bytes, self._read_bytes = kept_bytes, 0

    @property
    def bytes(self) -> int:
        """What the step takes in memory, as far as the file says and is found to be so."""
        return max(self._kept_bytes, self._read_bytes + NAME_BYTES * len(self._rows))

    def __getitem__(self, fqn: str) -> ParamStep:
        if fqn not in self._read:
            self._read[fqn], size = self._steps.param(self._rows[fqn], fqn)
            self._read_bytes += size
        return self._read[fqn]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return repr(dict(self))

    def __reduce__(self) -> tuple[object, ...]:
        return dict, (dict(self),)
