"""The systemd units, checked by systemd itself."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kd_edge.service import Installation, Service, make_plan
from tests.launch.tools import missing, tool

LAUNCH = Path(__file__).parents[2] / "launch"
UNIT, ROS_UNIT = LAUNCH / "kd-edge.service", LAUNCH / "kd-edge-ros.service"
UNITS = pytest.mark.parametrize("unit", [UNIT, ROS_UNIT], ids=lambda path: path.stem)
IN_OPT = Installation(
    program=("/opt/kd-edge/.venv/bin/kd-edge",),
    python="/opt/kd-edge/.venv/bin/python",
    prefix="/opt/kd-edge/.venv",
    folders=("/opt/kd-edge/.venv", "/usr"),
)


def settings(unit: Path = UNIT) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str
    parser.read(unit)
    return parser


def analyze(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tool("systemd-analyze", "systemd-verify"), *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


@UNITS
def test_systemd_finds_no_fault(unit, tmp_path):
    path = tmp_path / unit.name  # with a program that this machine has
    path.write_text(re.sub(r"^ExecStart=/opt\S+", f"ExecStart={sys.executable}", unit.read_text(), flags=re.MULTILINE))
    done = analyze("verify", "--man=no", path)
    about_us = [line for line in done.stderr.splitlines() if "kd-edge" in line]
    assert (done.returncode, about_us) == (0, [])


@UNITS
def test_systemd_rates_its_exposure_low(unit):
    done = analyze("security", "--offline=yes", "--threshold=20", "--no-pager", unit)
    if "unrecognized option" in done.stderr:
        missing("systemd-security", "this systemd cannot rate a file")
    assert done.returncode == 0, done.stdout.splitlines()[-1:]
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert level is not None
    assert float(level[1]) <= 2.0


def body(text: str) -> str:
    """A unit without the words at its beginning."""
    return text[text.index("[Unit]") :]


def test_the_unit_is_what_install_service_makes_of_its_camera():
    plan = make_plan(Service(cameras=("ir0",), name="kd-edge"), IN_OPT)
    assert body(plan.unit) == body(UNIT.read_text())


def test_the_nodes_unit_is_what_install_service_makes_of_its_topic(monkeypatch):
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    for name in ("ROS_DOMAIN_ID", "RMW_IMPLEMENTATION"):
        monkeypatch.delenv(name, raising=False)
    plan = make_plan(Service(ros=True, topics=("/camera/infra1/image_rect_raw",), name="kd-edge-ros"), IN_OPT)
    assert body(plan.unit) == body(ROS_UNIT.read_text())


def test_service_follows_fresh_frames():
    service = settings()["Service"]
    program, *arguments = service["ExecStart"].split()
    assert program.endswith("/kd-edge")
    assert arguments[:3] == ["run", "--camera", "ir0"]
    assert "--notify" in arguments
    assert (service["Type"], service["Restart"]) == ("notify", "always")
    assert int(service["WatchdogSec"]) >= 2 * 5  # longer than the longest pause between two attempts to reopen


@UNITS
def test_systemd_watches_it(unit):
    service = settings(unit)["Service"]
    assert (service["Type"], service["NotifyAccess"], service["Restart"]) == ("notify", "main", "always")
    assert int(service["WatchdogSec"]) == 20


def test_the_node_reaches_this_machine_and_no_other():
    service = settings(ROS_UNIT)["Service"]
    assert (service["IPAddressDeny"], service["IPAddressAllow"]) == ("any", "localhost multicast")
    assert service["RestrictAddressFamilies"].split() == ["AF_UNIX", "AF_INET", "AF_NETLINK"]
    assert service["InaccessiblePaths"] == "/dev/shm"  # or images of other users' nodes do not come
    assert "Environment=ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST\n" in ROS_UNIT.read_text()


@pytest.mark.parametrize("overlay", [True, False])
def test_the_nodes_unit_sources_ros_and_then_becomes_the_program(tmp_path, overlay):
    """The words of ExecStart, run by bash as systemd would; the setup files use variables that are not set."""
    ros = tmp_path / "setup.bash"
    ros.write_text('export TRACE="$AMENT_TRACE_SETUP_FILES"ros\n')
    over = tmp_path / "local_setup.bash"
    if overlay:
        over.write_text('export TRACE="$TRACE over"\n')
    script = re.search(r'-c "((?:[^"\\]|\\.)*)"', settings(ROS_UNIT)["Service"]["ExecStart"])
    said = script[1].replace('\\"', '"').replace("$$", "$")
    program = [sys.executable, "-c", "import os, sys; print(os.environ['TRACE'], os.getppid(), sys.argv[1:])", "a b"]
    child = subprocess.Popen(["/bin/bash", "-c", said, ros, over, *program], stdout=subprocess.PIPE, text=True)
    out, _ = child.communicate(timeout=60)
    assert out == f"{'ros over' if overlay else 'ros'} {os.getpid()} ['a b']\n"  # no shell in between
    assert child.returncode == 0


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
