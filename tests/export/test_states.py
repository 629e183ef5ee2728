"""Temporal models through export and runtime: states outside the graph, exact from a reset, in every batch size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from kd_edge import recipes
from kd_edge.artifact import Artifact
from kd_edge.data import open_dataset
from kd_edge.engines import carry, open_engine
from kd_edge.errors import ArtifactError, ConfigError, ExportError
from kd_edge.evaluate import clip_logits
from kd_edge.export import Exported, ExportProfile, export, make_reference_artifact
from kd_edge.models import ModelConfig
from kd_edge.models.saved import SavedStudent
from kd_edge.preprocess import Preprocess, recorded_input
from kd_edge.runtime import Recognizer
from kd_edge.types import Clip
from kd_edge.window import PercentileWindow
from tests.runs import DATA, write_run
from tests.runtime.conftest import newest_logits

pytestmark = pytest.mark.slow

FEW = ["parity_clips=4", "health_clips=10"]
FP32 = recipes.load("export", "fp32", ExportProfile, FEW)
FP16 = recipes.load("export", "fp16", ExportProfile, FEW)
BLOCKS = {"resnet10_thin": [(4, 8), (4, 8), (8, 4), (16, 2)]}  # at 32 px: (channels carried, side)


@dataclass
class Trained:
    run: Path
    student: SavedStudent
    exported: Exported


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("causal")
    run = write_run(folder / "run", model=ModelConfig(backbone="resnet10_thin", temporal="tsm_causal"))
    return Trained(run, SavedStudent.load(run), export(run, FP32, folder / "student.onnx"))


def shape_of(value: onnx.ValueInfoProto) -> list[str | int]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def step_through(artifact: Artifact, clips: np.ndarray) -> np.ndarray:
    """Logits (B, K) of clips (B, T, C, S, S), stepped as a batch from zero states, the past rolling along."""
    binding = open_engine(artifact).bind(len(clips))
    for frame in clips.swapaxes(0, 1):
        binding.frame[:] = frame
        binding.run()
        logits = binding.logits.copy()
        binding.past[:] = np.concatenate([binding.past[:, 1:], binding.feature[:, None]], axis=1)
        carry(binding)
    return logits


def test_manifest_and_graph_name_the_states(causal: Trained) -> None:
    manifest = causal.exported.artifact.manifest
    assert manifest.temporal == "tsm_causal"
    assert [s.name for s in manifest.states] == [f"layer{k}.0.conv1" for k in (1, 2, 3, 4)]
    assert [s.shape for s in manifest.states] == [(fold, px, px) for fold, px in BLOCKS["resnet10_thin"]]
    graph = onnx.load(causal.exported.artifact.path).graph
    shapes = {v.name: shape_of(v) for v in (*graph.input, *graph.output)}
    assert [i.name for i in graph.input] == ["frame", "past", *(f"state_in_{i}" for i in range(4))]
    assert [o.name for o in graph.output] == ["feature", "logits", *(f"state_out_{i}" for i in range(4))]
    for i, (fold, px) in enumerate(BLOCKS["resnet10_thin"]):
        assert shapes[f"state_in_{i}"] == shapes[f"state_out_{i}"] == ["batch", fold, px, px]


@pytest.mark.parametrize("batch", [1, 3])
def test_steps_from_a_reset_are_the_clip_model_in_every_batch(causal: Trained, batch: int) -> None:
    clips = np.random.default_rng(batch).normal(size=(batch, 8, 3, 32, 32)).astype(np.float32)
    with torch.inference_mode():
        expected = causal.student.model(torch.from_numpy(clips)).numpy()
    found = step_through(causal.exported.artifact, clips)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))
    np.testing.assert_array_equal(open_engine(causal.exported.artifact).run_clip(clips), found)
    still = step_through(causal.exported.artifact, clips[:, :1].repeat(8, axis=1))
    assert np.abs(still - found).max() > 1e-2  # the frames before do matter


def test_export_compared_real_clips_and_the_golden_clip(causal: Trained) -> None:
    artifact = causal.exported.artifact
    assert artifact.manifest.parity is not None
    assert artifact.manifest.parity.max_abs_error <= artifact.manifest.parity.tolerance
    recognizer = Recognizer.load(artifact)
    assert recognizer.self_test_error is not None
    assert artifact.golden is not None
    assert recognizer.self_test_error <= 1e-5 * max(1, np.abs(artifact.golden.logits).max())


def test_evaluate_steps_each_clip_from_a_reset(causal: Trained) -> None:
    dataset = open_dataset(DATA)
    samples = dataset.split("subjects").test[:3]
    engine = open_engine(causal.exported.artifact)
    for sample in [*samples, samples[0]]:
        clip = dataset.open(sample, "nir")
        with torch.inference_mode():
            expected = causal.student.model(torch.from_numpy(causal.student.network_input(clip))[None])[0].numpy()
        found = clip_logits(engine, clip, causal.exported.artifact.manifest)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))


def test_first_label_of_a_live_stream_is_the_clip_models(tmp_path: Path) -> None:
    """50 frames a second with jitter and frames between the segments: the same frames are chosen, the rest ignored."""
    preprocess = Preprocess(resize_px=40, input_px=32, window=PercentileWindow(), motion_offsets_ms=(0, 70, 140))
    model = ModelConfig(backbone="resnet10_thin", temporal="tsm_causal")
    run = write_run(tmp_path / "run", model=model, preprocess=preprocess, segments=4, clip_seconds=1.0)
    student, artifact = SavedStudent.load(run), export(run, FP32, tmp_path / "a.onnx").artifact
    rng = np.random.default_rng(0)
    stamps_ns = (np.arange(60) * 20 + rng.integers(-3, 4, 60)).astype(np.int64) * 1_000_000
    frames = rng.integers(0, 256, (60, 64, 80)).astype(np.uint8)
    first = int(np.searchsorted(stamps_ns, stamps_ns[0] + 105_000_000))  # the history reaches back, within 35 ms
    recognizer = Recognizer.load(artifact)
    stepped = []
    for k in range(60):
        prediction = recognizer.push(frames[k], int(stamps_ns[k]))
        if prediction is not None and "motion" not in prediction.detail:
            stepped.append(k)
            if prediction.index >= 0:
                break
    assert stepped[0] == first
    assert np.abs(np.diff(stamps_ns[stepped]) - 250_000_000).max() <= 20_000_000
    assert len(stepped) == 4
    whole = recorded_input(Clip(frames, stamps_ns), np.array(stepped), preprocess)
    with torch.inference_mode():
        expected = student.model(torch.from_numpy(whole)[None])[0].numpy()
    np.testing.assert_allclose(newest_logits(recognizer), expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))


def test_half_precision_keeps_its_states_in_float32(causal: Trained, tmp_path: Path) -> None:
    half = export(causal.run, FP16, tmp_path / "half.onnx")
    graph = onnx.load(half.artifact.path).graph
    onnx.checker.check_model(onnx.load(half.artifact.path), full_check=True)
    assert {v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)} == {onnx.TensorProto.FLOAT}
    assert half.artifact.manifest.parity is not None
    assert 0 < half.artifact.manifest.parity.max_abs_error <= half.artifact.manifest.parity.tolerance
    assert half.artifact.manifest.states == causal.exported.artifact.manifest.states
    assert Recognizer.load(half.artifact).self_test_error is not None
    clips = np.random.default_rng(5).normal(size=(3, 8, 3, 32, 32)).astype(np.float32)
    whole, halved = step_through(causal.exported.artifact, clips), step_through(half.artifact, clips)
    np.testing.assert_allclose(halved, whole, rtol=0, atol=5e-3 * max(1, np.abs(whole).max()))


def test_bidirectional_student_exports_as_a_clip_only(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", model=ModelConfig(backbone="resnet10_thin", temporal="tsm"), segments=4)
    with pytest.raises(ExportError, match=r"bidirectional TSM.*tsm_causal.*--graph clip"):
        export(run, FP32, tmp_path / "step.onnx")
    assert not (tmp_path / "step.onnx").exists()
    whole = export(run, FP32.model_copy(update={"graph": "clip"}), tmp_path / "clip.onnx")
    manifest = whole.artifact.manifest
    assert (manifest.temporal, manifest.graph, manifest.states) == ("tsm", "clip", ())
    assert manifest.parity is not None
    assert manifest.parity.max_abs_error <= manifest.parity.tolerance
    assert shape_of(onnx.load(whole.artifact.path).graph.input[0]) == ["batch", 4, 3, 32, 32]
    assert whole.report.step_flops == whole.report.clip_flops // 4
    clips = np.random.default_rng(0).normal(size=(3, 4, 3, 32, 32)).astype(np.float32)
    with torch.inference_mode():
        expected = SavedStudent.load(run).model(torch.from_numpy(clips)).numpy()
    found = open_engine(whole.artifact).run_clip(clips)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))
    with pytest.raises(ArtifactError, match=r"is a clip graph\. Expected a streaming step\. Fix: .*--graph step"):
        Recognizer.load(whole.artifact)


def test_relations_stream_without_states(tmp_path: Path) -> None:
    config = ModelConfig(backbone="tiny", temporal="trn", bottleneck=16, relations="all")
    run = write_run(tmp_path / "run", model=config, segments=4)
    artifact = export(run, FP32, tmp_path / "a.onnx").artifact
    assert (artifact.manifest.temporal, artifact.manifest.states) == ("trn", ())
    clips = np.random.default_rng(0).normal(size=(3, 4, 3, 32, 32)).astype(np.float32)
    with torch.inference_mode():
        expected = SavedStudent.load(run).model(torch.from_numpy(clips)).numpy()
    found = step_through(artifact, clips)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))


def test_an_untrained_artifact_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'tiny' has none"):
        make_reference_artifact("tiny", 32, tmp_path / "a.onnx", temporal="tsm_causal")
    with pytest.raises(ExportError, match="bidirectional"):
        make_reference_artifact("resnet10_thin", 32, tmp_path / "a.onnx", temporal="tsm")
