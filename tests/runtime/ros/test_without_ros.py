"""The node where ROS 2 is not there: it can be imported, and says in one line what is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ABSENT = "import sys; sys.modules['rclpy'] = None; "


def run(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", ABSENT + code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_program_says_what_is_missing() -> None:
    done = run("from kd_edge.runtime.ros import main; sys.exit(main([]))")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "rclpy" in line
    assert "setup.bash" in line


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ActionRecognition()", "ActionRecognition(namespace='left')"])
def test_the_node_says_what_is_missing(how: str) -> None:
    code = (
        "from kd_edge.errors import ConfigError\n"
        "from kd_edge.runtime.ros import ActionRecognition\n"
        f"try:\n    {how}\nexcept ConfigError as error:\n    print(error)"
    )
    done = run(code)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    assert "rclpy" in line
