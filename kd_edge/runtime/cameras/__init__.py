"""Cameras: recordings, a generated figure, V4L2, RealSense, the network, ROS 2. Each SDK has a file of its own."""

from __future__ import annotations

from kd_edge.runtime.cameras.base import Camera, Wanted, check_fits, timeouts_of
from kd_edge.runtime.cameras.config import CameraConfig, TimeOuts, camera_config, source_name
from kd_edge.runtime.clock import MONOTONIC, Clock
from kd_edge.runtime.uri import NETWORK, PIPELINE, TOPIC, shown

ANYTHING = Wanted()
"""No model decides what the camera must deliver."""

__all__ = ["Camera", "TimeOuts", "Wanted", "check_fits", "make_camera", "open_camera", "timeouts_of"]


def make_camera(
    name: str, config: CameraConfig, wanted: Wanted = ANYTHING, *, realtime: bool = False, clock: Clock = MONOTONIC
) -> Camera:
    """Make a camera of the configured kind; nothing is opened yet.

    Args:
        name: Names the source in predictions; of a URI without what may be secret in it.
        config: What the user says about it; the camera brings its time-outs.
        wanted: What the model needs; it decides what a generated or colour source delivers.
        realtime: Pace a recording by its stamps instead of reading it as fast as possible.
        clock: Stamps and paces its frames.
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
    """Find, make and open a camera; the caller closes it.

    Raises:
        ConfigError: Unknown name or URI.
        CameraError: Not there, or not what the model needs.
        DataError: A recording is absent or damaged.
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
