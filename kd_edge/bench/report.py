"""The figures of a benchmark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

Seconds = npt.NDArray[np.float64]

HOST_MEDIAN_MS = 0.15
"""Target of a push's median outside the engine, frames of ``HOST_FRAME``."""
HOST_FRAME = "640x480"
HOST_P99_MS = 2.0
"""Target of its 99th percentile."""


class Latency(BaseModel):
    """Milliseconds of one call: percentiles over all of them, and the fastest."""

    model_config = ConfigDict(frozen=True)
    p50: float
    p90: float
    p95: float
    p99: float
    minimum: float


class Ratio(BaseModel):
    """How many times longer one thing takes than another.

    Attributes:
        median: Of the ratios of calls that followed each other.
        minimum: Ratio of the fastest calls; the steadier figure on a machine with other work.
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
    """What a stream's pushes take outside the engine, one after the other, each between two real runs.

    Attributes:
        cold: The frame is out of the caches: eight take turns.
        delivered: The frame was just written, as a camera's reader leaves it.
    """

    model_config = ConfigDict(frozen=True)
    cold: Latency
    delivered: Latency

    @property
    def meets_target(self) -> bool:
        """Whether median and 99 % of a cold frame are within ``HOST_MEDIAN_MS`` and ``HOST_P99_MS``."""
        return self.cold.p50 <= HOST_MEDIAN_MS and self.cold.p99 <= HOST_P99_MS


class BenchReport(BaseModel):
    """All figures of one model on one machine.

    Attributes:
        frame: Width x height of the pushed frames.
        stages: Each stage of a push alone, in the order they run.
        push: A whole ``push`` to a full window.
        inference: The part of each push inside the engine.
        host: A whole push with the engine's run left out: what the host computes, its data in the caches.
        host_between_runs: The part of each real push outside the engine, in turn with bare passes. Higher than ``host``
            when the network's weights are larger than the caches: each run drives out the frame, the buffers and the
            interpreter.
        host_work: The same in pushes that follow each other, as a robot's do, by dtype of the frames: a one-channel
            model's also of the dtype it was not made for.
        bare: One backbone pass of the same engine on a ready input.
        bare_is: ``backbone`` when it was cut from the artifact (needs onnx), ``step`` when the whole step stands in.
        naive: All T segment frames through the bare backbone at once, without preprocessing and head.
        push_to_bare: Time of a push in bare passes.
        naive_to_push: What the streaming step saves.
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
    """Compare (N,) seconds of two things that were measured in turn."""
    return Ratio(median=float(np.median(long / short)), minimum=float(long.min() / short.min()))
