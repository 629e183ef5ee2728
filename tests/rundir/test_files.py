"""Files of a run directory: where they lie, what is torn, cut or damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kd_edge import rundir
from kd_edge.errors import DataError, ExportError, KdEdgeError, TrainingError
from kd_edge.rundir import METRICS, RECIPE, SUMMARY, MetricsLine, Scores, Summary
from kd_edge.train.results.run import load_recipe

NOISE = np.random.default_rng(0).bytes(400) + b"\n"


def line(stage: str, epoch: int) -> MetricsLine:
    return MetricsLine.model_validate({"stage": stage, "epoch": epoch, "losses": {"total": 0.5}, "validation": None})


def test_a_line_is_written_as_it_was_said(tmp_path: Path) -> None:
    scores = Scores(accuracy=0.5, loss=1.25)
    rundir.append_metrics(tmp_path, line("teacher", 1).model_copy(update={"validation": scores}))
    rundir.append_metrics(tmp_path, line("student", 1))
    assert (tmp_path / METRICS).read_text() == (
        '{"stage": "teacher", "epoch": 1, "losses": {"total": 0.5}, "validation": {"accuracy": 0.5, "loss": 1.25}}\n'
        '{"stage": "student", "epoch": 1, "losses": {"total": 0.5}, "validation": null}\n'
    )
    first, second = rundir.read_metrics(tmp_path)
    assert (first.stage, first.validation, second.validation) == ("teacher", scores, None)
    assert (first.learning_rate, first.train_accuracy) == (None, None), "not said"


def test_metrics_are_cut_after_the_resumed_epoch_and_a_torn_line_is_dropped(tmp_path: Path) -> None:
    for stage, epoch in (("teacher", 1), ("teacher", 2), ("student", 1), ("student", 2)):
        rundir.append_metrics(tmp_path, line(stage, epoch))
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"stage": "stud')
    rundir.truncate_metrics(tmp_path, "student", 1)
    kept = [(m.stage, m.epoch) for m in rundir.read_metrics(tmp_path)]
    assert kept == [("teacher", 1), ("teacher", 2), ("student", 1)]
    rundir.truncate_metrics(tmp_path, "teacher", 0)
    assert rundir.read_metrics(tmp_path) == []


def test_a_run_without_metrics_has_no_lines(tmp_path: Path) -> None:
    assert rundir.read_metrics(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"\n", "EOF while parsing"),
        (b'{"stage": "stud\n', "EOF while parsing a string"),
        (NOISE, "is damaged"),
        (b"\0\0\0\0\n", "expected value"),
        (b"[1, 2]\n", "should be an object"),
        (b"3\n", "should be an object"),
        (b"null\n", "should be an object"),
        (b"{}\n", "stage: Field required"),
        (b'{"stage": "student"}\n', "epoch: Field required"),
        (
            b'{"stage": "pupil", "epoch": 1}\n',
            "stage: should be teacher, dense, fold1 and so on, student or head",
        ),
        (b'{"stage": "student", "epoch": 0}\n', "epoch: Input should be greater than or equal to 1"),
        (b'{"stage": "student", "epoch": 1, "losses": 3}\n', "losses: Input should be an object"),
        (b'{"stage": "student", "epoch": 1, "validation": {}}\n', "validation.accuracy: Field required"),
        (b'{"stage": "student", "epoch": 1, "seconds": NaN}\n', "seconds: Input should be a finite number"),
    ],
)
@pytest.mark.parametrize(
    "read", [rundir.read_metrics, lambda path: rundir.truncate_metrics(path, "student", 9)], ids=["read", "truncate"]
)
def test_a_damaged_line_is_named(text: bytes, why: str, read: Callable[[Path], object], tmp_path: Path) -> None:
    rundir.append_metrics(tmp_path, line("teacher", 1))
    with (tmp_path / METRICS).open("ab") as file:
        file.write(text)
    before = (tmp_path / METRICS).read_bytes()
    with pytest.raises(TrainingError) as caught:
        read(tmp_path)
    assert "line 2 of " in caught.value.found
    assert why in caught.value.found
    assert "remove the line" in caught.value.fix
    assert len(str(caught.value).splitlines()) == 1
    assert (tmp_path / METRICS).read_bytes() == before, "nothing is lost"


def test_metrics_that_are_a_folder(tmp_path: Path) -> None:
    (tmp_path / METRICS).mkdir()
    with pytest.raises(TrainingError, match="is damaged"):
        rundir.read_metrics(tmp_path)
    with pytest.raises(TrainingError, match="cannot be written"):
        rundir.append_metrics(tmp_path, line("teacher", 1))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, "is not finished (it has no summary.json)"),
        (b"", "summary.json is damaged (Invalid JSON: EOF"),
        (b'{"complete": true, "stages": {"stu', "summary.json is damaged (Invalid JSON: EOF"),
        (NOISE, "summary.json is damaged ("),
        (b"[]", "summary.json is damaged (Input should be an object"),
        (b'"done"', "summary.json is damaged (Input should be an object"),
        (b'{"complete": true, "stages": 3}', "summary.json is damaged (stages: "),
        (b'{"complete": true, "stages": {"student": {"test": {}}}}', "(stages.student.test.accuracy: Field required)"),
        (b'{"complete": true, "temperature": 0}', "(temperature: Input should be greater than 0)"),
        (b'{"complete": "yes"}', "(complete: Input should be a valid boolean)"),
        (b'{"complete": false}', "is not finished (summary.json is not marked complete)"),
        (b"{}", "is not finished (summary.json is not marked complete)"),
    ],
)
@pytest.mark.parametrize("error", [TrainingError, DataError, ExportError])
def test_only_a_whole_summary_is_that_of_a_finished_run(
    text: bytes | None, found: str, error: type[KdEdgeError], tmp_path: Path
) -> None:
    (tmp_path / RECIPE).touch()
    if text is not None:
        (tmp_path / SUMMARY).write_bytes(text)
    with pytest.raises(error) as caught:
        rundir.read_summary(tmp_path, error)
    assert found in caught.value.found
    assert "--resume" in caught.value.fix
    assert len(str(caught.value).splitlines()) == 1
    assert rundir.complete_summary(tmp_path) is None


def test_a_summary_that_is_a_folder_and_a_run_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / SUMMARY).mkdir()
    with pytest.raises(TrainingError, match="is damaged"):
        rundir.read_summary(tmp_path)
    with pytest.raises(TrainingError, match=r"no run .*gone"):
        rundir.read_summary(tmp_path / "gone")
    (tmp_path / "student.onnx").touch()
    with pytest.raises(TrainingError, match=r"student\.onnx is a file, not a run"):
        rundir.read_summary(tmp_path / "student.onnx")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match=r"no run .*empty"):
        rundir.read_summary(tmp_path / "empty")


@pytest.mark.parametrize("manifest", ["manifest.csv", "manifest.jsonl", "dataset.toml"])
def test_recordings_with_their_recipe_are_no_run(manifest: str, tmp_path: Path) -> None:
    gestures = tmp_path / "gestures"
    gestures.mkdir()
    for name in (RECIPE, manifest):
        (gestures / name).touch()
    with pytest.raises(ExportError) as caught:
        rundir.check_run(gestures, ExportError)
    assert caught.value.found == f"{gestures} is a folder of recordings, not a run"
    assert caught.value.fix == f"train on it: kd-edge train --data {gestures}"
    with pytest.raises(TrainingError, match="is a folder of recordings, not a run"):
        rundir.read_summary(gestures)
    with pytest.raises(TrainingError, match="is a folder of recordings, not a run"):
        load_recipe(gestures)
    assert rundir.run_folders(tmp_path) == []
    with pytest.raises(TrainingError, match=r"gestures is a folder of recordings\. Expected a new or empty folder"):
        rundir.check_free(gestures)
    (gestures / METRICS).touch()  # a run was trained among them all the same: its hours are not lost
    rundir.check_run(gestures)
    assert rundir.run_folders(tmp_path) == [gestures]
    with pytest.raises(TrainingError, match=r"contains a run already.*--resume"):
        rundir.check_free(gestures)


def test_a_run_that_lost_its_recipe(tmp_path: Path) -> None:
    (tmp_path / SUMMARY).touch()
    with pytest.raises(TrainingError, match=r"has no recipe\.toml.*Fix: restore it"):
        load_recipe(tmp_path)


def test_a_summary_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    rundir.write_summary(tmp_path, Summary(complete=True, seed=1))
    assert json.loads((tmp_path / SUMMARY).read_text()) == {"complete": True, "seed": 1}
    assert rundir.complete_summary(tmp_path) == Summary(complete=True, seed=1)
    assert [path.name for path in tmp_path.iterdir()] == [SUMMARY]


def test_new_run_paths_do_not_collide(tmp_path: Path) -> None:
    first = rundir.new_run_path(tmp_path, "x")
    first.mkdir()
    assert rundir.new_run_path(tmp_path, "x") != first
    assert first.name.startswith("x-20")
