"""The scenes by name: which model, which batches, which loss, and what its paths are called."""

from __future__ import annotations

from gradflow.errors import InvalidArgumentError, did_you_mean
from gradflow.zoo import contrastive, triplet
from gradflow.zoo.contract import Scene

__all__ = ["names", "scene"]

_SCENES = (
    Scene(
        name="triplet",
        title="One encoder sees an anchor, a positive and a negative: three paths, one set of weights.",
        branches=("anchor", "positive", "negative"),
        build=triplet.Encoder,
        batches=triplet.batches,
        loss=triplet.loss,
    ),
    Scene(
        name="contrastive",
        title="One forward pass uses the same layers twice: similar pairs pull, dissimilar ones push.",
        branches=("left", "right"),
        build=contrastive.SiameseNetwork,
        batches=contrastive.batches,
        loss=contrastive.loss,
    ),
)


def names() -> tuple[str, ...]:
    """Give the names of all scenes, simplest first.

    Example:
        >>> names()[:2]
        ('triplet', 'contrastive')
    """
    return tuple(scene.name for scene in _SCENES)


def scene(name: str) -> Scene:
    """Give the scene of that name.

    Raises:
        InvalidArgumentError: there is none; the message lists the near ones.

    Example:
        >>> scene("triplet").branches
        ('anchor', 'positive', 'negative')
    """
    for candidate in _SCENES:
        if candidate.name == name:
            return candidate
    raise InvalidArgumentError(
        f"the zoo has no scene {name!r}",
        where=f"gradflow.zoo.scene({name!r})",
        do=did_you_mean(name, names()),
    )
