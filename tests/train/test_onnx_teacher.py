"""Frozen encoders as teachers, whole runs: dense targets of their embeddings and losses on them, kept and resumed."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from kd_edge.data import Sample
from kd_edge.data.synthetic.dataset import Synthetic
from kd_edge.errors import ConfigError, DataError, TrainingError
from kd_edge.train.inputs.gathering import data_fingerprints, gather_material
from kd_edge.train.recipe import Recipe
from kd_edge.train.rehearsal import rehearse
from kd_edge.train.results.run import Run
from kd_edge.types import Clip
from tests.runs import killed, run_all, same, tiny_values, weights
from tests.train.encoders import write_encoder

FEATURES = {"kind": "features", "components": 4}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder") / "small.onnx", grid=4)  # 48 numbers


def values_of(encoder: Path, *, losses: list[dict[str, Any]] | None = None, **changes: Any) -> dict[str, Any]:
    """A student that regresses an encoder's components first, and then learns from its relations."""
    teacher = {
        "kind": "onnx",
        "file": str(encoder),
        "modality": "rgb",
        "preprocess": {"channels": 3, "resize_px": 36, "input_px": 32},
    }
    values = tiny_values(teacher=teacher, losses=losses or [], validation_subjects=["1"])
    values["student"]["epochs"] = 2
    dense = {"kind": "dense", "targets": [FEATURES], "epochs": 2, "frames": 3, "batch_size": 6}
    return values | {"stages": [dense, {"kind": "labels"}]} | changes


@pytest.mark.slow
def test_a_run_on_embeddings_is_reported_and_resumed_bit_for_bit(tmp_path: Path, encoder: Path) -> None:
    values = values_of(encoder, losses=[{"kind": "rkd"}])
    recipe = Recipe.model_validate(values)
    run_all(recipe, tmp_path / "whole")
    assert killed(values, tmp_path / "killed", False, ("dense", 2, 1)) == -signal.SIGKILL
    run_all(recipe, tmp_path / "killed", resume=True)
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))
    stages = Run.load(tmp_path / "whole").summary.stages
    assert (stages["teacher"].backbone, stages["teacher"].modality) == ("small", "rgb")
    assert (stages["teacher"].test, stages["teacher"].selected_by) == (None, "encoder small.onnx")
    assert not (tmp_path / "whole" / "teachers" / "teacher.safetensors").exists()
    dense = stages["student"].dense
    assert dense is not None
    assert (dense.targets, dense.lacking, dense.absent) == (4, {"rgb": 0}, {"rgb features": 0})
    assert set(dense.explained) == {"rgb features"}


@pytest.mark.slow
def test_components_are_kept_with_the_run_and_a_damaged_file_is_told(tmp_path: Path, encoder: Path) -> None:
    values = values_of(encoder)
    assert killed(values, tmp_path / "run", False, ("dense", 1, 2)) == -signal.SIGKILL
    kept = tmp_path / "run" / "teachers" / "components-4.safetensors"
    content = kept.read_bytes()
    kept.write_bytes(content[:-8])
    with pytest.raises(TrainingError, match=r"components-4.safetensors is damaged"):
        run_all(Recipe.model_validate(values), tmp_path / "run", resume=True)
    kept.write_bytes(content)
    run_all(Recipe.model_validate(values), tmp_path / "run", resume=True)
    assert kept.read_bytes() == content


def test_embeddings_are_computed_once(tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe.model_validate(values_of(encoder))
    first = gather_material(recipe).embeddings["teacher"]
    monkeypatch.setattr("kd_edge.train.inputs.encoder.Encoder.embed", lambda *_: pytest.fail("encoded again"))
    done: list[tuple[str, int, int]] = []
    again = gather_material(recipe, progress=lambda *said: done.append(said)).embeddings["teacher"]
    assert again.fingerprint == first.fingerprint
    sample = again.samples[0].id
    np.testing.assert_array_equal(again.clip(sample).values, first.clip(sample).values)
    clips = len(again.samples)
    assert [said[1:] for said in done if said[0] == "rgb"][-1] == (2 * clips, 2 * clips)


@pytest.mark.slow
def test_an_encoding_that_was_stopped_goes_on(encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KD_EDGE_CACHE", str(tmp_path))
    recipe = Recipe.model_validate(values_of(encoder))

    def stop(modality: str, done: int, total: int) -> None:
        if modality == "rgb" and done == total // 2 + 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gather_material(recipe, progress=stop)
    made = {file: file.stat().st_mtime_ns for file in tmp_path.glob("embeddings-*/*")}
    assert len(made) == 5
    gather_material(recipe)
    files = list(tmp_path.glob("embeddings-*/*"))
    assert len(files) == 40
    assert {file: file.stat().st_mtime_ns for file in files if file in made} == made


@pytest.mark.slow
def test_a_damaged_embedding_is_made_again(encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KD_EDGE_CACHE", str(tmp_path))
    recipe = Recipe.model_validate(values_of(encoder))
    first = gather_material(recipe).embeddings["teacher"]
    files = sorted(tmp_path.glob("embeddings-*/*.npy"))
    assert len(files) == len(first.samples) == 40
    before = [file.read_bytes() for file in files]
    files[0].write_bytes(before[0][:200])
    files[1].write_bytes(b"")
    files[2].unlink()
    gather_material(recipe)
    assert [file.read_bytes() for file in files] == before


def without_rgb(monkeypatch: pytest.MonkeyPatch, subjects: str) -> None:
    """Some subjects' recordings of the teacher's camera are damaged."""
    whole = Synthetic.open

    def opened(self: Synthetic, sample: Sample, modality: str) -> Clip:
        if modality == "rgb" and sample.subject in subjects:
            raise DataError(f"rgb of {sample.id} is damaged", "a recording", "fetch it again")
        return whole(self, sample, modality)

    monkeypatch.setattr(Synthetic, "open", opened)


@pytest.mark.slow
def test_clips_without_the_teachers_camera_train_without_it(
    tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KD_EDGE_CACHE", str(tmp_path / "cache"))
    without_rgb(monkeypatch, "2")
    targets = [FEATURES, {"kind": "signals", "sensors": ["accelerometer"]}]
    values = values_of(encoder, losses=[{"kind": "contrastive"}])
    values["stages"][0] |= {"targets": targets, "epochs": 1}
    values["student"]["epochs"] = 1
    run_all(Recipe.model_validate(values), tmp_path / "run")
    summary = Run.load(tmp_path / "run").summary
    assert (summary.protocol.train_samples, summary.protocol.skipped) == (20, {})
    dense = summary.stages["student"].dense
    assert dense is not None
    assert dense.lacking == {"rgb": 10, "accelerometer": 0}


@pytest.mark.slow
def test_an_encoder_that_sees_no_training_clip_is_told(
    tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KD_EDGE_CACHE", str(tmp_path))
    without_rgb(monkeypatch, "23")
    with pytest.raises(DataError, match=r"no training clip has rgb, which the teacher sees \(the first: rgb of"):
        gather_material(Recipe.model_validate(values_of(encoder)))


def test_another_encoder_is_another_teacher(tmp_path: Path, encoder: Path) -> None:
    other = write_encoder(tmp_path / "other.onnx", grid=4, output="tokens")
    found = [
        gather_material(Recipe.model_validate(values_of(e, stages=[{"kind": "labels"}], losses=[{"kind": "cc"}])))
        for e in (encoder, other)
    ]
    assert [m.embeddings["teacher"].size for m in found] == [48, 3]
    assert found[0].fingerprints["teacher"] != found[1].fingerprints["teacher"]
    assert found[0].fingerprints["student"] == found[1].fingerprints["student"]


def test_where_an_encoder_lies_decides_nothing(tmp_path: Path, encoder: Path) -> None:
    copy = tmp_path / "elsewhere.onnx"
    copy.write_bytes(encoder.read_bytes())
    here, there = (Recipe.model_validate(values_of(file)) for file in (encoder, copy))
    assert here.fingerprint() == there.fingerprint()
    assert data_fingerprints(here) == data_fingerprints(there)


@pytest.mark.slow
def test_a_network_teaches_its_features_once_it_is_trained(tmp_path: Path) -> None:
    """24 numbers of the backbone tiny, as they are; the teacher's own run is resumed, too."""
    values = tiny_values(validation_subjects=["1"], losses=[])
    values["teacher"]["epochs"] = values["student"]["epochs"] = 1
    dense = {"kind": "dense", "targets": [{"kind": "features"}], "epochs": 2, "frames": 3, "batch_size": 6}
    values["stages"] = [dense, {"kind": "head", "epochs": 1, "passes": 1, "batch_size": 6}]
    recipe = Recipe.model_validate(values)
    run_all(recipe, tmp_path / "whole")
    assert killed(values, tmp_path / "killed", False, ("dense", 2, 1)) == -signal.SIGKILL
    run_all(recipe, tmp_path / "killed", resume=True)
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))
    stages = Run.load(tmp_path / "whole").summary.stages
    assert stages["student"].dense is not None
    assert stages["student"].dense.targets == 24
    assert stages["teacher"].test is not None


@pytest.mark.slow
def test_a_dry_run_with_an_encoder(encoder: Path) -> None:
    found = rehearse(Recipe.model_validate(values_of(encoder, losses=[{"kind": "rkd"}])))
    assert found.inputs == {"student": (6, 4, 1, 32, 32), "teacher": (6, 4, 48)}
    assert found.parameters["teacher"] == 0
    assert found.teacher_layers == {"embedding": (48,)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": [{"kind": "dkd"}]}, "loss 'dkd' compares logits, but an encoder has no classes"),
        ({"losses": [], "stages": [{"kind": "labels"}]}, "a teacher without losses teaches nothing"),
        ({"teacher": None, "losses": []}, "'features' need a teacher that sees images"),
        (
            {"teacher": {"kind": "sensors", "sensors": ["accelerometer"], "semantic_weight": 0}, "losses": []},
            "sensors use targets of kind 'signals'",
        ),
        (
            {"stages": [{"kind": "dense", "targets": [FEATURES, FEATURES]}, {"kind": "labels"}]},
            "'features' occurs twice",
        ),
    ],
)
def test_recipes_that_cannot_be(encoder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate(values_of(encoder) | changes)


def test_a_teacher_that_mixes_segments_has_no_features_of_frames(encoder: Path) -> None:
    values = values_of(encoder) | {"teacher": tiny_values()["teacher"]}
    values["teacher"]["model"] = {"backbone": "resnet10_thin", "temporal": "tsm"}
    with pytest.raises(ValidationError, match="teacher temporal 'tsm' mixes segments"):
        Recipe.model_validate(values)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"file": "nothing.onnx"}, TrainingError, "no encoder nothing.onnx"),
        ({"modality": "nir"}, ConfigError, "teacher.preprocess.channels is 3, nir of synthetic has 1"),
        ({"modality": "radar"}, DataError, "radar"),
        ({"preprocess": {"channels": 3, "resize_px": 64, "input_px": 48}}, TrainingError, "teacher.preprocess makes"),
    ],
)
def test_a_run_that_cannot_start_leaves_nothing(
    tmp_path: Path, encoder: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    values = values_of(encoder)
    values["teacher"] |= change
    with pytest.raises(error, match=message):
        run_all(Recipe.model_validate(values), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_more_components_than_numbers(encoder: Path) -> None:
    values = values_of(encoder)
    values["stages"][0]["targets"] = [{"kind": "features", "components": 49}]
    with pytest.raises(ConfigError, match="components 49 of the teacher's features of 48 numbers"):
        gather_material(Recipe.model_validate(values))


def test_a_map_loss_on_an_encoder_is_told_before_anything_is_trained(tmp_path: Path, encoder: Path) -> None:
    recipe = Recipe.model_validate(values_of(encoder, losses=[{"kind": "at"}]))
    with pytest.raises(TrainingError, match=r"maps \(b, c, h, w\)|on a layer of shape"):
        run_all(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
