"""Pipelines of GStreamer. OpenCV's wheels have none of it: tools/check_gstreamer.py drives the system's."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from kd_edge.errors import CameraError, ConfigError
from kd_edge.runtime.cameras import Wanted, open_camera
from kd_edge.runtime.cameras.config import camera_config
from kd_edge.runtime.cameras.gstreamer import SINK, check_image, with_sink


@pytest.mark.parametrize(
    ("pipeline", "wanted", "whole"),
    [
        ("a ! appsink name=x", Wanted(), "a ! appsink name=x"),
        ("a", Wanted(None, "uint8", 1), f"a ! videoconvert ! video/x-raw,format=GRAY8 ! {SINK}"),
        ("a", Wanted(None, "uint8", 3), f"a ! videoconvert ! video/x-raw,format=BGR ! {SINK}"),
        ("a", Wanted(), f"a ! videoconvert ! video/x-raw,format=BGR ! {SINK}"),
        ("a", Wanted(None, "uint16", 1), f"a ! capsfilter caps=video/x-raw,format=GRAY16_LE ! {SINK}"),
        ("a name=myappsinks", Wanted(), f"a name=myappsinks ! videoconvert ! video/x-raw,format=BGR ! {SINK}"),
    ],
)
def test_a_pipeline_ends_in_a_sink(pipeline, wanted, whole):
    assert with_sink(pipeline, wanted) == whole


def test_everything_behind_the_colon_is_the_pipeline(tmp_path, monkeypatch):
    assert camera_config("gstreamer:a location=x?y=z#b=c ! d").target == "a location=x?y=z#b=c ! d"
    (tmp_path / "csi.toml").write_text('uri = "gstreamer:nvarguscamerasrc"\nband = "nir"\nfps = 30\n')
    monkeypatch.chdir(tmp_path)
    assert camera_config("csi.toml").band == "nir"
    (tmp_path / "csi.toml").write_text('uri = "gstreamer:nvarguscamerasrc"\nclock = "device"\n')
    with pytest.raises(ConfigError, match="clock, which no gstreamer: camera has"):
        camera_config("csi.toml")


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((72, 64), np.uint8),
        ((48, 64, 2), np.uint8),
        ((48, 64), np.float32),
        ((48, 64, 3), np.uint16),
        ((1, 9), np.uint8),
    ],
)
def test_what_is_no_picture(shape, dtype):
    with pytest.raises(ValueError, match="no picture of 64x48"):
        check_image(np.zeros(shape, dtype), 48, 64)


@pytest.mark.skipif(cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER), reason="this OpenCV has GStreamer")
def test_opencv_without_gstreamer_is_told_without_the_password():
    with pytest.raises(CameraError, match="built without GStreamer") as caught:
        open_camera("gstreamer:rtspsrc location=rtsp://h/ user-id=me user-pw=hunter2 ! decodebin")
    assert "python3-opencv" in caught.value.fix
    assert "hunter2" not in str(caught.value)
