"""A camera on this machine, overload and a long life in short; judged by what was counted."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest

from kd_edge import artifact
from kd_edge.artifact import BUNDLED
from kd_edge.bench import LiveReport, overload, soak, watch
from kd_edge.bench.endurance import pictures
from kd_edge.bench.live import PacedCamera, _faults
from kd_edge.bench.measure import of_dtype
from kd_edge.bench.report import Latency
from kd_edge.data.synthetic.dataset import SyntheticStream
from kd_edge.runtime import Recognizer
from kd_edge.runtime.statistics import Statistics
from tests.runtime.conftest import TinyStep, tiny_manifest


@pytest.fixture
def tiny(tmp_path):
    step = TinyStep(tiny_manifest())
    artifact.write(step.graph(), step.manifest, None, tmp_path / "tiny.onnx")
    return tmp_path / "tiny.onnx"


@pytest.mark.slow
def test_a_soak_meets_every_fault_and_leaves_the_process_as_it_was(tiny, monkeypatch):
    monkeypatch.setattr("kd_edge.bench.endurance.FAULT_EVERY", 97)
    threads = threading.active_count()
    told = []
    report = soak(tiny, 700, size=(48, 64), progress=lambda done, total: told.append((done, total)))
    assert (report.frames, report.faults) == (700, 7)
    assert report.hours == pytest.approx(700 / 30 / 3600)
    assert report.reconnects >= 1
    assert sum(report.labels.values()) >= 695
    assert report.labels["warming"] >= 4 * 8  # a window to fill after each cut
    assert report.labels["ok"] > 500
    assert told[-1][0] > 690
    assert report.descriptors[0] == report.descriptors[1]
    assert report.threads[0] == report.threads[1]
    assert threading.active_count() == threads


@pytest.mark.slow
def test_a_camera_is_watched():
    report = watch(BUNDLED, "synthetic:?height_px=48&width_px=64", seconds=1.0)
    assert (report.camera, report.model) == ("synthetic", "bundled")
    assert sum(report.labels.values()) > 0
    assert report.push is not None
    assert report.needed_fps[0] < report.needed_fps[1]


LIVE = LiveReport(
    camera="ir0", model="m", seconds=10, camera_fps=30, needed_fps=(4, 14), dropped=0, labels={"ok": 300}, reasons={},
    push=Latency(p50=10, p90=11, p95=11.5, p99=12, minimum=9), age=Latency(p50=15, p90=20, p95=22, p99=25, minimum=12),
    budget=0.3, faults=(),
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, []),
        ({"camera_fps": 3.0}, ["the camera gives 3.0 frames/s; no label comes below 4.0"]),
        ({"camera_fps": 9.0}, ["the camera gives 9.0 frames/s; labels are degraded below 14.0"]),
        (
            {"budget": 1.5, "dropped": 0.33},
            [
                "a push takes 1.5 times the camera's period: 20.0 frames/s, 33% of the frames are skipped; "
                "still enough for the window"
            ],
        ),
        (
            {"budget": 3.0, "dropped": 0.67},
            [
                "a push takes 3.0 times the camera's period: 10.0 frames/s, 67% of the frames are skipped; "
                "labels are degraded below 14.0"
            ],
        ),
        (
            {"age": Latency(p50=15, p90=20, p95=22, p99=300, minimum=12)},
            ["1 % of the labels are older than 300 ms when they come and hold for 250 ms"],
        ),
        ({"age": None, "reasons": {"start": 3, "dark": 9}}, ["no label came (dark)"]),
    ],
)  # fmt: skip
def test_what_is_in_the_way_is_told(changes, told):
    assert list(_faults(LIVE.model_copy(update=changes), valid_ms=250)) == told


@pytest.mark.slow
def test_overload_is_compared_with_the_same_machine(tiny):
    report = overload(tiny, size=(48, 64), rounds=1, seconds=0.3)
    assert report.sustainable_fps > 0
    assert 0 < report.overloaded.minimum <= report.overloaded.p99
    assert report.p99.median > 0
    assert 0 <= report.skipped < 1


def test_a_paced_camera_skips_what_was_missed():
    with Recognizer.load(BUNDLED) as recognizer:
        camera = PacedCamera(recognizer.manifest, (48, 64), fps=1000.0)
    camera.open()
    camera._started_ns -= 10**9
    frame = camera.read(0.0)
    assert frame.frame_id >= 1000
    assert camera.read(0.0).frame_id > frame.frame_id


def test_the_report_is_json():
    assert json.loads(LIVE.model_dump_json())["needed_fps"] == [4, 14]


def test_a_soak_shows_the_figure_to_a_model_that_can_see_it():
    manifest = artifact.load(BUNDLED).manifest
    images = pictures(manifest, (48, 64))
    first, _ = SyntheticStream(manifest.band, height=48, width=64).frame(0)
    assert len(images) == 90
    np.testing.assert_array_equal(images[0], first)
    # Too small for a figure, another band, another dtype, too large to be kept.
    for other, size in (
        (manifest, (24, 32)), (manifest.model_copy(update={"band": "lwir"}), (48, 64)),
        (of_dtype(manifest, "uint16"), (48, 64)),
    ):  # fmt: skip
        assert len(pictures(other, size)) == 8


def test_the_progress_of_overload_is_told(tiny, monkeypatch):
    found = (np.array([0.1]), Statistics(*[0] * 9, {}, {}, 0.0, {}, 0, 0), "paced", 1.0)

    def labelled(recognizer, camera, seconds):
        recognizer.seconds = [0.1]
        return found

    monkeypatch.setattr("kd_edge.bench.live._labelled", labelled)
    told = []
    overload(tiny, size=(48, 64), rounds=2, progress=lambda done, total: told.append((done, total)))
    assert told == [(k, 5) for k in range(6)]
