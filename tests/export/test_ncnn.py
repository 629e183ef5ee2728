"""Conversion to ncnn: what comes out is what torch computes, or an error; a converter may fail in any way."""

from __future__ import annotations

import resource
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kd_edge import artifact
from kd_edge.artifact import Artifact, Manifest, StateSpec
from kd_edge.engines import ENGINES, open_engine
from kd_edge.errors import ExportError, MissingExtraError
from kd_edge.export.ncnn import NcnnModel, to_ncnn, verify
from kd_edge.models import ClipModel, ModelConfig, build_model
from kd_edge.models.shift import state_shapes
from kd_edge.preprocess import Preprocess
from tests.artifact.test_file import graph_bytes

if not ENGINES["ncnn"].is_installed():
    pytest.skip("ncnn is not installed", allow_module_level=True)
pnnx = pytest.importorskip("pnnx", reason="pnnx is not installed")

SEGMENTS = 4


def trained_like(config: ModelConfig, segments: int = SEGMENTS) -> ClipModel:
    """Batch statistics, scales and biases as training leaves them: a fresh model has zeros and ones there."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = build_model(config, 3, 5, segments).eval()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
            if isinstance(getattr(module, "bias", None), nn.Parameter):
                module.bias.normal_(0, 0.2)
    return model


def carrying(folder: Path, model: ClipModel, converted: NcnnModel, px: int) -> Artifact:
    states = tuple(StateSpec(name=name, shape=shape) for name, shape in state_shapes(model.backbone, 3, px))
    manifest = Manifest(
        name="test", labels=tuple("abcde"), modality="nir", band="nir", dtype="uint8", value_unit="grey level",
        value_range=(0, 255), preprocess=Preprocess(resize_px=px, input_px=px, replicate=3), segments=model.segments,
        clip_seconds=1.0, feature_size=model.backbone.feature_size, temporal="tsn", states=states,
    )  # fmt: skip
    path = folder / f"{len(list(folder.iterdir()))}.onnx"
    artifact.write(graph_bytes(), manifest, None, path, attachments=converted.attachments)
    return artifact.load(path)


def clips(px: int, count: int = 2) -> list[np.ndarray]:
    return list(np.random.default_rng(0).normal(size=(count, SEGMENTS, 3, px, px)).astype(np.float32))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "px"),
    [
        (ModelConfig(backbone="tiny", temporal="tconv"), 32),
        (ModelConfig(backbone="tiny", temporal="trn", relations="all"), 33),
        (ModelConfig(backbone="resnet10_thin", temporal="tsm_causal"), 49),
        (ModelConfig(backbone="efficientnet_lite0"), 33),
    ],
    ids=["tconv", "trn", "tsm_causal", "odd sizes in same padding"],
)
def test_every_output_of_every_step_is_torchs_in_every_batch(tmp_path: Path, config: ModelConfig, px: int) -> None:
    model = trained_like(config)
    made = carrying(tmp_path, model, to_ncnn(model, in_channels=3, input_px=px), px)
    errors = verify(model, made, clips(px), 1e-5)
    assert list(errors) == ["feature", "logits", *(f"state_out_{i}" for i in range(len(made.manifest.states)))]
    assert 0 < max(errors.values()) < 1e-5
    batch = np.stack(clips(px, 3))
    with open_engine(made, engine="ncnn") as engine, torch.inference_mode():
        found, expected = engine.run_clip(batch), model(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.fixture(scope="module")
def tiny() -> ClipModel:
    return trained_like(ModelConfig(backbone="tiny"))


@pytest.fixture(scope="module")
def converted(tiny: ClipModel) -> NcnnModel:
    return to_ncnn(tiny, in_channels=3, input_px=32)


def test_the_layers_name_the_steps_tensors_and_know_their_sizes(tiny: ClipModel, converted: NcnnModel) -> None:
    size = tiny.backbone.feature_size
    lines = converted.param.splitlines()
    assert lines[0] == "7767517"
    inputs = [line.split()[4:] for line in lines if line.startswith("Input ")]
    assert inputs == [
        ["frame", "0=32", "1=32", "2=3", "-23330=4,3,32,32,3"],
        ["past", f"0={size}", f"1={SEGMENTS - 1}", f"-23330=4,2,{size},{SEGMENTS - 1},1"],
    ]
    assert "logits" in lines[-1].split()
    assert all(" -23330=" in line for line in lines[2:])
    assert converted.version == pnnx.__version__


@pytest.mark.slow
def test_winograd_is_left_out_where_a_few_pixels_are_left() -> None:
    model = trained_like(ModelConfig(backbone="resnet10_thin"))
    lines = to_ncnn(model, in_channels=3, input_px=64).param.splitlines()
    convolutions = [line for line in lines if line.startswith("Convolution ")]
    sides = {line.split("-23330=4,3,")[1].split(",")[0]: "31=64" in line for line in convolutions}
    assert sides == {"32": False, "16": False, "8": False, "4": True, "2": True}


@pytest.mark.slow
def test_half_weights_take_half_the_room_and_are_computed_with_in_float32(
    tmp_path: Path, tiny: ClipModel, converted: NcnnModel
) -> None:
    half = to_ncnn(tiny, in_channels=3, input_px=32, half=True)
    assert len(half.weights) < 0.6 * len(converted.weights)
    errors = verify(tiny, carrying(tmp_path, tiny, half, 32), clips(32), 2e-3)
    assert max(errors.values()) > 1e-5


def test_a_model_of_other_weights_is_refused_with_figure_and_bound(
    tmp_path: Path, tiny: ClipModel, converted: NcnnModel
) -> None:
    made = carrying(tmp_path, tiny, converted, 32)
    other = trained_like(ModelConfig(backbone="tiny"))
    with torch.no_grad():
        other.head.classifier.bias += 0.5
    with pytest.raises(
        ExportError,
        match=r"model's logits differs .* by 0\.\d+ of its largest value\. Expected at most 1e-05\. Fix: leave out",
    ):
        verify(other, made, clips(32), 1e-5)
    with pytest.raises(ExportError, match="no clip to verify"):
        verify(tiny, made, [], 1e-5)


def test_values_that_are_no_numbers_are_refused(tmp_path: Path, tiny: ClipModel, converted: NcnnModel) -> None:
    broken = converted._replace(weights=converted.weights[:-4] + np.float32(np.nan).tobytes())
    with pytest.raises(ExportError, match="logits differs from the trained model's by inf"):
        verify(tiny, carrying(tmp_path, tiny, broken, 32), clips(32), 1e-5)


@pytest.mark.parametrize("cut", [4, 1000])
def test_weights_that_break_off_are_refused(tmp_path: Path, tiny: ClipModel, converted: NcnnModel, cut: int) -> None:
    short = converted._replace(weights=converted.weights[:-cut])
    with pytest.raises(ExportError, match="is refused by ncnn"):
        verify(tiny, carrying(tmp_path, tiny, short, 32), clips(32), 1e-5)


@pytest.fixture
def converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A program in the converter's place; nothing may be left behind."""
    program, scratch = tmp_path / "pnnx", tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(pnnx, "EXEC_PATH", str(program))
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    yield program
    assert list(scratch.iterdir()) == []


GOOD = "printf '7767517\\n1 1\\nInput in0 0 1 in0\\n' > step.ncnn.param; : > step.ncnn.bin"


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo reading; echo no such operator >&2; exit 3", r"pnnx exited with 3: no such operator\."),
        ("echo half-way; kill -SEGV $$", r"pnnx exited with -11: half-way\."),
        ("exit 1", r"pnnx exited with 1\."),
        ("echo working; exec sleep 60", r"pnnx did not finish within 0\.3 s: working\."),
        ("exit 0", r"pnnx wrote no model \("),
        (": > step.ncnn.param; : > step.ncnn.bin", r"pnnx wrote an incomplete model \("),
        (GOOD.replace("1 1", "9 9"), r"pnnx wrote an incomplete model \(1 layers of 9\)"),
        (GOOD.replace("7767517", "\\377"), r"pnnx wrote an incomplete model \("),
        (GOOD.replace("in0 0 1", "in0 0"), r"pnnx wrote an incomplete model \("),
        (GOOD, "pnnx wrote a model without "),
    ],
)
def test_a_converter_that_fails_is_one_line(converter: Path, tiny: ClipModel, script: str, told: str) -> None:
    converter.write_text(f"#!/bin/sh\n{script}\n")
    converter.chmod(0o755)
    with pytest.raises(ExportError, match=told) as caught:
        to_ncnn(tiny, in_channels=3, input_px=32, seconds=0.3 if "sleep" in script else 60)
    assert "nothing was written" in str(caught.value)
    assert str(caught.value).isprintable()


def test_what_ncnn_cannot_run_is_refused(converter: Path, tiny: ClipModel, converted: NcnnModel) -> None:
    names = {"frame": "in0", "past": "in1", "feature": "out0", "logits": "out1"}
    words = [[names.get(word, word) for word in line.split(" ")] for line in converted.param.splitlines()]
    text = "\n".join(" ".join(line) for line in words).replace("Pooling ", "Mystery ") + "\n"
    (converter.parent / "param").write_text(text)
    converter.write_text(f"#!/bin/sh\ncp '{converter.parent}/param' step.ncnn.param; : > step.ncnn.bin\n")
    converter.chmod(0o755)
    with pytest.raises(ExportError, match=r"cannot run what pnnx wrote \(layer Mystery not exists or registered\)"):
        to_ncnn(tiny, in_channels=3, input_px=32)


def test_a_converter_that_cannot_be_run_or_is_not_there(
    converter: Path, tiny: ClipModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ExportError, match=r"pnnx cannot be run \("):
        to_ncnn(tiny, in_channels=3, input_px=32)
    monkeypatch.setitem(sys.modules, "pnnx", None)
    with pytest.raises(MissingExtraError, match=r"\[ncnn-export\]"):
        to_ncnn(tiny, in_channels=3, input_px=32)


def test_a_disk_without_room_is_one_line(tiny: ClipModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
        with pytest.raises(ExportError, match=r"the step cannot be written for pnnx \("):
            to_ncnn(tiny, in_channels=3, input_px=32)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(ExportError, match=r"the step cannot be written for pnnx \("):
            to_ncnn(tiny, in_channels=3, input_px=32)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_models_that_have_no_step_for_ncnn() -> None:
    with pytest.raises(ExportError, match="windows of one segment"):
        to_ncnn(trained_like(ModelConfig(backbone="tiny"), segments=1), in_channels=3, input_px=32)
    with pytest.raises(ExportError, match="bidirectional TSM"):
        to_ncnn(trained_like(ModelConfig(backbone="resnet10_thin", temporal="tsm")), in_channels=3, input_px=32)
