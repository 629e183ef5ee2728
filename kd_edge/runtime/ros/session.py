"""A context, a node and a spinning thread of one's own, beside whatever else uses ROS in this process."""

from __future__ import annotations

import threading
import uuid
from contextlib import suppress
from typing import Any

from kd_edge.runtime.ros.loading import check_domain, load, start_fault

STOP_SECONDS = 2.0
"""An executor that hangs for longer is left behind (its thread is a daemon)."""


class Session:
    """Started when it is made; ``close`` ends all of it.

    Args:
        domain: ROS domain id; None: that of the environment.

    Attributes:
        node: Of rclpy; it has a unique name, and neither parameters nor logs to others.

    Raises:
        ConfigError: ROS 2 is not there or cannot start.
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
        except Exception as error:  # of rclpy's C library, which has kinds of its own
            self._shut_down()
            raise start_fault(error) from error
        self._thread = threading.Thread(target=self._spin, name="kd-edge ros", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, the node and the context; a second call does nothing."""
        with suppress(Exception):  # a context that somebody else shut down
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
