"""A V4L2 device faked at the system calls (fakev4l2.c)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def fake_device(tmp_path_factory) -> Path:
    """The compiled shim; tests are skipped where there is no compiler."""
    compiler = shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("the fake V4L2 device needs gcc on Linux")
    library = tmp_path_factory.mktemp("v4l2") / "fakev4l2.so"
    source = Path(__file__).with_name("fakev4l2.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-w", "-o", library, source, "-ldl"], check=True)
    return library


HANGS_SECONDS = 90
"""A program that takes longer says where it is, and ends."""


@pytest.fixture
def with_device(fake_device):
    """Run a Python program that sees the fake camera: ``with_device(program, *arguments, W=..., FPS=...)``."""

    def run(program: str, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {f"FAKE_{k}": str(v) for k, v in settings.items()}
        environment |= {"LD_PRELOAD": str(fake_device)}
        watched = f"import faulthandler; faulthandler.dump_traceback_later({HANGS_SECONDS}, exit=True)\n{program}"
        return subprocess.run(
            [sys.executable, "-c", watched, *arguments], env=environment, capture_output=True, text=True, timeout=110
        )

    return run
