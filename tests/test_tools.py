"""The programs of ``tools/``: told in its README, and called by the names they have."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / "tools"
PROGRAMS = sorted(path.name for path in TOOLS.iterdir() if path.suffix in (".py", ".sh"))


def test_the_readme_tells_of_each() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \|", (TOOLS / "README.md").read_text(), re.MULTILINE)
    assert rows == PROGRAMS
    assert all(os.access(TOOLS / name, os.X_OK) for name in PROGRAMS)


def test_whoever_names_one_names_one_that_is_there() -> None:
    told = [ROOT / ".ci/run", *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "launch").rglob("*.md")]
    told += [TOOLS / name for name in PROGRAMS] + list((ROOT / "tests").rglob("*.py"))
    named = {name for path in told for name in re.findall(r"(?<![\w/])tools/(\w+\.\w+)", path.read_text())}
    assert named - {"README.md"} <= {*PROGRAMS, "peak.c"}
    assert {"check_builds.py", "check_launch.sh"} <= named


@pytest.mark.parametrize("name", ["bench_joined.py", "bench_label.py", "check_gstreamer.py", "check_tensorrt_names.py"])
def test_help_begins_with_how_it_is_called(name: str) -> None:
    command = [sys.executable, TOOLS / name, "--help"]
    around = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=around, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"    python tools/{name}" in done.stdout
