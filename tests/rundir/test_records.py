"""Summaries of today's release and of older ones: what was read is what is written, absent keys have defaults."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from kd_edge.rundir import (
    SUMMARY,
    DenseReport,
    FoldReport,
    MetricsLine,
    Scores,
    Selection,
    StageReport,
    Summary,
    read_summary,
    write_summary,
)

SCORES: dict[str, Any] = {
    "accuracy": 0.75,
    "top5": 1.0,
    "macro_f1": 0.7333333333333334,
    "map": 0.8125,
    "sakdn_f": 0.6,
    "ece": 0.125,
    "per_class": {"sit": 0.5, "stand": 1.0, "wave": None},
    "confusion": [[1, 1, 0], [0, 2, 0], [0, 0, 0]],
}
STUDENT_MODEL: dict[str, Any] = {
    "model": {"backbone": "tiny", "temporal": "tconv", "hidden": 16},
    "preprocess": {"channels": 1, "resize_px": 24, "input_px": 24, "motion_offsets_ms": [0, 70, 140]},
    "segments": 8,
    "clip_seconds": 2.35,
    "labels": ["sit", "stand", "wave"],
    "modality": "nir",
    "data": {"kind": "synthetic", "clips_per_class": 4},
    "image_format": {"band": "nir", "dtype": "uint8", "value_range": [0.0, 255.0]},
    "split": "subjects",
}
TODAY: dict[str, Any] = {
    "complete": True,
    "finished": "2026-11-28T18:30:49+00:00",
    "recipe": {
        "name": "quickstart",
        "seed": 1,
        "clip_seconds": None,
        "losses": [{"weight": 0.1, "kind": "dkd", "temperature": 4.0}],
        "teacher": {"kind": "sensors", "weights": None, "semantic_weight": 1.0, "epochs": 2},
    },
    "protocol": {
        "dataset": "synthetic",
        "split": "subjects",
        "validation_subjects": ["1"],
        "validation_trials": [],
        "train_samples": 30,
        "validation_samples": 10,
        "test_samples": 4,
        "skipped": {"a1_s1_t1": "nir: it ends after 3 frames"},
    },
    "seed": 1,
    "stages": {
        "teacher": {
            "modality": "accelerometer + gyroscope",
            "backbone": "conv1d",
            "temporal": "SPAMFM (official)",
            "epochs": 2,
            "selected_epoch": 2,
            "selected_by": "validation accuracy",
            "seconds": 0.1,
            "validation": {"accuracy": 0.5, "loss": 1.5},
            "test": None,
            "test_samples": 0,
            "parameters": 66986,
            "sensors": {"accelerometer": {"clips": 3, **SCORES, "ece": None}, "gyroscope": None},
            "similarity": {"running": {"together": 0.75, "accelerometer": 0.5, "gyroscope": None}},
            "lacking": {"accelerometer": 0, "gyroscope": 4},
            "seen_in_training": 2,
        },
        "student": {
            "modality": "nir",
            "backbone": "tiny",
            "temporal": "tconv",
            "epochs": 1,
            "selected_epoch": 1,
            "selected_by": "last epoch",
            "seconds": 0.2,
            "validation": None,
            "test": SCORES,
            "test_samples": 4,
            "parameters": 66554,
        },
    },
    "clip_seconds": 2.35,
    "temperature": 1.25,
    "unknown_threshold": 0.5,
    "calibrated_on": "validation clips",
    "versions": {"kd-edge": "0.1.0", "torch": "2.14.1"},
    "data_fingerprint": "2a50",
    "data_fingerprints": {"student": "1619", "teacher": "e3ed"},
    "semantics": {"source": "glove", "size": 300, "unknown_words": {"wave": ["wave"]}},
    "recipe_fingerprint": "8053",
    "threads": 1,
    "device": "cpu",
    "student_model": STUDENT_MODEL,
}
CLASSICAL: dict[str, Any] = {
    "complete": True,
    "finished": "2026-11-28T18:30:49+00:00",
    "recipe": {"kind": "crc", "split": "subjects"},
    "protocol": {"dataset": "moves", "split": "subjects", "validation_subjects": [], "test_samples": 4},
    "seed": 0,
    "stages": {
        "student": {
            "modality": "depth",
            "backbone": "crc",
            "temporal": "alone",
            "epochs": 0,
            "validation": {"accuracy": 1.0},
            "test": {**SCORES, "ece": None},
            "left_out": {"depth": {"0.01": 0.5, "0.1": 0.75}},
        }
    },
    "versions": {"opencv": "4.12"},
}
FIRST: dict[str, Any] = {  # of the first release: no map, top5, sakdn_f, test_samples, data_fingerprints, semantics
    "complete": True,
    "finished": "2026-11-22T02:42:37+00:00",
    "recipe": {"name": "quickstart", "losses": []},
    "protocol": {"dataset": "synthetic", "split": "subjects", "validation_subjects": [], "test_samples": 10},
    "seed": 0,
    "stages": {
        "student": {
            "modality": "nir",
            "backbone": "tiny",
            "temporal": "tconv",
            "epochs": 3,
            "selected_epoch": 3,
            "selected_by": "last epoch",
            "seconds": 1.0,
            "validation": None,
            "test": {"accuracy": 0.5, "macro_f1": 0.4, "ece": 0.1, "per_class": {"sit": 0.5}, "confusion": [[1]]},
            "parameters": 5,
        }
    },
    "clip_seconds": 2.0,
    "temperature": 1.0,
    "unknown_threshold": 0.0,
    "data_fingerprint": "d",
    "recipe_fingerprint": "r",
    "student_model": STUDENT_MODEL,
}


@pytest.mark.parametrize("values", [TODAY, CLASSICAL, FIRST], ids=["today", "classical", "first release"])
def test_a_summary_is_written_as_it_was_read(values: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / SUMMARY).write_text(json.dumps(values))
    summary = read_summary(tmp_path)
    (tmp_path / SUMMARY).unlink()
    write_summary(tmp_path, summary)
    assert json.loads((tmp_path / SUMMARY).read_text()) == values
    assert to_jsonable_python(summary) == values, "what --json prints"


def test_todays_summary_is_typed() -> None:
    summary = Summary.model_validate(TODAY)
    teacher, student = summary.stages["teacher"], summary.stages["student"]
    assert student.test == Scores(**SCORES)
    assert student.test.per_class["wave"] is None
    assert teacher.validation == Scores(accuracy=0.5, loss=1.5)
    assert teacher.test is None
    assert teacher.sensors["accelerometer"].clips == 3
    assert teacher.sensors["gyroscope"] is None
    assert teacher.similarity["running"]["gyroscope"] is None
    assert (teacher.lacking["gyroscope"], teacher.seen_in_training) == (4, 2)
    assert [loss.kind for loss in summary.recipe.losses] == ["dkd"]
    assert (summary.recipe.kind, summary.recipe.teacher.semantic_weight) == (None, 1.0)
    assert summary.protocol.validation_subjects == ("1",)
    assert summary.semantics.unknown_words == {"wave": ("wave",)}
    assert (summary.test_clips(teacher), summary.test_clips(student)) == (0, 4)


def test_what_the_first_release_did_not_say_has_a_default() -> None:
    summary = Summary.model_validate(FIRST)
    student = summary.stages["student"]
    assert (student.test.map, student.test.top5, student.test.sakdn_f) == (None, None, None)
    assert student.test.macro_f1 == 0.4
    assert summary.test_clips(student) == 10, "the protocol's"
    assert (summary.data_fingerprints, summary.semantics, summary.recipe.teacher) == ({}, None, None)
    assert (student.sensors, student.seen_in_training) == ({}, 0)


def test_unknown_keys_are_kept_and_unsaid_ones_are_not_written() -> None:
    report = StageReport.model_validate({"backbone": "crc", "left_out": {"depth": 0.5}})
    assert report.model_dump() == {"backbone": "crc", "left_out": {"depth": 0.5}}
    assert Selection(selected_epoch=3).model_dump() == {"selected_epoch": 3}
    assert Summary(complete=True).model_dump_json() == '{"complete":true}'
    assert Summary(complete=True).model_copy(update={"seed": 3}).model_dump() == {"complete": True, "seed": 3}


def test_what_a_method_says_of_its_own_is_written(tmp_path: Path) -> None:
    class Report(StageReport):
        left_out: dict[str, float]

    write_summary(tmp_path, Summary(complete=True, stages={"student": Report(epochs=3, left_out={"0.01": 0.5})}))
    written = json.loads((tmp_path / SUMMARY).read_text())
    assert written == {"complete": True, "stages": {"student": {"epochs": 3, "left_out": {"0.01": 0.5}}}}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_every_number_is_finite(value: float, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Summary(temperature=value)
    with pytest.raises(ValidationError, match="finite"):
        MetricsLine(stage="student", epoch=1, losses={"ce": value})
    for hidden in (Summary(complete=True, of_another_release=value), Summary(student_model={"clip_seconds": value})):
        with pytest.raises(ValueError, match="JSON compliant"):
            write_summary(tmp_path, hidden)
    assert not list(tmp_path.iterdir())


def test_reading_a_run_needs_no_torch() -> None:
    code = "import sys, kd_edge.rundir; print(sorted({'torch', 'onnx', 'cv2'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_epochs_of_a_student_are_told_stage_by_stage() -> None:
    plain = StageReport(epochs=50, selected_epoch=38)
    assert (plain.trained_for, plain.selected) == ("50", "38 of 50")
    dense, head = DenseReport(selected_epoch=30, seconds=60.0), Selection(selected_epoch=40, seconds=5.0)
    assert StageReport(epochs=50, dense=dense, head=head).selected == "dense 30 + head 40"  # no labels stage
    whole = StageReport(epochs=50, selected_epoch=38, dense=dense, head=head)
    assert whole.trained_for == "dense 30 + 50 + head 40"
    folds = {"fold1": FoldReport(seconds=7.0), "fold2": FoldReport(seconds=8.0)}
    assert plain.all_seconds == 0.0
    assert StageReport(seconds=100.0, dense=dense, head=head, folds=folds).all_seconds == 180.0
    assert StageReport(epochs=50, selected_epoch=50, head=head).selected == "50 + head 40"
