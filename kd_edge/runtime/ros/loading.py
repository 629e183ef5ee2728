"""Import ROS 2's Python packages on demand, with one-line errors for missing ones; no other module imports them."""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from types import ModuleType

from kd_edge.errors import ConfigError, reason

MOST_DOMAIN = 232
"""Largest domain id; there are no ports for larger ones."""
WHEELS = "ros-kilted-rclpy ros-kilted-rmw-fastrtps-cpp ros-kilted-sensor-msgs ros-kilted-std-msgs"
_SOURCE = "source /opt/ros/$ROS_DISTRO/setup.bash"
_MIDDLEWARE = "rmw_fastrtps_cpp"
_OTHER_PYTHON = ("_rclpy_pybind11", "_rclpy")
"""Modules that ``rclpy`` fails to find if it was built for another Python."""


def load(module: str = "rclpy") -> ModuleType:
    """Import a module of ROS 2: ``rclpy.qos``, ``sensor_msgs.msg``.

    Raises:
        ConfigError: The module is missing, was built for another Python, or lacks its middleware.
    """
    if "rclpy" not in sys.modules:
        _check_middleware()
    try:
        return importlib.import_module(module)
    except Exception as error:  # its loader raises any kind
        raise _fault(module, error) from error


def check_domain(domain: int | None) -> None:
    """Refuse a domain id that ROS would misunderstand or open no port for.

    Args:
        domain: Domain id; None: that of the environment.

    Raises:
        ConfigError: It is not a whole number from 0 to ``MOST_DOMAIN``.
    """
    text = os.environ.get("ROS_DOMAIN_ID", "") if domain is None else str(domain)
    if text and not (text.isdecimal() and int(text) <= MOST_DOMAIN):
        where = "ROS_DOMAIN_ID" if domain is None else "domain"
        raise ConfigError(f"{where} is {text!r:.40}", f"a whole number, 0 to {MOST_DOMAIN}", f"correct {where}")


def start_fault(error: BaseException) -> ConfigError:
    """Translate an error that keeps ROS from starting."""
    return _fault("rclpy", error)


def _check_middleware() -> None:
    """Refuse a missing middleware, for which ROS would end the whole program.

    Raises:
        ConfigError: ``RMW_IMPLEMENTATION`` names one that is not installed.
    """
    name = os.environ.get("RMW_IMPLEMENTATION", "")
    if not name:
        return
    try:
        ctypes.CDLL(f"lib{name}.so")
    except OSError as error:
        raise _no_middleware(f"RMW_IMPLEMENTATION is {name!r:.60}, which cannot be loaded ({reason(error)})") from error


def _no_middleware(found: str) -> ConfigError:
    return ConfigError(
        found,
        "a middleware of ROS 2 that is installed",
        f"apt install ros-$ROS_DISTRO-rmw-fastrtps-cpp and {_SOURCE}, or pip install ros-kilted-rmw-fastrtps-cpp; "
        f"RMW_IMPLEMENTATION={_MIDDLEWARE}, or unset it",
    )


def _fault(module: str, error: BaseException) -> ConfigError:
    """Translate an error that keeps a ROS module from being imported or started."""
    text, package = str(error), module.partition(".")[0]
    python = ".".join(map(str, sys.version_info[:2]))
    if isinstance(error, ModuleNotFoundError) and (error.name or "").rpartition(".")[2] in _OTHER_PYTHON:
        return ConfigError(
            f"rclpy was built for a different Python than this one ({python})",
            "the Python of the ROS 2 release",
            "run kd-edge with the system's python3 (a virtual environment of it with --system-site-packages), or use "
            f"another environment: pip install {WHEELS}",
        )
    if isinstance(error, ModuleNotFoundError) and error.name == package:
        return ConfigError(
            f"ROS 2's Python package '{package}' is not installed",
            "a sourced ROS 2, or its wheels",
            f"{_SOURCE}, or pip install {_wheels(package)}",
        )
    if "rmw" in text:
        return _no_middleware(f"ROS 2 cannot load its middleware ({reason(error)})")
    return ConfigError(
        f"ROS 2 cannot be used: {module}: {reason(error)}",
        "a ROS 2 that starts",
        f"{_SOURCE}; ros2 doctor says more",
    )


def _wheels(package: str) -> str:
    return WHEELS if package == "rclpy" else f"ros-kilted-{package.replace('_', '-')}"
