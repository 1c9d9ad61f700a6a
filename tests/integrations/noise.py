"""Warnings of the libraries themselves, each with its reason; everything else stays an error."""

import pytest

LIGHTNING = [
    # lightning 2.6 calls torch's pytree in the old way
    pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning"),
    # it asks for worker processes: in a test they would only cost time
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    # and for more batches than its logging interval: these runs are short
    pytest.mark.filterwarnings(
        "ignore:The number of training batches .* is smaller than the logging interval"
    ),
]

KERAS = [
    # keras 3.15: get_weights() and variable.numpy() do not know numpy 2's copy keyword
    pytest.mark.filterwarnings(
        "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
    ),
]
