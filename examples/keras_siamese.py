"""Keras 3 on torch: one encoder called twice in a model, watched while `fit` trains it."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")  # before keras is imported

import keras
import numpy as np
from keras import layers, ops

from gradflow import data
from gradflow.integrations.keras import GradflowCallback


def main() -> None:
    """Fit three epochs on pairs of digits: are they different ones?"""
    keras.utils.set_random_seed(0)
    image = layers.Input((28, 28, 1))
    x = layers.Flatten()(layers.Conv2D(8, 5, strides=3, activation="relu", name="conv")(image))
    encoder = keras.Model(image, layers.Dense(8, name="dense")(x), name="encoder")
    left, right = layers.Input((28, 28, 1)), layers.Input((28, 28, 1))
    apart = ops.abs(encoder(left) - encoder(right))
    model = keras.Model([left, right], layers.Dense(1, activation="sigmoid", name="head")(apart))
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="binary_crossentropy")

    images, labels = data.digits()
    a, b, differ = data.pairs(labels, 128, rng=np.random.default_rng(0))
    pairs = [images[rows].transpose(0, 2, 3, 1) for rows in (a, b)]
    gradients = GradflowCallback(branches=("left", "right"))
    model.fit(pairs, differ.astype("float32"), epochs=3, verbose=0, callbacks=[gradients])

    print(gradients.recording.last["encoder.conv.kernel"])


if __name__ == "__main__":
    main()
