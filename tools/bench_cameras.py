#!/usr/bin/env python3
"""Cameras on this machine: several in one step, a minute without a lost frame, and how soon a lost one is back.

    python tools/bench_cameras.py batch [--model ARTIFACT] [--engines onnxruntime openvino]
    python tools/bench_cameras.py steady [--seconds 60]
    python tools/bench_cameras.py reconnect [--times 5]

Each prints a Markdown table. The last two need gcc for the V4L2 device (tests/runtime/cameras/fakev4l2.c) and
pyrealsense2 with libusb for the RealSense one; what is missing is said and left out.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kd_edge.artifact import BUNDLED, load
from kd_edge.bench.measure import noise
from kd_edge.engines import engine_name
from kd_edge.runtime import Recognizer, stream
from kd_edge.types import LabelState, Prediction

CAMERAS, FPS, SIZE = 4, 30, (480, 640)
PERIOD_NS = 1_000_000_000 // FPS
WARM = 100


def batch(model: Path, engines: list[str], rounds: int) -> None:
    """One step of four cameras against four single pushes, in turn."""
    manifest = load(model).manifest
    images = noise(manifest, SIZE)
    print(f"{CAMERAS} cameras of 640x480, {rounds} rounds in turn, one thread\n")
    print("| engine | one step, ms | single pushes, ms | ratio of medians | labels |\n|---|---|---|---|---|")
    for engine in map(engine_name, engines):
        with Recognizer.load(model, engine=engine) as many, Recognizer.load(model, engine=engine) as single:
            together, apart, same = [], [], True
            for k in range(rounds + WARM):
                frames = {f"c{n}": (images[(k + n) % len(images)], 10**9 + k * PERIOD_NS) for n in range(CAMERAS)}
                began = time.perf_counter()
                one = many.push_many(frames)
                between = time.perf_counter()
                each = {name: single.push(image, stamp, name) for name, (image, stamp) in frames.items()}
                ended = time.perf_counter()
                same &= all(_same(one[name], each[name]) for name in frames)
                if k >= WARM:
                    together.append(1e3 * (between - began))
                    apart.append(1e3 * (ended - between))
            ratio = statistics.median(together) / statistics.median(apart)
            print(
                f"| {many.engine.name} | {statistics.median(together):.2f} | {statistics.median(apart):.2f} "
                f"| {ratio:.3f} | {'bit-identical' if same else 'DIFFERENT'} |",
                flush=True,
            )


def _same(one: Prediction | None, other: Prediction | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.state == other.state and np.array_equal(one.probabilities, other.probabilities)


def watch(model: Path, uri: str, seconds: float, tell: Callable[[Prediction], None]) -> dict[str, Any]:
    """Label a camera for a while."""
    with stream(model=model, camera=uri) as labels:
        until = time.monotonic() + seconds
        for prediction in labels:
            tell(prediction)
            if time.monotonic() > until:
                break
        found = labels.statistics
        return {"captured": found.captured, "dropped": found.dropped, "reconnects": found.reconnects}


def told(prediction: Prediction) -> tuple[int, int, int, bool]:
    assert prediction.emitted_ns is not None
    return prediction.frame_id, prediction.captured_ns, prediction.emitted_ns, prediction.state is LabelState.STALE


class V4l2:
    """A device faked at the system calls; OpenCV's V4L2 code reads it in a process of its own."""

    name = "V4L2 (GREY, fakev4l2.c)"

    def __init__(self, folder: Path) -> None:
        self.gone = folder / "unplugged"
        self._library = folder / "fakev4l2.so"
        source = Path(__file__).parent.parent / "tests/runtime/cameras/fakev4l2.c"
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-w", "-o", self._library, source, "-ldl"], check=True)

    @contextmanager
    def watched(self, model: Path, seconds: float) -> Iterator[Callable[[], tuple[list[Any], dict[str, Any]]]]:
        environment = os.environ | {
            "LD_PRELOAD": str(self._library),
            "FAKE_UNPLUG_FILE": str(self.gone),
            "FAKE_PACED": "1",
        }
        command = [sys.executable, __file__, "watch", "--model", str(model), "--seconds", str(seconds)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:

            def ended() -> tuple[list[Any], dict[str, Any]]:
                out, _ = process.communicate(timeout=seconds + 60)
                rows = [json.loads(line) for line in out.splitlines()]
                return rows[:-1], rows[-1]

            yield ended

    def lose(self) -> None:
        self.gone.touch()

    def find(self) -> None:
        self.gone.unlink()


class RealSense:
    """librealsense's software device, fed by a thread."""

    name = "RealSense (Y8, software device)"

    def __init__(self, folder: Path) -> None:
        import pyrealsense2 as rs

        self._rs: Any = rs
        self._kept: list[Any] = []
        self.device = rs.software_device()
        self.device.register_info(rs.camera_info.name, "Soft D435")
        self.device.register_info(rs.camera_info.serial_number, "000000000001")
        self.sensor = self.device.add_sensor("Stereo Module")
        inner = rs.intrinsics()
        inner.width, inner.height, inner.model, inner.coeffs = SIZE[1], SIZE[0], rs.distortion.none, [0] * 5
        video = rs.video_stream()
        video.type, video.index, video.uid = rs.stream.infrared, 1, 101
        video.width, video.height, video.fps, video.bpp, video.fmt = SIZE[1], SIZE[0], FPS, 1, rs.format.y8
        video.intrinsics = inner
        self.profile = self.sensor.add_video_stream(video, True)
        self.device.create_matcher(rs.matchers.default)
        self._context = rs.context()
        self._context.set_devices_changed_callback(lambda event: self._kept.append(event.get_new_devices()))
        self.device.add_to(self._context)
        rs.context = lambda: self._context
        self._is_silent = threading.Event()
        self._stop = threading.Event()

    def _feed(self) -> None:
        rs, pictures = self._rs, noise(load(BUNDLED).manifest, SIZE)
        started, number = time.monotonic(), 0
        while not self._stop.wait(max(0.0, started + number / FPS - time.monotonic())):
            frame = rs.software_video_frame()
            frame.bpp, frame.stride, frame.frame_number = 1, SIZE[1], number
            frame.timestamp, frame.domain = 1e3 * (time.monotonic() - started), rs.timestamp_domain.hardware_clock
            frame.pixels = pictures[number % len(pictures)]
            frame.profile = self.profile.as_video_stream_profile()
            if not self._is_silent.is_set():
                self.sensor.on_video_frame(frame)
            number += 1

    @contextmanager
    def watched(self, model: Path, seconds: float) -> Iterator[Callable[[], tuple[list[Any], dict[str, Any]]]]:
        rows: list[Any] = []
        counts: dict[str, Any] = {}
        self._stop.clear()
        threads = [
            threading.Thread(target=self._feed),
            threading.Thread(
                target=lambda: counts.update(watch(model, "realsense:", seconds, lambda p: rows.append(told(p))))
            ),
        ]
        for thread in threads:
            thread.start()

        def ended() -> tuple[list[Any], dict[str, Any]]:
            threads[1].join()
            self._stop.set()
            return rows, counts

        yield ended
        self._stop.set()

    def lose(self) -> None:
        self._is_silent.set()

    def find(self) -> None:
        self._is_silent.clear()


def devices(folder: Path) -> Iterator[V4l2 | RealSense]:
    if shutil.which("gcc"):
        yield V4l2(folder)
    else:
        print("no gcc: V4L2 left out", file=sys.stderr)
    try:
        yield RealSense(folder)
    except ImportError as error:
        print(f"RealSense left out: {error}", file=sys.stderr)


def steady(model: Path, seconds: float) -> None:
    """No frame lost, and how old its label is."""
    print(f"640x480 at {FPS} Hz for {seconds:g} s, `{load(model).manifest.name}`, one thread\n")
    print(
        "| camera | frames made | labelled | lost (replaced by a newer one) | age p50, ms | age p99, ms | largest, ms |"
    )
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for device in devices(Path(folder)):
            with device.watched(model, seconds) as ended:
                rows, counts = ended()
            fresh = [row for row in rows if not row[3]]
            made = round((fresh[-1][1] - fresh[0][1]) / PERIOD_NS) + 1
            ages = np.array([(emitted - captured) / 1e6 for _, captured, emitted, _ in fresh])
            print(
                f"| {device.name} | {made} | {len(fresh)} | {made - len(fresh)} ({counts['dropped']}) "
                f"| {np.median(ages):.1f} | {np.percentile(ages, 99):.1f} | {ages.max():.1f} |",
                flush=True,
            )


def reconnect(model: Path, times: int) -> None:
    """From the moment a lost camera is there again to the first fresh frame."""
    print(f"{times} losses each\n")
    print("| camera | lost for, s | back after, ms: median | largest |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for device in devices(Path(folder)):
            for pause in (1.5, 4.0):
                back: list[int] = []
                with device.watched(model, 4 + times * (pause + 3)) as ended:
                    time.sleep(4)
                    for _ in range(times):
                        device.lose()
                        time.sleep(pause)
                        device.find()
                        back.append(time.monotonic_ns())
                        time.sleep(3)
                    rows, _ = ended()
                fresh = np.array([emitted for _, _, emitted, is_stale in rows if not is_stale])
                waits = [(fresh[fresh > moment].min() - moment) / 1e6 for moment in back]
                print(f"| {device.name} | {pause:g} | {statistics.median(waits):.0f} | {max(waits):.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["batch", "steady", "reconnect", "watch"])
    parser.add_argument("--model", type=Path, default=BUNDLED)
    parser.add_argument("--engines", nargs="+", default=["onnxruntime", "openvino"])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--times", type=int, default=5)
    given = parser.parse_args()
    if given.what == "batch":
        batch(given.model, given.engines, given.rounds)
    elif given.what == "steady":
        steady(given.model, given.seconds)
    elif given.what == "reconnect":
        reconnect(given.model, given.times)
    else:
        counts = watch(given.model, "v4l2:/dev/video0", given.seconds, lambda p: print(json.dumps(told(p)), flush=True))
        print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    main()
