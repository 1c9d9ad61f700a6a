"""gradflow inside the libraries that people train with: one module each, loaded when it is asked for.

    from gradflow.integrations.lightning import GradflowCallback
    from gradflow.integrations.transformers import GradflowCallback
    from gradflow.integrations import accelerate, distributed, keras, metric_learning, tensorboard

``branches`` and the other options are passed on to :func:`gradflow.watch`. Training with and without is the
same to the last bit. Importing this package loads none of the libraries.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = [
    "accelerate",
    "distributed",
    "keras",
    "lightning",
    "metric_learning",
    "sentence_transformers",
    "tensorboard",
    "transformers",
]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module 'gradflow.integrations' has no attribute {name!r}")
    return importlib.import_module(f"gradflow.integrations.{name}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
