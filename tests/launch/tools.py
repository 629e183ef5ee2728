"""Programs that judge what is in launch/."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

REQUIRED = "KD_EDGE_REQUIRE_LAUNCH"
"""Set by ``.ci/launch``, which brings them all: then none may be missing."""


def tool(name: str) -> str:
    """The path of a program; without it the test is skipped, or fails where it is required."""
    path = shutil.which(name)
    if path is None:
        missing(f"no {name} here")
    return path


def missing(why: str) -> NoReturn:
    """Skip the test, or fail it where nothing may be missing."""
    if os.environ.get(REQUIRED):
        pytest.fail(why)
    pytest.skip(why)
