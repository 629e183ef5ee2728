"""Reports from made-up summaries: what is read of which network, and what is said of rows without runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kd_edge import recipes
from kd_edge.errors import ConfigError, DataError
from kd_edge.rundir import read_summary
from kd_edge.study.ledger import entry
from kd_edge.study.plan import StudyConfig, plan
from kd_edge.study.report import Line, not_counted, report, report_markdown
from kd_edge.study.table import markdown
from kd_edge.study.table import rows as table_rows

SENSORS = ["accelerometer", "gyroscope"]
READ = {"title": "x", "of": "taught"}


@pytest.fixture
def study(study: StudyConfig) -> StudyConfig:
    """A student that sensors teach, their networks, and a method that cannot be run."""
    teacher = {"kind": "sensors", "sensors": SENSORS, "points": 32, "semantic_weight": 0.0}
    values = study.model_dump(exclude={"set"}) | {
        "rows": [
            {"name": "acc", "network": "teacher/accelerometer", "published": {"subjects": 81.09}, **READ},
            {"name": "gyro", "network": "teacher/gyroscope", **READ},
            {"name": "multi", "network": "teacher", **READ},
            {"name": "mkl", "title": "MKL", "published": {"subjects": 97.81}, "needs": "depth"},
            {"name": "alone", "title": "alone", "without": ["teacher"], "set": {"losses": []}},
            {"name": "taught", "title": "taught", "set": {"losses": [{"kind": "soft_target"}]}},
        ]
    }
    place = Path("train/recipes/sensors.toml")
    base = recipes.read("train", "tiny") | {"teacher": teacher}
    place.write_text(recipes.to_toml(recipes.validate(base, plan(study)[0].config.__class__, "sensors")))
    return recipes.validate(values | {"base": "sensors"}, StudyConfig, "study")


def write(study: StudyConfig, folder: Path, row: str, seed: int = 0, **teacher: Any) -> None:
    """A finished run as the trainer leaves it: accuracies in steps that no two networks share."""
    run = plan(study, rows=[row], seeds=[seed])[0]
    step = seed / 100

    def figures(accuracy: float) -> dict[str, float]:
        return {"accuracy": accuracy + step, "macro_f1": 0.5, "map": 0.25, "sakdn_f": accuracy - step}

    stages: dict[str, Any] = {"student": {"test": figures(0.9), "epochs": 30, "test_samples": 10}}
    if row == "taught":
        sensors = {"accelerometer": {"clips": 8, **figures(0.5)}, "gyroscope": {"clips": 10, **figures(0.6)}}
        stages["teacher"] = {"test": figures(0.7), "epochs": 100, "test_samples": 10, "sensors": sensors} | teacher
    place = folder / run.name
    place.mkdir(parents=True)
    values = {
        "complete": True,
        "stages": stages,
        "protocol": {"test_samples": 10},
        "recipe_fingerprint": run.config.fingerprint(),
        "data_fingerprints": {"student": "s", "teacher": "t"},
    }
    (place / "summary.json").write_text(json.dumps(values))


def by_name(lines: list[Line]) -> dict[str, Line]:
    return {line.name: line for line in lines}


def test_rows_are_read_of_the_networks_they_name(study: StudyConfig, tmp_path: Path) -> None:
    folder = tmp_path / "studies" / "sensors"
    write(study, folder, "taught")
    write(study, folder, "taught", seed=1)
    lines = report(study, folder, seeds=[0, 1, 2])
    assert [line.name for line in lines] == ["acc", "gyro", "multi", "mkl", "alone", "taught"], "no line of its own"
    cells = {name: line.cells["subjects"] for name, line in by_name(lines).items()}
    assert cells["acc"].values == {0: pytest.approx(50), 1: pytest.approx(51)}
    assert cells["gyro"].values == {0: pytest.approx(60), 1: pytest.approx(61)}
    assert cells["multi"].values == {0: pytest.approx(70), 1: pytest.approx(71)}
    assert cells["taught"].values == {0: pytest.approx(90), 1: pytest.approx(91)}
    assert [cells[name].missing for name in ("acc", "multi", "taught", "alone", "mkl")] == [1, 1, 1, 3, 0]
    assert [by_name(lines)[name].epochs for name in ("acc", "multi", "taught", "mkl")] == ["100", "100", "30", ""]
    assert by_name(lines)["acc"].of == "taught: teacher/accelerometer"
    assert (cells["acc"].published, cells["acc"].test_samples) == (81.09, {8})


def test_a_row_that_cannot_be_run_says_what_it_needs(study: StudyConfig, tmp_path: Path) -> None:
    folder = tmp_path / "studies" / "sensors"
    write(study, folder, "alone")
    text = report_markdown(study, report(study, folder))
    assert "| MKL | - | 97.81 | cannot be run | - |" in text
    assert "| alone | 30 | - | 90.0 | 0: 90.0 |" in text
    assert "| x | - | 81.09 | not run | - |" in text, "its row has not run"
    assert text.endswith("\nRows that cannot be run: MKL needs depth.\n")


@pytest.mark.parametrize(
    ("figures", "printed"),
    [
        ([98.1, 97.81, None], ["98.10", "97.81", "-"]),  # SAKDN's Table II
        ([79.1, 97.2, None], ["79.1", "97.2", "-"]),
        ([76.0, 100.0, None], ["76.0", "100.0", "-"]),
        ([53.9, 8.125, 0.0], ["53.900", "8.125", "0.000"]),
    ],
)
def test_published_figures_are_printed_as_published(
    figures: list[float | None], printed: list[str], study: StudyConfig, tmp_path: Path
) -> None:
    values: dict[str, Any] = study.model_dump(exclude={"rows"})
    values["rows"] = [
        {"name": f"r{i}", "title": f"R{i}", "needs": "x", "published": {} if v is None else {"subjects": v}}
        for i, v in enumerate(figures)
    ]
    changed = recipes.validate(values, StudyConfig, "study")
    text = report_markdown(changed, report(changed, tmp_path / "nowhere"))
    assert [line.split(" | ")[2] for line in text.splitlines() if line.startswith("| R")] == printed


def test_sensors_tested_on_fewer_clips_are_pointed_out_and_teachers_recordings_are_not(
    study: StudyConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "studies" / "sensors"
    write(study, folder, "alone")
    write(study, folder, "taught", sensors={"accelerometer": {"clips": 10, "accuracy": 0.5}, "gyroscope": None})
    text = report_markdown(study, report(study, folder))
    assert "different" not in text
    assert by_name(report(study, folder))["gyro"].cells["subjects"].values == {}, "no test clip has one"
    (folder / "taught-subjects-s0" / "summary.json").unlink()
    (folder / "taught-subjects-s0").rmdir()
    write(study, folder, "taught")
    text = report_markdown(study, report(study, folder))
    assert "different numbers of clips: x [8], x [10], x [10], alone [10], taught [10]." in text


def test_the_f_measure_of_sakdns_code_is_a_metric(study: StudyConfig, tmp_path: Path) -> None:
    folder = tmp_path / "studies" / "sensors"
    changed = study.model_copy(update={"metric": "sakdn_f"})
    write(changed, folder, "taught", seed=1)
    lines = report(changed, folder, seeds=[1])
    assert by_name(lines)["multi"].cells["subjects"].values == {1: pytest.approx(69)}
    assert "F-measure as SAKDN's code has it, %" in report_markdown(changed, lines)


def test_settings_are_chosen_by_validation_clips(study: StudyConfig, tmp_path: Path) -> None:
    """Of students and whole teachers; a run without validation clips has none."""
    folder = tmp_path / "studies" / "sensors"
    changed = study.model_copy(update={"metric": "validation_accuracy"})
    write(changed, folder, "taught", validation={"accuracy": 0.65, "loss": 1.0}, seen_in_training=3)
    write(changed, folder, "alone")
    place = folder / "taught-subjects-s0" / "summary.json"
    values = json.loads(place.read_text())
    values["protocol"]["validation_samples"] = 7
    values["stages"]["student"]["validation"] = {"accuracy": 0.25, "loss": 2.0}
    place.write_text(json.dumps(values))
    lines = report(changed, folder)
    cells = {name: line.cells["subjects"] for name, line in by_name(lines).items()}
    assert {name: cell.values for name, cell in cells.items()} == {
        "acc": {}, "gyro": {}, "multi": {0: pytest.approx(65)},
        "mkl": {}, "alone": {}, "taught": {0: pytest.approx(25)},
    }  # fmt: skip
    assert (cells["taught"].test_samples, cells["multi"].seen_in_training, cells["alone"].missing) == ({7}, 0, 1)
    text = report_markdown(changed, lines)
    assert "| subjects: accuracy on validation clips, % |" in text
    assert "no test of the sensors" not in text
    with pytest.raises(ConfigError, match=r"gains over 'alone' in a study of validation clips"):
        report(changed, folder, against="alone")


def test_a_study_without_such_rows_keeps_its_teachers_line(study: StudyConfig, tmp_path: Path) -> None:
    folder = tmp_path / "studies" / "sensors"
    changed = study.model_copy(update={"rows": study.rows[3:]})
    write(changed, folder, "taught")
    lines = report(changed, folder)
    assert [line.name for line in lines] == ["teacher", "mkl", "alone", "taught"]
    assert lines[0].title == "(teacher)"
    assert lines[0].cells["subjects"].values == {0: pytest.approx(70)}
    assert lines[0].cells["subjects"].published is None


def test_tables_of_runs_say_how_sensors_were_taught(tmp_path: Path) -> None:
    stage = {"modality": "gyroscope", "backbone": "vgg16", "temporal": "no fusion", "epochs": 2, "selected_epoch": 2}
    stage |= {"seconds": 60.0, "test": {"accuracy": 0.5, "macro_f1": 0.25}}
    for weight, weights, method in (
        (1.0, None, "CE + SEMANTIC"),
        (0.0, None, "cross entropy"),
        (1.0, "t.safetensors", "cross entropy"),
    ):
        recipe = {"losses": [], "teacher": {"kind": "sensors", "semantic_weight": weight, "weights": weights}}
        values = {
            "complete": True,
            "seed": 0,
            "recipe": recipe,
            "protocol": {"dataset": "utd_mhad", "split": "trials", "test_samples": 4},
            "stages": {"teacher": stage},
        }
        (tmp_path / "summary.json").write_text(json.dumps(values))
        found = table_rows([tmp_path])
        assert [row.method for row in found] == [method]
        assert f"| teacher: vgg16 + no fusion | gyroscope | {method} | 2 of 2 |" in markdown(found)


def test_sensors_tested_on_signals_that_trained_them_are_pointed_out(study: StudyConfig, tmp_path: Path) -> None:
    folder = tmp_path / "studies" / "sensors"
    write(study, folder, "alone")
    write(study, folder, "taught", seen_in_training=0)
    assert "trained on" not in report_markdown(study, report(study, folder))
    (folder / "taught-subjects-s0" / "summary.json").unlink()
    (folder / "taught-subjects-s0").rmdir()
    write(study, folder, "taught", seen_in_training=7)
    text = report_markdown(study, report(study, folder))
    assert "subjects: no test of the sensors, one signal serves several cameras." in text
    assert "Test clips with a signal that was trained on: x 7, x 7, x 7.\n" in text, "the students' tests are tests"
    changed = study.model_copy(update={"rows": study.rows[3:]})
    assert "was trained on: (teacher) 7.\n" in report_markdown(changed, report(changed, folder))


def test_teachers_that_differ_have_a_line_each(study: StudyConfig, tmp_path: Path) -> None:
    folder = tmp_path / "studies" / "sensors"
    losses = {"losses": [{"kind": "soft_target"}]}
    rows = [
        {"name": "a", "title": "A", "set": losses},
        {"name": "b", "title": "B", "set": losses | {"teacher": {"epochs": 7}}},
        {"name": "c", "title": "C", "set": {"losses": [{"kind": "logits"}]}},  # of a's teacher
    ]
    changed = recipes.validate(study.model_dump() | {"rows": rows}, StudyConfig, "study")
    for row, accuracy in (("b", 0.2), ("c", 0.1)):
        write(changed, folder, row)
        path = folder / f"{row}-subjects-s0" / "summary.json"
        summary = json.loads(path.read_text())
        summary["stages"]["teacher"] = {"test": {"accuracy": accuracy}, "epochs": 3, "test_samples": 10}
        path.write_text(json.dumps(summary))
    lines = report(changed, folder)
    assert [(line.name, line.title) for line in lines[:2]] == [
        ("teacher of c", "(teacher of C)"),
        ("teacher of b", "(teacher of B)"),
    ]
    assert [line.cells["subjects"].values[0] for line in lines[:2]] == [pytest.approx(10), pytest.approx(20)]
    assert [line.name for line in lines[2:]] == ["a", "b", "c"]
    same = changed.model_copy(update={"rows": (changed.rows[0], changed.rows[2])})
    assert [line.title for line in report(same, folder)] == ["(teacher)", "A", "C"]


def test_a_teacher_of_rows_with_other_seeds_has_one_line(study: StudyConfig, tmp_path: Path) -> None:
    folder = tmp_path / "studies" / "sensors"
    rows = [
        {"name": "taught", "title": "A", "set": {"losses": [{"kind": "soft_target"}]}},
        {"name": "more", "title": "B", "seeds": [2, 0], "set": {"losses": [{"kind": "logits"}]}},
    ]
    changed = recipes.validate(study.model_dump() | {"rows": rows, "seeds": [0, 1]}, StudyConfig, "study")
    for seed in (0, 1):
        write(changed, folder, "taught", seed)
    write(changed, folder, "more", 2)
    place = folder / "more-subjects-s2" / "summary.json"
    summary = json.loads(place.read_text())
    summary["stages"]["teacher"] = {"test": {"accuracy": 0.2}, "epochs": 3, "test_samples": 10}
    place.write_text(json.dumps(summary))
    teacher, *lines = report(changed, folder)
    assert (teacher.title, [line.title for line in lines]) == ("(teacher)", ["A", "B"])
    assert teacher.cells["subjects"].values == {
        0: pytest.approx(70),
        1: pytest.approx(71),
        2: pytest.approx(20),
    }


def test_of_two_runs_of_one_row_the_one_that_finished_last_counts(study: StudyConfig, tmp_path: Path) -> None:
    """As after recordings changed: the first folder keeps the old run, the second one has the new."""
    folder = tmp_path / "studies" / "x"
    write(study, folder, "alone")
    first = folder / "alone-subjects-s0" / "summary.json"
    values = json.loads(first.read_text())
    first.write_text(json.dumps(values | {"finished": "2026-01-02"}))
    values["stages"]["student"]["test"]["accuracy"] = 0.3
    second = folder / "alone-subjects-s0-2"
    second.mkdir()
    (second / "summary.json").write_text(json.dumps(values | {"finished": "2026-01-03"}))
    assert figure(report(study, folder), "alone") == {0: pytest.approx(30)}
    (second / "summary.json").write_text(json.dumps(values | {"finished": "2026-01-01"}))
    assert figure(report(study, folder), "alone") == {0: pytest.approx(90)}


@pytest.mark.parametrize("file", ["b.onnx", "elsewhere/a.onnx"])
def test_rows_that_differ_in_their_encoder_alone_have_a_run_each(study: StudyConfig, tmp_path: Path, file: str) -> None:
    """What an encoder is decides, not where it lies: a copy is the same, another one is not."""
    (tmp_path / "elsewhere").mkdir()
    for name, content in (("a.onnx", b"one"), ("b.onnx", b"another"), ("elsewhere/a.onnx", b"one")):
        (tmp_path / name).write_bytes(content)
    stages = [{"kind": "dense", "targets": [{"kind": "features"}]}, {"kind": "labels"}]
    base = recipes.read("train", "tiny") | {"losses": [], "stages": stages}
    base |= {"teacher": {"kind": "onnx", "file": str(tmp_path / "a.onnx"), "modality": "rgb"}}
    config = plan(study, rows=["alone"])[0].config.__class__
    Path("train/recipes/encoder.toml").write_text(recipes.to_toml(recipes.validate(base, config, "encoder")))
    another = {"teacher": {"file": str(tmp_path / file)}}
    rows = [{"name": "first", "title": "1"}, {"name": "second", "title": "2", "set": another}]
    values = study.model_dump(exclude={"set", "rows"}) | {"base": "encoder", "rows": rows}
    both = recipes.validate(values, StudyConfig, "study")
    first, second = (plan(both, rows=[name], seeds=[0])[0] for name in ("first", "second"))
    assert first.config.fingerprint() == second.config.fingerprint()
    folder = tmp_path / "studies" / "x"
    write(both, folder, "first")
    (folder / first.name / "recipe.toml").write_text(recipes.to_toml(first.config))
    assert figure(report(both, folder), "first") == {0: pytest.approx(90)}
    assert figure(report(both, folder), "second") == ({} if file == "b.onnx" else {0: pytest.approx(90)})


def test_runs_of_other_settings_are_told_where_a_row_lacks_its_own(study: StudyConfig, tmp_path: Path) -> None:
    """A changed recipe under an old name: nothing is lost, nothing counts, and the first difference is named."""
    folder = tmp_path / "studies" / "x"
    write(study, folder, "alone")
    (planned,) = plan(study, rows=["alone"])
    (folder / planned.name / "recipe.toml").write_text(recipes.to_toml(planned.config))
    assert not_counted(study, folder, ["alone"]) == []
    changes = ["student.epochs=7"]
    assert figure(report(study, folder, overrides=changes), "alone") == {}
    told = (
        f"{planned.name}: in {folder / planned.name} student.epochs is {planned.config.student.epochs} there and 7 here"
    )
    assert not_counted(study, folder, ["alone"], overrides=changes) == [told]
    assert not_counted(study, folder, ["taught"], overrides=changes) == []
    kept = [entry(planned, read_summary(folder / planned.name, DataError))]
    assert not_counted(study, tmp_path / "none" / "x", ["alone"], overrides=changes, ledger=kept) == [
        f"{planned.name}: the ledger has it under other settings"
    ]


def test_a_table_of_some_rows_has_them_in_the_order_asked_for_and_the_studys_notes(
    study: StudyConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "studies" / "x"
    write(study, folder, "alone")
    noted = study.model_copy(update={"notes": ("Generated pictures.",)})
    lines = report(noted, folder, rows=["taught", "alone"])
    assert [line.name for line in lines] == ["taught", "alone"]
    assert report_markdown(noted, lines).endswith("\n\nGenerated pictures.\n")
    with pytest.raises(ConfigError, match=r"the study has no row 'alon' .did you mean 'alone'"):
        report(noted, folder, rows=["alon"])


def figure(lines: list[Line], row: str) -> dict[int, float]:
    """Seed -> accuracy of a row."""
    return next(line for line in lines if line.name == row).cells["subjects"].values
