"""What goes wrong, said in three lines: what happened, where, and what to do.

Every error of the package derives from :class:`GradflowError`, and from the builtin that a caller
would expect to catch (``KeyError``, ``ValueError`` ...) where one fits.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType

__all__ = [
    "AlreadyWatchedError",
    "ClosedRecorderError",
    "GradflowError",
    "InvalidArgumentError",
    "MissingPackageError",
    "NoSuchBranchError",
    "NoSuchParameterError",
    "NoSuchStepError",
    "NotKeptError",
    "NothingToWatchError",
    "RecordingFileError",
    "ShapeError",
    "did_you_mean",
    "need",
]


class GradflowError(Exception):
    """Base of all errors of gradflow.

    Attributes:
        what: What happened, with the values that matter.
        where: The call or the place in the model it happened in.
        do: What the reader can do about it.

    Example:
        >>> print(GradflowError("no gradient", where="step 3", do="call backward()"))
        no gradient
          where: step 3
          do:    call backward()
    """

    def __init__(self, what: str, *, where: str, do: str) -> None:
        super().__init__(what)
        self.what, self.where, self.do = what, where, do

    def __str__(self) -> str:
        return f"{self.what}\n  where: {self.where}\n  do:    {self.do}"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.do)


def _rebuild(kind: type[GradflowError], what: str, where: str, do: str) -> GradflowError:
    return kind(what, where=where, do=do)


class InvalidArgumentError(GradflowError, ValueError):
    """An argument has a value that means nothing here."""


class ShapeError(GradflowError, ValueError):
    """An array has a shape that cannot be what it should be."""


class NothingToWatchError(GradflowError, ValueError):
    """There is no parameter to watch, or the optimizer moves none of them."""


class AlreadyWatchedError(GradflowError, RuntimeError):
    """The model is being watched by another recorder."""


class ClosedRecorderError(GradflowError, RuntimeError):
    """The recorder was closed; it records nothing any more."""


class NoSuchParameterError(GradflowError, KeyError):
    """No parameter (or layer) of that name."""


class NoSuchBranchError(GradflowError, KeyError):
    """No branch or contributor of that name."""


class NoSuchStepError(GradflowError, IndexError):
    """The recording has no step at that position."""


class NotKeptError(GradflowError, KeyError):
    """The full tensors were not kept, only their inner products."""


class RecordingFileError(GradflowError, ValueError):
    """A file is not a recording, is damaged, or is newer than this version."""


class MissingPackageError(GradflowError, ImportError):
    """An optional package is not installed."""


def did_you_mean(name: str, known: Iterable[str], *, most: int = 3) -> str:
    """Give the names nearest to ``name``, as the end of a sentence about what to do.

    Example:
        >>> did_you_mean("conv1.wieght", ["conv1.weight", "fc.bias"])
        "did you mean 'conv1.weight'?"
        >>> did_you_mean("x", ["conv1.weight", "fc.bias"])
        "known: 'conv1.weight', 'fc.bias'"
    """
    names = list(dict.fromkeys(known))
    near = difflib.get_close_matches(name, names, n=most, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    shown = ", ".join(map(repr, names[:8])) or "none"
    return f"known: {shown}" + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def need(package: str, *, extra: str, for_: str) -> ModuleType:
    """Import an optional package, or say which extra brings it.

    Args:
        package: Name to import.
        extra: The extra of the distribution that installs it.
        for_: What it is needed for, as the user would call it.

    Raises:
        MissingPackageError: the package is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingPackageError(
            f"the package {package!r} is not installed",
            where=for_,
            do=f"pip install -e '.[{extra}]' in the checkout of gradflow",
        ) from error
