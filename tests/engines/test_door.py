"""The one door: names, what is not installed, options that make no sense."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import get_args

import pytest

from kd_edge.artifact import Artifact
from kd_edge.bench import bench, overload, soak, watch
from kd_edge.bench.process import fresh_process
from kd_edge.engines import ENGINES, EngineName, Provider, open_engine
from kd_edge.engines.onnxruntime import load_onnxruntime
from kd_edge.errors import BrokenPackageError, ConfigError, MissingExtraError
from kd_edge.evaluate import detect, evaluate
from kd_edge.runtime import Recognizer, stream
from kd_edge.runtime.options import StreamOptions


def test_the_names_are_those_of_the_table() -> None:
    assert get_args(EngineName) == ("auto", *ENGINES)
    assert [kind.key for kind in ENGINES.values()] == list(ENGINES)  # what was opened can be opened again by it
    assert {*get_args(Provider)} == {provider for kind in ENGINES.values() for provider in kind.accepts}


def test_nothing_is_measured_unasked() -> None:
    """A library call that does not name ``auto`` computes with the same engine everywhere."""
    for call in (open_engine, Recognizer.load, stream, bench, fresh_process, watch, overload, soak, evaluate, detect):
        assert inspect.signature(call).parameters["engine"].default == "onnxruntime", call
    assert StreamOptions().engine == "onnxruntime"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"engine": "onnxruntim"},
            r"engine 'onnxruntim' \(did you mean 'onnxruntime'\?\)\. Expected one of auto, onnx",
        ),
        ({"provider": "metal"}, r"provider 'metal'\. Expected one of cpu, cuda, gpu, npu"),
        (
            {"provider": "gpu"},
            r"engine onnxruntime with provider gpu\. Expected one of cpu, cuda\. .* or --engine openvino$",
        ),
        (
            {"engine": "openvino", "provider": "cuda"},
            r"openvino with provider cuda.* or --engine onnxruntime or tensorrt or tensorrt-rtx or cuda$",
        ),
        ({"threads": 0}, r"0 threads\. Expected 1 to 256"),
        ({"threads": 100_000}, r"100000 threads\. Expected 1 to 256"),
        ({"threads": 1.5}, r"1\.5 threads"),
        ({"threads": "2"}, r"'2' threads"),
        ({"engine": None}, r"engine 'None'"),
    ],
)
def test_options_that_do_not_exist_are_refused(step: Artifact, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_engine(step, **options)


@pytest.mark.parametrize("engine", get_args(EngineName))
def test_an_engine_that_is_not_installed_names_its_extra(
    step: Artifact, monkeypatch: pytest.MonkeyPatch, engine: EngineName
) -> None:
    for kind in ENGINES.values():
        monkeypatch.setitem(sys.modules, kind.library, None)
        assert not kind.is_installed()
    extras = {"auto": "cpu", "onnxruntime": "cpu", "openvino": "openvino", "ncnn": "ncnn", "cuda": "gpu"}
    extras |= {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt-rtx"}
    with pytest.raises(MissingExtraError, match=rf"\[{extras[engine]}\]"):
        open_engine(step, engine=engine)
    if engine in ("auto", "onnxruntime"):
        with pytest.raises(MissingExtraError, match=r"\[gpu\]"):
            open_engine(step, engine=engine, provider="cuda")


def test_two_onnxruntimes_are_refused_where_one_is_opened(
    step: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which of them answers is chance: each has overwritten the other's files."""
    for name in ("onnxruntime", "onnxruntime_gpu"):
        folder = tmp_path / f"{name}-1.30.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.30.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for use in (lambda: open_engine(step), load_onnxruntime):
        with pytest.raises(BrokenPackageError) as caught:
            use()
        assert str(caught.value) == (
            "onnxruntime and onnxruntime-gpu are both installed. "
            "Expected one of them: they share the import name onnxruntime. "
            "Fix: pip uninstall -y onnxruntime onnxruntime-gpu, then pip install the one you want (onnxruntime for the "
            "CPU, onnxruntime-gpu for CUDA); removing only one of them breaks the other"
        )
