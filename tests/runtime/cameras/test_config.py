"""Camera names and URIs."""

from __future__ import annotations

import pytest

from kd_edge import recipes
from kd_edge.errors import ConfigError
from kd_edge.runtime.cameras import config, kindless
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
        ("rtsp://host/a?channel=1", "rtsp", "//host/a?channel=1"),  # the query is the server's
        ("rtsp://host/a?channel=1#transport=udp", "rtsp", "//host/a?channel=1"),
        ("http://me:a%23b@[::1]:80/", "http", "//me:a%23b@[::1]:80/"),
        ("udp://:5000", "udp", "//:5000"),
        ("udp://@239.0.0.1:5000", "udp", "//@239.0.0.1:5000"),
        ("gstreamer:videotestsrc ! x?a=b#c=d", "gstreamer", "videotestsrc ! x?a=b#c=d"),  # as it is
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
        ("ir1", r"unknown camera 'ir1' \(did you mean 'ir0'\?\).*, and kd-edge cameras --write ir1 creates one"),
        ("repaly:x.avi", r"unknown kind \(did you mean 'replay'\?\)"),
        ("v4l2:/dev/video0?pixl_format=Y16", r"unknown key \(did you mean 'pixel_format'\?\)"),
        ("v4l2:/dev/video0?fps=fast&width_px=2", r"2 faults: .*fps.*width_px"),
        ("rtsp//host:80/stream", "of unknown kind"),
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


@pytest.mark.parametrize(
    ("uri", "text", "keys"),
    [
        ("synthetic:", 'pixel_format = "GREY"', "pixel_format"),
        ("synthetic:", 'clock = "wall"', "clock"),
        ("replay:a.npy", 'pixel_format = "Y16"\nclock = "arrival"', "pixel_format, clock"),
        ("replay:a.npy", "width_px = 640\nheight_px = 480", "width_px, height_px"),
        ("replay:a.npy?width_px=640", "", "width_px"),
        ("replay:a.npy", "telemetry_rows = 2", "telemetry_rows"),
        ("synthetic:", "telemetry_rows = 2", "telemetry_rows"),
        ("realsense:", "telemetry_rows = -2", "telemetry_rows"),
    ],
)
def test_keys_that_only_a_device_has_are_refused(tmp_path, uri, text, keys):
    file = tmp_path / "mine.toml"
    file.write_text(f'uri = "{uri}"\n{text}\n')
    with pytest.raises(ConfigError) as caught:
        camera_config(str(file))
    assert f"camera {file} sets {keys}, which no {uri.partition(':')[0]}: camera has" in str(caught.value)


def test_keys_that_every_camera_has_are_taken(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('uri = "replay:a.npy?fps=9"\nband = "nir"\nclock = "monotonic"\nthreads = 2\nfrozen_ms = 900\n')
    config = camera_config(str(file))
    assert (config.fps, config.band, config.threads, config.frozen_ms) == (9.0, "nir", 2, 900)


def test_a_file_s_faults_name_its_whole_path_and_what_a_list_looks_like(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('uri = "synthetic:"\ncpus = 1\n')
    with pytest.raises(ConfigError) as caught:
        camera_config(str(file))
    found = str(caught.value)
    assert f"camera {file} has 1 fault: cpus: a list in a camera file, e.g. cpus = [1], got 1" in found


def test_a_path_without_its_kind_is_told_with_the_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.npy").touch()
    (tmp_path / "frames").mkdir()
    (tmp_path / "ir0").mkdir()
    for path, wanted in (
        ("/dev/video0", "v4l2:/dev/video0"), ("/dev/no-such", "v4l2:/dev/no-such"), ("clip.npy", "replay:clip.npy"),
        ("./frames", "replay:./frames"), ("frames", "replay:frames"), ("/dev/video0", "v4l2:/dev/video0"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="is a path without its kind") as caught:
            camera_config(path)
        assert str(caught.value).endswith(f"Fix: --camera {wanted}")
    assert camera_config("ir0").scheme == "v4l2"  # a camera of that name
    with pytest.raises(ConfigError, match="unknown camera 'gone'"):
        camera_config("gone")


def test_a_number_a_link_or_a_serial_number_is_told_with_the_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "usb-Cam-video-index0").symlink_to("/dev/video3")
    monkeypatch.setattr(kindless, "FOLDERS", (tmp_path,))
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    monkeypatch.setattr(kindless, "_serials", lambda: ["012345678901"])
    for name, what, wanted in (
        ("0", "a number", "v4l2:/dev/video0"), ("12", "a number", "v4l2:/dev/video12"),
        ("usb-Cam-video-index0", "a device's link", "v4l2:usb-Cam-video-index0"),
        ("012345678901", "a RealSense's serial number", "realsense:012345678901"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=f"camera '{name}' is {what} without its kind") as caught:
            camera_config(name)
        assert "Expected one of replay:, synthetic:, v4l2:, realsense:" in str(caught.value)
        assert str(caught.value).endswith(f"Fix: --camera {wanted}")
    with pytest.raises(ConfigError, match="unknown camera '012345678902'"):
        camera_config("012345678902")


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("192.168.1.10", "192.168.1.10"),
        ("192.168.1.10:554/live/1", "192.168.1.10:554/live/1"),
        ("camera.local/stream", "camera.local/stream"),
        ("user:secret@camera.local:8554/stream?token=secret", "camera.local:8554/stream"),
        ("clip.mp4", None),
        ("folder.d/clip.mp4", None),
        ("ir.left", None),
    ],
)
def test_a_host_is_told_with_the_kind_and_without_its_password(monkeypatch, name, host):
    monkeypatch.setattr(config, "SCHEMES", (*config.SCHEMES, "rtsp"))
    with pytest.raises(ConfigError) as caught:
        camera_config(name)
    assert "secret" not in str(caught.value)
    assert str(caught.value).endswith(f"Fix: --camera rtsp://{host}") == (host is not None)
