"""What tests with a real ROS 2 need: rclpy, a domain that nobody else uses, and another process that publishes."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import pytest

from kd_edge.runtime.ros.session import Session
from tests.waiting import PATIENCE_SECONDS

REQUIRED = "KD_EDGE_REQUIRE_ROS"
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def ros_environment() -> Iterator[None]:
    """Loopback only, and a domain of this process's own unless one is set."""
    if importlib.util.find_spec("rclpy") is None:
        reason = "ROS 2's rclpy is not installed (tools/check_ros.sh runs these tests)"
        if os.environ.get(REQUIRED):
            pytest.fail(f"{reason}, though {REQUIRED} says that it must be")
        pytest.skip(reason)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        if "ROS_DOMAIN_ID" not in os.environ:
            patch.setenv("ROS_DOMAIN_ID", str(100 + os.getpid() % 100))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of what rclpy imports when it starts
            Session().close()
        yield


class Publisher:
    """The other process; a command is a method call: ``publisher.advertise(topic="/image")``."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.runtime.ros.publisher"]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answers: Queue[str] = Queue()
        Thread(target=self._listen, name="publisher's answers", daemon=True).start()
        self.answer()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._answers.put(line)

    def __getattr__(self, command: str) -> Callable[..., Any]:
        return lambda **arguments: self.send(command, **arguments) or self.answer()

    def send(self, command: str, **arguments: Any) -> None:
        """Tell it to do something, without waiting until it has."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": command, **arguments}) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        """The answer to the oldest command that none was fetched of."""
        return json.loads(self._answers.get(timeout=PATIENCE_SECONDS))

    def kill(self) -> None:
        """Let it die without a word."""
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def start_publisher(ros_environment: None) -> Iterator[Callable[[], Publisher]]:
    """Starts processes that publish, and ends them."""
    started: list[Publisher] = []

    def start() -> Publisher:
        started.append(Publisher())
        return started[-1]

    yield start
    for publisher in started:
        publisher.close()


@pytest.fixture
def publisher(start_publisher: Callable[[], Publisher]) -> Publisher:
    """A process that publishes."""
    return start_publisher()


@pytest.fixture
def session(ros_environment: None) -> Iterator[Session]:
    """A node of this process, spun in a thread."""
    session = Session()
    yield session
    session.close()


def eventually(is_true: Callable[[], Any], what: str) -> Any:
    """Wait until something holds, however busy the machine is."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        if value := is_true():
            return value
        time.sleep(0.01)
    raise AssertionError(f"never: {what}")
