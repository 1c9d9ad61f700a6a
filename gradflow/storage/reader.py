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
from gradflow.storage.decode import decode_array, decode_param, decode_step, names
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
        self._cache: OrderedDict[int, tuple[Step, int]] = OrderedDict()
        self._phrases: dict[int, Phrase] = {}
        self._db, self._ended = database.open_readonly(self.path), False

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
                step, size = self._step(position)
                if not self._is_final(position):
                    return step
                self._cache[position] = step, size
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
        kept = sum(size for _, size in self._cache.values())
        while len(self._cache) > 1 and (len(self._cache) > CACHED_STEPS or kept > CACHED_BYTES):
            kept -= self._cache.popitem(last=False)[1][1]

    def _step(self, position: int) -> tuple[Step, int]:
        if not 0 <= position < len(self):
            raise NoSuchStepError(
                f"no step at position {position} of {len(self)}",
                where=f"StoredSteps({str(self.path)!r})",
                do="positions are from 0 to len() - 1",
            )
        with database.reading(self.path, f"step {position}"):
            [row] = self._rows(StepRow, position + 1, 1)
            rows = {fqn: row.first + i for i, fqn in enumerate(names(self._phrase(row.params)))}
            return decode_step(row, _StoredParameters(self, rows), self._phrase), row.kept_bytes

    def param(self, number: int) -> ParamStep:
        """Read one parameter of one step from its row, with the tensors that were kept of it."""
        with self._lock, database.reading(self.path, f"row {number} of the parameters"):
            [row] = self._rows(ParamRow, number, 1)
            return decode_param(row, self._phrase, self._arrays)

    def _arrays(self, first: int, count: int) -> list[NDArray]:
        return [decode_array(row, self._phrase) for row in self._rows(ArrayRow, first, count)]

    def _phrase(self, number: int) -> Phrase:
        if number not in self._phrases:
            [row] = self._rows(PhraseRow, number, 1)
            self._phrases[number] = to_phrase(row.json)
        return self._phrases[number]

    def _rows(self, kind: type[Row], first: int, count: int) -> list[Row]:
        """Rows ``first`` to ``first + count - 1`` of a table."""
        query = f"SELECT * FROM {_TABLE[kind]} WHERE id BETWEEN ? AND ? ORDER BY id"
        found = self._db.execute(query, (first, first + count - 1)).fetchall()
        if len(found) != count:
            raise ValueError(f"{count - len(found)} of {count} rows of {_TABLE[kind]!r} are missing")
        return [to_row(kind, columns) for columns in found]

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
            query = f"SELECT {column}, count(*) FROM step GROUP BY {column} ORDER BY min(id)"
            found = self._db.execute(query).fetchall()
            if sum(count for _, count in found) < length:
                raise ValueError("steps are missing")
            return tuple(dict.fromkeys(name for n, _ in found for name in names(self._phrase(n))))

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

    def __init__(self, steps: StoredSteps, rows: dict[str, int]) -> None:
        self._steps, self._rows = steps, rows
        self._read: dict[str, ParamStep] = {}

    def __getitem__(self, fqn: str) -> ParamStep:
        if fqn not in self._read:
            self._read[fqn] = self._steps.param(self._rows[fqn])
        return self._read[fqn]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return repr(dict(self))

    def __reduce__(self) -> tuple[object, ...]:
        return dict, (dict(self),)
