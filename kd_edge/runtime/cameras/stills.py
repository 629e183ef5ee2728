"""Save one picture of each camera as PNG."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kd_edge.errors import BadPictureError, ConfigError, KdEdgeError, is_bug, printable, reason
from kd_edge.files import check_writable, replacing
from kd_edge.packages import import_extra
from kd_edge.runtime.cameras import make_camera
from kd_edge.runtime.cameras.base import Camera, timeouts_of
from kd_edge.runtime.cameras.config import camera_config
from kd_edge.runtime.uri import shown
from kd_edge.types import Image

log = logging.getLogger("kd_edge.runtime")

SETTLE_SECONDS = 0.7
"""Time for a live camera's exposure to settle."""
STILL_SECONDS = 10.0
"""A camera without a picture after this time, opening included, is abandoned."""
PREVIEW_PERCENT = (1, 99)
_PAUSE_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Still:
    """A picture, or why there is none.

    Attributes:
        camera: The camera as the user named it.
        file: PNG of 8 or 16 bits, as the camera delivered it; None without a picture.
        preview: A 16-bit picture stretched to 8 bits for viewing; None for 8 bits.
        what: Type and size of the picture; empty without a picture.
        fault: Why there is no picture; empty if there is one.
    """

    camera: str
    file: Path | None = None
    preview: Path | None = None
    what: str = ""
    fault: str = ""


def grab_stills(cameras: Iterable[str], folder: Path, seconds: float = STILL_SECONDS) -> list[Still]:
    """Grab one picture of each camera, one after the other; a failing camera does not stop the others.

    Files are named by the camera and the time of day, so none is replaced.

    Args:
        cameras: Names or URIs.
        folder: Output folder; created if missing.
        seconds: Longest time per camera.

    Raises:
        ConfigError: The folder cannot be written.
    """
    check_writable(folder / "still.png", ConfigError, option="--stills")
    return [_still(camera, folder, seconds) for camera in cameras]


def _still(camera: str, folder: Path, seconds: float) -> Still:
    """Grab the picture in a separate thread: drivers may hang, also in ``open`` and ``close``."""
    pictures: list[Image | KdEdgeError] = []
    thread = threading.Thread(
        target=_grab, args=(camera, pictures, seconds), name=f"kd-edge still {shown(camera)}", daemon=True
    )
    thread.start()
    thread.join(seconds)
    found = pictures[0] if pictures else None
    if not isinstance(found, np.ndarray):
        fault = f"no picture within {seconds:g} s" if found is None else str(found)
        return Still(shown(camera), fault=printable(fault))
    try:
        return _written(shown(camera), found, folder)
    except KdEdgeError as error:
        return Still(shown(camera), fault=str(error))


def _grab(name: str, pictures: list[Image | KdEdgeError], seconds: float) -> None:
    try:
        camera = make_camera(name, camera_config(name))
        camera.open()
        try:
            picture = _settled(camera, seconds)
        finally:
            camera.close()
        if picture is not None:
            pictures.append(picture)
    except KdEdgeError as error:
        pictures.append(error)
    except Exception as error:  # whatever a driver raises
        if is_bug(error):
            log.error("camera %s fails here:", shown(name), exc_info=error)
        pictures.append(KdEdgeError(f"{shown(name)} fails ({reason(error)})", "a picture", "kd-edge cameras"))


def _settled(camera: Camera, seconds: float) -> Image | None:
    """Return a recording's first picture, or a live camera's first after ``SETTLE_SECONDS``, else its last."""
    began, picture = time.monotonic(), None
    while (passed := time.monotonic() - began) < seconds and not camera.ended:
        try:
            frame = camera.read(min(timeouts_of(camera).read_timeout_ms / 1e3, seconds - passed))
        except BadPictureError:
            frame = None
        if frame is None:
            time.sleep(_PAUSE_SECONDS)
            continue
        picture = frame.image
        if not camera.live or time.monotonic() - began >= SETTLE_SECONDS:
            break
    return picture


def _written(camera: str, picture: Image, folder: Path) -> Still:
    cv2 = import_extra("cv2", "cpu")
    stem = f"{re.sub(r'[^A-Za-z0-9]+', '-', camera).strip('-')[-80:]}-{time.strftime('%Y%m%d-%H%M%S')}"
    file, preview = folder / f"{stem}.png", None
    _write(cv2, file, picture)
    if picture.dtype == np.uint16:
        preview = folder / f"{stem}-preview.png"
        _write(cv2, preview, _stretched(picture))
    return Still(camera, file, preview, f"{picture.dtype} {picture.shape[1]}x{picture.shape[0]}")


def _write(cv2: Any, path: Path, picture: Image) -> None:
    in_order = picture if picture.ndim == 2 else picture[:, :, ::-1]  # OpenCV writes B, G, R
    good, content = cv2.imencode(".png", in_order)
    if not good:
        raise ConfigError(f"{path} cannot be encoded", "a picture", "kd-edge cameras doctor says more")
    with replacing(path, ConfigError, option="--stills") as file:
        file.write(content.tobytes())


def _stretched(picture: Image) -> Image:
    """Stretch a picture to 8 bits between its own percentiles."""
    low, high = np.percentile(picture, PREVIEW_PERCENT)
    scaled = (picture.astype(np.float32) - low) * np.float32(255 / max(1.0, high - low))
    preview: Image = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return preview
