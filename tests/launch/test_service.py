"""The systemd unit, checked by systemd itself."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "launch"
UNIT = LAUNCH / "kd-edge.service"


def settings() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str
    parser.read(UNIT)
    return parser


def analyze(*arguments: object) -> subprocess.CompletedProcess[str]:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("no systemd-analyze here")
    return subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True, timeout=60)


@pytest.fixture
def unit_that_exists_here(tmp_path):
    """The unit with a program that this machine has."""
    path = tmp_path / "kd-edge.service"
    path.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text(), flags=re.MULTILINE))
    return path


def test_systemd_finds_no_fault(unit_that_exists_here):
    done = analyze("verify", "--man=no", unit_that_exists_here)
    about_us = [line for line in done.stderr.splitlines() if "kd-edge" in line]
    assert (done.returncode, about_us) == (0, [])


def test_systemd_rates_its_exposure_low(unit_that_exists_here):
    done = analyze("security", "--offline=yes", "--threshold=25", "--no-pager", unit_that_exists_here)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd cannot rate a file")
    assert done.returncode == 0, done.stdout.splitlines()[-1:]


def test_service_follows_fresh_frames():
    service = settings()["Service"]
    program, *arguments = service["ExecStart"].split()
    assert program.endswith("/kd-edge")
    assert arguments[:3] == ["run", "--camera", "ir0"]
    assert "--notify" in arguments
    assert (service["Type"], service["Restart"]) == ("notify", "always")
    assert int(service["WatchdogSec"]) >= 2 * 5  # longer than the longest pause between two attempts to reopen


def test_every_option_of_the_command_exists():
    from typer.testing import CliRunner

    from kd_edge.cli import app

    arguments = settings()["Service"]["ExecStart"].split()[1:]
    text = re.sub(r"\x1b\[[0-9;]*m", "", CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200"}).output)
    for option in [a for a in arguments if a.startswith("--")]:
        assert option in text


def test_readme_names_every_file():
    text = (LAUNCH / "README.md").read_text()
    assert [p.name for p in LAUNCH.iterdir() if p.name != "README.md" and f"`{p.name}`" not in text] == []
