"""A question: must a Siamese network be three ResNet50s? How can three models share their weights?

They do not: three ResNet50s are three sets of weights, also when all three begin with the same file. One
ResNet50 that is *called* three times is one set, used three times; its gradient is the sum of three.

What the question's code had, mended here:
- ``input_tensor=I1``, ``I2``, ``I3`` put three networks of the same layer names into one ``Model``, which
  Keras refuses: each network is called on its input instead, as a layer.
- The ``Model`` listed two of its three inputs.
- ``metrics['acc']`` after keyword arguments is no Python; ``fit_generator`` is ``fit`` now.
- ``weights='imagenet'`` is downloaded; here the weights are random, and a path to a file works as well.

Training three copies shows a trap besides. The layers of each ResNet50 have the same names; on the torch
backend, Keras 3.15 clears gradients by name, so that two of three networks add up the gradients of all their
steps. gradflow tells it as ``edited``. :meth:`Triplet.train_step` clears them all.

Shapes: ``B`` triplets in a batch, images ``[B, 32, 32, 3]``, embeddings ``[B, 2048]``.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")  # before keras is imported

import keras
import numpy as np
from keras import ops
from keras.applications import ResNet50

import gradflow.integrations.keras as watching
from gradflow import data

SIDE = 32
NAMES = ("anchor", "positive", "negative")


def encoder(name: str, weights: str | None = None) -> keras.Model:
    """Give a ResNet50 that maps images to vectors."""
    shape = (SIDE, SIDE, 3)
    return ResNet50(include_top=False, weights=weights, input_shape=shape, pooling="avg", name=name)


def one_network() -> keras.Model:
    """Give a Siamese network: one encoder, called three times."""
    shared = encoder("encoder")
    inputs = [keras.Input((SIDE, SIDE, 3), name=name) for name in NAMES]
    return keras.Model(inputs, [shared(x) for x in inputs], name="one_network")


def three_networks() -> keras.Model:
    """Give three encoders that begin with the same weights, as if loaded from the same file."""
    encoders = [encoder(f"encoder_{name}") for name in NAMES]
    for other in encoders[1:]:
        other.set_weights(encoders[0].get_weights())
    inputs = [keras.Input((SIDE, SIDE, 3), name=name) for name in NAMES]
    outputs = [network(x) for network, x in zip(encoders, inputs, strict=True)]
    return keras.Model(inputs, outputs, name="three_networks")


class Triplet(keras.Model):
    """Trains a network of three inputs and outputs with the triplet loss, in ``fit``."""

    def __init__(self, network: keras.Model, margin: float = 0.2) -> None:
        super().__init__(name=network.name)
        self.network, self.margin = network, margin

    def call(self, images: list, training: bool = False) -> list:
        """Give the three embeddings, each of length 1."""
        return [unit(z) for z in self.network(images, training=training)]

    def train_step(self, data: tuple) -> dict:
        """Clear every gradient before a step, also those that Keras takes for cleared."""
        for weight in self.trainable_weights:
            weight.value.grad = None
        return super().train_step(data)

    def compute_loss(self, x=None, y=None, y_pred=None, *_, **__):  # noqa: ANN001, ANN002, ANN003, ANN201 - Keras's own
        """Give the mean over the batch of ``max(0, d_ap - d_an + margin)``."""
        anchor, positive, negative = y_pred
        near, far = ops.norm(anchor - positive, axis=-1), ops.norm(anchor - negative, axis=-1)
        return ops.mean(ops.relu(near - far + self.margin))


def unit(vectors):  # noqa: ANN001, ANN201 - whatever tensors the backend has
    """Give each row at length 1."""
    return vectors / ops.maximum(ops.norm(vectors, axis=-1, keepdims=True), 1e-12)


def triplets(count: int, seed: int = 0) -> list[np.ndarray]:
    """Give anchors, positives and negatives: digits, enlarged to 32×32, grey in three channels."""
    images, labels = data.digits()
    padded = np.pad(images[:, 0], ((0, 0), (2, 2), (2, 2)))[..., None].repeat(3, axis=-1)
    return [padded[rows] for rows in data.triplets(labels, count, rng=np.random.default_rng(seed))]


def main() -> None:
    """Train both for two steps of four triplets, and show where the gradients go."""
    keras.utils.set_random_seed(0)
    for network in (one_network(), three_networks()):
        model = Triplet(network)
        model.compile(optimizer=keras.optimizers.Adam(1e-4))
        images = triplets(8)
        model.build([x.shape for x in images])
        branches = NAMES
        if network.name == "three_networks":
            branches = {name: network.get_layer(f"encoder_{name}") for name in NAMES}
        with watching.watch(model, branches=branches) as flow:
            model.fit(images, np.zeros(8), batch_size=4, shuffle=False, verbose=0)
        step = flow.recording.last
        print(
            f"{network.name}: {len(step)} weights, each with the gradients of",
            sorted({len(p.contributors) for p in step}),
            "of the three paths",
        )


if __name__ == "__main__":
    main()
