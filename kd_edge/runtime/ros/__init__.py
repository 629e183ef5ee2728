"""ROS 2: a node that labels, and image topics as cameras. ``rclpy`` is only imported on first use."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "ActionRecognition": "node",
    "ImageTopic": "topic",
    "RosClock": "clock",
    "TopicCamera": "camera",
    "main": "program",
}
"""Public names and the modules that define them."""

__all__ = ["ActionRecognition", "ImageTopic", "RosClock", "TopicCamera", "main"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
