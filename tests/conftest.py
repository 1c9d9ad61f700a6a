"""What every test starts from: fixed seeds, no display, one width, readable ids."""

import os
import random

import numpy as np
import pytest
from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "Agg")  # before anything imports matplotlib
os.environ.setdefault("KERAS_BACKEND", "torch")  # before anything imports keras
os.environ["COLUMNS"] = "110"  # stories are as wide as the terminal: here it is always this one


# The same examples in every run; HYPOTHESIS=explore looks for new ones.
settings.register_profile("fixed", derandomize=True, database=None)
settings.register_profile("explore")
settings.load_profile(os.environ.get("HYPOTHESIS", "fixed"))


@pytest.fixture(autouse=True)
def _seeded():
    random.seed(0)
    np.random.seed(0)
    try:
        import torch
    except ImportError:
        return
    torch.manual_seed(0)


def pytest_make_parametrize_id(config, val, argname):
    """Name classes and functions by their names, and collections by what they hold."""
    if isinstance(val, type) or callable(val):
        return getattr(val, "__name__", None)
    if isinstance(val, tuple | list) and all(isinstance(item, str | int | float) for item in val):
        return "-".join(map(str, val)) or "empty"
    return None
