"""A separate context, node and spinning thread, independent of other users of ROS in this process."""

from __future__ import annotations

import threading
import uuid
from contextlib import suppress
from typing import Any

from kd_edge.runtime.ros.loading import check_domain, load, start_fault

STOP_SECONDS = 2.0
"""An executor that hangs for longer is abandoned (its thread is a daemon)."""


class Session:
    """Starts on creation; ``close`` ends everything.

    Args:
        domain: ROS domain id; None: that of the environment.

    Attributes:
        node: The rclpy node; it has a unique name, no parameter services and no log topic.

    Raises:
        ConfigError: ROS 2 is not installed or cannot start.
    """

    node: Any

    def __init__(self, domain: int | None = None) -> None:
        rclpy = load()
        check_domain(domain)
        no_signals = load("rclpy.signals").SignalHandlerOptions.NO
        executors = load("rclpy.executors")
        self._context = rclpy.Context()
        try:
            rclpy.init(args=[], context=self._context, domain_id=domain, signal_handler_options=no_signals)
            self.node = rclpy.create_node(
                f"kd_edge_{uuid.uuid4().hex[:12]}",
                context=self._context,
                use_global_arguments=False,
                enable_rosout=False,
                start_parameter_services=False,
            )
            self._executor = executors.SingleThreadedExecutor(context=self._context)
            self._executor.add_node(self.node)
        except Exception as error:  # rclpy's C library has its own exceptions
            self._shut_down()
            raise start_fault(error) from error
        self._thread = threading.Thread(target=self._spin, name="kd-edge ros", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, the node and the context; a second call does nothing."""
        with suppress(Exception):  # the context may have been shut down elsewhere
            self._executor.shutdown(timeout_sec=STOP_SECONDS)
        self._thread.join(STOP_SECONDS)
        self._shut_down()

    def _spin(self) -> None:
        with suppress(Exception):  # as above
            self._executor.spin()

    def _shut_down(self) -> None:
        node = getattr(self, "node", None)
        if node is not None:
            with suppress(Exception):
                node.destroy_node()
        with suppress(Exception):
            self._context.try_shutdown()
