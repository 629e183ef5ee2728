"""``tools/check_launch.sh`` on machines that lack what it asks.

Its checks are skipped where a tool cannot be had, strict where it is there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = (
    "bash",
    "cat",
    "dirname",
    "find",
    "grep",
    "ln",
    "mkdir",
    "mktemp",
    "realpath",
    "rm",
    "rmdir",
    "sleep",
    "tail",
    "timeout",
)
CHECKS = ("systemd-verify", "systemd-security", "udevadm-verify", "docker-compose", "hadolint")


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A PATH with what every machine has; apt-get and pip reach nothing, and this Python tests nothing."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in NEEDED:
        (folder / name).symlink_to(shutil.which(name) or pytest.skip(f"no {name} here"))
    program(folder, "apt-get", "echo no network >&2; exit 100")
    program(folder, "python", 'echo "$2 with $KD_EDGE_REQUIRE_LAUNCH"; test "$2" = pytest && exit ${TESTS:-0}; exit 1')
    return folder


def program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def launch(programs: Path, **environment: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [programs / "bash", ROOT / "tools/check_launch.sh", programs / "python"],
        capture_output=True,
        text=True,
        timeout=100,
        env={"PATH": str(programs), "HOME": os.environ.get("HOME", "/")} | environment,
    )
    return done.returncode, done.stdout.splitlines()


def test_what_cannot_be_had_is_said_and_skipped(programs: Path) -> None:
    code, lines = launch(programs)
    assert code == 0, lines
    assert lines[:6] == [*(f"no {check} here: its checks are skipped" for check in CHECKS), "checks: none"]
    assert "pytest with " in lines
    assert "no namespaces here: install-service under a real systemd is skipped" in lines


def test_what_is_there_is_required_and_its_faults_are_faults(programs: Path) -> None:
    program(programs, "hadolint", "exit 0")
    program(programs, "docker-compose", "exit 0")
    code, lines = launch(programs, TESTS="1")
    assert code == 1
    assert "pytest with docker-compose hadolint" in lines


@pytest.mark.skipif(not os.access("/lib/systemd/systemd", os.X_OK), reason="no systemd here")
@pytest.mark.parametrize(("inside", "code"), [(0, 0), (77, 0), (1, 1), (3, 3)])
def test_a_systemd_that_does_not_start_is_no_fault_and_what_happens_under_it_is(
    programs: Path, inside: int, code: int
) -> None:
    """77 is what its own part ends with where no manager comes up."""
    program(programs, "unshare", f'case "$*" in *" true") exit 0;; *) exit {inside};; esac')
    assert launch(programs)[0] == code
