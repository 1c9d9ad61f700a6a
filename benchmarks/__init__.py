"""What gradflow costs, side by side with a plain training step and with other tools: ``make bench``."""

import os

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler is a means here, and tells of itself
