"""The skin over a playground's model: what the page asks for is done to the model, and the view goes back.

The page never changes the state itself. It sends ``{"todo": "move", "given": {...}}``; the model does it, and
state and view come back in one message, so that a drag never fights with an older answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import traitlets

from gradflow.errors import GradflowError
from gradflow.render.theme import ink_on, style
from gradflow.widgets import assets
from gradflow.widgets.playground import state as states
from gradflow.widgets.widget import Widget

__all__ = ["Model", "Skin", "looks", "script", "style_sheet"]

_HERE = Path(__file__).parent


class Model(Protocol):
    """What a skin can be put over."""

    state: dict[str, Any]  # whatever JSON can hold

    def reset(self) -> None:
        """Go back to where it began."""


class Skin(Widget):
    """A playground in a notebook.

    Attributes:
        model: The numbers, and what one can do to them.
        view: What the picture shows, as numbers and words.
        looks: Colour, letter and shape of each branch.
    """

    kind: ClassVar[Callable[..., Model]]
    state_kind: ClassVar[type]
    todos: ClassVar[tuple[str, ...]]
    where: ClassVar[str]
    view = traitlets.Dict().tag(sync=True)
    looks = traitlets.Dict().tag(sync=True)

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        self.model = type(self).kind(state)
        super().__init__(self.model.state, view=self._seen(), looks=looks())
        self.on_msg(self._asked)

    def reset(self) -> None:
        """Go back to where it began."""
        self.model.reset()
        self._show()

    def _seen(self) -> dict[str, Any]:
        raise NotImplementedError

    @traitlets.validate("state")
    def _complete(self, proposal: Mapping[str, Any]) -> dict[str, Any]:
        return states.as_dict(states.read(self.state_kind, proposal["value"], self.where))

    @traitlets.observe("state")
    def _follow(self, change: Mapping[str, Any]) -> None:
        if change["new"] != self.model.state:
            self.model.state = change["new"]
            self._show()

    def _asked(self, _widget: Widget, content: Mapping[str, Any], _buffers: object) -> None:
        if content.get("todo") not in self.todos:
            return
        try:
            getattr(self.model, content["todo"])(**content["given"])
        except GradflowError as error:
            self.send({"refused": str(error), "asked": content["asked"]})
            return
        self._show(content["asked"])

    def _show(self, asked: str = "") -> None:
        with self.hold_sync():
            self.state = self.model.state
            self.view = {**self._seen(), "asked": asked}


def looks() -> dict[str, dict[str, str]]:
    """Give colour, letter, shape and the ink that is legible on it, of anchor, positive and negative."""
    names = ("anchor", "positive", "negative")
    found = {name: style(name, names) for name in names}
    return {
        name: {"colour": s.colour, "letter": s.letter, "marker": s.marker, "ink": ink_on(s.colour)}
        for name, s in found.items()
    }


def script(name: str) -> str:
    """Give the ES module of one playground: the prelude, what the playgrounds share, and its own file."""
    return f"{assets.script(_HERE / 'playground')}\n{(_HERE / name).with_suffix('.js').read_text('utf-8')}"


def style_sheet() -> str:
    """Give the style sheet of the playgrounds."""
    return assets.style_sheet(_HERE / "playground")
