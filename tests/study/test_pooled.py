"""Studies that leave each subject out once: one figure over all clips, of seeds that are whole, and its gain."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from kd_edge import recipes
from kd_edge.errors import ConfigError
from kd_edge.study.plan import StudyConfig, load_study, plan
from kd_edge.study.report import report, report_markdown
from kd_edge.train.recipe import DenseStage, Recipe

BASE = {"title": "UTD", "base": "utd_mhad_best", "splits": ["subject_1", "subject_2"], "pooled": True, "seeds": [0, 1]}
ROWS = [{"name": "alone", "title": "alone", "set": {"stages": [{"kind": "labels"}]}}, {"name": "joints", "title": "J"}]


def study(**changes: Any) -> StudyConfig:
    return recipes.validate(BASE | {"rows": ROWS} | changes, StudyConfig, "study")


def write(folder: Path, row: str, split: str, seed: int, right: str) -> None:
    """A finished run that was right on these clips of the left-out subject."""
    run = plan(study(), rows=[row], splits=[split], seeds=[seed])[0]
    test = {"accuracy": right.count("1") / len(right), "right": {split[-1]: right}}
    values = {
        "complete": True,
        "stages": {"student": {"test": test, "test_samples": len(right)}},
        "protocol": {"test_samples": len(right)},
        "recipe_fingerprint": run.config.fingerprint(),
    }
    (folder / run.name).mkdir(parents=True)
    (folder / run.name / "summary.json").write_text(json.dumps(values))


def test_all_clips_count_alike_and_a_seed_needs_every_split(tmp_path: Path) -> None:
    """Seed 0: 2 of 2 and 2 of 4 right are 4 of 6, not the mean of 100 and 50; seed 1 has one split only."""
    folder = tmp_path / "studies" / "loso"
    write(folder, "joints", "subject_1", 0, "11")
    write(folder, "joints", "subject_2", 0, "1100")
    write(folder, "joints", "subject_1", 1, "00")
    write(folder, "alone", "subject_1", 0, "10")
    write(folder, "alone", "subject_2", 0, "1000")
    alone, joints = report(study(), folder, against="alone")
    assert joints.pooled is not None
    assert joints.pooled.values == {0: pytest.approx(100 * 4 / 6)}
    assert (joints.pooled.missing, joints.pooled.test_samples) == (1, {6})
    assert joints.cells["subject_1"].values == {0: pytest.approx(100), 1: pytest.approx(0)}
    gain = joints.pooled.gain
    assert gain is not None
    # Of seed 0 alone, as the figure. Subject 1: one of two clips more: +50; subject 2: one of four more: +25.
    assert gain.subjects == {"1": pytest.approx(50), "2": pytest.approx(25)}
    assert gain.points == pytest.approx(100 * (4 - 2) / 6)
    assert gain.by_subject is not None
    assert gain.by_subject[0] < 0  # two subjects say next to nothing
    assert alone.pooled is not None
    assert alone.pooled.gain is None
    text = report_markdown(study(), [alone, joints]).splitlines()
    assert text[0].split(" | ")[2:] == [
        "all splits: accuracy, %",
        "each seed",
        "all splits: gain, points",
        "95 % by subject",
        "95 % by clip",
        "each split |",
    ]
    assert text[3].startswith("| J | 0 | 66.7 | 0: 66.7, 1 more not run | +33.3 | -225.9 to +292.5 | ")
    assert text[3].endswith(" | subject_1: 50.0 ± 70.7, subject_2: 50.0 |")


def test_a_gain_is_of_the_whole_seeds_that_both_rows_have(tmp_path: Path) -> None:
    """Seed 1 of joints is whole, of alone half there: it counts in joints' figure, not in the gain, which says so."""
    folder = tmp_path / "studies" / "loso"
    for split in ("subject_1", "subject_2"):
        write(folder, "joints", split, 0, "10")
        write(folder, "joints", split, 1, "00")
    write(folder, "alone", "subject_1", 0, "00")
    write(folder, "alone", "subject_2", 0, "10")
    write(folder, "alone", "subject_1", 1, "11")
    lines = report(study(), folder, against="alone")
    (joints,) = [line for line in lines if line.name == "joints"]
    assert joints.pooled is not None
    assert joints.pooled.gain is not None
    assert (joints.pooled.mean, joints.pooled.gain.points) == (pytest.approx(25), pytest.approx(25))
    assert joints.pooled.gain.subjects == {"1": pytest.approx(50), "2": pytest.approx(0)}
    assert joints.pooled.compared == (0,)
    assert joints.cells["subject_1"].compared == ()  # both rows have both seeds of it
    assert "| +25.0 (seed 0) |" in report_markdown(study(), lines)
    (alone,) = [line for line in report(study(), folder, against="joints") if line.name == "alone"]
    assert alone.pooled is not None
    assert alone.pooled.gain is not None
    assert alone.pooled.gain.points == pytest.approx(-25)


def test_rows_without_a_common_seed_are_not_compared(tmp_path: Path) -> None:
    folder = tmp_path / "studies" / "loso"
    for split in ("subject_1", "subject_2"):
        write(folder, "joints", split, 0, "11")
        write(folder, "alone", split, 1, "10")
    (joints,) = [line for line in report(study(), folder, against="alone") if line.name == "joints"]
    assert joints.pooled is not None
    assert joints.pooled.gain is None


def test_a_split_that_was_not_run_leaves_no_figure(tmp_path: Path) -> None:
    folder = tmp_path / "studies" / "loso"
    write(folder, "joints", "subject_1", 0, "11")
    line = report(study(), folder)[1]
    assert line.pooled is not None
    assert (line.pooled.values, line.pooled.missing) == ({}, 3)
    assert "| J | 0 | not run | - | subject_1: 100.0, subject_2: not run |" in report_markdown(study(), [line])


def test_only_what_adds_up_is_pooled() -> None:
    with pytest.raises(ConfigError, match="pooled adds up clips that were right: metric must be 'accuracy'"):
        study(metric="map")


def epochs_left_out(recipe: Recipe) -> Recipe:
    """A recipe without how long it trains."""
    student = recipe.student.model_copy(update={"epochs": 1})
    stages = tuple(s.model_copy(update={"epochs": 1}) if isinstance(s, DenseStage) else s for s in recipe.stages)
    return recipe.model_copy(update={"student": student, "stages": stages})


def long_epochs(recipe: Recipe) -> tuple[int, int]:
    """Epochs of the stage before the head, and its batch."""
    stage = recipe.dense_stage or recipe.student
    return stage.epochs, stage.batch_size


def test_the_study_of_left_out_subjects_trains_what_odd_and_even_subjects_do() -> None:
    """The same rows and as many steps: of seven subjects' 753 clips in the place of four subjects' 431."""
    known = {run.row.name: run.config for run in plan(load_study("utd_mhad_dense"), seeds=[0])}
    holes = {"alone": "alone_holes", "joints": "joints_holes"}
    loso = load_study("utd_mhad_loso")
    runs = plan(loso)
    assert [run.name for run in runs[:2]] == ["alone-subject_1-s0", "alone-subject_2-s0"]
    assert len(runs) == 3 * 8
    for run in runs:
        same = known[holes.get(run.row.name, "alone_long")]
        assert isinstance(run.config, Recipe)
        assert isinstance(same, Recipe)
        changes = {"split": "odd_even", "name": same.name, "precision": "32-true"}
        if run.row.name == "alone_long":  # which has the holes averaged there
            changes["student"] = run.config.student.model_copy(update={"preprocess": same.student.preprocess})
        assert epochs_left_out(run.config.model_copy(update=changes)) == epochs_left_out(same)
        (epochs, batch), (others, _) = long_epochs(run.config), long_epochs(same)
        assert epochs * math.ceil(753 / batch) == pytest.approx(others * math.ceil(431 / batch), rel=0.035)
