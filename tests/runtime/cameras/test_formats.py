"""What V4L2 devices say that they can deliver, the names they have, and the camera file made of it."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from kd_edge.errors import CameraError, ConfigError
from kd_edge.recipes import tomllib
from kd_edge.runtime.cameras import links, v4l2_formats
from kd_edge.runtime.cameras.camera_file import camera_file, write_camera_file
from kd_edge.runtime.cameras.config import CameraConfig, camera_config
from kd_edge.runtime.cameras.links import device_path, stable_link
from kd_edge.runtime.cameras.modes import Mode, PixelFormat, best

ASK = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from kd_edge.runtime.cameras.listing import list_cameras
print(json.dumps([asdict(each) for each in list_cameras(Path(sys.argv[1])).attached]))
"""


@pytest.mark.slow
def test_a_device_is_listed_with_its_formats_its_link_and_a_camera_file(with_device, tmp_path: Path) -> None:
    device = tmp_path / "dev/video0"
    device.parent.mkdir()
    device.touch()
    link = tmp_path / "dev/v4l/by-id/usb-Fake_IR-video-index0"
    link.parent.mkdir(parents=True)
    link.symlink_to("../../video0")
    done = with_device(ASK, str(tmp_path), LINK=device, W=160, H=122, FPS=9)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    uri = "v4l2:/dev/v4l/by-id/usb-Fake_IR-video-index0"
    assert (found["device"], found["uri"], found["use"]) == ("/dev/video0", uri, f"kd-edge run --camera {uri}")
    mode = {"width_px": 160, "height_px": 122, "fps": [9.0, 4.5]}
    assert found["formats"] == [
        {"name": "GREY", "description": "8-bit Greyscale", "modes": [mode]},
        {"name": "Y16", "description": "16-bit Greyscale", "modes": [mode]},
    ]
    ready = tomllib.loads(found["camera_file"])
    assert ready == {
        "uri": uri, "pixel_format": "GREY", "width_px": 160, "height_px": 122, "telemetry_rows": 2, "fps": 9,
    }  # fmt: skip
    assert CameraConfig.model_validate(ready).telemetry_rows == 2


def test_what_is_no_camera_has_a_fault(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="does not report its formats"):
        v4l2_formats.formats(tmp_path / "video0")
    (tmp_path / "video0").touch()
    with pytest.raises(CameraError, match="does not report its formats"):
        v4l2_formats.formats(tmp_path / "video0")


class Driver:
    """A driver with a range of sizes, one that never ends its list, and a name that steers terminals."""

    def __init__(self, *, endless: bool = False) -> None:
        self.endless = endless

    def __call__(self, handle: int, request: int, question: bytes) -> bytes:
        answer, (index,) = bytearray(question), struct.unpack_from("I", question)
        if request == v4l2_formats._QUERYCAP:
            struct.pack_into("II", answer, 84, 0x80000000, 1)
        elif request == v4l2_formats._ENUM_FMT and (index == 0 or self.endless):
            struct.pack_into("32sI", answer, 12, b"Cam\x1b[2J \xff", 0x20363159)
        elif request == v4l2_formats._ENUM_FRAMESIZES and index == 0:
            struct.pack_into("7I", answer, 8, 3, 16, 1920, 8, 16, 1080, 8)
        elif request == v4l2_formats._ENUM_FRAMEINTERVALS and index == 0:
            struct.pack_into("3I", answer, 16, 2, 1, 30)  # a range
        else:
            raise OSError(22, "Invalid argument")
        return bytes(answer)


def test_ranges_endless_lists_and_odd_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "video0"
    device.touch()
    monkeypatch.setattr(v4l2_formats, "_asked", Driver())
    expected = PixelFormat("Y16", "Cam\\x1b[2J �", (Mode(1920, 1080, ()), Mode(16, 16, ())))
    assert v4l2_formats.formats(device) == [expected]
    monkeypatch.setattr(v4l2_formats, "_asked", Driver(endless=True))
    assert len(v4l2_formats.formats(device)) == v4l2_formats.MOST_FORMATS
    assert best([expected]) == (expected, None)


def modes(*sizes: tuple[int, int, tuple[float, ...]]) -> tuple[Mode, ...]:
    return tuple(Mode(*size) for size in sizes)


@pytest.mark.parametrize(
    ("formats", "chosen"),
    [
        ({"MJPG": ((1280, 720, (30.0,)),), "YUYV": ((640, 480, (30.0, 15.0)),)}, ("YUYV", "640x480 (30, 15)")),
        ({"YUYV": ((640, 480, (30.0,)),), "Y16": ((160, 120, (9.0,)),)}, ("Y16", "160x120 (9)")),
        ({"GREY": ((1280, 800, (10.0,)), (1280, 720, (30.0,)), (424, 240, (90.0,)))}, ("GREY", "1280x720 (30)")),
        ({"GREY": ((848, 480, (30.0,)), (640, 480, (30.0, 60.0)), (320, 240, (30.0,)))}, ("GREY", "640x480 (30, 60)")),
        ({"H264": ((640, 480, (30.0,)),)}, None),
        ({}, None),
    ],
)
def test_the_best_format(formats: dict[str, Any], chosen: tuple[str, str] | None) -> None:
    found = best([PixelFormat(name, "", modes(*sizes)) for name, sizes in formats.items()])
    assert (None if found is None else (found[0].name, str(found[1]))) == chosen


def test_names_of_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_path = tmp_path / "by-path"
    by_path.mkdir()
    (by_path / "pci-0-video-index0").symlink_to("../../video2")
    monkeypatch.setattr(links, "FOLDERS", (tmp_path / "by-id", by_path))
    assert [device_path(target) for target in ("", "3", "video3", "/dev/video4", "pci-0-video-index0", "usb-gone")] == [
        "/dev/video0", "/dev/video3", "/dev/video3", "/dev/video4", f"{by_path}/pci-0-video-index0",
        f"{tmp_path}/by-id/usb-gone",
    ]  # fmt: skip


def test_a_link_whose_name_steers_terminals_is_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "dev/v4l/by-id"
    folder.mkdir(parents=True)
    (tmp_path / "dev/video0").touch()
    (folder / "usb-a\x1b[2J").symlink_to("../../video0")
    assert stable_link(tmp_path / "dev/video0", tmp_path) == ""
    (folder / "usb-b").symlink_to("../../video0")
    assert stable_link(tmp_path / "dev/video0", tmp_path) == "/dev/v4l/by-id/usb-b"


def test_a_camera_file_is_read_back_and_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = camera_file('v4l2:/dev/v4l/by-id/usb-"Ä"', "A\ncamera", [PixelFormat("Y16", "", (Mode(160, 122, (8.7,)),))])
    assert write_camera_file("heat", text) == Path("runtime/cameras/heat.toml")
    assert Path("runtime/cameras/heat.toml").stat().st_mode & 0o777 == 0o600  # it may hold a password
    config = camera_config("heat")
    assert (config.target, config.pixel_format, config.fps) == ('/dev/v4l/by-id/usb-"Ä"', "Y16", 8.7)
    assert (config.height_px, config.telemetry_rows) == (122, 2)
    with pytest.raises(ConfigError, match="exists already"):
        write_camera_file("heat", text)
    write_camera_file("heat", 'uri = "synthetic:"\n', overwrite=True)
    assert camera_config("heat").scheme == "synthetic"
    for name in ("../up", "a b", "", ".toml"):
        with pytest.raises(ConfigError, match="letters, digits"):
            write_camera_file(name, text)
