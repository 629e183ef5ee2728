"""What is attached, what is configured, and the exact line to use each."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from kd_edge import recipes
from kd_edge.errors import ConfigError, KdEdgeError, printable
from kd_edge.files import expanded
from kd_edge.reading import read_bytes
from kd_edge.runtime.cameras.config import CameraConfig, camera_config
from kd_edge.runtime.uri import NETWORK, PIPELINE, shown

_FACT_BYTES = 4096
"""One page: longer no file of sysfs is."""


@dataclass(frozen=True, slots=True)
class AttachedCamera:
    """A video device of this machine.

    Attributes:
        device: For example ``/dev/video0``.
        description: The driver's name for it; empty when unknown.
        use: The command that runs it.
    """

    device: str
    description: str
    use: str


@dataclass(frozen=True, slots=True)
class ConfiguredCamera:
    """A camera file.

    Attributes:
        name: Its name.
        file: Where it is configured.
        uri: What it names, without what may be secret; empty when the file is faulty.
        present: Whether the device or recording is there now; None where only opening it would tell.
        fault: Why it cannot be used; empty when it can.
        use: The command that runs it.
    """

    name: str
    file: Path
    uri: str
    present: bool | None
    fault: str
    use: str


@dataclass(frozen=True, slots=True)
class Cameras:
    """Answer of ``list_cameras``."""

    attached: tuple[AttachedCamera, ...]
    configured: tuple[ConfiguredCamera, ...]


def list_cameras(root: Path = Path("/")) -> Cameras:
    """Look at this machine's video devices, RealSense cameras and camera files; nothing is opened.

    Args:
        root: Where ``dev/`` and ``sys/`` lie.
    """
    return Cameras((*_attached(root), *_realsense(root)), tuple(_configured(name) for name in recipes.names("runtime")))


def _attached(root: Path) -> list[AttachedCamera]:
    """Capture nodes only: a USB camera's second node carries metadata, its ``index`` is not 0."""
    found = []
    devices = [d for d in (root / "dev").glob("video*") if d.name[5:].isdigit()]
    for device in sorted(devices, key=lambda d: int(d.name[5:])):
        facts = root / "sys/class/video4linux" / device.name
        if _line(facts / "index") not in ("", "0"):
            continue
        path = f"/dev/{device.name}"
        found.append(AttachedCamera(path, _line(facts / "name"), f"kd-edge run --camera v4l2:{path}"))
    return found


def _realsense(root: Path) -> list[AttachedCamera]:
    """RealSense devices, where librealsense is installed: their video nodes alone are no infrared imagers."""
    if root != Path("/") or importlib.util.find_spec("pyrealsense2") is None:
        return []
    from kd_edge.runtime.cameras.realsense import attached

    try:
        devices = attached()
    except KdEdgeError as error:
        return [AttachedCamera("realsense:", error.found, error.fix)]
    return [AttachedCamera(f"realsense:{n}", what, f"kd-edge run --camera realsense:{n}") for n, what in devices]


def _configured(name: str) -> ConfiguredCamera:
    file, use = recipes.find("runtime", name), f"kd-edge run --camera {name}"
    try:
        config = camera_config(name)
        present = _is_present(config)
    except ConfigError as error:
        return ConfiguredCamera(name, file, "", False, str(error), use)
    fault = "" if present is not False else f"no {config.target}"
    return ConfiguredCamera(name, file, shown(config.uri), present, fault, use)


def _is_present(config: CameraConfig) -> bool | None:
    if config.scheme in (*NETWORK, PIPELINE):
        return None
    return config.scheme in ("synthetic", "realsense") or _exists(expanded(config.target or "/dev/video0"))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long, a folder that may not be entered
        return False


def _line(path: Path) -> str:
    """What a driver says of its device; a USB camera's name is whatever its maker burnt into it."""
    try:
        return printable(read_bytes(path, _FACT_BYTES).decode(errors="replace").strip())
    except OSError:
        return ""
