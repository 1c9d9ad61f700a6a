"""A question: are three forward passes and one backward pass valid? Is it weight sharing, or three models?

It is one model and one set of weights: the passes are three uses of them, and one backward brings each weight
three gradients, which are summed. That "only the model of the negative is updated" is refuted by one recorded
step: all three paths contribute, and there is one model.

What the question's code had, mended here:
- ``tf.GradientTape`` is autograd: on the torch backend ``loss.backward()`` leaves the gradients in
  ``weight.value.grad``, and ``optimizer.apply`` takes them from there.
- Vectors were divided by the norm of the whole batch, and distances summed over it: here each row has its
  own.
- The loss was computed only where a NaN had been found.
- The hinge ended at 0.000001, which costs nothing and tells nothing: here at exactly 0.
- ``model(x)`` in a loop of one's own leaves batch normalisation in inference: ``training=True``.

Shapes: ``B`` triplets, images ``[B, S, S, C]``, embeddings ``[B, 128]``.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")  # before keras is imported

import keras
import numpy as np
import torch
from keras import layers, ops

import gradflow.integrations.keras as watching
from gradflow import data

NAMES = ("anchor", "positive", "negative")


def cnn(side: int = 112, channels: int = 3, filters: tuple[int, ...] = (16, 32, 64, 128, 256)) -> keras.Model:
    """Give the encoder of the question: blocks of convolution, then unit vectors."""
    image = x = layers.Input((side, side, channels))
    for i, count in enumerate(filters, start=1):
        x = layers.Conv2D(count, kernel_size=3, padding="same", name=f"Conv{i}")(x)
        x = layers.MaxPool2D(name=f"Pool{i}")(x)
        x = layers.BatchNormalization(name=f"Norm{i}")(x)
        x = layers.ReLU(name=f"ReLU{i}")(x)
    x = layers.GlobalAveragePooling2D(name="GAP")(x)
    vector = layers.Dense(128, activation="tanh", name="Dense1")(x)
    length = ops.norm(vector, axis=-1, keepdims=True)
    # not UnitNormalization: its gradient at a vector of zeros is NaN
    return keras.Model(image, vector / ops.maximum(length, 1e-12), name="cnn")


def triplet_loss(anchor: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """Give the mean over the batch of ``max(0, d_ap - d_an + 0.2)``."""
    near = ops.norm(anchor - positive, axis=-1)
    far = ops.norm(anchor - negative, axis=-1)
    return ops.mean(ops.relu(near - far + 0.2))


def train_step(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, images: list[np.ndarray]
) -> torch.Tensor:
    """Run three forwards and one backward, and step once; give the loss."""
    model.zero_grad()
    loss = triplet_loss(*(model(x, training=True) for x in images))
    if not torch.isfinite(loss):
        raise FloatingPointError("NaN found")
    loss.backward()
    optimizer.apply([weight.value.grad for weight in model.trainable_weights], model.trainable_weights)
    return loss.detach()


def triplets(count: int, side: int, seed: int = 0) -> list[np.ndarray]:
    """Give anchors, positives and negatives: digits in the middle of an image of one channel."""
    images, labels = data.digits()
    border = (side - 28) // 2
    padded = np.pad(images[:, 0], ((0, 0), (border, border), (border, border)))[..., None]
    return [padded[rows] for rows in data.triplets(labels, count, rng=np.random.default_rng(seed))]


def main() -> None:
    """Train some steps on real digits, and show what each path brought to the first convolution."""
    keras.utils.set_random_seed(0)
    model = cnn(side=32, channels=1)
    optimizer = keras.optimizers.Adam(learning_rate=1e-3)
    with watching.watch(model, optimizer, branches=NAMES) as flow:
        for seed in range(5):
            loss = train_step(model, optimizer, triplets(8, 32, seed))
            flow.log(loss=loss)
    print(flow.recording)
    print(flow.recording.last["Conv1.kernel"])


if __name__ == "__main__":
    main()
