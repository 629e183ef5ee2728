"""Guess the kind of a camera named without one: a device, a number, a file, a serial number, a host."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kd_edge.errors import KdEdgeError
from kd_edge.runtime.cameras.links import FOLDERS

_HOST = re.compile(
    r"""(?:[^@/\s]*@)?                                  # user and password, never repeated in a message
    (?P<host>(?:\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?    # 192.168.1.10, 192.168.1.10:554
    |[\w-]+(?:\.[\w-]+)+:\d{1,5}                        # camera.local:554
    |[\w-]+(?:\.[\w-]+)+(?=/))                          # camera.local/stream
    (?:/[^\s?]*)?)(?:\?\S*)?""",
    re.VERBOSE,
)
_SERIAL = re.compile(r"\d{6,20}")
RECORDED = (".avi", ".mp4", ".mkv", ".mov", ".npy", ".mat", ".bag", ".db3", ".mcap", ".png", ".pgm", ".tif", ".jpg")


TOPIC_NAME = re.compile(r"/?[A-Za-z_]\w*(?:/[A-Za-z_]\w*)*", re.ASCII)
"""Name of a ROS 2 topic."""


class Meant(NamedTuple):
    """What a name without a kind probably means.

    Attributes:
        what: Description: ``a path``, ``a number``.
        uri: The URI to use instead.
    """

    what: str
    uri: str


def meant(name: str, schemes: Sequence[str]) -> Meant | None:
    """Guess what a name without a kind means; None if it may be a camera name.

    Args:
        name: The name as typed; no camera file has it.
        schemes: Existing kinds of cameras.
    """
    if name.startswith("/dev/"):
        return Meant("a path", f"v4l2:{name}")
    if os.path.exists(name):  # noqa: PTH110 - never raises
        return Meant("a path", f"replay:{name}")
    if name.isdecimal() and name.isascii() and len(name) <= 3:
        return Meant("a number", f"v4l2:/dev/video{int(name)}")
    if "/" not in name and any((folder / name).is_symlink() for folder in FOLDERS if len(name) < 256):
        return Meant("a device's link", f"v4l2:{name}")
    if name.startswith("/") and "image" in name and TOPIC_NAME.fullmatch(name):
        return Meant("a topic (there is no such path)", f"ros2:{name}")
    if _SERIAL.fullmatch(name) and name in _serials():
        return Meant("a RealSense's serial number", f"realsense:{name}")
    return host_meant(name, schemes)


def host_meant(name: str, schemes: Sequence[str]) -> Meant | None:
    """Recognise the address of a network camera, if that kind exists; the URI omits user and password."""
    found = _HOST.fullmatch(name)
    if found is None or "rtsp" not in schemes or Path(found["host"]).suffix.lower() in RECORDED:
        return None
    return Meant("a host", f"rtsp://{found['host']}")


def _serials() -> list[str]:
    """Serial numbers of the attached RealSense devices; queried only if a name looks like one."""
    if importlib.util.find_spec("pyrealsense2") is None:
        return []
    from kd_edge.runtime.cameras.librealsense import attached

    try:
        return [device.serial for device in attached()]
    except KdEdgeError:
        return []
