"""What the libraries keep for the whole process is forgotten between tests."""

import sys

import pytest


def forget_accelerate():
    """accelerate keeps device, precision and accumulation once for the process; trainers use it too."""
    state = sys.modules.get("accelerate.state")
    for name in ("AcceleratorState", "PartialState", "GradientState") if state else ():
        getattr(state, name)._reset_state()


@pytest.fixture(autouse=True)
def _process_of_its_own():
    forget_accelerate()
    yield
    forget_accelerate()
