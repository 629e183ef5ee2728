"""Programs that judge what is in launch/."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

REQUIRED = "KD_EDGE_REQUIRE_LAUNCH"
"""Set by ``tools/check_launch.sh`` to the checks that can be made where it runs: none of them may be missing."""


def tool(name: str, check: str) -> str:
    """The path of a program; without it the test is skipped, or fails where its check is required."""
    path = shutil.which(name)
    if path is None:
        missing(check, f"no {name} here")
    return path


def missing(check: str, why: str) -> NoReturn:
    """Skip the test, or fail it where its check is required."""
    if check in os.environ.get(REQUIRED, "").split():
        pytest.fail(why)
    pytest.skip(why)
