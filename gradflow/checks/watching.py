"""The checks of a run that is being watched: what is seen of the model goes with the steps it is true for.

A recording has no model any more; so a recorder looks at it while it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import nn
from torch.optim import Optimizer

from gradflow.checks import layers, movers, sharing
from gradflow.checks.subject import Subject
from gradflow.record import Finding

__all__ = ["Inspector"]

_TOLD_BY_THE_STEP = ("fused",)
_NONE_OF_OURS = ("stranger",)  # an optimizer may well move more than the watched model


class Inspector:
    """Looks at a watched model: whole at first, later at what has changed.

    Args:
        roots: The watched models by prefix.
        optimizers: The watched optimizers.
    """

    def __init__(self, roots: Mapping[str, nn.Module], optimizers: Sequence[Optimizer]) -> None:
        self._subject = Subject(roots, tuple(optimizers))
        self._modules: list[nn.Module] = []
        self._modes: list[bool] | None = None
        self._sharing: tuple[Finding, ...] = ()

    def begin(self) -> None:
        """Look for copies before the first step, which parts them."""
        self._sharing = _safely(lambda: tuple(sharing.findings(self._subject)))

    def look(self) -> tuple[Finding, ...]:
        """Give what is to be told with the step that is being closed: all at first, then new modes."""
        return _safely(self._look)

    def _look(self) -> tuple[Finding, ...]:
        if not self._modules:
            self._modules = [module for _, module in self._subject.modules()]
        modes = [module.training for module in self._modules]
        if modes == self._modes:
            return ()
        is_first, self._modes = self._modes is None, modes
        if not is_first:
            return tuple(layers.modes(self._subject))
        found = (*self._sharing, *movers.findings(self._subject), *layers.findings(self._subject))
        return tuple(f for f in found if f.code not in _TOLD_BY_THE_STEP and not _is_none_of_ours(f))


def _safely(look: Callable[[], tuple[Finding, ...]]) -> tuple[Finding, ...]:
    """Look, and let no model that cannot be looked at cost a step its record."""
    try:
        return look()
    except Exception as error:
        text = f"The model could not be looked at as gradflow.check does: {type(error).__name__}: {error}"
        do = "gradflow.check(model, optimizer) shows where. What was recorded is as exact as ever."
        return (Finding("note", "unchecked", text, do),)


def _is_none_of_ours(finding: Finding) -> bool:
    return finding.code in _NONE_OF_OURS and finding.severity == "note"
