"""The live card of a prediction: the reader's guess is its state, what it shows comes from the kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import traitlets

from gradflow.widgets.widget import Widget

__all__ = ["LiveCard"]


class LiveCard(Widget, page="card"):
    """A card with a question, a way to commit to a guess, and the answer once there is one.

    Attributes:
        state: ``{"guess": ...}``, as the reader typed or chose it.
        shown: What the card shows, worked out by :mod:`gradflow.lessons.card`.
    """

    defaults: ClassVar[Mapping[str, str]] = {"guess": ""}
    shown = traitlets.Dict().tag(sync=True)
