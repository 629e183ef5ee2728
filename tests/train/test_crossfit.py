"""Cross-fitting: who is left out of which encoder, what the head sees of it, and that a killed run goes on."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from kd_edge.errors import ConfigError
from kd_edge.rundir import FOLDS, read_metrics
from kd_edge.train.crossfit import folds, without
from kd_edge.train.events import StageStarted
from kd_edge.train.head import feature_loaders
from kd_edge.train.inputs.gathering import gather_material
from kd_edge.train.inputs.material import Material
from kd_edge.train.networks import build_student
from kd_edge.train.recipe import Recipe
from kd_edge.train.results.run import Run
from tests.runs import killed, run_all, same, tiny_values, weights

CPU = torch.device("cpu")
DENSE = {"kind": "dense", "epochs": 2, "frames": 3, "batch_size": 6}
DENSE |= {"targets": [{"kind": "signals", "sensors": ["accelerometer", "gyroscope"], "smooth_ms": 0}]}


def values(crossfit: int | str | None = 2, **head: object) -> dict[str, object]:
    """A student alone whose head reads two sensors that encoders regress which have not seen its subject."""
    found = tiny_values(teacher=None, losses=[])
    found["student"]["model"]["reads"] = "targets"
    stage = {"kind": "head", "epochs": 2, "passes": 2, "batch_size": 6, "crossfit": crossfit} | head
    return found | {"stages": [DENSE, stage]}


@pytest.fixture(scope="module")
def material(cache_folder: Path) -> Material:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KD_EDGE_CACHE", str(cache_folder))
        return gather_material(Recipe.model_validate(values()))


def of(material: Material, crossfit: int | str | None) -> Material:
    return Material(**{**material.__dict__, "recipe": Recipe.model_validate(values(crossfit))})


def test_subjects_are_dealt_out_in_turn(material: Material) -> None:
    subjects = sorted({sample.subject for sample in material.train})
    assert len(subjects) == 3
    first, second, third = subjects
    assert folds(of(material, 2)) == ((first, third), (second,))
    assert folds(of(material, "subject")) == folds(of(material, 3)) == ((first,), (second,), (third,))
    assert folds(of(material, None)) == ()
    with pytest.raises(ConfigError, match=r"crossfit = 4 with 3 training subjects \(.*at least two folds"):
        folds(of(material, 4))


def test_an_encoder_sees_none_of_the_subjects_it_is_trained_without(material: Material) -> None:
    left_out = folds(material)[0]
    seen = without(material, left_out)
    assert {s.subject for s in seen.train}.isdisjoint(left_out)
    assert {s.subject for s in seen.validation} == set(left_out)
    assert sorted(s.id for s in (*seen.train, *seen.validation)) == sorted(s.id for s in material.train)
    assert seen.dense_targets is material.dense_targets, "all in the same units"


def test_the_head_sees_each_clip_by_the_encoder_that_had_not_seen_its_subject(material: Material) -> None:
    stage = material.recipe.head_stage
    assert stage is not None
    subjects = sorted({sample.subject for sample in material.train})
    of_all, other = build_student(material), build_student(material)
    for model, value in ((of_all, 1.0), (other, 2.0)):  # each regresses its own number, whatever it sees
        torch.nn.init.zeros_(model.backbone.regression.numbers.weight)
        torch.nn.init.constant_(model.backbone.regression.numbers.bias, value)
    loaders = feature_loaders(material, of_all, stage, CPU, of_subjects={subjects[1]: other.backbone})
    stored = loaders.training.dataset.stored  # type: ignore[attr-defined]
    for sample, found in zip(stored.samples, stored.values, strict=True):
        assert found.shape[0] == 2
        assert found.shape[2] == 6
        assert np.unique(found).tolist() == [2.0 if sample.subject == subjects[1] else 1.0]
    frames = sum(found.shape[1] for found in stored.values)
    assert stored.bytes == 2 * frames * 6 * 4
    assert loaders.note == f"2 x {len(stored.samples)} clips encoded, {stored.bytes / 1e6:.0f} MB"


@pytest.mark.slow
def test_a_killed_run_goes_on_in_any_fold_to_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    recipe = Recipe.model_validate(values(2))
    events = run_all(recipe, tmp_path / "whole")
    steps = ((False, ("fold1", 2, 1)), (True, ("fold2", 1, 1)), (True, ("head", 2, 1)))
    for resume, at in steps:
        assert killed(values(2), tmp_path / "killed", resume, at) == -signal.SIGKILL
    run_all(recipe, tmp_path / "killed", resume=True)
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))
    for run in ("whole", "killed"):
        lines = [(m.stage, m.epoch) for m in read_metrics(tmp_path / run)]
        assert lines == [(stage, epoch) for stage in ("dense", "fold1", "fold2", "head") for epoch in (1, 2)]
        assert sorted(p.name for p in (tmp_path / run / FOLDS).iterdir()) == ["fold1.safetensors", "fold2.safetensors"]
    whole, other = (Run.load(tmp_path / run).summary.stages["student"] for run in ("whole", "killed"))
    assert list(whole.folds) == ["fold1", "fold2"]
    assert whole.trained_for == "dense 2 + 2 folds + head 2"
    assert [len(fold.subjects) for fold in whole.folds.values()] == [2, 1]
    for name, fold in whole.folds.items():
        assert set(fold.explained) == {"accelerometer", "gyroscope"}
        assert all(share is not None for share in fold.explained.values())
        assert (fold.explained, fold.subjects) == (other.folds[name].explained, other.folds[name].subjects)
    notes = {event.stage: event.note for event in events if isinstance(event, StageStarted)}
    assert (
        notes["fold2"]
        == f"an encoder not trained on {whole.folds['fold2'].subjects[0]}; the one trained on all took 0 min"
    )
    assert notes["dense"] == ""
    assert "2 x 30 clips encoded" in notes["head"]


def test_cross_fitting_changes_the_head_and_not_the_encoder_that_ships(tmp_path: Path) -> None:
    for crossfit in (None, "subject"):
        run_all(Recipe.model_validate(values(crossfit, epochs=1, passes=1)), tmp_path / str(crossfit))
    plain, fitted = (weights(tmp_path / name) for name in ("None", "subject"))
    assert all(torch.equal(plain[name], fitted[name]) for name in plain if name.startswith("backbone."))
    assert any(not torch.equal(plain[name], fitted[name]) for name in plain if name.startswith("head."))


@pytest.mark.parametrize("reads", ["both", "features"])
def test_features_of_several_encoders_are_not_mixed(reads: str) -> None:
    changed = values()
    changed["student"]["model"]["reads"] = reads
    with pytest.raises(ValidationError, match="features of several encoders are not comparable"):
        Recipe.model_validate(changed)


def test_an_encoder_that_labels_train_is_not_cross_fitted() -> None:
    changed = values()
    changed["stages"] = [changed["stages"][0], {"kind": "labels"}, changed["stages"][1]]
    with pytest.raises(ValidationError, match="crossfit needs a dense and a head stage"):
        Recipe.model_validate(changed)
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        Recipe.model_validate(values(1))
