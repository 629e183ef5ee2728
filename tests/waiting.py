"""How tests wait for what another thread or process brings about."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_SECONDS = 90.0
"""How long a test waits for what must happen, on a machine however busy; no test judges by it."""


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until another thread has brought something about."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.002)
