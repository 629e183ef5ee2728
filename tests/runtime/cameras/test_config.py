"""Camera names and URIs."""

from __future__ import annotations

import pytest

from kd_edge import recipes
from kd_edge.errors import ConfigError
from kd_edge.runtime.cameras.config import CameraConfig, camera_config


@pytest.mark.parametrize("name", recipes.names("runtime"))
def test_every_shipped_camera_is_valid(name):
    assert recipes.load("runtime", name, CameraConfig).uri


def test_ir0_is_the_first_v4l2_camera():
    config = camera_config("ir0")
    assert (config.scheme, config.target, config.band) == ("v4l2", "/dev/video0", "nir")
    assert (config.pixel_format, config.fps) == ("GREY", 30.0)


@pytest.mark.parametrize(
    ("uri", "scheme", "target"),
    [
        ("v4l2:/dev/video2", "v4l2", "/dev/video2"),
        ("v4l2:/dev/v4l/by-id/usb-cam:1-index0", "v4l2", "/dev/v4l/by-id/usb-cam:1-index0"),
        ("replay:some folder/clip.avi", "replay", "some folder/clip.avi"),
        ("replay:frames/?.png", "replay", "frames/?.png"),
        ("replay:frames/?.png?fps=9", "replay", "frames/?.png"),
        ("synthetic:", "synthetic", ""),
        ("synthetic:?seed=3", "synthetic", ""),  # its own keys, read by the camera
    ],
)
def test_uri(uri, scheme, target):
    config = camera_config(uri)
    assert (config.scheme, config.target) == (scheme, target)


def test_query_sets_the_other_keys():
    config = camera_config("v4l2:/dev/video1?pixel_format=Y16&fps=9&band=lwir&width_px=160")
    assert (config.uri, config.pixel_format, config.fps) == ("v4l2:/dev/video1", "Y16", 9.0)
    assert (config.band, config.width_px) == ("lwir", 160)


def test_camera_file_of_the_user(tmp_path, monkeypatch):
    folder = tmp_path / "runtime" / "cameras"
    folder.mkdir(parents=True)
    (folder / "lepton.toml").write_text('uri = "v4l2:/dev/video7"\nband = "lwir"\npixel_format = "Y16"\n')
    monkeypatch.chdir(tmp_path)
    assert camera_config("lepton").target == "/dev/video7"
    assert camera_config("runtime/cameras/lepton.toml").band == "lwir"


@pytest.mark.parametrize(
    ("camera", "message"),
    [
        ("ir1", r"unknown camera 'ir1' \(did you mean 'ir0'\?\)"),
        ("repaly:x.avi", r"unknown kind \(did you mean 'replay'\?\)"),
        ("v4l2:/dev/video0?pixl_format=Y16", r"unknown key \(did you mean 'pixel_format'\?\)"),
        ("v4l2:/dev/video0?fps=fast&width_px=2", r"2 faults: .*fps.*width_px"),
        ("rtsp://host/stream", "of unknown kind"),
    ],
)
def test_mistakes_are_named(camera, message):
    with pytest.raises(ConfigError, match=message) as caught:
        camera_config(camera)
    assert "kd-edge cameras" in str(caught.value) or "correct" in str(caught.value)


@pytest.mark.parametrize(
    "camera",
    ["replay:a\0b", "a\0b.toml", "x" * 5000, "replay:" + "x" * 9000, "replay:x?fps=nan", "replay:x?fps=1e-320"],
)
def test_whatever_is_typed_it_is_one_line(camera):
    with pytest.raises(ConfigError) as caught:
        camera_config(camera)
    assert str(caught.value).isprintable()
