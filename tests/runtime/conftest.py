"""Tiny streaming steps whose logits can be worked out by hand, a leak guard, and a clock and a camera moved by hand."""

from __future__ import annotations

import contextlib
import os
import queue
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kd_edge import artifact
from kd_edge.artifact import GoldenClip, Manifest
from kd_edge.engines.onnxruntime import load_onnxruntime
from kd_edge.preprocess import Preprocess
from kd_edge.runtime import Recognizer
from kd_edge.types import Frame
from tests.waiting import PATIENCE_SECONDS

load_onnxruntime()  # before anything else loads it: no telemetry files

LABELS = ("wave", "clap", "throw")


def newest_logits(recognizer: Recognizer) -> np.ndarray:
    """What the graph gave for the frame that was pushed last, before temperature and smoothing: (classes,)."""
    return recognizer._runner.binding(1).logits[0]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that are at work get the time they need on a busy machine; a test of one that hangs sets its own."""
    for limit in ("capture.STOP_SECONDS", "sinks.base.STUCK_SECONDS", "sinks.base.DRAIN_SECONDS"):
        monkeypatch.setattr(f"kd_edge.runtime.{limit}", PATIENCE_SECONDS)


class HandClock:
    """Goes on only when it is told to, or when somebody sleeps by it."""

    def __init__(self) -> None:
        self.ns = 5_000_000_000
        self.slept: list[float] = []
        self.wall_ahead_ns = 1_795_000_000_000_000_000
        self.nap_ns = 0

    def now_ns(self) -> int:
        return self.ns

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.ns += round(seconds * 1e9)

    def wall_ns(self) -> int:
        return self.ns + self.wall_ahead_ns

    def suspended_ns(self) -> int:
        return self.nap_ns

    def advance(self, ms: float) -> int:
        self.ns += round(ms * 1e6)
        return self.ns


class HandCamera:
    """A live camera of one's own: delivers what a test gives it, is silent meanwhile."""

    name, band, dtype, channels, fps = "hand", "nir", "uint8", 1, 100.0
    live, can_vanish, ended = True, False, False

    def __init__(self) -> None:
        self.given: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self.count = 0
        self.open_now = False
        self.asked: set[float] = set()

    def give(self, image: np.ndarray, captured_ns: int) -> None:
        self.given.put(Frame(image, captured_ns, self.count, self.name))
        self.count += 1

    def open(self) -> None:
        self.open_now = True

    def close(self) -> None:
        self.open_now = False

    def read(self, timeout_seconds: float) -> Frame | None:
        self.asked.add(timeout_seconds)
        with contextlib.suppress(queue.Empty):
            return self.given.get(timeout=min(timeout_seconds, 0.02))
        return None


def open_files() -> Counter[str]:
    """What this process holds open, without what libraries open once for themselves."""
    paths = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            paths.append(os.readlink(descriptor))
    return Counter(p for p in paths if not p.startswith(("/dev/", "/sys/", "/proc/")) or p.startswith("/dev/video"))


@pytest.fixture(autouse=True)
def _no_open_files() -> Iterator[None]:
    """A test must not leave files, sockets or cameras open."""
    before = open_files()
    yield
    deadline = time.monotonic() + PATIENCE_SECONDS
    while left := open_files() - before:
        if time.monotonic() > deadline:
            pytest.fail(f"left open: {dict(left)}")
        time.sleep(0.01)


class TinyStep:
    """feature = W1 @ per-channel means over a 2x2 grid; logits = W2 @ concat(past, feature)."""

    def __init__(self, manifest: Manifest) -> None:
        rng = np.random.default_rng(0)
        spec = manifest.preprocess
        self.manifest = manifest
        self.w1 = rng.normal(size=(spec.input_channels * 4, manifest.feature_size)).astype(np.float32)
        count = manifest.segments * manifest.feature_size
        self.w2 = rng.normal(size=(count, len(manifest.labels))).astype(np.float32)

    def graph(self) -> bytes:
        """The ONNX model, with a dynamic batch axis."""
        m = self.manifest
        size, channels = m.preprocess.input_px, m.preprocess.input_channels
        t, d, k = m.segments, m.feature_size, len(m.labels)
        value = helper.make_tensor_value_info
        nodes = [
            helper.make_node(
                "AveragePool", ["frame"], ["pooled"], kernel_shape=[size // 2] * 2, strides=[size // 2] * 2
            ),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w1"], ["feature"]),
            helper.make_node("Reshape", ["past", "past_shape"], ["older"]),
            helper.make_node("Concat", ["older", "feature"], ["window"], axis=1),
            helper.make_node("MatMul", ["window", "w2"], ["logits"]),
        ]
        graph = helper.make_graph(
            nodes,
            "tiny",
            [
                value("frame", TensorProto.FLOAT, ["batch", channels, size, size]),
                value("past", TensorProto.FLOAT, ["batch", t - 1, d]),
            ],
            [value("feature", TensorProto.FLOAT, ["batch", d]), value("logits", TensorProto.FLOAT, ["batch", k])],
            [
                numpy_helper.from_array(self.w1, "w1"),
                numpy_helper.from_array(self.w2, "w2"),
                numpy_helper.from_array(np.array([-1, (t - 1) * d], dtype=np.int64), "past_shape"),
            ],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.checker.check_model(model)
        return model.SerializeToString()

    def feature(self, x: np.ndarray) -> np.ndarray:
        """(C, S, S) -> (D,), independently of ONNX."""
        c, s, _ = x.shape
        pooled = x.reshape(c, 2, s // 2, 2, s // 2).mean(axis=(2, 4), dtype=np.float64)
        return pooled.reshape(-1) @ self.w1

    def logits(self, clip: np.ndarray) -> np.ndarray:
        """(T, C, S, S) -> (K,), independently of ONNX."""
        return np.concatenate([self.feature(x) for x in clip]) @ self.w2


def tiny_manifest(**changes: Any) -> Manifest:
    """One-channel 8-bit near infrared, 4 segments 100 ms apart, 16 px input."""
    values: dict[str, Any] = {
        "name": "tiny", "labels": LABELS, "modality": "nir", "band": "nir", "dtype": "uint8",
        "value_unit": "grey level", "value_range": (0, 255), "preprocess": Preprocess(resize_px=16, input_px=16),
        "segments": 4, "clip_seconds": 0.4, "feature_size": 5, "temporal": "tconv",
    }  # fmt: skip
    return Manifest.model_validate({**values, **changes})


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., tuple[Path, TinyStep]]:
    """Write a tiny artifact: ``make_model(golden=None, **manifest_changes) -> (path, step)``."""

    def make(golden: GoldenClip | None = None, **changes: Any) -> tuple[Path, TinyStep]:
        step = TinyStep(tiny_manifest(**changes))
        path = tmp_path / f"tiny{len(list(tmp_path.glob('tiny*')))}.onnx"
        artifact.write(step.graph(), step.manifest, golden, path)
        return path, step

    return make


@pytest.fixture(scope="session")
def noise() -> Callable[..., np.ndarray]:
    """Random frames: ``noise(count, shape=(24, 32), dtype="uint8", seed=0) -> (count, *shape)``."""

    def make(count: int, shape: tuple[int, ...] = (24, 32), dtype: str = "uint8", seed: int = 0) -> np.ndarray:
        high = 256 if dtype == "uint8" else 4000
        return np.random.default_rng(seed).integers(0, high, size=(count, *shape)).astype(dtype)

    return make
