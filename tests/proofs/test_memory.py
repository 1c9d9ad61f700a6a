"""Nothing grows with the number of steps, however many there are, beyond what the recording keeps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MEGABYTE = 1 << 20

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to see its memory")


def measured(early, late, *options):
    """Train in a process of its own; what it grew by between two steps."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "tests/proofs/long_run.py"), str(early), str(late), *options]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def assert_nothing_grew(found, steps):
    assert found["steps"] == steps
    assert found["bytes"] <= MEGABYTE
    assert found["objects"] == {}
    assert not found["hooks_left"]


def test_memory_and_objects_do_not_grow_over_two_thousand_steps():
    assert_nothing_grew(measured(500, 2000), 2000)


@pytest.mark.slow
def test_memory_and_objects_do_not_grow_over_ten_thousand_steps():
    assert_nothing_grew(measured(2000, 10000), 10000)


def test_what_does_grow_is_seen():
    found = measured(40, 320, "--keep-all")
    assert found["objects"]["gradflow.recording.Step"] == 300
    assert found["bytes"] > MEGABYTE
