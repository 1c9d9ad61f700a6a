"""Print every number of ``docs/questions.md`` and ``docs/teaching.md``: ``python docs/answers``."""

from __future__ import annotations

import sys

import absent_updates  # noqa: F401  (each enters its rows in the register)
import asked_elsewhere  # noqa: F401
import exam  # noqa: F401
import one_or_three  # noqa: F401
import shared_layer  # noqa: F401
import three_forwards  # noqa: F401
import two_lstms  # noqa: F401
from workbench import NUMBERS

for row, compute in NUMBERS.items():
    sys.stdout.write(f"{row}: {compute()}\n")
