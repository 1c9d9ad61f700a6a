"""One encoder or three copies, in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradflow.recording import Step
from gradflow.widgets.playground import sharing_twin, skin
from gradflow.widgets.playground.sharing_model import Sharing
from gradflow.widgets.playground.sharing_state import WHERE, SharingState
from gradflow.widgets.playground.sharing_view import view
from gradflow.widgets.twin import Twin

__all__ = ["SharingPlayground", "sharing"]


class SharingPlayground(skin.Skin):
    """Watch three encoders stay one, or drift apart.

    Made by :func:`sharing`.
    """

    kind, state_kind, where = Sharing, SharingState, WHERE
    todos = ("change", "step", "reset")
    model: Sharing
    _esm, _css = skin.script("sharing"), skin.style_sheet()

    @property
    def step(self) -> Step | None:
        """What ``gradflow.watch`` recorded of the update that led here; None at the start."""
        return self.model.moment.step

    def twin(self) -> Twin:
        """Give a still picture and a table, for where no kernel runs."""
        return sharing_twin.twin(view(self.model))

    def _seen(self) -> dict[str, Any]:
        return view(self.model)


def sharing(state: Mapping[str, Any] | None = None, **entries: Any) -> SharingPlayground:
    """Open the question of sharing: is it one encoder, or are there three copies?

    Three ways of training start equal and are trained for real: one encoder called three times, three copies
    each trained by its own path, and three copies that are all moved by the mean.

    Args:
        state: A state to begin with, such as ``widget.state`` of another time.
        **entries: Parts of the state by name: ``mode`` (``"shared"``, ``"copied"``, ``"averaged"``),
            ``steps`` (0 to 100), ``optimizer`` (``"SGD"``, ``"momentum"``, ``"Adam"``), ``rate``, and
            ``probe``, the input that is shown to all.

    Returns:
        A widget. Its ``state`` is a dict to print, save and set again; ``step`` is the recorded step, and
        ``model.trainings[mode].moments`` has the weights of every step.

    Raises:
        InvalidArgumentError: an entry means nothing here.

    Example:
        >>> sharing(mode="shared", steps=2).model.moment.drift
        0.0
    """
    return SharingPlayground({**(state or {}), **entries})
