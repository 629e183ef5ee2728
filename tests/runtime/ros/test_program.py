"""The program of the node: exit codes, signals, one line on a fault."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2's rclpy is not installed (tools/check_ros.sh runs these tests)")

import rclpy
import rclpy.executors
from std_msgs.msg import String

import tests.runtime.ros.graph  # noqa: F401 - imports what warns
from kd_edge.runtime.ros import main
from kd_edge.runtime.ros.parameters import PARAMETERS

ROOT = Path(__file__).parents[3]
CODE = "import sys; from kd_edge.runtime.ros import main; sys.exit(main())"
pytestmark = pytest.mark.usefixtures("ros_environment")


@pytest.fixture(autouse=True)
def _no_open_files() -> None:
    """The middleware keeps sockets of its own for good."""


@pytest.fixture
def model(make_model: Callable[..., tuple[Path, Any]]) -> str:
    return str(make_model()[0])


def started(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    given = ["--ros-args", *arguments] if arguments else []
    return subprocess.Popen(
        [sys.executable, "-c", CODE, *given],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )


def ended(*arguments: str, **environment: str) -> tuple[int, list[str]]:
    process = started(*arguments, **environment)
    told, _ = process.communicate(timeout=100)
    return process.returncode, told.splitlines()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(model: str, number: int) -> None:
    process = started(
        "-p", f"model:={model}", "-p", "camera:=hand=synthetic:?seed=7", "-r", "__node:=ends", "-p", "json:=always"
    )
    context = rclpy.Context()
    rclpy.init(context=context, args=[])
    probe = rclpy.create_node("probe", context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(probe)
    heard: list[Any] = []
    probe.create_subscription(String, "/ends/label_json", heard.append, 10)
    while not heard:
        executor.spin_once(1.0)
        assert process.poll() is None, process.communicate()
    process.send_signal(number)
    for _ in range(5):  # of somebody impatient
        time.sleep(0.02)
        process.send_signal(number)
    end = time.monotonic() + 100
    while time.monotonic() < end and (process.poll() is None or "the node was deactivated" not in heard[-1].data):
        executor.spin_once(0.2)
    assert "the node was deactivated" in heard[-1].data  # its last word
    told, _ = process.communicate(timeout=1)
    executor.shutdown()
    probe.destroy_node()
    rclpy.shutdown(context=context)
    assert process.returncode == 0, told
    assert "Traceback" not in told


def test_systemd_hears_that_it_is_there_and_that_its_executor_turns(model: str, tmp_path: Path) -> None:
    """Also of a node that is not active, and whose clock stands still."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        process = started(
            "-p", f"model:={model}", "-p", "autostart:=false", "-p", "use_sim_time:=true", "-r", "__node:=told",
            NOTIFY_SOCKET=str(tmp_path / "notify"),
        )  # fmt: skip
        try:
            heard = [systemd.recv(100) for _ in range(3)]
            process.send_signal(signal.SIGTERM)
            while heard[-1] != b"STOPPING=1":
                heard.append(systemd.recv(100))
            told, _ = process.communicate(timeout=100)
        finally:
            process.kill()
    assert heard[:3] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
    assert (process.returncode, "Traceback" in told) == (0, False)


def test_the_end_of_a_recording_ends_it(model: str, tmp_path: Path) -> None:
    np.save(tmp_path / "short.npy", np.zeros((8, 24, 32), np.uint8))
    code, lines = ended("-p", f"model:={model}", "-p", f"camera:=replay:{tmp_path / 'short.npy'}")
    assert (code, [line for line in lines if "Traceback" in line]) == (0, [])


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (("-p", "model:=/nowhere.onnx"), {}, "/nowhere.onnx"),
        (("-p", "depth:=1000"), {}, "not configured: parameter depth is 1000. Expected 1 to 100. Fix: correct it, or"),
        (("-p", "valid_ms:=500"), {}, "parameter valid_ms is 500. Expected a number with a decimal point (5.0). Fix:"),
        (("-p", "topics:=/image"), {}, "parameter topics is '/image'. Expected a list of texts ([/left/image, /right/"),
        (("-p", "topic:=[/image]", "-p", "depth:=0"), {}, "parameter topic is not one of this node's (did you mean 't"),
        (("-p", "camera:=ir77"), {}, "ir77"),
        (("-r", "1:=:"), {}, "error: ROS 2 does not accept these arguments"),
        (("-p", "camera:=realsense:"), {}, "one that ends in a colon is quoted: -p 'camera:=\"realsense:\"'"),
        ((), {"ROS_DOMAIN_ID": "999"}, "ROS_DOMAIN_ID"),
        ((), {"RMW_IMPLEMENTATION": "rmw_nobody"}, "rmw_nobody"),
    ],
)
def test_a_fault_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], environment: dict[str, str], words: str
) -> None:
    code, lines = ended(*arguments, **environment)
    told = [line for line in lines if words in line]
    assert code == 2, lines
    assert len(told) == 1, lines
    assert not [line for line in lines if "Traceback" in line]


def test_an_option_that_nobody_reads_is_refused() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "kd_edge.runtime.ros", "--model", "x.onnx", "--ros-args", "-p", "autostart:=false"],
        cwd=ROOT, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert process.returncode == 2
    assert process.stderr.splitlines() == [
        "error: argument '--model' is not a ROS 2 argument. Expected parameters after --ros-args: "
        "-p model:=student.onnx. Fix: --help shows them"
    ]


def test_help_shows_every_parameter_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("usage: action_recognition [--ros-args [-p NAME:=VALUE]")
    assert [line.split(":=")[0].strip() for line in lines if ":=" in line][1:] == [each.name for each in PARAMETERS]
    assert [line.partition("  Most")[0].strip() for line in lines if "annotated_fps" in line] == ["annotated_fps:=5.0"]
