import matplotlib
import matplotlib.pyplot as plt
import pytest


@pytest.fixture(autouse=True)
def settings_of_matplotlib_stay():
    """Every test of a picture also shows that matplotlib's settings are left as found."""
    matplotlib.use("Agg")
    before = dict(matplotlib.rcParams)
    yield
    after = dict(matplotlib.rcParams)
    plt.close("all")
    assert {k: v for k, v in after.items() if before[k] != v} == {}
