"""The embedding plane in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradflow.recording import Step
from gradflow.widgets.playground import plane_twin, skin
from gradflow.widgets.playground.plane_model import Plane
from gradflow.widgets.playground.plane_state import WHERE, PlaneState
from gradflow.widgets.playground.plane_view import view
from gradflow.widgets.twin import Twin

__all__ = ["PlanePlayground", "plane"]


class PlanePlayground(skin.Skin):
    """Drag the anchor, the positive and the negative, and see three paths push one weight.

    Made by :func:`plane`.
    """

    kind, state_kind, where = Plane, PlaneState, WHERE
    todos = ("move", "place", "change", "stop", "step", "reset")
    model: Plane
    _esm, _css = skin.script("plane"), skin.style_sheet()

    @property
    def step(self) -> Step | None:
        """What ``gradflow.watch`` recorded of a step from here; None when every branch is stopped."""
        return self.model.outcome.step

    def twin(self) -> Twin:
        """Give a still picture and a table, for where no kernel runs."""
        return plane_twin.twin(view(self.model))

    def _seen(self) -> dict[str, Any]:
        return view(self.model)


def plane(state: Mapping[str, Any] | None = None, **entries: Any) -> PlanePlayground:
    """Open the embedding plane: three points to drag, three paths that push one weight.

    A tiny real encoder, ``z = W x``, runs at every move, forward and backward, under ``gradflow.watch``.
    Arrows show where each embedding is pulled and pushed, bars what each path brings to each weight, their
    sum, and the update the optimizer makes of it.

    Args:
        state: A state to begin with, such as ``widget.state`` of another time.
        **entries: Parts of the state by name: ``points``, ``weight``, ``loss`` (``"triplet"``,
            ``"contrastive"``, ``"infonce"``), ``margin``, ``temperature``, ``stopped`` (branches whose
            embedding is detached), ``optimizer`` (``"SGD"``, ``"momentum"``, ``"Adam"``), ``rate``.

    Returns:
        A widget. Its ``state`` is a dict to print, save and set again; ``step`` is the recorded step.

    Raises:
        InvalidArgumentError: an entry means nothing here.

    Example:
        >>> playground = plane(margin=0.5, stopped=["negative"])
        >>> playground.step["weight"].absent
        ('negative',)
    """
    return PlanePlayground({**(state or {}), **entries})
