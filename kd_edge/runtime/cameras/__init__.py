"""Cameras: recordings, a generated figure, V4L2, RealSense, network streams, ROS 2. Each SDK has its own module."""

from __future__ import annotations

from kd_edge.runtime.cameras.base import Camera, Wanted, check_fits, timeouts_of
from kd_edge.runtime.cameras.config import CameraConfig, TimeOuts, camera_config, source_name
from kd_edge.runtime.clock import MONOTONIC, Clock
from kd_edge.runtime.uri import NETWORK, PIPELINE, TOPIC, shown

ANYTHING = Wanted()
"""No requirements: no model decides what the camera must deliver."""

__all__ = ["Camera", "TimeOuts", "Wanted", "check_fits", "make_camera", "open_camera", "timeouts_of"]


def make_camera(
    name: str, config: CameraConfig, wanted: Wanted = ANYTHING, *, realtime: bool = False, clock: Clock = MONOTONIC
) -> Camera:
    """Create a camera of the configured kind without opening it.

    Args:
        name: Source name in predictions; secrets in a URI are removed.
        config: Its configuration, with its time-outs.
        wanted: What the model needs; decides what a generated or colour source delivers.
        realtime: Pace a recording by its stamps instead of reading it as fast as possible.
        clock: Clock that stamps and paces its frames.
    """
    name = shown(name)
    # Imported here: a robot with one kind of camera should not pay for the others.
    if config.scheme == "replay":
        from kd_edge.runtime.cameras.replay import ReplayCamera

        return ReplayCamera(name, config, wanted, realtime=realtime, clock=clock)
    if config.scheme == "synthetic":
        from kd_edge.runtime.cameras.synthetic import SyntheticCamera

        return SyntheticCamera(name, config, wanted, clock=clock)
    if config.scheme == "realsense":
        from kd_edge.runtime.cameras.realsense import RealSenseCamera

        return RealSenseCamera(name, config, wanted)
    if config.scheme in NETWORK:
        from kd_edge.runtime.cameras.network import NetworkCamera

        return NetworkCamera(name, config, wanted, clock=clock)
    if config.scheme == PIPELINE:
        from kd_edge.runtime.cameras.gstreamer import GStreamerCamera

        return GStreamerCamera(name, config, wanted, clock=clock)
    if config.scheme == TOPIC:
        from kd_edge.runtime.ros.camera import RosCamera

        return RosCamera(name, config, wanted, clock=clock)
    from kd_edge.runtime.cameras.v4l2 import V4l2Camera

    return V4l2Camera(name, config, wanted)


def open_camera(
    name_or_uri: str, wanted: Wanted = ANYTHING, *, realtime: bool = False, clock: Clock = MONOTONIC
) -> Camera:
    """Look up, create and open a camera; the caller closes it.

    Raises:
        ConfigError: Unknown name or URI.
        CameraError: The camera is missing or does not fit the model.
        DataError: A recording is missing or damaged.
    """
    name = source_name(name_or_uri)[0]
    camera = make_camera(name, camera_config(name_or_uri), wanted, realtime=realtime, clock=clock)
    camera.open()
    try:
        check_fits(camera, wanted)
    except BaseException:
        camera.close()
        raise
    return camera
