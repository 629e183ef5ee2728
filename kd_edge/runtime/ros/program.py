"""The program ``action_recognition``: one node, its executor, and signals (``ros2 run kd_edge action_recognition``)."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any

from kd_edge.errors import ConfigError, KdEdgeError, printable, reason
from kd_edge.runtime.ros.loading import check_domain, load, start_fault
from kd_edge.runtime.ros.node import ActionRecognition
from kd_edge.runtime.ros.parameters import PARAMETERS
from kd_edge.runtime.signals import ignore_termination, interrupt_on_termination, uninterrupted
from kd_edge.runtime.watchdog import ServiceNotifier

HAND_OVER_SECONDS = 0.0005
"""Switch interval of Python's interpreter lock: a frame passes through three threads."""
ALIVE_SECONDS = 1.0
"""Interval of the notifications to systemd that the executor is running."""
STOP_SECONDS = 10.0
"""Time limit at the end for callbacks still running in the executor."""


USAGE = """\
usage: action_recognition [--ros-args [-p NAME:=VALUE]... [--params-file FILE] [-r FROM:=TO]... [-r __ns:=/SPACE]]

Labels image topics, or a camera of kd-edge's own: a lifecycle node of ROS 2 that publishes ~/label, ~/event and
/diagnostics. Parameters and their defaults:
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT, SIGTERM, a shutdown of ROS, or, with ``autostart``, until no more labels can follow.

    Args:
        arguments: Command-line arguments, including ``--ros-args``; None: those of this process.

    Returns:
        Exit code: 0 after a signal or the end of a recording, 2 for errors that the user can correct, 1 after another
        fault. A fault is one line on standard error, or in ROS's log once the node exists.
    """
    try:
        with interrupt_on_termination():
            closing = ExitStack()
            try:
                return _run(sys.argv if arguments is None else [sys.argv[0], *arguments], closing)
            finally:
                with uninterrupted():  # a second Ctrl-C would interrupt the shutdown of ROS
                    closing.close()
    except KeyboardInterrupt:
        return 0
    except KdEdgeError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    finally:
        if arguments is None:  # during Python's exit, another signal would determine the exit code
            ignore_termination()


def _run(arguments: Sequence[str], closing: ExitStack) -> int:
    if {"-h", "--help"} & set(arguments[1:]):
        sys.stdout.write(usage())
        return 0
    sys.setswitchinterval(HAND_OVER_SECONDS)
    rclpy = load()
    options = load("rclpy.signals").SignalHandlerOptions
    check_domain(None)
    try:
        rclpy.init(args=list(arguments), signal_handler_options=options.NO)  # signals end it as they end kd-edge run
        closing.callback(rclpy.try_shutdown)
        _refuse_others(load("rclpy.utilities").remove_ros_args(list(arguments))[1:])
        node = ActionRecognition()
    except KdEdgeError:
        raise
    except Exception as error:  # rclpy may raise anything for an argument, a parameter file or a name
        if "arguments" in str(error) or "name" in str(error):
            found = f"ROS 2 does not accept these arguments ({reason(error)})"
            expected = "ROS 2 arguments, such as --ros-args -p model:=FILE -r image:=/camera/image_raw"
            is_yaml = "parameter override" in str(error)
            quotes = "; a value is YAML, so one that ends in a colon is quoted: -p 'camera:=\"realsense:\"'"
            raise ConfigError(found, expected, f"correct them{quotes if is_yaml else ''}") from error
        raise start_fault(error) from error
    closing.callback(node.destroy_node)
    closing.enter_context(_NodeLog(node))
    spinning = _Spinning(node)
    closing.callback(spinning.stop)
    if os.environ.get("NOTIFY_SOCKET"):
        closing.callback(_Service(node).close)
    spinning.start()
    node.over.wait()
    return node.exit_code


def _refuse_others(arguments: Sequence[str]) -> None:
    """Refuse arguments that ROS does not consume: an unused option is a mistake.

    Raises:
        ConfigError: There are unused arguments.
    """
    if arguments:
        found = f"argument {arguments[0]!r:.80} is not a ROS 2 argument"
        raise ConfigError(found, "parameters after --ros-args: -p model:=student.onnx", "--help shows them")


def usage() -> str:
    """Return the text of ``--help``: how to set parameters, and all of them with their defaults."""
    shown = {each.name: json.dumps(each.default) for each in PARAMETERS}
    wide = max(len(f"{name}:={default}") for name, default in shown.items())
    lines = [f"  {f'{each.name}:={shown[each.name]}':{wide}}  {each.description}" for each in PARAMETERS]
    return "\n".join((USAGE, *lines, ""))


class _Service:
    """Notifies systemd that the node is ready, and that its executor is running (``Type=notify``, ``WatchdogSec``).

    With ``autostart`` the node is ready once its model is loaded, which the executor does before this timer first
    fires. Fresh frames do not matter: a driver that starts later, or an inactive node, is no reason for a restart;
    diagnostics report them.
    """

    def __init__(self, node: ActionRecognition) -> None:
        clock = load("rclpy.clock")
        self._notifier, self._is_ready = ServiceNotifier(), False
        steady = clock.Clock(clock_type=clock.ClockType.STEADY_TIME)  # with use_sim_time the node's may pause
        node.create_timer(ALIVE_SECONDS, self._notify, clock=steady)

    def _notify(self) -> None:
        if not self._is_ready:
            self._notifier.ready()
        self._is_ready = True
        self._notifier.alive(time.monotonic_ns())

    def close(self) -> None:
        """Notify systemd that the node is stopping."""
        self._notifier.stopping()


class _Spinning:
    """An executor in its own thread, so that the main thread only waits for signals."""

    def __init__(self, node: ActionRecognition) -> None:
        self._node = node
        self._executor: Any = load("rclpy.executors").SingleThreadedExecutor()
        self._executor.add_node(node)
        self._done = load("rclpy.task").Future()
        self._thread = threading.Thread(target=self._spin, name="kd-edge ros", daemon=True)

    def start(self) -> None:
        """Start serving the node."""
        self._thread.start()

    def stop(self) -> None:
        """Shut the node down and end the thread, which must happen before ROS is shut down."""
        with suppress(Exception):  # it is finalized already, or ROS is gone
            self._node.trigger_shutdown()
        self._done.set_result(None)
        self._thread.join(STOP_SECONDS)
        self._executor.shutdown(STOP_SECONDS)  # not earlier: rclpy releases objects that a spinning thread uses

    def _spin(self) -> None:
        external = load("rclpy.executors").ExternalShutdownException
        try:
            self._executor.spin_until_future_complete(self._done)
        except external:  # ROS was shut down
            pass
        except Exception as error:  # must be reported, not lost with the thread
            self._node.exit_code = 1
            traceback.print_exception(error)
            sys.stderr.write(printable(f"error: the node ended: {type(error).__name__}: {reason(error)}") + "\n")
        self._node.over.set()


class _NodeLog(logging.Handler):
    """Context manager that forwards kd-edge's log records to the log of a node."""

    def __init__(self, node: ActionRecognition) -> None:
        super().__init__(logging.WARNING)
        self._logger = node.get_logger()
        self._traceback = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        """Forward a record."""
        write = self._logger.error if record.levelno >= logging.ERROR else self._logger.warning
        write(printable(record.getMessage()))
        if record.exc_info:
            for line in self._traceback.formatException(record.exc_info).splitlines():
                write(printable(line))

    def __enter__(self) -> _NodeLog:
        logging.getLogger("kd_edge").addHandler(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        logging.getLogger("kd_edge").removeHandler(self)
