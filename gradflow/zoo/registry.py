"""The scenes by name: which model, which batches, which loss, and what its paths are called."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from gradflow.errors import InvalidArgumentError, did_you_mean
from gradflow.zoo import (
    contrastive,
    infonce,
    multitask,
    resnet50,
    rnn,
    siamese_lstm,
    simsiam,
    tied_lm,
    triplet,
    twins,
    two_models,
)
from gradflow.zoo.contract import LossFunction, Scene, adam

__all__ = ["names", "scene"]


def _two_models(name: str, layer: str, build: Callable[[], list[nn.Module]]) -> Scene:
    return Scene(
        name=name,
        title=f"Models A and B, each with its own task and optimizer, share one {layer}.",
        branches=("A", "B"),
        build=build,
        batches=two_models.batches,
        loss=two_models.loss,
        optimizers=two_models.optimizers,
        modules=two_models.modules,
    )


def _simsiam(name: str, title: str, loss: LossFunction) -> Scene:
    return Scene(
        name=name,
        title=title,
        branches=("view 1", "view 2"),
        build=simsiam.SimSiam,
        batches=simsiam.batches,
        loss=loss,
        optimizers=partial(adam, lr=1e-2),
    )


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
        optimizers=partial(adam, lr=3e-4),
    ),
    Scene(
        name="siamese_lstm",
        title="One LSTM reads two digits row by row; the distance of its last states joins the two paths.",
        branches=("left", "right"),
        build=siamese_lstm.SiameseLSTM,
        batches=siamese_lstm.batches,
        loss=siamese_lstm.loss,
    ),
    Scene(
        name="siamese_lstm_cells",
        title="The Siamese LSTM, one cell call for each row: every time step is a use of the weights.",
        branches=("left", "right"),
        build=siamese_lstm.cell_by_cell,
        batches=siamese_lstm.batches,
        loss=siamese_lstm.loss,
    ),
    Scene(
        name="rnn",
        title="One recurrent cell reads a digit row by row: each row is a path into the same weights.",
        branches=tuple(f"row {t}" for t in range(1, rnn.ROWS + 1)),
        build=rnn.RowReader,
        batches=rnn.batches,
        loss=rnn.loss,
        optimizers=partial(adam, lr=5e-3),
    ),
    Scene(
        name="twins",
        title="Two copies of one encoder, one for each image: they start alike and drift apart.",
        branches=("left", "right"),
        build=twins.Twins,
        batches=twins.batches,
        loss=twins.loss,
        optimizers=partial(adam, lr=3e-4),
        modules=twins.modules,
    ),
    _two_models("two_models", "dense layer", two_models.dense),
    _two_models("two_models_conv", "convolution", two_models.conv),
    _two_models("two_models_custom", "layer of our own", two_models.custom),
    Scene(
        name="tied_lm",
        title="A small language model reads and writes with one matrix: two uses of the same weights.",
        branches=("input", "output"),
        build=tied_lm.TinyLM,
        batches=tied_lm.batches,
        loss=tied_lm.loss,
        optimizers=partial(adam, lr=1e-2),
        modules=tied_lm.modules,
    ),
    Scene(
        name="multitask",
        title="One trunk, three heads: what each task wants of the weights that all of them use.",
        branches=("digit", "parity", "drawing"),
        build=multitask.MultiTask,
        batches=multitask.batches,
        loss=multitask.loss,
        optimizers=partial(adam, lr=3e-3),
        modules=multitask.modules,
        stems="split",
    ),
    Scene(
        name="infonce",
        title="Two views of each digit; the twin pulls, and all the other views push.",
        branches=("view 1", "view 2"),
        build=infonce.Encoder,
        batches=infonce.batches,
        loss=infonce.loss,
    ),
    _simsiam(
        "simsiam",
        "Each view guesses the other's embedding; no gradient goes into the one that is guessed.",
        simsiam.loss,
    ),
    _simsiam(
        "simsiam_one_sided",
        "Only the first view guesses: the second is a target, and its path is absent.",
        simsiam.loss_one_sided,
    ),
    _simsiam(
        "simsiam_without_stop",
        "Guesser and target both get gradients: soon all embeddings are the same.",
        simsiam.loss_without_stop,
    ),
    Scene(
        name="resnet50_thin",
        title="One ResNet-50, thinned to an eighth, called for three images: three networks that are one.",
        branches=("anchor", "positive", "negative"),
        build=resnet50.thin,
        batches=resnet50.batches,
        loss=resnet50.loss,
    ),
    Scene(
        name="resnet50",
        title="One ResNet-50 of full width called for three images: three networks that are one.",
        branches=("anchor", "positive", "negative"),
        build=resnet50.TripletNetwork,
        batches=resnet50.batches,
        loss=resnet50.loss,
        heavy=True,
    ),
)


def names(*, heavy: bool = False) -> tuple[str, ...]:
    """Give the names of the scenes, simplest first.

    Args:
        heavy: With those of which a step takes a second or more on one core.

    Example:
        >>> names()[:2]
        ('triplet', 'contrastive')
    """
    return tuple(scene.name for scene in _SCENES if heavy or not scene.heavy)


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
        do=did_you_mean(name, names(heavy=True)),
    )
