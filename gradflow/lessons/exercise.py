"""Exercises: what a learner made is examined, and what is wrong with it is said with the likely reason.

The exercises of a lesson are in a file of their own, ``exercises/lesson01.py`` and so on: a tuple
``EXERCISES``. A checker never looks at how something was written, only at what it does.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

from gradflow.errors import InvalidArgumentError, did_you_mean
from gradflow.lessons import exercises

__all__ = ["Exercise", "Hints", "Verdict", "check", "find", "hint", "names", "right", "wrong"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a checker found.

    Attributes:
        passed: Whether the exercise is solved.
        seen: What was seen of the answer, with numbers.
        hint: The idea that probably led there, and what to look at; empty when passed.
        name: Name of the exercise.
    """

    passed: bool
    seen: str
    hint: str = ""
    name: str = ""

    def __repr__(self) -> str:
        head = "✓ Solved." if self.passed else "✗ Not yet."
        lines = [f"{head} {self.seen}", *([f"  {self.hint}"] if self.hint else [])]
        if not self.passed and self.name:
            lines.append(f"  more: lessons.hint({self.name!r})")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = "✓ Solved." if self.passed else "✗ Not yet."
        parts = [f"<p><strong>{head}</strong> {escape(self.seen)}</p>"]
        parts += [f"<p>{escape(self.hint)}</p>"] if self.hint else []
        if not self.passed and self.name:
            parts.append(f"<p>More: <code>lessons.hint({escape(repr(self.name))})</code></p>")
        return f'<div role="status">{"".join(parts)}</div>'


def right(seen: str) -> Verdict:
    """Give the verdict on an answer that is right."""
    return Verdict(True, seen)


def wrong(seen: str, hint: str) -> Verdict:
    """Give the verdict on an answer that is not: what was seen, and the idea that probably led there."""
    return Verdict(False, seen, hint)


@dataclass(frozen=True, slots=True)
class Exercise:
    """One exercise of a lesson.

    Attributes:
        name: The number of the lesson, a dot, a word: ``"01.shared"``.
        task: What to do, a sentence.
        examine: Takes the learner's answer, whatever it is; gives the verdict. It may raise: that is
            told as a verdict too.
        hints: From a nudge to nearly the solution, two or three.
    """

    name: str
    task: str
    examine: Callable[[Any], Verdict]  # Any: a learner may hand in anything
    hints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hints:
    """The hints to an exercise, each folded behind the one before.

    Attributes:
        texts: From a nudge to nearly the solution.
        shown: How many of them the text form shows.
        name: Name of the exercise.
    """

    texts: tuple[str, ...]
    shown: int = 1
    name: str = ""

    def __repr__(self) -> str:
        lines = [f"Hint {i + 1} of {len(self.texts)}: {text}" for i, text in enumerate(self.texts)]
        lines = lines[: self.shown]
        if self.shown < len(self.texts):
            lines.append(f"  next: lessons.hint({self.name!r}, {self.shown + 1})")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        told = ""
        for i, text in reversed(list(enumerate(self.texts))):
            told = f"<details><summary>Hint {i + 1}</summary><p>{escape(text)}</p>{told}</details>"
        return told


def names() -> tuple[str, ...]:
    """Give the names of all exercises, in the order of the lessons."""
    return tuple(exercise.name for exercise in _all())


def find(name: str) -> Exercise:
    """Give an exercise by name.

    Raises:
        InvalidArgumentError: there is none; the message lists the near ones.
    """
    for exercise in _all(name.partition(".")[0]):
        if exercise.name == name:
            return exercise
    raise InvalidArgumentError(
        f"there is no exercise {name!r}", where="gradflow.lessons", do=did_you_mean(name, names())
    )


def check(name: str, answer: Any) -> Verdict:  # Any: a learner may hand in anything
    """Examine the answer to an exercise.

    Args:
        name: The exercise, as the lesson names it.
        answer: What the lesson asks for: a module, a function, a number ...

    Returns:
        The verdict; an answer that cannot be run is one that is not right yet, with the error in it.
    """
    exercise = find(name)
    if answer is None or answer is ...:
        verdict = wrong("There is no answer yet.", exercise.task)
    else:
        try:
            verdict = exercise.examine(answer)
        except Exception as error:  # whatever the learner's code does wrong is part of the verdict
            told = f"It raised {type(error).__name__}: {error}".strip()
            verdict = wrong(told, exercise.task)
    return Verdict(verdict.passed, verdict.seen, verdict.hint, name)


def hint(name: str, how_many: int = 1) -> Hints:
    """Give the hints to an exercise; as text, only the first ``how_many``."""
    return Hints(find(name).hints, how_many, name)


def _all(lesson: str = "") -> tuple[Exercise, ...]:
    files = sorted(module.name for module in pkgutil.iter_modules(exercises.__path__))
    wanted = [file for file in files if lesson in ("", file.removeprefix("lesson"))]
    modules = [importlib.import_module(f"{exercises.__name__}.{file}") for file in wanted]
    return tuple(exercise for module in modules for exercise in module.EXERCISES)
