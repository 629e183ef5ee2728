from __future__ import annotations

from pathlib import Path

import pytest

from kd_edge import recipes
from kd_edge.errors import ConfigError, DataError, TrainingError
from kd_edge.train.recipe import Recipe
from kd_edge.train.rehearsal import rehearse
from tests.runs import tiny_values


def recipe(**changes: object) -> Recipe:
    return recipes.validate(tiny_values() | changes, Recipe, "recipe")


def test_one_step_of_everything(tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = rehearse(tiny)
    assert result.samples == (30, 0, 10)
    assert result.steps_per_epoch == 5
    assert result.inputs == {"student": (6, 4, 1, 32, 32), "teacher": (6, 4, 3, 32, 32)}
    assert set(result.losses) == {"ce", "dkd", "mgcam", "soft_target", "total"}
    weighted = sum(result.weights[name] * result.losses[name] for name in ("dkd", "mgcam", "soft_target"))
    assert result.losses["total"] == pytest.approx(result.losses["ce"] + weighted, rel=1e-5)
    assert result.weights == {"dkd": 0.1, "mgcam": 1.0, "soft_target": 0.5}
    assert result.student_layers["backbone.layer1"] == (8, 16, 16)
    assert list(tmp_path.iterdir()) == [], "a dry run writes nothing"


@pytest.mark.slow
def test_only_the_clips_of_a_batch_are_decoded(tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KD_EDGE_CACHE", str(tmp_path / "fresh"))
    done: list[tuple[str, int, int]] = []
    rehearse(tiny, progress=lambda modality, count, total: done.append((modality, count, total)))
    assert {(modality, total) for modality, _, total in done} == {("nir", 6), ("rgb", 6)}


def test_what_would_stop_the_training_is_told_at_once() -> None:
    with pytest.raises(TrainingError, match=r"did you mean 'backbone\.layer2'"):
        rehearse(recipe(losses=[{"kind": "fitnet", "student_layers": ["backbone.layr2"]}]))
    absent = tiny_values()["teacher"] | {"weights": "/nowhere/teacher.safetensors"}
    with pytest.raises(TrainingError, match="/nowhere/teacher"):
        rehearse(recipe(teacher=absent))
    with pytest.raises(DataError, match="did you mean 'subjects'"):
        rehearse(recipe(split="subject"))
    with pytest.raises(DataError, match="validation subject"):
        rehearse(recipe(validation_subjects=["nobody"]))
    dense = {"kind": "dense", "targets": [{"kind": "signals", "sensors": ["gyroscope"]}], "epochs": 1}
    head = {"kind": "head", "epochs": 1, "crossfit": 4}
    student = tiny_values()["student"]
    student["model"]["reads"] = "targets"
    with pytest.raises(ConfigError, match="crossfit = 4 with 3 training subjects"):
        rehearse(recipe(teacher=None, student=student, stages=[dense, head]))
    assert rehearse(recipe(teacher=None, student=student, stages=[dense, head | {"crossfit": 3}])).samples[0] == 30
    with pytest.raises(ConfigError, match=r"preprocess\.channels is 1"):
        rehearse(recipe(student=tiny_values()["student"] | {"modality": "rgb"}))
