"""Fixtures for all rooms: the real data where it is, and a guard against leaks."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

# pytest itself, and what OpenCV and torch set when they are imported
SET_BY_LIBRARIES = {"PYTEST_CURRENT_TEST", "LD_LIBRARY_PATH", "QT_QPA_FONTDIR", "QT_QPA_PLATFORM_PLUGIN_PATH"} | {
    "KMP_DUPLICATE_LIB_OK",
    "KMP_INIT_AT_FORK",
    "PYTORCH_NVML_BASED_CUDA_CHECK",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
}


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the real data sets; the test is skipped where there is none."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    root = Path(os.environ.get("KD_EDGE_DATA", beside))
    if not root.is_dir():
        pytest.skip(f"no real data: neither KD_EDGE_DATA nor {beside.parent.name}/{beside.name} beside the checkout")
    return root


@pytest.fixture(scope="session")
def utd_root(data_root: Path) -> Path:
    """UTD-MHAD in its official layout."""
    root = data_root / "utd-mhad"
    if not (root / "Depth").is_dir():
        pytest.skip("no UTD-MHAD: its Depth folder is absent")
    return root


@pytest.fixture(autouse=True)
def _leaks() -> Iterator[None]:
    """A test must not leave threads or environment variables behind."""
    threads = set(threading.enumerate())
    environment = dict(os.environ)
    yield
    deadline = time.monotonic() + 2
    while left := [t for t in threading.enumerate() if t not in threads and t.name.startswith("kd-edge")]:
        if time.monotonic() > deadline:
            pytest.fail(f"threads left running: {left}")
        time.sleep(0.01)
    changed = {k for k in environment.keys() | os.environ.keys() if environment.get(k) != os.environ.get(k)}
    changed -= SET_BY_LIBRARIES
    if changed:
        pytest.fail(f"environment changed: {sorted(changed)}")
