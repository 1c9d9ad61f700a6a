"""``gradflow.explore``: the explorer in a notebook, live or over a finished recording.

The page gets an overview first and asks for the rest: a step when the scrubber comes to it, a history when a
row is selected. What it got it keeps. While training runs, a thread looks for new steps and tells the page.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from typing import Any, Protocol

import traitlets

from gradflow.errors import GradflowError, InvalidArgumentError
from gradflow.recording import Recording
from gradflow.widgets import assets
from gradflow.widgets.explorer.book import Book, Reply
from gradflow.widgets.explorer.parts import PARTS, START, STYLE
from gradflow.widgets.explorer.still import still
from gradflow.widgets.twin import Twin
from gradflow.widgets.widget import Widget

__all__ = ["Explorer", "Recorded", "ask", "explore"]

_SHORTEST_S, _LONGEST_S = 0.2, 2.0  # between two looks for new steps


class Recorded(Protocol):
    """Whatever has a recording, such as the recorder that ``gradflow.watch`` gives."""

    @property
    def recording(self) -> Recording:
        """The recording, which may be growing."""


class Explorer(Widget):
    """The explorer; made by :func:`explore`.

    Attributes:
        state: What is shown, as a dict like :data:`START`.
        overview: Tree, looks and scalars, as the page got them when it opened.
    """

    defaults = START
    _esm, _css = assets.script(*PARTS), assets.style_sheet(STYLE)
    overview = traitlets.Dict().tag(sync=True)
    overview_numbers = traitlets.Bytes().tag(sync=True)

    def __init__(self, recording: Recording, state: Mapping[str, Any] | None = None) -> None:
        self.book = Book(recording)
        first = self.book.overview()
        super().__init__(state, overview=first.head, overview_numbers=first.numbers.tobytes())
        self.on_msg(Explorer._answer)
        self._follower = threading.Thread(target=_follow, args=(weakref.ref(self),), daemon=True)
        self._follower.start()

    def _answer(self, question: Mapping[str, Any], _buffers: object = None) -> None:
        """Answer a question of the page; what goes wrong is said there and not in the notebook."""
        try:
            reply = ask(self.book, question)
        except GradflowError as error:
            self.send({"id": question.get("id"), "error": error.what})
            return
        self.send({"id": question.get("id"), "head": reply.head}, [reply.numbers.tobytes()])

    def look(self) -> bool:
        """Look for new steps and tell the page of them; tells whether there were any."""
        is_new = self.book.refresh()
        if is_new:
            reply = self.book.overview()
            self.send({"grown": True, "head": reply.head}, [reply.numbers.tobytes()])
        return is_new

    def twin(self) -> Twin | None:
        """Give the flow of the newest step as a picture, and its table."""
        step = next((s for s in reversed(self.book.recording[-8:]) if len(s)), None)
        return None if step is None else still(step)


def explore(recording: Recording | Recorded, *, state: Mapping[str, Any] | None = None) -> Explorer:
    """Explore a recording in a notebook: the flow of the gradient, step by step and parameter by parameter.

    The flow, the list, the details and the scrubber are linked: what is selected in one is selected in all.
    Everything can be done with the keyboard alone.

    Args:
        recording: A recording, or a recorder that is still watching: the explorer then follows the training.
        state: Where to begin: ``explorer.state`` of another one, or some of its entries.

    Returns:
        A widget; the last expression of a cell shows it. ``explorer.state`` is what is shown, as a dict; set
        it to be there again.

    Raises:
        InvalidArgumentError: neither a recording nor something that has one; an unknown entry of ``state``.

    Example:
        >>> import numpy as np
        >>> from gradflow.record import ParamStep
        >>> from gradflow.recording import Step
        >>> p = ParamStep(("query", "key"), np.eye(2), 1.4, fqn="w", names=("w",), shape=(2,))
        >>> explorer = explore(Recording([Step(0, {"w": p}, ("query", "key"))]), state={"place": "w"})
        >>> explorer.state["place"], explorer.state["step"]
        ('w', -1)
        >>> explorer.close()
    """
    found = recording if isinstance(recording, Recording) else getattr(recording, "recording", None)
    if not isinstance(found, Recording):
        raise InvalidArgumentError(
            f"{recording!r:.80} is neither a recording nor a recorder",
            where="gradflow.explore",
            do="pass what gradflow.watch gave, its .recording, or gradflow.load(path)",
        )
    return Explorer(found, state)


def ask(book: Book, question: Mapping[str, Any]) -> Reply:
    """Answer a question that came from the page.

    Raises:
        InvalidArgumentError: it is no question of ours.
        NoSuchStepError: there is no such step, or not any more.
    """
    kind, index, place = question.get("ask"), question.get("index"), question.get("place")
    if kind == "overview":
        return book.overview()
    if kind == "step" and isinstance(index, int):
        return book.step(index)
    if kind == "history" and isinstance(place, str):
        return book.history(place)
    if kind == "maps" and isinstance(index, int) and isinstance(place, str):
        return book.maps(index, place)
    raise InvalidArgumentError(
        f"no question {dict(question)!r:.80}",
        where="gradflow.explore",
        do="ask overview, step, history, maps",
    )


def _follow(to: weakref.ref[Explorer]) -> None:
    """Look for new steps as long as the explorer is there; less often while nothing comes."""
    waiting, pause = threading.Event(), _SHORTEST_S
    while True:
        waiting.wait(pause)
        explorer = to()
        if explorer is None or explorer.comm is None:
            return
        try:
            is_new = explorer.look()
        except (GradflowError, OSError, RuntimeError):  # the file is being closed, or the kernel is
            is_new = False
        pause = _SHORTEST_S if is_new else min(_LONGEST_S, 1.5 * pause)
        del explorer
