"""Latency of a model on this machine, per stage and against a bare backbone pass.

Compared quantities are measured alternately (A, B, A, B ...) in one run, so that load on the machine affects both.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from kd_edge import artifact as artifacts
from kd_edge.artifact import Artifact, Manifest
from kd_edge.bench.process import fresh_process
from kd_edge.bench.report import BenchReport, HostWork, Latency, Seconds, latency, ratio
from kd_edge.crop import centre_crop, crop_pixels
from kd_edge.engines import Binding, Engine, EngineName, Provider, StepEngine, engine_name, open_engine
from kd_edge.errors import ArtifactError
from kd_edge.machine import cpu_name
from kd_edge.metrics import softmax_row
from kd_edge.packages import import_extra
from kd_edge.preprocess import Normalise
from kd_edge.resizing import Resizer
from kd_edge.runtime.memory import FeatureRing
from kd_edge.runtime.recognizer import Recognizer
from kd_edge.types import Float32, Image, LabelState, Prediction
from kd_edge.window import FixedWindow, WindowLimits

FRAME_NS = 33_333_333
"""Time between pushed frames: 30 frames per second."""
FULL_RANGE = {"uint8": (0.0, 255.0), "uint16": (0.0, 16383.0)}
"""Value range of a camera of each dtype: 8-bit grey levels, 14-bit counts of a thermal core."""
NAIVE_EVERY = 10
"""Re-encoding a whole window, which takes T times as long, is timed once in this many rounds."""


def bench(
    path: Path | str,
    *,
    frames: int = 200,
    size: tuple[int, int] = (480, 640),
    engine: EngineName = "onnxruntime",
    threads: int = 1,
    provider: Provider | None = None,
    repeats: int = 3,
) -> BenchReport:
    """Measure an artifact.

    Args:
        path: The artifact.
        frames: Number of timed pushes.
        size: (H, W) of the pushed frames, which are noise of the model's dtype and value range.
        engine: As in ``Recognizer.load``, like ``threads`` and ``provider``.
        threads: See ``engine``.
        provider: See ``engine``.
        repeats: Number of fresh processes.

    Raises:
        ArtifactError: The file is not an artifact, or it is damaged or unsuitable.
    """
    artifact = artifacts.load(path)
    images = noise(artifact.manifest, size)
    with ExitStack() as opened:
        step = opened.enter_context(open_engine(artifact, engine=engine, threads=threads, provider=provider))
        engine = engine_name(step.key)  # the same engine for all measurements
        again = partial(open_engine, engine=engine, threads=threads, provider=provider)
        bare, bare_is = opened.enter_context(_bare(artifact, step, again))
        push, inference, alone, naive = _in_turn(artifact.manifest, step, images, bare, frames)
        return BenchReport(
            model=artifact.manifest.name,
            file=artifact.path,
            file_bytes=artifact.path.stat().st_size,
            precision=artifact.manifest.precision,
            engine=step.name,
            providers=step.providers,
            fallback_reason=step.fallback_reason,
            cpu=cpu_name(),
            threads=threads,
            frame=f"{size[1]}x{size[0]}",
            pushes=frames,
            stages=_stages(artifact.manifest, images, step.bind(1), frames),
            push=latency(push),
            inference=latency(inference),
            host=latency(_host(artifact.manifest, step, images, frames)),
            host_between_runs=latency(push - inference),
            host_work=_host_work(artifact.manifest, step, size, frames),
            bare=latency(alone),
            bare_is=bare_is,
            naive=latency(naive),
            push_to_bare=ratio(push, alone),
            naive_to_push=ratio(naive, push[::NAIVE_EVERY]),
            process=fresh_process(
                artifact.path, size, engine=engine, threads=threads, provider=provider, repeats=repeats
            ),
        )


def noise(manifest: Manifest, size: tuple[int, int], count: int = 8) -> list[Image]:
    """Frames that suit the model: (H, W) or (H, W, 3) uniform noise over its value range."""
    rng = np.random.default_rng(0)
    low, high = manifest.value_range
    shape = (*size, 3) if manifest.preprocess.channels == 3 else size
    dtype = np.dtype(manifest.dtype)
    return [rng.integers(int(low), int(high) + 1, size=shape, dtype=dtype) for _ in range(count)]


def of_dtype(manifest: Manifest, dtype: str) -> Manifest:
    """Change a manifest to frames of another dtype; labels become meaningless, but pushes take the same time."""
    if manifest.dtype == dtype:
        return manifest
    low, high = FULL_RANGE[dtype]
    spec = manifest.preprocess
    if isinstance(spec.window, FixedWindow):
        spec = spec.model_copy(update={"window": FixedWindow(low=low, high=high)})
    return manifest.model_copy(update={"dtype": dtype, "value_range": (low, high), "preprocess": spec})


class _TimedEngine:
    """A step engine that times each run, or skips it; the recogniser around it is the real one."""

    def __init__(self, inner: StepEngine, *, idle: bool = False) -> None:
        self._inner, self._idle = inner, idle
        self.name, self.providers, self.fallback_reason = inner.name, inner.providers, inner.fallback_reason
        self.seconds = 0.0

    def bind(self, batch: int) -> Binding:
        binding = self._inner.bind(batch)

        def run() -> None:
            started = time.perf_counter()
            if not self._idle:
                binding.run()
            self.seconds = time.perf_counter() - started

        return Binding(binding.inputs, binding.outputs, run)

    def close(self) -> None:
        self._inner.close()


def _in_turn(
    manifest: Manifest, step: Engine, images: list[Image], bare: Engine, frames: int
) -> tuple[Seconds, Seconds, Seconds, Seconds]:
    """Durations in s of pushes, their inference, bare passes and whole windows, measured alternately."""
    engine = _TimedEngine(step)
    recognizer = Recognizer(manifest, engine)
    one, several = bare.bind(1), bare.bind(manifest.segments)
    for binding in (one, several):
        binding.frame[:] = np.random.default_rng(0).normal(size=binding.frame.shape)
        binding.run()
    stamp = _fill_window(recognizer, images[0])
    push, inference, alone, naive = [], [], [], []
    for turn in range(frames):
        stamp, seconds = _step(recognizer, images[turn % len(images)], stamp)
        push.append(seconds)
        inference.append(engine.seconds)
        alone.append(_seconds(one.run))
        if turn % NAIVE_EVERY == 0:
            naive.append(_seconds(several.run))
    return np.array(push), np.array(inference), np.array(alone), np.array(naive)


def _fill_window(recognizer: Recognizer, image: Image) -> int:
    """Push frames until there is a label; returns the stamp of the last one."""
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
    """Push frames until one is encoded (with recurrent states, one per segment); returns its stamp and duration."""
    while True:
        stamp += FRAME_NS
        started = time.perf_counter()
        prediction = recognizer.push(image, stamp)
        seconds = time.perf_counter() - started
        if prediction is not None:
            return stamp, seconds


def _host(manifest: Manifest, engine: StepEngine, images: list[Image], frames: int) -> Seconds:
    """Durations in s of pushes with an idle engine."""
    recognizer = Recognizer(manifest, _TimedEngine(engine, idle=True))
    stamp = _fill_window(recognizer, images[0])
    seconds = []
    for turn in range(frames):
        stamp, spent = _step(recognizer, images[turn % len(images)], stamp)
        seconds.append(spent)
    return np.array(seconds)


def _host_work(manifest: Manifest, step: Engine, size: tuple[int, int], frames: int) -> dict[str, HostWork]:
    """Time of consecutive pushes outside the engine, by dtype."""
    dtypes = list(FULL_RANGE) if manifest.preprocess.channels == 1 else [manifest.dtype]
    return {dtype: _outside_the_engine(of_dtype(manifest, dtype), step, size, frames) for dtype in dtypes}


def _outside_the_engine(manifest: Manifest, step: Engine, size: tuple[int, int], frames: int) -> HostWork:
    engine, images = _TimedEngine(step), noise(manifest, size)
    recognizer = Recognizer(manifest, engine)
    stamp, written = _fill_window(recognizer, images[0]), images[0].copy()
    cold, delivered = [], []
    for turn in range(frames):
        stamp, seconds = _step(recognizer, images[2 * turn % len(images)], stamp)
        cold.append(seconds - engine.seconds)
        written[:] = images[(2 * turn + 1) % len(images)]
        stamp, seconds = _step(recognizer, written, stamp)
        delivered.append(seconds - engine.seconds)
    return HostWork(cold=latency(np.array(cold)), delivered=latency(np.array(delivered)))


@contextmanager
def _bare(artifact: Artifact, step: Engine, opened: Callable[[Artifact], Engine]) -> Iterator[tuple[Engine, str]]:
    """Open the engine for one backbone pass: the extracted backbone (needs onnx), or the whole step instead."""
    if artifact.manifest.states or importlib.util.find_spec("onnx") is None:
        yield step, "step"
        return
    with tempfile.TemporaryDirectory() as folder:
        part = _backbone_of(artifact, Path(folder))
        if type(step).unsuited(part) is not None:
            yield step, "step"
            return
        with opened(part) as backbone:
            yield backbone, "backbone"


def _backbone_of(artifact: Artifact, folder: Path) -> Artifact:
    """The part of a step graph from ``frame`` to ``feature`` as an artifact of its own."""
    onnx = import_extra("onnx", "export")
    extractor = import_extra("onnx.utils", "export").Extractor(onnx.load(artifact.path))
    part: bytes = extractor.extract_model(["frame"], ["feature"]).SerializeToString()
    path = folder / "backbone.onnx"
    artifacts.write(part, artifact.manifest.model_copy(update={"graph": "backbone"}), None, path)
    return artifacts.load(path)


def _stages(manifest: Manifest, images: list[Image], binding: Binding, frames: int) -> dict[str, Latency]:
    """Time the stages of a push, each by itself, in execution order."""
    spec = manifest.preprocess
    resize = Resizer(images[0], spec.resize_px, spec.holes)
    small = resize(images[0]).copy()
    limits, normalise = WindowLimits(spec.window), Normalise(spec)
    part = crop_pixels(small.shape, centre_crop(small.shape[0], small.shape[1], spec.input_px))
    values = np.zeros((spec.input_px, spec.input_px, *small.shape[2:]), dtype=np.float32)
    stack = [values] * len(spec.motion_offsets_ms)
    ring = FeatureRing(manifest.segments, manifest.spacing_ns, manifest.feature_size)
    now = 0
    for turn in range(int(manifest.clip_seconds * 1e9 / FRAME_NS) + 2):
        now = turn * FRAME_NS
        ring.append(now, binding.feature[0])
    stages: dict[str, Callable[[], object]] = {
        "resize": lambda: resize(images[0]),
        "window": lambda: normalise.plane(small[part], limits.of(small, now), out=values),
        "normalise": lambda: normalise.stack(stack, binding.frame[0]),
        "gather": lambda: ring.gather(now + FRAME_NS, binding.past[0]),
        "inference": binding.run,
        "prediction": lambda: _predict(manifest, binding.logits[0]),
    }
    return {name: latency(np.array([_seconds(call) for _ in range(frames + 5)])[5:]) for name, call in stages.items()}


def _predict(manifest: Manifest, logits: Float32) -> Prediction:
    p: Float32 = np.array(softmax_row(logits.tolist(), manifest.temperature), dtype=np.float32)
    rounded = p.tolist()
    confidence = max(rounded)
    index = rounded.index(confidence)
    return Prediction(
        source="bench",
        label=manifest.labels[index],
        index=index,
        confidence=confidence,
        probabilities=p,
        state=LabelState.OK,
        frame_id=0,
        captured_ns=0,
        emitted_ns=0,
        valid_until_ns=0,
    )


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
