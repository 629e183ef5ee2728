"""The stream as a whole: recordings, live cameras, interruptions."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from kd_edge.errors import ArtifactError, CameraError, DataError, KdEdgeError
from kd_edge.runtime import Recognizer, stream
from kd_edge.types import Frame, LabelState


@pytest.fixture
def clip(tmp_path, noise):
    path = tmp_path / "clip.npy"
    np.save(path, noise(30))
    return path


def test_recording_every_frame_repeatable(make_model, clip, tmp_path):
    model, _ = make_model()
    texts = []
    for name in ("a.jsonl", "b.jsonl"):
        out = tmp_path / name
        with stream(model=model, camera=f"replay:{clip}", sinks=[f"jsonl:{out}"]) as labels:
            predictions = list(labels)
        texts.append(out.read_text())
    assert texts[0] == texts[1]
    assert [p.frame_id for p in predictions] == list(range(30))
    assert [json.loads(line)["frame_id"] for line in texts[0].splitlines()] == list(range(30))
    assert all(p.emitted_ns is None for p in predictions)
    assert {p.state for p in predictions[12:]} == {LabelState.OK}
    statistics = labels.statistics
    assert (statistics.captured, statistics.pushed, statistics.dropped) == (30, 30, 0)
    assert sum(statistics.labels.values()) == 30
    assert statistics.sink_faults == {}
    assert next(iter(labels), None) is None  # after leaving: no more labels


def test_stream_gives_the_recognisers_labels(make_model, clip):
    model, _ = make_model()
    recognizer = Recognizer.load(model)
    expected = [recognizer.push(f, round(k * 1e9 / 30)) for k, f in enumerate(np.load(clip))]
    for _ in range(2):  # a recogniser of one's own, used twice
        with stream(model=recognizer, camera=f"replay:{clip}") as labels:
            found = list(labels)
        for a, b in zip(expected, found, strict=True):
            np.testing.assert_array_equal(a.probabilities, b.probabilities)


def test_realtime_recording(make_model, clip):
    model, _ = make_model()
    before = time.monotonic()
    with stream(model=model, camera=f"replay:{clip}?fps=100", realtime=True) as labels:
        predictions = [p for p in labels if p.state is not LabelState.STALE]
    assert 0.28 <= time.monotonic() - before < 3
    assert all(p.emitted_ns >= p.captured_ns for p in predictions)
    assert predictions[-1].frame_id == 29


def test_synthetic_camera(make_model):
    model, _ = make_model()
    with stream(model=model, camera="synthetic:?fps=50&height_px=48&width_px=64&frames=40") as labels:
        predictions = list(labels)
    good = [p for p in predictions if p.state in (LabelState.OK, LabelState.DEGRADED)]
    assert good
    assert good[-1].truth
    assert good[-1].valid_until_ns == good[-1].captured_ns + 250_000_000
    assert labels.statistics.fps > 20


class HandCamera:
    """A live camera of one's own that falls silent for a while."""

    name, band, dtype, channels, fps = "hand", "nir", "uint8", 1, 100.0
    live, can_vanish, ended = True, False, False

    def __init__(self, images, silent_from, silent_seconds):
        self.images, self.silent_from, self.silent_seconds = images, silent_from, silent_seconds
        self.count = 0
        self.open_now = False

    def open(self):
        self.open_now = True

    def close(self):
        self.open_now = False

    def read(self, timeout_seconds):
        if self.count == self.silent_from:
            time.sleep(self.silent_seconds)
        time.sleep(0.01)
        self.count += 1
        return Frame(self.images[self.count % len(self.images)], time.monotonic_ns(), self.count, self.name)


def test_stale_labels_while_the_camera_is_silent(make_model, noise):
    model, _ = make_model()
    camera = HandCamera(noise(20), silent_from=60, silent_seconds=0.5)
    predictions = []
    with stream(model=model, camera=camera, valid_ms=100) as labels:
        for prediction in labels:
            predictions.append(prediction)
            if prediction.frame_id > 75:
                break
    assert not camera.open_now
    stale = [k for k, p in enumerate(predictions) if p.state is LabelState.STALE]
    assert 3 <= len(stale) <= 6  # one per 100 ms
    first = predictions[stale[0]]
    assert first.label is None
    assert first.frame_id == 60
    assert first.reason.startswith("no fresh frame for 1")
    assert first.emitted_ns - first.captured_ns >= 100_000_000
    assert predictions[stale[-1] + 1].state is LabelState.WARMING
    assert predictions[stale[-1] + 1].reason.startswith("gap")
    assert labels.statistics.labels["stale"] == len(stale)


class StuckClockCamera(HandCamera):
    """Goes on delivering, but its stamps stand still."""

    def read(self, timeout_seconds):
        frame = super().read(timeout_seconds)
        self.stamp = getattr(self, "stamp", frame.captured_ns) if self.count > 5 else frame.captured_ns
        return Frame(frame.image, self.stamp, frame.frame_id, frame.source)


def test_frames_whose_stamps_stand_still_are_not_fresh(make_model, noise):
    model, _ = make_model()
    with stream(model=model, camera=StuckClockCamera(noise(20), -1, 0), valid_ms=100) as labels:
        states = [p.state for p, _ in zip(labels, range(8), strict=False)]
    assert states[-1] is LabelState.STALE


def test_broken_sink_does_not_disturb(make_model, clip, tmp_path):
    model, _ = make_model()
    good = tmp_path / "good.jsonl"
    with stream(model=model, camera=f"replay:{clip}", sinks=["jsonl:/dev/full", f"jsonl:{good}"]) as labels:
        assert len(list(labels)) == 30
    assert labels.statistics.sink_faults == {"jsonl:/dev/full": "No space left on device"}
    assert len(good.read_text().splitlines()) == 30


def test_wrong_camera_is_refused_and_closed(make_model, tmp_path, noise):
    model, _ = make_model()
    np.save(tmp_path / "deep.npy", noise(3, dtype="uint16"))
    with pytest.raises(CameraError, match="has dtype uint16"):
        stream(model=model, camera=f"replay:{tmp_path}/deep.npy").__enter__()
    with pytest.raises(CameraError, match="has band lwir"):
        stream(model=model, camera=f"replay:{tmp_path}/deep.npy?band=lwir").__enter__()
    with pytest.raises(DataError, match="no recording"):
        stream(model=model, camera="replay:nothing.npy").__enter__()
    with pytest.raises(ArtifactError):
        stream(model=tmp_path / "no.onnx", camera="synthetic:").__enter__()
    with pytest.raises(KdEdgeError, match="sink"):
        stream(model=model, camera="synthetic:", sinks=[f"jsonl:{tmp_path}/no/x"]).__enter__()
    with pytest.raises(RuntimeError, match="inside the with block"):
        next(stream(model=model, camera="synthetic:"))


class LateCamera(HandCamera):
    """Delivers frames that were captured 200 ms ago."""

    def read(self, timeout_seconds):
        frame = super().read(timeout_seconds)
        return Frame(frame.image, frame.captured_ns - 200_000_000, frame.frame_id, frame.source)


def test_a_label_that_comes_too_late_is_stale(make_model, noise):
    model, _ = make_model()
    camera = LateCamera(noise(20), silent_from=-1, silent_seconds=0)
    predictions = []
    with stream(model=model, camera=camera, valid_ms=100) as labels:
        for prediction in labels:
            predictions.append(prediction)
            if prediction.frame_id > 60:
                break
    assert {p.state for p in predictions} == {LabelState.STALE}
    assert {p.label for p in predictions} == {None}
    assert all("ms after its capture" in p.reason or "no fresh frame" in p.reason for p in predictions)


@pytest.mark.parametrize("realtime", [False, True])
def test_damage_in_the_middle_of_a_recording_is_raised(make_model, tmp_path, noise, realtime):
    import cv2

    model, _ = make_model()
    for k, image in enumerate(noise(6)):
        cv2.imwrite(str(tmp_path / f"{k}.png"), image)
    (tmp_path / "4.png").write_bytes(b"damaged")
    seen = []
    labels = stream(model=model, camera=f"replay:{tmp_path}/?.png", realtime=realtime)
    with pytest.raises(DataError, match=r"4\.png"), labels:
        seen.extend(labels)
    assert len([p for p in seen if p.state is not LabelState.STALE]) in (3, 4)


def test_size_change_in_the_middle_is_survived(make_model, tmp_path, noise):
    import cv2

    model, _ = make_model()
    for k in range(40):
        cv2.imwrite(str(tmp_path / f"{k}.png"), noise(1, (24, 32) if k < 20 else (48, 40), seed=k)[0])
    with stream(model=model, camera=f"replay:{tmp_path}") as labels:
        predictions = list(labels)
    assert predictions[19].state is LabelState.OK
    assert predictions[20].reason.startswith("frame size changed from 32x24 to 40x48")
    assert predictions[-1].state is LabelState.OK


RUN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
from kd_edge.runtime.stream import interrupt_on_sigterm, stream
try:
    with interrupt_on_sigterm(), stream(
        model=sys.argv[1], camera="synthetic:?height_px=48&width_px=64", sinks=["jsonl:" + sys.argv[2]], notify=True
    ) as labels:
        for k, prediction in enumerate(labels):
            if k == 5:
                print("running", flush=True)
except KeyboardInterrupt:
    import threading
    left = [t.name for t in threading.enumerate() if t.name.startswith("kd-edge")]
    print("closed", left, "torch" in sys.modules, "onnx" in sys.modules, "typer" in sys.modules)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_stream_leaves_cleanly(make_model, tmp_path, number):
    model, _ = make_model()
    out = tmp_path / "labels.jsonl"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        with subprocess.Popen(
            [sys.executable, "-c", RUN, str(model), str(out)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify")},
        ) as process:  # fmt: skip
            assert process.stdout.readline() == "running\n"
            before = time.monotonic()
            process.send_signal(number)
            stdout, stderr = process.communicate(timeout=10)
        assert time.monotonic() - before < 2
        messages = [manager.recv(64) for _ in range(3)]
    assert (stdout, stderr, process.returncode) == ("closed [] False False False\n", "", 0)
    assert messages[:2] == [b"READY=1", b"WATCHDOG=1"]
    assert all(json.loads(line)["source"] == "synthetic" for line in out.read_text().splitlines())
