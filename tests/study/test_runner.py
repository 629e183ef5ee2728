from __future__ import annotations

import json
import signal
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kd_edge import recipes
from kd_edge.errors import RunHeldError, TrainingError
from kd_edge.rundir import RECIPE, SUMMARY, read_summary
from kd_edge.study import runner
from kd_edge.study.classical import comparator_fingerprints
from kd_edge.study.plan import StudyConfig, plan
from kd_edge.study.report import report, report_markdown
from kd_edge.study.runner import Held, Skipped, Started, finished_run, run_study
from kd_edge.train.events import Finished, Prepared
from kd_edge.train.recipe import OnnxTeacherConfig, Recipe
from kd_edge.train.trainer import train
from tests.runs import killed


def started(events: Iterable[object]) -> list[Started | Skipped]:
    return [event for event in events if isinstance(event, (Started, Skipped))]


def prepared(events: Iterable[object]) -> list[Prepared]:
    return [event for event in events if isinstance(event, Prepared)]


@pytest.mark.slow
def test_equal_teachers_are_trained_once_and_finished_runs_left_alone(study: StudyConfig, tmp_path: Path) -> None:
    folder = tmp_path / "studies" / "tiny"
    events = list(run_study(plan(study), folder))
    assert [type(event) for event in started(events)] == [Started] * 3
    taught = folder / "st-subjects-s0"
    assert [event.teacher_run for event in prepared(events)] == [None, None, taught]
    teachers = [
        load_file(folder / run / "teachers" / "teacher.safetensors") for run in ("st-subjects-s0", "at-subjects-s0")
    ]
    assert all(torch.equal(teachers[0][key], teachers[1][key]) for key in teachers[0])

    # The shared teacher changes nothing: trained alone, the last row gets the very same student.
    config = plan(study, rows=["at"])[0].config
    assert isinstance(config, Recipe)
    list(train(config, tmp_path / "by_itself"))
    weights = [load_file(run / "student.safetensors") for run in (folder / "at-subjects-s0", tmp_path / "by_itself")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])

    again = started(run_study(plan(study), folder))
    assert [type(event) for event in again] == [Skipped] * 3
    beside = started(run_study(plan(study, rows=["st"]), tmp_path / "studies" / "other"))
    assert [event.folder for event in beside] == [taught], "another study's run of the same settings counts"

    lines = report(study, folder)
    assert [line.name for line in lines] == ["teacher", "alone", "st", "at"]
    summary = json.loads((folder / "at-subjects-s0" / "summary.json").read_text())
    measured = lines[3].cells["subjects"]
    assert measured.values == {0: pytest.approx(100 * summary["stages"]["student"]["test"]["accuracy"])}
    assert (measured.published, measured.spread, measured.missing) == (74.58, None, 0)
    assert lines[0].cells["subjects"].values[0] == pytest.approx(100 * summary["stages"]["teacher"]["test"]["accuracy"])
    assert f"| AT | 1 | 74.58 | {measured.mean:.1f} | 0: {measured.mean:.1f} |" in report_markdown(study, lines)


def test_an_interrupted_run_goes_on(study: StudyConfig, tmp_path: Path) -> None:
    folder = tmp_path / "studies" / "tiny"
    runs = plan(study, rows=["st"])
    for event in run_study(runs, folder):
        if type(event).__name__ == "StageStarted":
            break  # as a kill in the first epoch
    assert finished_run(runs[0], folder) is None
    assert [type(event) for event in started(run_study(runs, folder))] == [Started]
    assert finished_run(runs[0], folder) == folder / "st-subjects-s0"


def test_a_row_that_another_process_trains_is_passed_by(study: StudyConfig, tmp_path: Path) -> None:
    """Two side by side share a study: each row is trained once, and the one that ends first says what is left."""
    folder = tmp_path / "studies" / "tiny"
    first = run_study(plan(study, rows=["alone"]), folder)
    while type(next(first)).__name__ != "StepDone":
        pass  # it is in the midst of its first epoch
    second, seen = run_study(plan(study, rows=["alone", "st"]), folder), []
    with pytest.raises(RunHeldError, match=r"another process trains alone-subjects-s0.* Fix: run the study again"):
        seen.extend(second)
    assert [event.planned.row.name for event in seen if isinstance(event, Held)] == ["alone"]
    assert sum(isinstance(event, Finished) for event in seen) == 1, "st is trained to its end"
    assert [event.folder.name for event in started(first)] == []  # goes on to its end, undisturbed
    assert sorted(path.name for path in folder.iterdir()) == ["alone-subjects-s0", "st-subjects-s0"]
    cells = {line.name: line.cells["subjects"] for line in report(study, folder) if not line.shared}
    assert {name: (len(cell.values), cell.missing) for name, cell in cells.items()} == {
        "alone": (1, 0),
        "st": (1, 0),
        "at": (0, 1),
    }


@pytest.mark.slow
def test_a_run_killed_half_way_counts_for_nothing_and_goes_on_to_the_same_weights(
    study: StudyConfig, finished_rows: Path, tmp_path: Path
) -> None:
    """Killed after the first epoch's state, and again with half a summary written."""
    folder = tmp_path / "studies" / "killed" / "runs"
    (run,) = plan(study, rows=["alone"])
    assert isinstance(run.config, Recipe)
    place = folder / run.name
    values = run.config.model_dump(mode="json")
    assert killed(values, place, False, ("student", 1, 2)) == -signal.SIGKILL
    assert (place / RECIPE).is_file()
    assert finished_run(run, folder) is None
    line = report(study, folder)[0]
    assert (line.cells["subjects"].values, line.cells["subjects"].missing) == ({}, 1)
    assert [event.folder for event in started(run_study([run], folder))] == [place]
    whole = load_file(finished_rows / run.name / "student.safetensors")
    again = load_file(place / "student.safetensors")
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    complete = (place / SUMMARY).read_bytes()
    (place / SUMMARY).write_bytes(complete[: len(complete) // 2])
    assert finished_run(run, folder) is None
    assert [event.folder for event in started(run_study([run], folder))] == [place]
    assert report(study, folder)[0].cells["subjects"].values.keys() == {0}


def test_rows_that_did_not_run_say_so(study: StudyConfig, tmp_path: Path) -> None:
    lines = report(study, tmp_path / "studies" / "nothing", seeds=[0, 1])
    assert [line.cells["subjects"].missing for line in lines] == [2, 2, 2]
    text = report_markdown(study, lines)
    assert "| AT | - | 74.58 | not run | - |" in text
    unpublished = study.model_copy(update={"rows": study.rows[:2]})
    text = report_markdown(unpublished, report(unpublished, tmp_path / "studies" / "nothing"))
    assert "published" not in text
    assert "| ST | - | not run | - |" in text


def test_a_spread_needs_two_seeds(study: StudyConfig, finished_rows: Path) -> None:
    list(run_study(plan(study, rows=["alone"], seeds=[0, 1]), finished_rows))
    lines = {line.name: line for line in report(study, finished_rows, seeds=[0, 1, 2])}
    cell = lines["alone"].cells["subjects"]
    a, b = cell.values[0], cell.values[1]
    assert cell.mean == pytest.approx((a + b) / 2)
    assert cell.spread == pytest.approx(abs(a - b) / 2**0.5)
    assert cell.missing == 1


def test_a_teacher_of_other_settings_is_not_taken(study: StudyConfig, finished_rows: Path, tmp_path: Path) -> None:
    changed = plan(study, rows=["at"], overrides=["teacher.learning_rate=0.1"])
    assert [event.teacher_run for event in prepared(run_study(changed, finished_rows))] == [None]
    config = plan(study, rows=["at"], seeds=[9])[0].config
    assert isinstance(config, Recipe)
    with pytest.raises(TrainingError, match="other settings or recordings"):
        list(train(config, tmp_path / "x", teacher_runs=[finished_rows / "st-subjects-s0"]))


@pytest.mark.slow
def test_a_comparator_runs_as_a_row(study: StudyConfig, tmp_path: Path) -> None:
    small = {
        "kind": "tstdds",
        "frame_px": 32,
        "streams": {"epochs": 1, "backbone": "tiny"},
        "coding": {"codewords": 4, "dimensions": 4, "neighbours": 2, "sampled_clips": 4},
    }
    rows = [{"name": "classical", "title": "TSTDDs", "comparator": small}]
    changed = StudyConfig.model_validate(study.model_dump() | {"rows": rows})
    folder = tmp_path / "studies" / "tiny"
    list(run_study(plan(changed), folder))
    assert report(changed, folder)[0].cells["subjects"].values.keys() == {0}
    assert [type(event) for event in started(run_study(plan(changed), folder))] == [Skipped]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["crc", "cnn_lstm"])
def test_comparators_on_motion_maps_run_as_rows(study: StudyConfig, tmp_path: Path, kind: str) -> None:
    """The generated near infrared frames stand in for depth."""
    motion = {"trim_frames": 0, "bin_mm": 8, "range_mm": 256, "height": 8, "silhouette": True}
    settings = {"kind": kind, "depth": "nir", "sensors": [], "motion": motion}
    settings |= {"epochs": 1, "channels": 2} if kind == "cnn_lstm" else {}
    rows = [{"name": "classical", "title": kind, "comparator": settings}]
    changed = StudyConfig.model_validate(study.model_dump() | {"rows": rows})
    folder = tmp_path / "studies" / "tiny"
    planned = plan(changed)
    place = folder / planned[0].name
    place.mkdir(parents=True)
    config = planned[0].config
    (place / "recipe.toml").write_text(recipes.to_toml(config))  # as an interrupted run leaves it
    list(run_study(planned, folder))
    assert report(changed, folder)[0].cells["subjects"].values.keys() == {0}
    assert [type(event) for event in started(run_study(planned, folder))] == [Skipped]
    summary = json.loads((place / "summary.json").read_text())
    assert not isinstance(config, Recipe)
    assert summary["data_fingerprints"] == comparator_fingerprints(config)


@pytest.mark.slow
def test_an_unfinished_comparator_of_another_kind_is_kept(study: StudyConfig, tmp_path: Path) -> None:
    motion = {"bin_mm": 8, "range_mm": 256, "height": 8}
    rows = [
        {"name": "row", "title": "x", "comparator": {"kind": "crc", "depth": "nir", "sensors": [], "motion": motion}}
    ]
    planned = plan(StudyConfig.model_validate(study.model_dump() | {"rows": rows}))
    place = tmp_path / "studies" / "tiny" / planned[0].name
    place.mkdir(parents=True)
    (place / "recipe.toml").write_text('kind = "tstdds"\n')
    assert [event.folder.name for event in started(run_study(planned, place.parent))] == ["row-subjects-s0-2"]
    assert (place / "recipe.toml").read_text() == 'kind = "tstdds"\n'


@pytest.mark.slow
def test_other_settings_and_other_recordings_are_other_runs(study: StudyConfig, tmp_path: Path) -> None:
    """Nothing is resumed, skipped or overwritten that is not the planned run."""
    folder = tmp_path / "studies" / "tiny"
    runs = plan(study, rows=["st"])
    longer = plan(study, rows=["st"], overrides=["student.epochs=2"])
    for event in run_study(longer, folder):
        if type(event).__name__ == "StageStarted":
            break  # interrupted
    first = started(run_study(runs, folder))
    assert [event.folder.name for event in first] == ["st-subjects-s0-2"]
    (begun,) = first
    assert isinstance(begun, Started)
    assert begun.apart_from == f"{folder / 'st-subjects-s0'} is another run: student.epochs is 2 there and 1 here"
    finished = json.loads((first[0].folder / "summary.json").read_text())
    assert finished["stages"]["student"]["epochs"] == 1
    again = started(run_study(longer, folder))
    assert [event.folder.name for event in again] == ["st-subjects-s0"], "the interrupted one goes on"

    # As after completing a partial download: same settings, other recordings.
    finished["data_fingerprints"] = {"student": "other", "teacher": "other"}
    (first[0].folder / "summary.json").write_text(json.dumps(finished))
    events = list(run_study([*runs, *plan(study, rows=["at"])], folder))
    anew = started(events)
    assert [type(event) for event in anew] == [Started, Started]
    assert [event.folder.name for event in anew] == ["st-subjects-s0-3", "at-subjects-s0"]
    assert [event.apart_from for event in anew if isinstance(event, Started)][1] == ""
    trained_here = folder / "st-subjects-s0"  # of the same teacher's recordings, unlike the run that was changed
    assert {event.teacher_run for event in prepared(events)} == {trained_here}


def test_weights_replaced_under_their_name_are_other_runs(
    study: StudyConfig, finished_rows: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source.safetensors"
    source.write_bytes((finished_rows / "st-subjects-s0" / "student.safetensors").read_bytes())
    runs = plan(study, rows=["alone"], overrides=[f'student.source="{source}"'])
    first = started(run_study(runs, finished_rows))
    assert [event.folder.name for event in first] == ["alone-subjects-s0-2"]
    assert [type(event) for event in started(run_study(runs, finished_rows))] == [Skipped]

    source.write_bytes((finished_rows / "at-subjects-s0" / "student.safetensors").read_bytes())
    again = started(run_study(runs, finished_rows))
    assert [(type(event), event.folder.name) for event in again] == [(Started, "alone-subjects-s0-3")]


def test_rows_tested_on_other_clips_are_pointed_out(study: StudyConfig, finished_rows: Path) -> None:
    assert "different numbers of clips" not in report_markdown(study, report(study, finished_rows))
    path = finished_rows / "st-subjects-s0" / "summary.json"
    summary = json.loads(path.read_text())
    summary["stages"]["student"]["test_samples"] = 9
    path.write_text(json.dumps(summary))
    text = report_markdown(study, report(study, finished_rows))
    assert "subjects: the rows were tested on different numbers of clips: alone [10], ST [9], AT [10]." in text


def test_a_comparators_run_of_other_recordings_is_no_finished_one(
    study: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after completing a partial download; a run of a release that did not say is run again too."""
    settings = {"kind": "crc", "depth": "nir", "sensors": ["gyroscope"]}
    rows = [{"name": "classical", "title": "CRC", "comparator": settings}]
    planned = plan(StudyConfig.model_validate(study.model_dump() | {"rows": rows}))
    config = planned[0].config
    assert not isinstance(config, Recipe)
    run: list[str] = []
    monkeypatch.setattr("kd_edge.study.runner.run_comparator", lambda config, place, **_: run.append(place.name))
    folder = tmp_path / "studies" / "tiny"
    place = folder / planned[0].name
    place.mkdir(parents=True)
    now = comparator_fingerprints(config)
    assert now.keys() == {"nir", "gyroscope"}
    summary = {"complete": True, "stages": {}, "recipe_fingerprint": config.fingerprint()}
    for found, expected in ((now, Skipped), (now | {"gyroscope": "other"}, Started), (None, Started)):
        values = summary if found is None else summary | {"data_fingerprints": found}
        (place / "summary.json").write_text(json.dumps(values))
        assert [type(event) for event in started(run_study(planned, folder))] == [expected]
    assert len(run) == 2
    fewer = config.model_copy(update={"data": config.data.model_copy(update={"clips_per_class": 5})})
    assert comparator_fingerprints(fewer)["nir"] != now["nir"]


def test_recordings_of_rows_with_other_encoders_are_told_apart(
    study: StudyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two encoders, and of two outputs of one; rows that differ in the seed alone are looked up once."""
    plain = plan(study, rows=["alone"])[0].config
    assert isinstance(plain, Recipe)
    looked_up: list[Recipe] = []

    def fingerprints(recipe: Recipe, data_root: Path | None) -> dict[str, str]:
        looked_up.append(recipe)
        assert isinstance(recipe.teacher, OnnxTeacherConfig)
        return {"teacher": f"{recipe.teacher.file} {recipe.teacher.output}"}

    monkeypatch.setattr(runner, "data_fingerprints", fingerprints)
    recordings = runner._Recordings(None)
    stages = [{"kind": "dense", "targets": [{"kind": "features"}]}, {"kind": "labels"}]
    teacher = {"kind": "onnx", "modality": "rgb", "preprocess": {"channels": 3}}
    for seed in (0, 1):
        for file, output in (("map.onnx", None), ("flat.onnx", None), ("map.onnx", "tokens")):
            changes = {"teacher": teacher | {"file": file, "output": output}, "stages": stages, "seed": seed}
            recipe = Recipe.model_validate(plain.model_dump() | changes)
            assert recordings.of(recipe) == {"teacher": f"{file} {output}"}
    assert len(looked_up) == 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pixels", "features"])
def test_equal_dense_stages_are_trained_once(kind: str, study: StudyConfig, tmp_path: Path) -> None:
    """Whatever comes after the stage; its weights and what follows are those of a run that trains it itself."""
    dense = {"kind": "dense", "epochs": 1, "frames": 2, "targets": [{"kind": kind, "components": 3}]}
    head = {"kind": "head", "epochs": 1, "passes": 1}
    rows = {
        "both": {"stages": [dense, head]},
        "only": {"stages": [dense, head], "student": {"model": {"reads": "targets"}}},
        "labels": {"stages": [dense, {"kind": "labels"}, head]},
        "longer": {"stages": [dense | {"epochs": 2}, head]},
        "features": {"stages": [dense, head], "student": {"model": {"reads": "features"}}},
    }
    values = study.model_dump() | {"rows": [{"name": n, "title": n, "set": s} for n, s in rows.items()]}
    values["set"] = {"student": {"epochs": 1}, "losses": []}
    if kind == "features":
        values["set"]["teacher"] = {"epochs": 1}
    for row in values["rows"] if kind == "pixels" else ():
        row["without"] = ["teacher"]
    runs = plan(recipes.validate(values, StudyConfig, "study"))
    folder = tmp_path / "studies" / "tiny"
    events = prepared(run_study(runs, folder))
    first = folder / "both-subjects-s0"
    assert [event.dense_run for event in events] == [None, first, first, None, None]
    for run in runs[1:3]:
        assert isinstance(run.config, Recipe)
        list(train(run.config, tmp_path / run.row.name))
        for file in ("dense.safetensors", "student.safetensors"):
            alone, shared = load_file(tmp_path / run.row.name / file), load_file(folder / run.name / file)
            assert alone.keys() == shared.keys()
            assert all(torch.equal(alone[key], shared[key]) for key in alone)
        assert read_summary(folder / run.name).stages["student"].dense == (
            read_summary(first).stages["student"].dense
        ), "told as the run that trained it does"
    longer = runs[3].config
    assert isinstance(longer, Recipe)
    with pytest.raises(TrainingError, match="other settings or recordings"):
        list(train(longer, tmp_path / "longer", dense_runs=[first]))


def test_recordings_of_rows_with_dense_targets_are_told_apart(study: StudyConfig, tmp_path: Path) -> None:
    """A run that regresses sensors has looked at their recordings, too; the others' must not be asked for them."""
    plain = plan(study, rows=["alone"])[0].config
    assert isinstance(plain, Recipe)
    dense = {"kind": "dense", "targets": [{"kind": "signals", "sensors": ["gyroscope"]}]}
    regressing = Recipe.model_validate(plain.model_dump() | {"stages": [dense, {"kind": "labels"}]})
    for order in ((plain, regressing), (regressing, plain)):
        recordings = runner._Recordings(None)
        found = {config.dense_stage is not None: recordings.of(config) for config in order}
        assert found[False].keys() == {"student"}
        assert found[True].keys() == {"student", "dense"}
    losing = Recipe.model_validate(plain.model_dump() | {"losses": [dense]})
    for loss_order in ((plain, losing), (losing, plain)):
        recordings = runner._Recordings(None)
        known = {bool(config.losses): recordings.of(config) for config in loss_order}
        assert (known[False].keys(), known[True].keys()) == ({"student"}, {"student", "loss"})
    taught = plan(study, rows=["st"])[0].config
    assert isinstance(taught, Recipe)
    staged = Recipe.model_validate(taught.model_dump() | {"stages": [dense, {"kind": "labels"}]})
    assert staged.teacher_fingerprint() == taught.teacher_fingerprint()  # the teacher is trained once for both
    assert staged.fingerprint() != taught.fingerprint()
