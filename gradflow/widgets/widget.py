"""The base of all widgets: a small dict of state, a script and a style sheet in files, and a static twin.

A widget is a class and two files beside its module::

    class Plane(Widget, page="plane"):                    # plane.js and plane.css
        defaults = {"margin": 1.0, "points": [[0, 0]]}    # what the reader may choose
        result = traitlets.Dict().tag(sync=True)          # what the kernel answers

        @traitlets.observe("state")
        def _answer(self, _change): self.result = compute(self.state)

        def twin(self): return Twin(svg, words, table)    # what a saved notebook shows

``state`` holds all that was chosen, and only that: print it, save it as JSON, and set it again to be where
one was. The page changes it with ``page.choose({...})`` (see ``prelude.js``), Python with
``widget.choose(...)``. Notebooks that are saved should not store the widgets' state (nbclient:
``store_widget_state=False``): with it, nbconvert shows an empty frame instead of the twin.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import traitlets

from gradflow.errors import InvalidArgumentError, did_you_mean
from gradflow.widgets import assets
from gradflow.widgets.twin import Twin

__all__ = ["Widget"]


class Widget(anywidget.AnyWidget):
    """A widget whose state is a dict and which shows something without a kernel.

    Attributes:
        defaults: The entries of the state and their values at the start.
        state: What was chosen: plain JSON, small. Entries left out are as in ``defaults``.

    Raises:
        InvalidArgumentError: the state is given an entry that ``defaults`` does not have.
    """

    defaults: ClassVar[Mapping[str, Any]] = {}  # Any: whatever JSON can hold
    state = traitlets.Dict().tag(sync=True)

    def __init_subclass__(cls, *, page: str = "", **kwargs: Any) -> None:  # Any: those of a base class
        if page:
            home = Path(str(sys.modules[cls.__module__].__file__)).with_name(page)
            cls._esm, cls._css = assets.script(home), assets.style_sheet(home)
        super().__init_subclass__(**kwargs)

    def __init__(self, state: Mapping[str, Any] | None = None, **traits: Any) -> None:
        super().__init__(state=dict(state or {}), **traits)

    def choose(self, **changes: Any) -> None:
        """Change some entries of the state, here and in the page."""
        self.state = {**self.state, **changes}

    def twin(self) -> Twin | None:
        """Give what stands for the widget where no kernel runs; None for nothing."""
        return None

    @traitlets.validate("state")
    def _complete(self, proposal: Mapping[str, Any]) -> dict[str, Any]:
        given = proposal["value"]
        for name in given:
            if name not in self.defaults:
                raise InvalidArgumentError(
                    f"the state has no entry {name!r}",
                    where=f"{type(self).__name__}.state",
                    do=did_you_mean(name, self.defaults),
                )
        return {**self.defaults, **given}

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        shown = super()._repr_mimebundle_(**kwargs)
        still = self.twin()
        if shown is None or still is None:
            return shown
        data, metadata = shown
        return {**data, **still.bundle()}, metadata
