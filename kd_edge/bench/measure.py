"""Latency of a model on this machine, per stage and against a bare backbone pass.

What is compared is measured in turn (A, B, A, B ...) in one run, so that load on the machine falls on both.
"""

from __future__ import annotations

import importlib.util
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kd_edge import artifact as artifacts
from kd_edge.artifact import Artifact, Manifest
from kd_edge.bench.process import fresh_process
from kd_edge.bench.report import BenchReport, Latency, Seconds, latency, ratio
from kd_edge.engines import Binding, StepEngine, open_engine
from kd_edge.engines.onnxruntime import Provider, load_onnxruntime
from kd_edge.errors import ArtifactError, import_extra
from kd_edge.metrics import softmax
from kd_edge.preprocess import Normalise, WindowLimits, centre_crop, plane, resize, resize_buffers
from kd_edge.runtime.memory import FeatureRing
from kd_edge.runtime.recognizer import Recognizer
from kd_edge.types import Float32, Image, LabelState, Prediction

FRAME_NS = 33_333_333
"""Between pushed frames: 30 frames per second."""
NAIVE_EVERY = 10
"""Re-encoding a whole window is timed once in this many rounds; it takes T times as long."""


def bench(
    path: Path | str,
    *,
    frames: int = 200,
    size: tuple[int, int] = (480, 640),
    threads: int = 1,
    provider: Provider = "cpu",
    repeats: int = 3,
) -> BenchReport:
    """Measure an artifact.

    Args:
        path: The artifact.
        frames: Number of timed pushes.
        size: (H, W) of the pushed frames, which are noise of the model's dtype and value range.
        threads: Of the engine.
        provider: As in ``Recognizer.load``.
        repeats: Number of fresh processes.

    Raises:
        ArtifactError: Foreign, damaged or unsuitable file.
    """
    artifact = artifacts.load(path)
    engine = _TimedEngine(open_engine(artifact, threads=threads, provider=provider))
    images = noise(artifact.manifest, size)
    bare, several, bare_is = _bare(artifact, engine.inner, threads)
    push, inference, alone, naive = _in_turn(
        Recognizer(artifact.manifest, engine), engine, images, bare, several, frames
    )
    return BenchReport(
        model=artifact.manifest.name,
        file=artifact.path,
        file_bytes=artifact.path.stat().st_size,
        precision=artifact.manifest.precision,
        engine=engine.name,
        providers=engine.providers,
        fallback_reason=engine.fallback_reason,
        cpu=_cpu(),
        threads=threads,
        frame=f"{size[1]}x{size[0]}",
        pushes=frames,
        stages=_stages(artifact.manifest, images, engine.inner.bind(1), frames),
        push=latency(push),
        inference=latency(inference),
        host=latency(_host(artifact.manifest, engine.inner, images, frames)),
        host_between_runs=latency(push - inference),
        bare=latency(alone),
        bare_is=bare_is,
        naive=latency(naive),
        push_to_bare=ratio(push, alone),
        naive_to_push=ratio(naive, push[::NAIVE_EVERY]),
        process=fresh_process(artifact.path, size, threads=threads, repeats=repeats),
    )


def noise(manifest: Manifest, size: tuple[int, int], count: int = 8) -> list[Image]:
    """Frames of a camera that suits the model: (H, W) or (H, W, 3), uniform noise over the value range."""
    rng = np.random.default_rng(0)
    low, high = manifest.value_range
    shape = (*size, 3) if manifest.preprocess.channels == 3 else size
    dtype = np.dtype(manifest.dtype)
    return [rng.integers(int(low), int(high) + 1, size=shape, dtype=dtype) for _ in range(count)]


class _TimedEngine:
    """A step engine that notes how long each run takes, or leaves it out; the recogniser around it is the real one."""

    def __init__(self, inner: StepEngine, *, idle: bool = False) -> None:
        self.inner, self.idle = inner, idle
        self.name, self.providers, self.fallback_reason = inner.name, inner.providers, inner.fallback_reason
        self.seconds = 0.0

    def bind(self, batch: int) -> _TimedBinding:
        return _TimedBinding(self, self.inner.bind(batch))


class _TimedBinding:
    def __init__(self, engine: _TimedEngine, inner: Binding) -> None:
        self.frame, self.past, self.feature, self.logits = inner.frame, inner.past, inner.feature, inner.logits
        self.states_in, self.states_out = inner.states_in, inner.states_out
        self._engine, self._inner = engine, inner

    def run(self) -> None:
        started = time.perf_counter()
        if not self._engine.idle:
            self._inner.run()
        self._engine.seconds = time.perf_counter() - started


def _in_turn(
    recognizer: Recognizer,
    engine: _TimedEngine,
    images: list[Image],
    bare: Callable[[], None],
    several: Callable[[], None],
    frames: int,
) -> tuple[Seconds, Seconds, Seconds, Seconds]:
    """Seconds of each push, its inference, each bare pass and each whole window, one after the other."""
    stamp = _fill_window(recognizer, images[0])
    bare()
    several()
    push, inference, alone, naive = [], [], [], []
    for turn in range(frames):
        stamp, seconds = _step(recognizer, images[turn % len(images)], stamp)
        push.append(seconds)
        inference.append(engine.seconds)
        alone.append(_seconds(bare))
        if turn % NAIVE_EVERY == 0:
            naive.append(_seconds(several))
    return np.array(push), np.array(inference), np.array(alone), np.array(naive)


def _fill_window(recognizer: Recognizer, image: Image) -> int:
    """Push frames until there is a label; the stamp of the last one."""
    seconds = recognizer.manifest.clip_seconds
    for stamp in range(FRAME_NS, int(3 * seconds * 1e9) + 100 * FRAME_NS, FRAME_NS):
        prediction = recognizer.push(image, stamp)
        if prediction is not None and prediction.state is not LabelState.WARMING:
            return stamp
    raise ArtifactError(
        f"the window of {seconds:g} s is never full at 30 frames per second",
        "a window with a frame within half a spacing of each of its segments",
        "export a model with a longer clip_seconds or fewer segments",
    )


def _step(recognizer: Recognizer, image: Image, stamp: int) -> tuple[int, float]:
    """Push frames until one is encoded, which with recurrent states is one per segment; its stamp and seconds."""
    while True:
        stamp += FRAME_NS
        started = time.perf_counter()
        prediction = recognizer.push(image, stamp)
        seconds = time.perf_counter() - started
        if prediction is not None:
            return stamp, seconds


def _host(manifest: Manifest, engine: StepEngine, images: list[Image], frames: int) -> Seconds:
    """Seconds of pushes whose engine does nothing."""
    recognizer = Recognizer(manifest, _TimedEngine(engine, idle=True))
    stamp = _fill_window(recognizer, images[0])
    seconds = []
    for turn in range(frames):
        stamp, spent = _step(recognizer, images[turn % len(images)], stamp)
        seconds.append(spent)
    return np.array(seconds)


def _bare(artifact: Artifact, engine: StepEngine, threads: int) -> tuple[Callable[[], None], Callable[[], None], str]:
    """One backbone pass, T frames through it as a batch, and whether the backbone could be cut out."""
    segments = artifact.manifest.segments
    on_cpu = engine.providers[0] == "CPUExecutionProvider"
    if artifact.manifest.states or importlib.util.find_spec("onnx") is None or not on_cpu:
        return engine.bind(1).run, engine.bind(segments).run, "step"
    session = _session(_backbone_of(artifact), threads)
    return _runner(session, artifact.manifest, 1), _runner(session, artifact.manifest, segments), "backbone"


def _backbone_of(artifact: Artifact) -> bytes:
    """The part of a step graph from ``frame`` to ``feature``, serialised."""
    onnx = import_extra("onnx", "export")
    extractor = import_extra("onnx.utils", "export").Extractor(onnx.load(artifact.path))
    part: bytes = extractor.extract_model(["frame"], ["feature"]).SerializeToString()
    return part


def _session(graph: bytes, threads: int) -> Any:
    ort = load_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _runner(session: Any, manifest: Manifest, batch: int) -> Callable[[], None]:
    """A pass on arrays bound once, as the runtime's engine does it."""
    ort = load_onnxruntime()
    spec = manifest.preprocess
    frame = np.random.default_rng(0).normal(size=(batch, spec.input_channels, spec.input_px, spec.input_px))
    arrays = [frame.astype(np.float32), np.zeros((batch, manifest.feature_size), dtype=np.float32)]
    values = [ort.OrtValue.ortvalue_from_numpy(array) for array in arrays]
    io = session.io_binding()
    io.bind_ortvalue_input("frame", values[0])
    io.bind_ortvalue_output("feature", values[1])

    def run(_keep: object = (arrays, values)) -> None:  # the session reads and writes these arrays' memory
        session.run_with_iobinding(io)

    return run


def _stages(manifest: Manifest, images: list[Image], binding: Binding, frames: int) -> dict[str, Latency]:
    """Time the functions that a push consists of, each alone, in the order they run."""
    spec = manifest.preprocess
    buffers = resize_buffers(images[0], spec.resize_px)
    small = resize(images[0], spec.resize_px, buffers).copy()
    limits, normalise = WindowLimits(spec.window), Normalise(spec)
    crop = centre_crop(small.shape[0], small.shape[1], spec.input_px)
    values = np.zeros((spec.input_px, spec.input_px, *small.shape[2:]), dtype=np.float32)
    stack = [values] * len(spec.motion_offsets_ms)
    ring = FeatureRing(manifest.segments, manifest.spacing_ns, manifest.feature_size)
    now = 0
    for turn in range(int(manifest.clip_seconds * 1e9 / FRAME_NS) + 2):
        now = turn * FRAME_NS
        ring.append(now, binding.feature[0])
    stages: dict[str, Callable[[], object]] = {
        "resize": lambda: resize(images[0], spec.resize_px, buffers),
        "window": lambda: plane(small, limits.of(small, now), crop, spec.input_px, out=values),
        "normalise": lambda: normalise.stack(stack, binding.frame[0]),
        "gather": lambda: ring.gather(now + FRAME_NS, binding.past[0]),
        "inference": binding.run,
        "prediction": lambda: _predict(manifest, binding.logits[0]),
    }
    return {name: latency(np.array([_seconds(call) for _ in range(frames + 5)])[5:]) for name, call in stages.items()}


def _predict(manifest: Manifest, logits: Float32) -> Prediction:
    p: Float32 = softmax(logits, manifest.temperature).astype(np.float32)
    index = int(p.argmax())
    return Prediction("bench", manifest.labels[index], index, float(p[index]), p, LabelState.OK, 0, 0, 0, 0)


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _cpu() -> str:
    """Name of the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
