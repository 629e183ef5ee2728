"""Results of a benchmark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

Seconds = npt.NDArray[np.float64]

HOST_MEDIAN_MS = 0.15
"""Target for the median of a push outside the engine, for frames of ``HOST_FRAME``."""
HOST_FRAME = "640x480"
HOST_P99_MS = 2.0
"""Target for the 99th percentile of the same."""


class Latency(BaseModel):
    """Duration of a call in ms: percentiles over all calls, and the fastest."""

    model_config = ConfigDict(frozen=True)
    p50: float
    p90: float
    p95: float
    p99: float
    minimum: float


class Ratio(BaseModel):
    """Ratio of two durations.

    Attributes:
        median: Median ratio of consecutive calls.
        minimum: Ratio of the fastest calls; more stable on a busy machine.
    """

    model_config = ConfigDict(frozen=True)
    median: float
    minimum: float


class Process(BaseModel):
    """A fresh Python process that loads the model and pushes one frame.

    Attributes:
        ready_seconds: From starting the process to a loaded, self-tested, warm recogniser; the fastest of the repeats.
        peak_rss_mb: Largest resident memory, 10^6 bytes; the smallest of the repeats.
        imports_torch: Whether torch was imported.
    """

    model_config = ConfigDict(frozen=True)
    ready_seconds: float
    peak_rss_mb: float
    imports_torch: bool


class HostWork(BaseModel):
    """Time that consecutive pushes of a stream take outside the engine, each between two real engine runs.

    Attributes:
        cold: With a frame that is not in the CPU caches: eight frames take turns.
        delivered: With a frame that was just written, as by a camera's reader.
    """

    model_config = ConfigDict(frozen=True)
    cold: Latency
    delivered: Latency

    @property
    def meets_target(self) -> bool:
        """Whether median and 99th percentile of a cold frame are within ``HOST_MEDIAN_MS`` and ``HOST_P99_MS``."""
        return self.cold.p50 <= HOST_MEDIAN_MS and self.cold.p99 <= HOST_P99_MS


class BenchReport(BaseModel):
    """All results of one model on one machine.

    Attributes:
        frame: Width x height of the pushed frames.
        stages: Each stage of a push by itself, in execution order.
        push: A whole ``push`` with a full window.
        inference: The part of each push inside the engine.
        host: A whole push without the engine run: the host's work, with its data in the caches.
        host_between_runs: The part of each real push outside the engine, alternating with bare passes. Higher than
            ``host`` if the network's weights exceed the caches: each run evicts the frame, the buffers and the
            interpreter.
        host_work: The same for consecutive pushes, as on a robot, by dtype of the frames; for a one-channel model also
            with the dtype it was not made for.
        bare: One backbone pass of the same engine on a prepared input.
        bare_is: ``backbone`` if it was cut from the artifact (needs onnx), ``step`` if the whole step is used instead.
        naive: All T segment frames through the bare backbone in one pass, without preprocessing and head.
        push_to_bare: Time of a push relative to a bare pass.
        naive_to_push: Time of re-encoding the window relative to a push.
    """

    model_config = ConfigDict(frozen=True)
    model: str
    file: Path
    file_bytes: int
    precision: str
    engine: str
    providers: tuple[str, ...]
    fallback_reason: str | None
    cpu: str
    threads: int
    frame: str
    pushes: int
    stages: dict[str, Latency]
    push: Latency
    inference: Latency
    host: Latency
    host_between_runs: Latency
    host_work: dict[str, HostWork]
    bare: Latency
    bare_is: str
    naive: Latency
    push_to_bare: Ratio
    naive_to_push: Ratio
    process: Process


def latency(seconds: Seconds) -> Latency:
    """Percentiles of (N,) seconds, in ms."""
    p50, p90, p95, p99 = np.percentile(seconds, [50, 90, 95, 99]) * 1e3
    return Latency(p50=float(p50), p90=float(p90), p95=float(p95), p99=float(p99), minimum=float(seconds.min()) * 1e3)


def ratio(long: Seconds, short: Seconds) -> Ratio:
    """Ratio of two series of (N,) seconds that were measured alternately."""
    return Ratio(median=float(np.median(long / short)), minimum=float(long.min() / short.min()))
