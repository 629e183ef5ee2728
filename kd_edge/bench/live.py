"""Live benchmarks: whether this machine keeps up with a camera and a model, and the age of labels under overload."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from kd_edge import artifact as artifacts
from kd_edge.artifact import Band, Manifest
from kd_edge.bench.measure import noise
from kd_edge.bench.report import Latency, Ratio, Seconds, latency
from kd_edge.engines import EngineName
from kd_edge.runtime.cameras.base import Camera, Channels, Dtype
from kd_edge.runtime.clock import MONOTONIC
from kd_edge.runtime.recognizer import Recognizer
from kd_edge.runtime.statistics import Statistics
from kd_edge.runtime.stream import stream
from kd_edge.types import Frame, Prediction

OVERLOAD = 3.0
"""How many times faster than sustainable an overloading camera is."""


class LiveReport(BaseModel):
    """Rate, latency and labels of a camera over a watched period.

    Attributes:
        camera: The camera's name.
        model: The artifact's name.
        seconds: How long the camera was watched.
        camera_fps: Rate of the delivered frames, 1/s.
        needed_fps: Rates that the model's window needs: for any label, and for labels that are not degraded.
        push: Milliseconds from a frame's turn to its prediction.
        age: Milliseconds from the capture of a frame to its prediction.
        dropped: Share of the frames that were replaced by a newer one.
        labels: Number of predictions by state.
        reasons: Number of predictions that are not ``ok``, by reason.
        budget: Share of the frame period that a push takes.
        faults: Problems found, one line each; empty if this machine keeps up.
    """

    model_config = ConfigDict(frozen=True)
    camera: str
    model: str
    seconds: float
    camera_fps: float
    needed_fps: tuple[float, float]
    push: Latency | None
    age: Latency | None
    dropped: float
    labels: dict[str, int]
    reasons: dict[str, int]
    budget: float
    faults: tuple[str, ...]


class OverloadReport(BaseModel):
    """The age of labels when frames come too fast, against the same machine unloaded.

    Attributes:
        sustainable_fps: Inverse of the median push.
        unloaded: Age of labels in ms at a third of that rate.
        overloaded: Age of labels in ms at three times that rate.
        p99: Ratio of the 99th percentiles, overloaded to unloaded, round by round.
        skipped: Share of the overloading frames that were skipped.
    """

    model_config = ConfigDict(frozen=True)
    model: str
    sustainable_fps: float
    unloaded: Latency
    overloaded: Latency
    p99: Ratio
    skipped: float


class _Timed(Recognizer):
    """A recogniser that records the duration of its pushes."""

    seconds: list[float]

    def push_many(self, *arguments: Any, **options: Any) -> dict[str, Prediction | None]:
        started = time.perf_counter()
        predictions = super().push_many(*arguments, **options)
        if any(predictions.values()):
            self.seconds.append(time.perf_counter() - started)
        return predictions


class PacedCamera:
    """A live camera that cycles through a few images at any rate, at almost no cost.

    Args:
        manifest: Manifest of the model that the frames are for.
        size: (H, W).
        fps: Frames per second.
    """

    live, can_vanish, ended = True, False, False

    def __init__(self, manifest: Manifest, size: tuple[int, int], fps: float) -> None:
        self.name = "paced"
        self.fps: float | None = fps
        self._per_ns = fps / 1e9
        self.band: Band | None = manifest.band
        self.dtype: Dtype | None = manifest.dtype
        self.channels: Channels | None = manifest.preprocess.channels
        self._images = noise(manifest, size)
        self._count = self._started_ns = 0

    def open(self) -> None:
        """Start the clock."""
        self._count, self._started_ns = 0, time.monotonic_ns()

    def read(self, timeout_seconds: float) -> Frame | None:
        """Wait for the next frame and return it; frames that were missed are skipped."""
        passed = (time.monotonic_ns() - self._started_ns) * self._per_ns
        self._count = max(self._count + 1, int(passed))
        due_ns = self._started_ns + round(self._count / self._per_ns)
        time.sleep(max(0.0, min((due_ns - time.monotonic_ns()) / 1e9, timeout_seconds)))
        now_ns = time.monotonic_ns()
        return Frame(self._images[self._count % len(self._images)], min(due_ns, now_ns), self._count, self.name)

    def close(self) -> None:
        """Nothing to release."""


def watch(
    model: Path | str,
    camera: str | Camera,
    *,
    seconds: float = 10.0,
    engine: EngineName = "onnxruntime",
    threads: int = 1,
) -> LiveReport:
    """Label a camera for a while and report whether this machine keeps up with the camera and the model.

    Args:
        model: The artifact.
        camera: Name, URI or camera; a recording is paced by its time stamps.
        seconds: How long to watch.
        engine: Engine that runs the model, see ``open_engine``.
        threads: Threads of the engine.

    Raises:
        KdEdgeError: As ``kd_edge.runtime.stream``.
    """
    with _Timed.load(model, engine=engine, threads=threads) as recognizer:
        assert isinstance(recognizer, _Timed)
        ages, statistics, name, elapsed = _labelled(recognizer, camera, seconds)
        needed = recognizer.needed_rate
        fps = statistics.captured / elapsed
        push = np.array(recognizer.seconds)
        budget = float(np.median(push)) * fps if len(push) else 0.0
        report = LiveReport(
            camera=name,
            model=recognizer.manifest.name,
            seconds=elapsed,
            camera_fps=fps,
            needed_fps=(needed.least_fps, needed.full_fps),
            push=latency(push) if len(push) else None,
            age=latency(ages) if len(ages) else None,
            dropped=statistics.dropped / max(1, statistics.captured),
            labels=statistics.labels,
            reasons=statistics.reasons,
            budget=budget,
            faults=(),
        )
        faults = tuple(_faults(report, recognizer.valid_ns / 1e6))
        return report.model_copy(update={"faults": faults})


def overload(
    model: Path | str,
    *,
    size: tuple[int, int] = (480, 640),
    rounds: int = 3,
    seconds: float = 8.0,
    engine: EngineName = "onnxruntime",
    threads: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> OverloadReport:
    """Compare the age of labels at a third and at three times the rate this machine sustains, in turn.

    Args:
        model: The artifact.
        size: (H, W) of the frames.
        rounds: Number of measurements at each rate.
        seconds: Duration of each measurement, once the window is full.
        engine: Engine that runs the model, see ``open_engine``.
        threads: Threads of the engine.
        progress: Called with (measurements done, total): one at the start, then two per round.
    """
    manifest = artifacts.load(model).manifest
    with _Timed.load(model, engine=engine, threads=threads) as recognizer:
        assert isinstance(recognizer, _Timed)
        seconds += manifest.clip_seconds  # there is no label until the window is full
        done, total = 0, 1 + 2 * rounds
        progress(done, total)
        _labelled(recognizer, PacedCamera(manifest, size, 2 * recognizer.needed_rate.full_fps), seconds / 2)
        progress(done := done + 1, total)
        sustainable = 1 / float(np.median(recognizer.seconds))
        slow: list[Seconds] = []
        fast: list[Seconds] = []
        captured: Counter[str] = Counter()
        for _ in range(rounds):
            for rate, ages in ((sustainable / OVERLOAD, slow), (sustainable * OVERLOAD, fast)):
                found, statistics, _, _ = _labelled(recognizer, PacedCamera(manifest, size, rate), seconds)
                ages.append(found)
                progress(done := done + 1, total)
            captured += Counter(captured=statistics.captured, dropped=statistics.dropped)
        ratios = np.array([np.percentile(f, 99) / np.percentile(s, 99) for s, f in zip(slow, fast, strict=True)])
        return OverloadReport(
            model=manifest.name,
            sustainable_fps=sustainable,
            unloaded=latency(np.concatenate(slow)),
            overloaded=latency(np.concatenate(fast)),
            p99=Ratio(median=float(np.median(ratios)), minimum=float(ratios.min())),
            skipped=captured["dropped"] / max(1, captured["captured"]),
        )


def _labelled(recognizer: _Timed, camera: str | Camera, seconds: float) -> tuple[Seconds, Statistics, str, float]:
    """Label a camera; returns the ages of predictions of new frames in s, counters, camera name and elapsed time."""
    recognizer.seconds = []
    ages = []
    started = MONOTONIC.now_ns()
    with stream(model=recognizer, camera=camera, realtime=True) as labels:
        for prediction in labels:
            if prediction.emitted_ns is not None and prediction.index >= 0:
                ages.append((prediction.emitted_ns - prediction.captured_ns) / 1e9)
            if MONOTONIC.now_ns() - started > seconds * 1e9:
                break
        statistics, name = labels.statistics, labels.cameras[0].name
    return np.array(ages), statistics, name, (MONOTONIC.now_ns() - started) / 1e9


def _faults(report: LiveReport, valid_ms: float) -> Iterator[str]:
    least, full = report.needed_fps
    if report.camera_fps < least:
        yield f"the camera gives {report.camera_fps:.1f} frames/s; no label comes below {least:.1f}"
    elif report.camera_fps < full:
        yield f"the camera gives {report.camera_fps:.1f} frames/s; labels are degraded below {full:.1f}"
    if report.budget > 1:
        rate = report.camera_fps / report.budget
        lost = f"{report.dropped:.0%} of the frames are skipped"
        enough = "still enough for the window" if rate >= full else f"labels are degraded below {full:.1f}"
        yield f"a push takes {report.budget:.1f} times the camera's period: {rate:.1f} frames/s, {lost}; {enough}"
    if report.age is not None and report.age.p99 > valid_ms:
        yield f"1 % of the labels are older than {report.age.p99:.0f} ms when they come and hold for {valid_ms:.0f} ms"
    if report.age is None:
        worst = max(report.reasons, key=lambda code: report.reasons[code], default="no frame")
        yield f"no label came ({worst})"
