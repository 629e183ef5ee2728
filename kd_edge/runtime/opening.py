"""Creates and opens the cameras of a stream, and checks that they suit the model."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from kd_edge.crop import view_of_focal
from kd_edge.errors import CameraError, ConfigError, KdEdgeError, UnexpectedError, is_bug, printable
from kd_edge.runtime.cameras import Wanted, check_fits, make_camera
from kd_edge.runtime.cameras.base import Camera, focal_of
from kd_edge.runtime.cameras.config import CameraConfig, SharedConfig, source_name
from kd_edge.runtime.capture import fault_of
from kd_edge.runtime.clock import Clock
from kd_edge.runtime.feed import check_together
from kd_edge.runtime.rate import NeededRate

log = logging.getLogger("kd_edge.runtime")

CAMERA = ("name", "live", "open", "read", "close", "ended")
"""Attributes that every camera must have."""
CLEARLY = 0.9
"""A nominal frame rate below this share of the minimum is too low, whatever its tolerance."""


def make_cameras(
    wishes: Sequence[str | Camera], shared: SharedConfig, wanted: Wanted, *, realtime: bool, clock: Clock
) -> tuple[Camera, ...]:
    """The cameras of a stream, not open yet.

    Args:
        wishes: Names, URIs and custom cameras.
        shared: Camera files of the names and URIs.
        wanted: Requirements of the model.
        realtime: Pace recordings by their stamps.
        clock: Stamps and paces the frames of cameras created here.

    Raises:
        ConfigError: An object that is not a camera, two cameras of one name, or live cameras mixed with recordings.
    """
    for camera in wishes:
        if not isinstance(camera, str):
            _check_is_camera(camera)
    made = tuple(
        make_camera(source_name(wish)[0], shared.configs[wish], wanted, realtime=realtime, clock=clock)
        if isinstance(wish, str)
        else wish
        for wish in wishes
    )
    check_together(made)
    return made


def _check_is_camera(camera: object) -> None:
    lacks = [name for name in CAMERA if not hasattr(camera, name)]
    if not lacks and not isinstance(camera, type):
        return
    lacking = f" without {', '.join(lacks)}" if lacks else ", which is a class"
    raise ConfigError(
        f"camera {camera!r:.60}{lacking}",
        "a name, a URI, an object with all that kd_edge.runtime.cameras.Camera lists, or a list of these",
        f"make one: {camera.__name__}()" if isinstance(camera, type) and not lacks else "correct it",
    )


def open_fitting(camera: Camera, wanted: Wanted, needed: NeededRate, model: str) -> None:
    """Open a camera that suits a model.

    Raises:
        CameraError: It cannot be opened, or its frames or their rate do not suit the model.
    """
    open_or_explain(camera)
    check_fits(camera, wanted)
    _check_rate(camera, needed, model)


def open_or_explain(camera: Camera) -> None:
    """Open a camera; any exception of a driver becomes an error of one line.

    Raises:
        CameraError: It cannot be opened.
        UnexpectedError: A bug in its program, whose traceback is logged.
    """
    try:
        camera.open()
    except KdEdgeError:
        raise
    except Exception as error:
        if is_bug(error):
            log.error("camera %s cannot be opened, here:", printable(camera.name), exc_info=error)
            found = f"camera {camera.name} cannot be opened ({fault_of(error, camera.name)})"
            raise UnexpectedError(found, "a camera that answers", error) from error
        raise CameraError(
            f"camera {camera.name} cannot be opened ({fault_of(error, camera.name)})",
            "a camera that answers",
            "kd-edge cameras",
        ) from error


def _check_rate(camera: Camera, needed: NeededRate, model: str) -> None:
    """Refuse a camera whose nominal rate can never fill a window; warn of one that degrades every label."""
    fps = camera.fps
    if not isinstance(fps, (int, float)) or not 0 < fps < needed.full_fps:
        return
    if fps < needed.least_fps * CLEARLY:
        raise CameraError(
            f"camera {camera.name} gives {fps:.1f} frames/s",
            f"{needed} ('{model}')",
            "set fps, or use a model with a longer window and motion offsets for this camera",
        )
    log.warning("camera %s gives %.1f frames/s; this model needs %s", printable(camera.name), fps, needed)


def told_focal(camera: Camera, config: CameraConfig | None, assumed: float | None) -> float | None:
    """Focal length of an open camera; warns if a model that needs it has to assume one.

    Args:
        camera: An open camera.
        config: Its camera file.
        assumed: Focal length that the model assumes; None if it needs none.

    Returns:
        Share of the frame's width; None if unknown.
    """
    focal = focal_of(camera, config)
    if focal is None and assumed is not None:
        log.warning(
            "camera %s reports no field of view; this model's crop is in metres and assumes the %.1f degrees of "
            "its training camera: set hfov_deg (in the camera file, or of the ROS 2 node)",
            printable(camera.name),
            view_of_focal(assumed),
        )
    return focal
