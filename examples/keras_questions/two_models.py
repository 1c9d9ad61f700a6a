"""A question: can two Keras models share weights?

Yes: one layer *object* in both. There is one weight then, and every ``fit`` of either model moves it: after
fitting A and then B, the layer has gone where B wanted it, and A has got worse.

What the answer's code had, mended here:
- Its check, ``np.allclose`` of two lists of a kernel and a bias, raises: such lists are no arrays. Weight by
  weight it compares an object with itself, and cannot fail; ``is`` says what is meant.
- ``tf.matmul`` is ``keras.ops.matmul``; the random data are real digits: A sees 0 to 4, B sees 5 to 9.

Shapes: ``N`` images, pixels ``[N, 784]`` or images ``[N, 28, 28, 1]``, classes ``[N, 5]`` one-hot.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")  # before keras is imported

import keras
import numpy as np
from keras import layers, ops

import gradflow.integrations.keras as watching
from gradflow import data


class SharedWeightLayer(layers.Layer):
    """A layer of one's own: a kernel and a matrix product."""

    def __init__(self, units: int, **options: object) -> None:
        super().__init__(**options)
        self.units = units

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Make the kernel, once the number of inputs is known."""
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units), initializer="random_uniform", name="kernel"
        )

    def call(self, inputs):  # noqa: ANN001, ANN201 - whatever tensors the backend has
        """Map ``[N, inputs]`` to ``[N, units]``."""
        return ops.matmul(inputs, self.kernel)


def dense() -> list[keras.Model]:
    """Give models A and B that share a dense layer."""
    return _models(layers.Dense(64, activation="relu", name="shared"), (784,), "mse")


def conv() -> list[keras.Model]:
    """Give models A and B that share a convolution."""
    return _models(layers.Conv2D(8, (3, 3), activation="relu", name="shared"), (28, 28, 1))


def custom() -> list[keras.Model]:
    """Give models A and B that share a layer of one's own."""
    return _models(SharedWeightLayer(64, name="shared"), (784,))


def _models(shared: layers.Layer, shape: tuple[int, ...], loss: str = "categorical_crossentropy") -> list:
    models = []
    for name in ("model_a", "model_b"):
        image = layers.Input(shape)
        x = shared(image)
        if len(shape) == 3:
            x = layers.Flatten(name=f"flatten_{name}")(layers.MaxPooling2D((2, 2), name=f"pool_{name}")(x))
        classes = layers.Dense(5, activation="softmax", name=f"head_{name}")(x)
        model = keras.Model(image, classes, name=name)
        model.compile(optimizer="adam", loss=loss)
        models.append(model)
    return models


def digits(model: keras.Model, count: int = 100, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Give images and one-hot classes: of the digits 0 to 4 for model A, 5 to 9 for model B."""
    images, labels = data.digits()
    first = 0 if model.name == "model_a" else 5
    known = np.flatnonzero((labels >= first) & (labels < first + 5))
    rows = np.random.default_rng(seed).choice(known, count)
    shape = (count, *model.input_shape[1:])
    return images[rows].reshape(shape), np.eye(5, dtype="float32")[labels[rows] - first]


def main() -> None:
    """Fit A, then B; show how far each moved the shared layer, and what that did to A."""
    keras.utils.set_random_seed(0)
    a, b = dense()
    with watching.watch([a, b], branches={"A": a, "B": b}) as flow:
        a.fit(*digits(a), epochs=5, verbose=0)
        after_a = a.evaluate(*digits(a), verbose=0)
        b.fit(*digits(b), epochs=5, verbose=0)
        after_b = a.evaluate(*digits(a), verbose=0)
    for name in ("A", "B"):
        steps = [s for s in flow.recording if name in s["model_a.shared.kernel"].contributors]
        moved = sum(s["model_a.shared.kernel"].delta.norm for s in steps)
        print(f"{name}: {len(steps)} steps moved the shared kernel, a way of {moved:.3g} in all")
    print(f"A's loss on its own digits: {after_a:.4f} after fitting A, {after_b:.4f} after fitting B")


if __name__ == "__main__":
    main()
