"""Unlabelled clips in training: the dense stage sees them, and nothing else does."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kd_edge.data.dataset import UNLABELLED
from kd_edge.data.synthetic.dataset import Synthetic
from kd_edge.data.synthetic.writing import write_synthetic
from kd_edge.rundir import read_summary
from kd_edge.train.dense import frame_loaders
from kd_edge.train.events import Prepared, StageStarted
from kd_edge.train.inputs.gathering import data_fingerprints, gather_material
from kd_edge.train.recipe import Recipe
from tests.runs import killed, run_all, same, tiny_values, weights
from tests.train.encoders import write_encoder

pytestmark = pytest.mark.slow

JOINTS = {"kind": "joints", "modality": "skeleton"}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four people, the last of whom is tested; the second trial of everybody has lost its labels."""
    root = tmp_path_factory.mktemp("own") / "recordings"
    write_synthetic(root, Synthetic(clips_per_class=8, subjects=4, height_px=32, width_px=40, fps=10))
    manifest = root / "manifest.csv"
    with manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if row["trial"] == "2":
            row["label"], row["split"] = "", ""
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return root


def values(root: Path, *stages: dict[str, Any]) -> dict[str, Any]:
    own = {"kind": "files", "root": str(root)}
    alone = tiny_values(data=own, split="default", teacher=None, losses=[], validation_subjects=["2"])
    alone["student"]["epochs"] = 1
    return alone | {"stages": [*stages, {"kind": "labels"}]}


DENSE = {"kind": "dense", "targets": [JOINTS], "epochs": 2, "frames": 3, "batch_size": 10}


def test_a_dense_stage_sees_them_and_no_other_stage_does(recordings: Path) -> None:
    material = gather_material(Recipe.model_validate(values(recordings, DENSE)))
    assert {s.subject for s in material.dense_only} == {"1", "3"}  # 2 is held out for validation, 4 is tested
    assert len(material.dense_only) == 20
    assert {s.label for s in material.dense_only} == {UNLABELLED}
    sides = (*material.train, *material.validation, *material.test)
    assert len(sides) == 40
    assert all(s.label != UNLABELLED for s in sides)
    stage = material.recipe.dense_stage
    assert stage is not None
    loaders = frame_loaders(material, stage)
    assert len(loaders.batches) == 4  # 20 labelled clips and 20 others, ten a batch
    loaders.batches.epoch = 1
    assert all(np.isfinite(batch["labels"].numpy()).all() for batch in loaders.training)
    _, batches = material.training_loader(["student"], 10)
    assert len(batches) == 2
    assert material.fingerprints == data_fingerprints(material.recipe)


def test_without_a_dense_stage_nothing_changes(recordings: Path) -> None:
    recipe = Recipe.model_validate(values(recordings))
    material = gather_material(recipe)
    assert material.dense_only == ()
    assert len(material.clips["student"].samples) == 40
    assert material.fingerprints == data_fingerprints(recipe)


def test_they_are_counted_and_a_killed_run_goes_on(recordings: Path, tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    run_all(Recipe.model_validate(values(recordings, DENSE)), whole)
    report = read_summary(whole).stages["student"].dense
    assert report is not None
    assert (report.unlabelled, report.lacking, report.absent) == (
        20,
        {"skeleton": 0},
        {"skeleton positions": 0.0, "skeleton velocities": 0.0},
    )
    assert killed(values(recordings, DENSE), halves, False, ("dense", 2, 3)) == -9
    run_all(Recipe.model_validate(values(recordings, DENSE)), halves, resume=True)
    assert same(weights(whole), weights(halves))


@pytest.mark.parametrize(("kind", "taking_part"), [("onnx", 20), ("images", 0)])
def test_an_encoder_sees_them_and_a_trained_teacher_is_said_not_to(
    kind: str, taking_part: int, recordings: Path, tmp_path: Path
) -> None:
    teacher = tiny_values()["teacher"] | {"epochs": 1}
    if kind == "onnx":
        file = write_encoder(tmp_path / "small.onnx", grid=4)
        teacher = {key: teacher[key] for key in ("modality", "preprocess")} | {"kind": "onnx", "file": str(file)}
    stage = DENSE | {"targets": [{"kind": "features"}], "epochs": 1}
    recipe = Recipe.model_validate(values(recordings, stage) | {"teacher": teacher})
    assert gather_material(recipe).fingerprints == data_fingerprints(recipe)
    events = run_all(recipe, tmp_path / "run")
    report = read_summary(tmp_path / "run").stages["student"].dense
    assert report is not None
    assert (report.unlabelled, report.lacking) == (taking_part, {"rgb": 20 - taking_part})
    assert report.absent["rgb features"] == pytest.approx((20 - taking_part) / 40, abs=0.1)
    notes = {event.stage: event.note for event in events if isinstance(event, StageStarted)}
    assert notes["dense"].partition(" (")[0] == ("" if taking_part else "20 of 40 clips lack rgb")


def test_they_do_not_move_the_scale_that_a_loss_goes_on_with(recordings: Path) -> None:
    """A stage and the labels' side loss regress the same joints in the same units: those of the labelled clips."""
    kept = values(recordings, DENSE) | {"losses": [{"kind": "dense", "targets": [JOINTS]}]}
    material = gather_material(Recipe.model_validate(kept))
    assert len(material.dense_only) == 20
    assert material.loss is not None
    for sample in material.train:
        frames = np.arange(len(material.stamps_ns[sample.id]))
        same_units = material.dense_targets.of(sample.id, frames), material.loss.of(sample.id, frames)
        np.testing.assert_array_equal(*same_units)
    every = [material.dense_targets.of(s.id, np.arange(len(material.stamps_ns[s.id]))) for s in material.train]
    assert np.nanmean(np.concatenate(every)) == pytest.approx(0, abs=1e-5)


def test_clips_of_nobody_known_are_said_to_be(recordings: Path) -> None:
    """Whom they show may be tested: the encoder would have seen them."""
    material = gather_material(Recipe.model_validate(values(recordings, DENSE)))
    stage = material.recipe.dense_stage
    assert stage is not None
    assert frame_loaders(material, stage).note == ""
    nobody = tuple(dataclasses.replace(s, subject="") for s in material.dense_only[:3])
    unknown = dataclasses.replace(material, dense_only=nobody + material.dense_only[3:])
    told = "3 clips without a label name no subject: they may show people of the test side"
    assert frame_loaders(unknown, stage).note == told


@pytest.fixture
def partly_rgb(recordings: Path, tmp_path: Path) -> Path:
    """The recordings, of which two labelled training clips lack RGB."""
    root = Path(shutil.copytree(recordings, tmp_path / "partly"))
    manifest = root / "manifest.csv"
    with manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    lacking = [row for row in rows if row["label"] and row["subject"] == "1"][:2]
    for row in lacking:
        row["rgb"] = ""
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return root


def taught(root: Path) -> Recipe:
    teacher = tiny_values()["teacher"] | {"epochs": 1}
    return Recipe.model_validate(values(root, DENSE) | {"teacher": teacher, "losses": [{"kind": "soft_target"}]})


def test_a_dense_stage_sees_clips_that_only_the_teacher_lacks(partly_rgb: Path) -> None:
    alone, with_teacher = (
        gather_material(Recipe.model_validate(values(partly_rgb, DENSE))),
        gather_material(taught(partly_rgb)),
    )
    assert (len(alone.train), len(with_teacher.train)) == (20, 18)
    assert {s.id for s in with_teacher.dense_only} - {s.id for s in alone.dense_only} == {s.id for s in alone.train} - {
        s.id for s in with_teacher.train
    }
    assert {s.id for s in with_teacher.dense_train} == {s.id for s in alone.dense_train}


def test_nothing_is_taken_of_a_run_of_other_clips(partly_rgb: Path, tmp_path: Path) -> None:
    """The result is that of a run by itself, whatever ran before; of the same clips the stage is taken."""
    run_all(Recipe.model_validate(values(partly_rgb, DENSE)), tmp_path / "alone")
    run_all(taught(partly_rgb), tmp_path / "itself")
    events = run_all(taught(partly_rgb), tmp_path / "after", dense_runs=[tmp_path / "alone"])
    (ready,) = (e for e in events if isinstance(e, Prepared))
    assert (ready.dense_run, ready.not_taken) == (None, (tmp_path / "alone",))
    assert same(weights(tmp_path / "itself"), weights(tmp_path / "after"))
    offered = [tmp_path / "alone", tmp_path / "itself"]  # the one of other clips hides none that fits
    again = run_all(taught(partly_rgb), tmp_path / "again", dense_runs=offered, teacher_runs=offered[1:])
    (ready,) = (e for e in again if isinstance(e, Prepared))
    assert (ready.teacher_run, ready.dense_run, ready.not_taken) == (offered[1], offered[1], ())
    assert {e.stage for e in again if isinstance(e, StageStarted)} == {"student"}
    assert same(weights(tmp_path / "itself"), weights(tmp_path / "again"))
