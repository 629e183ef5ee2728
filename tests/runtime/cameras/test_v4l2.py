"""V4L2 through OpenCV's real code, on a device faked at the system calls (fakev4l2.c)."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from kd_edge.errors import CameraError
from kd_edge.runtime.cameras import Wanted, open_camera

pytestmark = pytest.mark.slow  # the device delivers in real time

READ = """
import json, sys, time
from kd_edge.errors import KdEdgeError
from kd_edge.runtime.cameras import Wanted, open_camera
uri, band, dtype, channels, count = sys.argv[1:]
camera, started = None, time.monotonic_ns()
try:
    camera = open_camera(uri, Wanted(None if band == "-" else band, dtype, int(channels)))
    frames = []
    for _ in range(int(count)):
        frame = camera.read(2.0)
        frames.append([str(frame.image.dtype), frame.image.shape, int(frame.image.flat[0]), frame.frame_id,
                       frame.captured_ns])
    print(json.dumps({"frames": frames, "fps": camera.fps, "dtype": camera.dtype, "channels": camera.channels,
                      "span_ns": [started, time.monotonic_ns()]}))
except KdEdgeError as error:
    print(json.dumps({"error": type(error).__name__, "message": str(error)}))
finally:
    if camera is not None:
        camera.close()
"""


def read(with_device, *arguments: str, **settings: object) -> dict:
    done = with_device(READ, *arguments, **settings)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # OpenCV's warnings stay off the terminal
    return json.loads(done.stdout)


def test_grey(with_device):
    result = read(with_device, "v4l2:/dev/video0?pixel_format=GREY", "-", "uint8", "1", "4", W=160, H=120, FPS=60)
    assert (result["dtype"], result["channels"], result["fps"]) == ("uint8", 1, 60)
    dtypes, shapes, values, ids, stamps_ns = zip(*result["frames"], strict=True)
    assert set(dtypes) == {"uint8"}
    assert shapes[0] == [120, 160]
    assert [v - values[0] for v in values] == [0, 1, 2, 3]
    assert ids == (0, 1, 2, 3)
    moments_ns = [result["span_ns"][0], *stamps_ns, result["span_ns"][1]]
    assert moments_ns == sorted(set(moments_ns))  # the driver's stamps are on the monotonic clock


def test_sixteen_bit(with_device):
    result = read(with_device, "v4l2:/dev/video0?pixel_format=Y16&fps=9", "-", "uint16", "1", "2", W=160, H=120, FPS=9)
    assert result["dtype"] == "uint16"
    assert result["frames"][0][0] == "uint16"
    assert result["frames"][0][2] >= 1000  # 16 bits, not squeezed to 8


@pytest.mark.parametrize(("rows", "height", "refused"), [(2, 120, ""), (-2, 120, ""), (16, 10, "more rows than")])
def test_telemetry_rows_are_cut_off(with_device, rows, height, refused):
    uri = f"v4l2:/dev/video0?pixel_format=Y16&telemetry_rows={rows}"
    settings = {"W": 160, "H": 10 if refused else 122}
    result = read(with_device, uri, "-", "uint16", "1", "1", **settings)
    if refused:
        assert refused in result["message"]
    else:
        assert result["frames"][0][:2] == ["uint16", [height, 160]]


def test_a_device_by_a_link(with_device, tmp_path):
    link = tmp_path / "usb-Fake_IR-video-index0"
    link.symlink_to("/dev/video0")
    assert read(with_device, f"v4l2:{link}", "-", "uint8", "1", "1", W=64, H=48, LINK=link)["fps"] == 30


def test_another_rate_than_asked_for_is_told(with_device):
    done = with_device(READ, "v4l2:/dev/video0?fps=60", "-", "uint8", "1", "1", W=64, H=48, FPS=30)
    assert json.loads(done.stdout)["fps"] == 30
    assert done.stderr == "camera v4l2:/dev/video0?fps=60: 60 frames/s were requested, the driver gives 30\n"


def test_format_follows_the_model(with_device):
    assert read(with_device, "v4l2:/dev/video0", "-", "uint16", "1", "1", W=64, H=48)["dtype"] == "uint16"
    assert read(with_device, "v4l2:/dev/video0", "-", "uint8", "1", "1", W=64, H=48)["dtype"] == "uint8"


def test_substituted_format_or_size_is_noticed(with_device):
    uri = "v4l2:/dev/video0?pixel_format=MJPG"
    result = read(with_device, uri, "-", "uint8", "3", "1")
    assert result["error"] == "CameraError"
    assert "delivers pixel format" in result["message"] or "cannot be opened" in result["message"]
    result = read(with_device, "v4l2:/dev/video0?width_px=320&height_px=240", "-", "uint8", "1", "1")
    assert "delivers 640x480. Expected 320x240" in result["message"]


def test_wrong_dtype_and_band_are_refused(with_device):
    result = read(with_device, "v4l2:/dev/video0?pixel_format=Y16", "-", "uint8", "1", "1")
    assert "has dtype uint16. Expected dtype uint8" in result["message"]
    result = read(with_device, "v4l2:/dev/video0?band=lwir", "nir", "uint8", "1", "1")
    assert "has band lwir. Expected band nir" in result["message"]


def test_unplugged(with_device):
    result = read(with_device, "v4l2:/dev/video0", "-", "uint8", "1", "9", W=64, H=48, FPS=100, UNPLUG_AFTER=6)
    assert result["error"] == "CameraError"
    assert "is gone" in result["message"]


WATCH = """
import json, sys
from dataclasses import asdict
from kd_edge.artifact import BUNDLED, load
from kd_edge.runtime.cameras.advice import diagnose
print(json.dumps(asdict(diagnose(sys.argv[1], 2.0, load(BUNDLED).manifest))))
"""


def test_a_check_up_tells_the_clock_and_the_rate(with_device):
    done = with_device(WATCH, "v4l2:/dev/video0?fps=60", W=64, H=48, FPS=30, STAMP_AHEAD=7200)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["measured"]["stamps"]["looks_like"] == "device"
    assert found["measured"]["dtype"] == "uint8"
    lines = {one["topic"]: one["lines"] for one in found["advice"]}
    assert lines["stamps"] == ['clock = "device"']
    assert found["measured"]["nominal_fps"] == 30  # what the driver granted


def test_a_check_up_of_a_camera_that_is_unplugged(with_device):
    done = with_device(WATCH, "v4l2:/dev/video0", W=64, H=48, FPS=50, UNPLUG_AFTER=50)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "is gone" in found["measured"]["fault"]
    assert found["advice"][0]["level"] == "problem"


STREAM = """
import json, logging, sys, threading
from pathlib import Path
from kd_edge.runtime import stream

class Messages(logging.Handler):
    def emit(self, record):
        messages.append(record.getMessage())

messages, labels_of, afterwards = [], [], []
logging.getLogger("kd_edge.runtime").addHandler(Messages())
with stream(model=sys.argv[1], camera="v4l2:/dev/video0?read_timeout_ms=300&reconnect_max_ms=200&frozen_ms=60000",
            valid_ms=120) as labels:
    for prediction in labels:
        if messages:  # the capture thread has noticed
            afterwards.append([prediction.state.value, prediction.detail])
            if len(afterwards) == 5:
                break
        elif prediction.label is not None:
            labels_of.append(prediction.frame_id)
            Path(sys.argv[2]).touch()  # unplug it
    statistics = labels.statistics
print(json.dumps({"messages": messages, "labels": labels_of, "afterwards": afterwards,
                  "captured": statistics.captured, "reconnects": statistics.reconnects,
                  "threads": len([t for t in threading.enumerate() if t.name.startswith("kd-edge")])}))
"""


def test_stream_labels_then_goes_stale_when_unplugged(with_device, make_model, tmp_path):
    """However busy the machine is: the camera is unplugged after a label, and judged is what comes afterwards."""
    path, _ = make_model()
    unplugged = tmp_path / "unplugged"
    done = with_device(STREAM, str(path), str(unplugged), W=64, H=48, FPS=50, UNPLUG_FILE=unplugged)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["labels"]
    assert "is gone" in result["messages"][0]
    assert "reopening" in result["messages"][0]
    states, reasons = zip(*result["afterwards"], strict=True)
    assert states[2:] == ("stale",) * 3  # a frame may have been in work and another one waiting
    assert all(reason.startswith("no fresh frame for ") for reason in reasons[2:])
    assert result["captured"] > max(result["labels"])
    assert result["reconnects"] == 0  # the device never comes back
    assert result["threads"] == 0


COUNT = """
import json, logging, sys
from kd_edge.runtime import stream

class Messages(logging.Handler):
    def emit(self, record):
        messages.append(record.getMessage())

messages, states, reasons = [], [], set()
logging.getLogger("kd_edge.runtime").addHandler(Messages())
with stream(model=sys.argv[1], camera="v4l2:/dev/video0" + sys.argv[2], valid_ms=600_000) as labels:
    for prediction in labels:
        states.append(prediction.state.value)
        reasons.add(prediction.reason.value)
        if labels.statistics.captured + labels.statistics.misdated >= int(sys.argv[3]):
            break
    statistics = labels.statistics
print(json.dumps({"messages": messages, "states": states, "reasons": sorted(reasons), "captured": statistics.captured,
                  "damaged": statistics.damaged, "misdated": statistics.misdated, "reconnects": statistics.reconnects}))
"""


@pytest.fixture
def jpegs(tmp_path):
    """Ten JPEG pictures of noise, 64 x 48."""
    for k in range(10):
        picture = np.random.default_rng(k).integers(0, 255, (48, 64, 3)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"{k}.jpg"), picture)
    return tmp_path


@pytest.mark.parametrize("every", [7, 2])
def test_a_damaged_jpeg_is_one_frame_lost_the_first_one_too(with_device, make_model, jpegs, every):
    """With one bad picture in seven, from the very first, the window fills as if nothing had been."""
    path, _ = make_model()
    settings = {"W": 64, "H": 48, "FPS": 100, "JPEGS": jpegs, "BAD_EVERY": every}
    done = with_device(COUNT, str(path), "?pixel_format=MJPG", "60", **settings)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["damaged"] >= 60 // every - 1
    assert (result["reconnects"], result["misdated"]) == (0, 0)
    assert "ok" in result["states"]
    assert not {"bad_picture", "camera_lost", "reconnect"} & set(result["reasons"])  # a busy machine adds others
    assert ["made grey" in message for message in result["messages"]] == [True]  # its JPEGs have colours


def test_stamps_of_another_clock_are_refused_with_the_line_to_write(with_device, make_model):
    """As of a driver that stamps with the time of day."""
    path, _ = make_model()
    settings = {"W": 64, "H": 48, "FPS": 50, "STAMP_AHEAD": 7200}
    done = with_device(COUNT.replace("600_000", "120"), str(path), "", "40", **settings)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result["states"]) == {"stale"}
    assert set(result["reasons"]) <= {"no_frame", "clock_ahead"}
    assert "clock_ahead" in result["reasons"]
    assert result["misdated"] == result["captured"]
    assert len(result["messages"]) == 1
    assert "2.0 hours ahead of now: not the clock 'monotonic'; set clock = 'device'" in result["messages"][0]


@pytest.mark.parametrize("clock", ["device", "arrival"])
def test_such_a_camera_works_once_its_clock_is_declared(with_device, make_model, clock):
    path, _ = make_model()
    settings = {"W": 64, "H": 48, "FPS": 100, "STAMP_AHEAD": 7200}
    done = with_device(COUNT, str(path), f"?clock={clock}", "60", **settings)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["misdated"] == 0
    assert "ok" in result["states"]


def test_frames_of_another_size_than_granted_are_no_frames(with_device, make_model, jpegs):
    path, _ = make_model()
    settings = {"W": 96, "H": 64, "FPS": 100, "JPEGS": jpegs}
    until_told = COUNT.replace("in labels:", "in labels:\n        if len(messages) > 1: break").replace(
        "600_000", "120"
    )
    done = with_device(until_told, str(path), "?pixel_format=MJPG", "60", **settings)
    result = json.loads(done.stdout)
    assert set(result["states"]) <= {"stale"}
    assert "is gone: its frames became 64x48, not 96x64; reopening" in result["messages"][1]


def test_absent_device_points_to_the_listing(capfd):
    with pytest.raises(CameraError, match="no device /dev/video99") as caught:
        open_camera("v4l2:/dev/video99", Wanted(None, "uint8", 1))
    assert "kd-edge cameras" in caught.value.fix
    assert capfd.readouterr().err == ""


def test_file_that_is_no_camera(tmp_path):
    (tmp_path / "video0").write_bytes(b"")
    with pytest.raises(CameraError, match="cannot be opened"):
        open_camera(f"v4l2:{tmp_path}/video0", Wanted(None, "uint8", 1))


@pytest.mark.skipif(Path("/dev/video0").exists(), reason="there is a camera")
def test_ir0_without_a_camera():
    with pytest.raises(CameraError, match="camera ir0: no device /dev/video0"):
        open_camera("ir0")
