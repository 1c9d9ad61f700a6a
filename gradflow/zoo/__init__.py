"""Models whose parameters several paths share, each a plain-PyTorch file to read alone, with real data.

    scene = gradflow.zoo.scene("triplet")
    model = scene.build()
    for batch in scene.batches(seed=0, size=16):
        loss, scalars = scene.loss(model, batch)

Every file has its own ``train()``: the whole loop without gradflow, to compare with.
"""

from gradflow.zoo.contract import Batch, Scene
from gradflow.zoo.registry import names, scene

__all__ = ["Batch", "Scene", "names", "scene"]
