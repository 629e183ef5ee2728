"""List attached and configured cameras, with the exact command to use each."""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path

from kd_edge import recipes
from kd_edge.errors import CameraError, ConfigError, KdEdgeError, printable
from kd_edge.files import expanded
from kd_edge.reading import read_bytes
from kd_edge.runtime.cameras.camera_file import camera_file
from kd_edge.runtime.cameras.config import CameraConfig, camera_config, source_name
from kd_edge.runtime.cameras.links import device_path, stable_link
from kd_edge.runtime.cameras.modes import PixelFormat
from kd_edge.runtime.cameras.v4l2_formats import formats as v4l2_formats
from kd_edge.runtime.uri import NETWORK, PIPELINE, TOPIC, parse, shown

_FACT_BYTES = 4096
"""One page, the longest a sysfs file can be."""


@dataclass(frozen=True, slots=True)
class AttachedCamera:
    """A video device of this machine.

    Attributes:
        device: For example ``/dev/video0``.
        description: The driver's name for it; empty if unknown.
        use: The command that runs it, or what to do first if it cannot be used.
        uri: Its camera URI, by a link that survives a reboot if there is one; empty if it is not a camera.
        formats: Its formats; for a RealSense, those of its infrared imagers.
        fault: Why the formats are unknown; empty if they are known.
        camera_file: A ready-to-use camera file (TOML); empty if it is not a camera.
    """

    device: str
    description: str
    use: str
    uri: str = ""
    formats: tuple[PixelFormat, ...] = ()
    fault: str = ""
    camera_file: str = ""


@dataclass(frozen=True, slots=True)
class ConfiguredCamera:
    """A camera file.

    Attributes:
        name: Name of the camera.
        file: Path of the camera file.
        uri: Its URI without secrets; empty if the file is faulty.
        present: Whether the device or recording exists now; None if only opening it would show.
        fault: Why it cannot be used; empty if it can.
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
    """Result of ``list_cameras``."""

    attached: tuple[AttachedCamera, ...]
    configured: tuple[ConfiguredCamera, ...]


def list_cameras(root: Path = Path("/"), *, ros: bool = False) -> Cameras:
    """List this machine's video devices, RealSense cameras and camera files; devices are queried for their formats.

    Args:
        root: Folder that contains ``dev/`` and ``sys/``.
        ros: Also list ROS 2 image topics.

    Raises:
        ConfigError: ROS 2 was requested but is not installed.
    """
    topics = _topics() if ros else []
    configured = tuple(_configured(name) for name in recipes.names("runtime"))
    return Cameras((*_attached(root), *_realsense(root), *topics), configured)


def present(found: Cameras) -> list[str]:
    """Names or URIs of all present cameras: configured ones, and devices without a camera file."""
    named = [camera for camera in found.configured if camera.present is not False and not camera.fault]
    taken = {_device(camera.uri) for camera in named}
    return [c.name for c in named] + [d.uri for d in found.attached if d.uri and _device(d.uri) not in taken]


def uri_of(found: Cameras, of: str | None) -> str:
    """Return the URI of an attached camera, or of any other camera with its given keys.

    Args:
        found: The listed cameras.
        of: Device or URI of the camera; None selects the only attached one.

    Raises:
        ConfigError: ``of`` is None and not exactly one camera is attached, or ``of`` is not a camera.
    """
    cameras = [camera for camera in found.attached if camera.uri]
    chosen = [c.uri for c in cameras if of is None or of in (c.device, c.uri) or _device(of) == _device(c.uri)]
    if len(chosen) == 1:
        return chosen[0]
    if of is not None and of.startswith("/dev/"):
        attached = ", ".join(camera.device for camera in cameras) or "no camera"
        raise ConfigError(f"--of {of}, which is not attached", attached, "kd-edge cameras shows what is")
    if of is not None:
        camera_config(of)
        return source_name(of)[1]
    devices = ", ".join(camera.device for camera in cameras)
    raise ConfigError(
        f"{len(cameras)} cameras are attached{f' ({devices})' if devices else ''}",
        "exactly one, or a choice",
        f"--of {cameras[0].device if cameras else 'URI, for example --of replay:clip.mkv'}",
    )


def camera_file_of(found: Cameras, uri: str) -> str:
    """Return the text of a camera file for a URI."""
    ready = next((camera.camera_file for camera in found.attached if camera.uri == uri), "")
    if ready:
        return ready
    config = camera_config(uri)
    keys = config.model_dump(mode="json", exclude_unset=True, exclude={"uri", "band"})
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
    return camera_file(config.uri, "", (), config.band or "") + lines


def _device(uri: str) -> str:
    """Normalise a URI: links to the same device give the same result."""
    scheme, target, _ = parse(uri)
    return f"{scheme}:{os.path.realpath(device_path(target)) if scheme == 'v4l2' else target}"


def _attached(root: Path) -> list[AttachedCamera]:
    """List capture nodes only: a USB camera's second node, with ``index`` other than 0, carries metadata."""
    found = []
    devices = [d for d in (root / "dev").glob("video*") if d.name[5:].isdigit()]
    for device in sorted(devices, key=lambda d: int(d.name[5:])):
        facts = root / "sys/class/video4linux" / device.name
        if _line(facts / "index") not in ("", "0"):
            continue
        path, description = f"/dev/{device.name}", _line(facts / "name")
        uri = f"v4l2:{stable_link(device, root) or path}"
        try:
            formats, fault = tuple(v4l2_formats(device)), ""
        except CameraError as error:
            formats, fault = (), error.found
        text = camera_file(uri, description, formats)
        found.append(AttachedCamera(path, description, _use(uri), uri, formats, fault, text))
    return found


def _use(name: str) -> str:
    return f"kd-edge run --camera {name}"


def _realsense(root: Path) -> list[AttachedCamera]:
    """List RealSense devices if librealsense is installed; their plain video nodes are not infrared imagers."""
    if root != Path("/") or importlib.util.find_spec("pyrealsense2") is None:
        return []
    from kd_edge.runtime.cameras.librealsense import attached

    try:
        devices = attached()
    except KdEdgeError as error:
        return [AttachedCamera("realsense:", error.found, error.fix)]
    found = []
    for device in devices:
        uri = f"realsense:{device.serial}"
        text = camera_file(uri, device.description, device.formats, "nir")
        found.append(AttachedCamera(uri, device.description, _use(uri), uri, device.formats, "", text))
    return found


def _topics() -> list[AttachedCamera]:
    """List ROS 2 image topics, with what their publishers offer."""
    from kd_edge.runtime.ros.graph import image_topics

    found = []
    for topic in image_topics():
        uri = f"{TOPIC}:{topic.name}"
        found.append(
            AttachedCamera(topic.name, str(topic), _use(uri), uri, camera_file=camera_file(uri, str(topic), ()))
        )
    return found


def _configured(name: str) -> ConfiguredCamera:
    file, use = recipes.find("runtime", name), _use(name)
    try:
        config = camera_config(name)
        present = _is_present(config)
    except ConfigError as error:
        return ConfiguredCamera(name, file, "", False, str(error), use)
    fault = "" if present is not False else f"no {_path(config)}"
    return ConfiguredCamera(name, file, shown(config.uri), present, fault, use)


def _is_present(config: CameraConfig) -> bool | None:
    if config.scheme in (*NETWORK, PIPELINE, TOPIC):
        return None
    return config.scheme in ("synthetic", "realsense") or _exists(_path(config))


def _path(config: CameraConfig) -> Path:
    return Path(device_path(config.target)) if config.scheme == "v4l2" else expanded(config.target)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # the name is too long, or the folder not accessible
        return False


def _line(path: Path) -> str:
    """Read a sysfs line as printable text; a USB camera's name may contain anything."""
    try:
        return printable(read_bytes(path, _FACT_BYTES).decode(errors="replace").strip())
    except OSError:
        return ""
