from __future__ import annotations

import importlib.util
import io
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from kd_edge.artifact import load
from kd_edge.bench import bench, fresh_process
from kd_edge.bench.measure import _backbone_of, noise, of_dtype
from kd_edge.bench.report import BenchReport, HostWork, Latency, latency, ratio
from kd_edge.cli.bench import bench_report
from kd_edge.engines import open_engine
from kd_edge.errors import ArtifactError, ConfigError
from kd_edge.export import make_reference_artifact
from kd_edge.window import FixedWindow


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "tiny.onnx"
    make_reference_artifact("tiny", 32, path, motion=True, temporal="tconv", clip_seconds=1.0)
    return path


def test_percentiles_and_ratio_by_hand() -> None:
    found = latency(np.array([0.001, 0.002, 0.003, 0.004, 0.005]))
    assert (found.p50, found.minimum) == pytest.approx((3.0, 1.0))
    assert found.p90 == pytest.approx(4.6)
    compared = ratio(np.array([4.0, 6.0, 10.0]), np.array([2.0, 2.0, 4.0]))
    assert (compared.median, compared.minimum) == (2.5, 2.0)


@pytest.mark.slow
def test_report_is_complete_and_consistent(tiny: Path) -> None:
    report = bench(tiny, frames=30, size=(120, 160), repeats=1)
    assert list(report.stages) == ["resize", "window", "normalise", "gather", "inference", "prediction"]
    assert all(0 < s.minimum <= s.p50 <= s.p90 <= s.p99 for s in report.stages.values())
    assert report.push.minimum >= report.inference.minimum > 0
    assert report.host.minimum > 0
    assert list(report.host_work) == ["uint8", "uint16"]
    assert all(
        0 < w.minimum <= w.p50 <= w.p99 for work in report.host_work.values() for w in (work.cold, work.delivered)
    )
    assert report.bare_is == "backbone"
    assert report.naive.minimum > report.bare.minimum
    assert (report.frame, report.threads, report.pushes) == ("160x120", 1, 30)
    assert report.providers == ("CPUExecutionProvider",)
    assert report.fallback_reason is None
    assert type(report).model_validate_json(report.model_dump_json()) == report


def printed(report: BenchReport) -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    with console.capture() as capture:
        console.print(bench_report(report))
    return [line for line in capture.get().splitlines() if line.startswith("host work between runs")]


@pytest.mark.slow
def test_host_work_is_printed_with_its_target(tiny: Path) -> None:
    report = bench(tiny, frames=10, size=(48, 64), repeats=1)
    assert printed(report) == []  # the target is for frames of one size
    times = Latency(p50=0.1, p90=0.2, p95=0.25, p99=0.3, minimum=0.1)
    fast = HostWork(cold=times, delivered=times)
    slow = HostWork(cold=times.model_copy(update={"p50": 0.2}), delivered=times)
    work = {"uint8": fast, "uint16": slow}
    assert printed(report.model_copy(update={"frame": "640x480", "host_work": work})) == [
        "host work between runs, uint8: 0.100 ms median (target 0.15), 0.300 ms at 99 % (target 2): met",
        "host work between runs, uint16: 0.200 ms median (target 0.15), 0.300 ms at 99 % (target 2): missed",
    ]


@pytest.mark.slow
def test_a_fresh_process_runs_the_model_without_torch(tiny: Path) -> None:
    started = time.perf_counter()
    process = fresh_process(tiny, (48, 64), repeats=1)
    elapsed_seconds = time.perf_counter() - started
    assert not process.imports_torch
    assert 20 < process.peak_rss_mb < 260
    assert 0 < process.ready_seconds < elapsed_seconds


@pytest.mark.slow
def test_a_fresh_process_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no file .*gone\.onnx"):
        fresh_process(tmp_path / "gone.onnx", (48, 64), repeats=1)


@pytest.mark.slow
def test_without_onnx_the_step_stands_in_for_the_backbone(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else find(name))
    assert bench(tiny, frames=5, size=(48, 64), repeats=1).bare_is == "step"


def test_the_bare_pass_is_the_backbone_of_the_step(tiny: Path, tmp_path: Path) -> None:
    artifact = load(tiny)
    frame = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    with open_engine(artifact) as step, open_engine(_backbone_of(artifact, tmp_path)) as backbone:
        found = backbone.infer({"frame": frame})
        past = np.zeros((2, artifact.manifest.segments - 1, artifact.manifest.feature_size), dtype=np.float32)
        expected = step.infer({"frame": frame, "past": past})["feature"]
    assert list(found) == ["feature"]
    assert np.abs(expected).max() > 0
    np.testing.assert_array_equal(found["feature"], expected)


def test_noise_has_the_camera_format(tiny: Path) -> None:
    manifest = load(tiny).manifest
    deep = manifest.model_copy(update={"dtype": "uint16", "value_range": (0.0, 4000.0)})
    assert [i.shape for i in noise(manifest, (6, 8), 2)] == [(6, 8), (6, 8)]
    image = noise(deep, (60, 80), 1)[0]
    assert image.dtype == np.uint16
    assert 3500 < image.max() <= 4000


def test_host_work_is_held_against_its_target() -> None:
    def work(median: float, p99: float) -> HostWork:
        times = Latency(p50=median, p90=median, p95=median, p99=p99, minimum=0.1)
        return HostWork(cold=times, delivered=times)

    assert [work(*times).meets_target for times in ((0.15, 2.0), (0.151, 0.2), (0.1, 2.1))] == [True, False, False]


def test_a_model_takes_frames_of_the_other_dtype_for_measuring(tiny: Path) -> None:
    manifest = load(tiny).manifest
    assert of_dtype(manifest, "uint8") is manifest
    deep = of_dtype(manifest, "uint16")
    assert (deep.dtype, deep.value_range) == ("uint16", (0.0, 16383.0))
    assert isinstance(deep.preprocess.window, FixedWindow)
    assert deep.preprocess.window.high == 16383.0
    assert of_dtype(deep, "uint8").preprocess.window == manifest.preprocess.window


def test_reference_artifacts_name_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'resnet18'"):
        make_reference_artifact("resnet8", 224, tmp_path / "a.onnx")
    with pytest.raises(ConfigError, match="input of 3 pixels"):
        make_reference_artifact("tiny", 3, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_of_a_model_with_states_the_pushes_that_ran_it_are_timed(causal_reference: Path) -> None:
    report = bench(causal_reference, frames=12, size=(60, 80), repeats=1)
    assert report.bare_is == "step"
    assert report.push.minimum >= report.inference.minimum > 0.05  # ms: every push ran the engine
