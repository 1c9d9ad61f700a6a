"""How figures look to others: with deuteranopia (red-green blindness), and in black and white.

``python -m tests.render.vision FOLDER`` writes every figure as it is, and as both see it, side by side.

Deuteranopia after Machado, Oliveira and Fernandes 2009, "A Physiologically-based Model for Simulation of
Color Vision Deficiency", IEEE TVCG 15(6), doi:10.1109/TVCG.2009.113: severity 1.0, on linear RGB.

Shapes: colours are ``[..., 3]`` sRGB in ``[0, 1]``.
"""

import sys
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

from gradflow import plot
from gradflow.record import TermTable
from gradflow.render.picture import loose_axes
from tests.render import scenes

DEUTERANOPIA = np.array(
    [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]
)
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # of linear RGB, as WCAG 2.2 has it
TO_XYZ = np.array(  # of sRGB under D65, IEC 61966-2-1
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
)


def linear(rgb):
    rgb = np.asarray(rgb, dtype=float)
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def encoded(light):
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def deuteranopia(rgb):
    return encoded(linear(rgb) @ DEUTERANOPIA.T)


def grey(rgb):
    light = linear(rgb) @ LUMINANCE
    return np.repeat(encoded(light)[..., None], 3, axis=-1)


VISIONS = {"as it is": np.asarray, "deuteranopia": deuteranopia, "black and white": grey}


def lab(rgb):
    """CIELAB of sRGB, D65."""
    xyz = linear(rgb) @ TO_XYZ.T / TO_XYZ.sum(axis=1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    lightness, a, b = 116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])
    return np.stack([lightness, a, b], axis=-1)


def difference(one, other):
    """CIE 1976 colour difference; about 2 is just noticeable, 10 is plain at a glance."""
    return np.linalg.norm(lab(one) - lab(other), axis=-1)


def contrast(one, other):
    """As WCAG 2.2 has it."""
    bright, dark = (
        np.maximum(*(pair := (linear(one) @ LUMINANCE, linear(other) @ LUMINANCE))),
        np.minimum(*pair),
    )
    return (bright + 0.05) / (dark + 0.05)


def pixels(fig):
    """The figure as drawn. Shape ``[H, W, 3]``."""
    canvas = fig.canvas if hasattr(fig.canvas, "buffer_rgba") else FigureCanvasAgg(fig)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3] / 255


def figures(theme):
    """Every figure of gradflow.plot, by name, drawn from records made by hand."""
    odd = scenes.dead(scenes.without(scenes.step(), "negative", "conv1.weight"), "positive")
    cells = np.random.default_rng(0).normal(size=(9, 8))
    cells[4] = 0
    table = TermTable(odd.branches, ("pull", "push", "unclaimed"), cells @ cells.T)
    named = replace(odd, parameters={f: replace(p, terms=table) for f, p in odd.parameters.items()})
    run, points = scenes.recording(40), np.random.default_rng(1).normal(size=(2, 3, 1, 2))
    calls = {
        "cancellation": lambda ax: plot.cancellation(run[:10], ax=ax, theme=theme),
        "contributions": lambda ax: plot.contributions(odd, ax=ax, theme=theme),
        "cosines": lambda ax: plot.cosines(odd, "conv1.weight", ax=ax, theme=theme),
        "deltas": lambda ax: plot.deltas(run[:10], ax=ax, theme=theme),
        "many deltas": lambda ax: plot.deltas(run, ax=ax, theme=theme),
        "history": lambda ax: plot.history(run, scalar="loss", ax=ax, theme=theme),
        "plane": lambda ax: plot.plane(*points, margin=0.2, ax=ax, theme=theme),
        "profile": lambda ax: plot.profile(odd, ax=ax, theme=theme),
        "race": lambda ax: plot.race(run, ax=ax, theme=theme),
        "terms": lambda ax: plot.terms(named, "fc.weight", ax=ax, theme=theme),
    }
    drawn = {name: call(loose_axes(theme)).figure for name, call in calls.items()}
    drawn["equation"] = plot.equation(scenes.step(), "conv1.weight", theme=theme)
    other = scenes.recording(25, branches=("anchor", "positive"))
    drawn["compare"] = plot.compare(run, other, names=("first", "second"), scalar="loss", theme=theme)
    drawn["flow"] = plot.flow(odd, theme=theme)
    return drawn


def main(folder):
    mpl.use("Agg")
    for theme in ("light", "dark"):
        for name, fig in figures(theme).items():
            seen = pixels(fig)
            beside = np.concatenate([see(seen) for see in VISIONS.values()], axis=1)
            mpl.image.imsave(folder / f"{name.replace(' ', '_')}_{theme}.png", beside)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
