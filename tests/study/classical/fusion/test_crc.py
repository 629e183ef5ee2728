"""Whole runs of CRC and CRC-2 on a data set whose classes differ in motion and in the signal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kd_edge import recipes
from kd_edge.errors import DataError, TrainingError
from kd_edge.study.classical import CrcConfig, check_comparator, run_comparator
from kd_edge.study.classical.fusion import recordings
from kd_edge.study.classical.fusion.inertial import window_statistics
from kd_edge.study.classical.fusion.representation import CollaborativeRepresentation
from tests.study.classical.moves import Moves


def small(**changes: Any) -> CrcConfig:
    values: dict[str, Any] = {
        "data": {"kind": "synthetic"},
        "split": "subjects",
        "sensors": ["wrist", "ankle"],
        "motion": {"trim_frames": 1, "height": 6, "width": 6, "depth": 6, "silhouette": True},
        "windows": 2,
    }
    return CrcConfig.model_validate(values | changes)


Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs on the moves."""

    def run(folder: str = "run", moves: Moves | None = None, **changes: Any) -> dict[str, Any]:
        monkeypatch.setattr(recordings, "open_dataset", lambda data, root: moves or Moves())
        return run_comparator(small(**changes), tmp_path / folder).model_dump(mode="json")

    return run


@pytest.mark.parametrize(
    ("changes", "modality", "temporal", "parts"),
    [
        ({}, "depth+wrist+ankle", "features", {"joined"}),
        ({"fusion": "decisions"}, "depth+wrist+ankle", "decisions", {"depth", "sensors"}),
        ({"sensors": []}, "depth", "alone", {"depth"}),
        ({"depth": "", "fusion": "decisions"}, "wrist+ankle", "alone", {"sensors"}),
    ],
)
def test_every_fusion_tells_the_moves_apart(
    run: Run, tmp_path: Path, changes: dict[str, Any], modality: str, temporal: str, parts: set[str]
) -> None:
    summary = run(**changes)
    student = summary["stages"]["student"]
    assert student["test"]["accuracy"] == 1
    assert (student["modality"], student["backbone"], student["temporal"]) == (modality, "crc", temporal)
    assert student["left_out"].keys() == parts
    assert student["validation"] is None
    assert summary["protocol"] == {
        "dataset": "moves",
        "split": "subjects",
        "validation_subjects": [],
        "train_samples": 24,
        "validation_samples": 0,
        "test_samples": 12,
        "skipped": {},
    }
    assert json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8")) == summary
    assert recipes.load("train", str(tmp_path / "run" / "recipe.toml"), CrcConfig) == small(**changes)


def test_each_modality_alone_would_fail_where_it_shows_nothing(run: Run) -> None:
    """Fused, what the other one shows is enough."""
    blind = Moves(still=True)
    assert run("depth", blind, sensors=[])["stages"]["student"]["test"]["accuracy"] < 0.7
    assert run("both", blind)["stages"]["student"]["test"]["accuracy"] == 1
    assert run("pooled", Moves(silent=True), fusion="decisions")["stages"]["student"]["test"]["accuracy"] == 1


def test_the_sensors_figures_by_another_way(run: Run) -> None:
    """The vectors put together here: columns by their largest training value, length 1, one classifier."""
    moves = Moves(silent=True)
    student = run(moves=moves, depth="", sensors=["wrist"], regularisation=[0.3])["stages"]["student"]
    assert student["selected_by"] == "sensors: lambda = 0.3, fixed"
    split = moves.split("subjects")
    train, test = (
        np.stack([window_statistics(moves.open(s, "wrist").frames, 2) for s in side]).astype(float)
        for side in (split.train, split.test)
    )
    largest = np.abs(train).max(axis=0)
    train, test = ((v / largest) / np.linalg.norm(v / largest, axis=1, keepdims=True) for v in (train, test))
    labels = np.array([s.label for s in split.train])
    answers = CollaborativeRepresentation(train, labels, 3, 0.3).residuals(test).argmin(axis=1)
    truth = np.array([s.label for s in split.test])
    confusion = np.zeros((3, 3), dtype=int)
    np.add.at(confusion, (truth, answers), 1)
    assert student["test"]["confusion"] == confusion.tolist()
    assert student["parameters"] == 24 * 24 + 24 + 24


def test_lambda_is_chosen_on_training_subjects_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = run(depth="", regularisation=[5.0, 0.01, 0.5])["stages"]["student"]
    accuracies = chosen["left_out"]["sensors"]
    assert list(accuracies) == ["0.01", "0.5", "5"]
    best = max(float(name) for name, value in accuracies.items() if value == max(accuracies.values()))
    assert chosen["selected_by"] == (f"sensors: lambda = {best:g}, best with each training subject left out once")
    held_out = run("held", depth="", regularisation=[5.0, 0.01, 0.5], validation_subjects=["1"])
    student = held_out["stages"]["student"]
    assert student["validation"] == {"accuracy": 1.0}
    assert student["selected_by"] == "sensors: lambda = 0.01, the least: there is one training subject"
    assert [held_out["protocol"][f"{side}_samples"] for side in ("train", "validation", "test")] == [12, 12, 12]


def test_a_run_repeats_to_the_last_digit(run: Run) -> None:
    students = [run(name, fusion="decisions")["stages"]["student"] for name in ("one", "two")]
    for student in students:
        del student["seconds"]
    assert students[0] == students[1]


def test_clips_without_a_signal_are_left_out_and_named(run: Run) -> None:
    lacking = ("right_s1_t1", "down_s3_t2")
    protocol = run(moves=Moves(lacking=lacking))["protocol"]
    assert (protocol["train_samples"], protocol["test_samples"]) == (23, 11)
    assert protocol["skipped"] == {name: f"wrist: no file {name}.csv; ankle: no file {name}.csv" for name in lacking}
    alone = run("depth", Moves(lacking=lacking), sensors=[])["protocol"]
    assert (alone["train_samples"], alone["skipped"]) == (24, {})


def test_a_class_without_a_complete_clip_stops_the_run(run: Run, tmp_path: Path) -> None:
    lacking = tuple(f"away_s{s}_t{t}" for s in (1, 2) for t in (1, 2, 3, 4))
    with pytest.raises(DataError, match="no training sample of 'away'"):
        run(moves=Moves(lacking=lacking))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sensors": ["wrst"]}, r"moves has no modality 'wrst' \(did you mean 'wrist'\?\)"),
        ({"depth": "dept"}, r"no modality 'dept' \(did you mean 'depth'\?\)"),
        ({"split": "views"}, "no split 'views'"),
        ({"validation_subjects": ["3"]}, "'3' is not on the training side"),
    ],
)
def test_what_is_not_there_is_named(run: Run, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(**changes)
    with pytest.raises(DataError, match=message):
        check_comparator(small(**changes))


def test_modalities_of_the_wrong_kind_are_named(run: Run) -> None:
    with pytest.raises(DataError, match=r"usable 'nir' \(nir: a clip of images\)"):
        run(sensors=["nir"])
    with pytest.raises(DataError, match=r"usable 'wrist' \(wrist: a clip of float32 \(38, 3\)\)"):
        run(depth="wrist", sensors=[])


def test_clips_without_any_motion_are_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="motion maps of all 12 training clips of 'depth' are the same"):
        run(moves=Moves(still=True), motion={"views": ["side"]})  # noise of a few mm stays in its bin
    assert not (tmp_path / "run" / "summary.json").exists()


def test_a_check_decodes_one_clip_of_each_modality(monkeypatch: pytest.MonkeyPatch) -> None:
    moves = Moves(lacking=("right_s1_t1",))
    monkeypatch.setattr(recordings, "open_dataset", lambda data, root: moves)
    assert check_comparator(small()) == (24, 12)
    assert moves.opened == ["depth", "wrist", "wrist", "ankle", "ankle"]  # the first signal is not there


def test_a_finished_run_is_kept(run: Run, tmp_path: Path) -> None:
    run(depth="")
    before = (tmp_path / "run" / "summary.json").read_bytes()
    with pytest.raises(TrainingError, match="already contains a run"):
        run(depth="")
    assert (tmp_path / "run" / "summary.json").read_bytes() == before
