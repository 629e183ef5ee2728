import json
from pathlib import Path
from typing import Any

import pytest

from kd_edge.errors import DataError
from kd_edge.study import table as study


def summary(**changes: object) -> dict[str, object]:
    stage = {
        "modality": "depth",
        "backbone": "resnet18",
        "temporal": "tsn",
        "epochs": 25,
        "selected_epoch": 25,
        "seconds": 120.0,
        "test": {"accuracy": 0.6025, "macro_f1": 0.5},
    }
    values: dict[str, object] = {
        "complete": True,
        "seed": 3,
        "recipe": {"losses": [{"kind": "dkd"}, {"kind": "mgcam"}]},
        "protocol": {"dataset": "utd_mhad", "split": "odd_even", "test_samples": 430},
        "stages": {"student": stage, "teacher": {**stage, "modality": "pose", "backbone": "resnet50"}},
    }
    return values | changes


def write(folder: Path, values: dict[str, object]) -> Path:
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps(values))
    return folder


def test_teacher_first_then_student_with_its_losses(tmp_path: Path) -> None:
    table = study.rows([write(tmp_path / "a", summary())])
    assert [(r.stage, r.modality, r.method) for r in table] == [
        ("teacher", "pose", "cross entropy"),
        ("student", "depth", "CE + DKD + MGCAM"),
    ]
    line = study.markdown(table).splitlines()[3]
    what = "| utd_mhad | odd_even | student: resnet18 + tsn | depth | CE + DKD + MGCAM | "
    assert line == what + "25 of 25 | 3 | 60.2 | 50.0 | 430 | 2 |"


def test_a_student_with_a_dense_stage_and_a_head_has_all_their_minutes(tmp_path: Path) -> None:
    values: dict[str, Any] = summary(recipe={"losses": []})
    values["stages"]["student"] |= {
        "selected_epoch": 0, "seconds": 0.0,
        "dense": {"selected_epoch": 24, "seconds": 240.0}, "head": {"selected_epoch": 40, "seconds": 60.0},
    }  # fmt: skip
    student = study.rows([write(tmp_path / "a", values)])[1]
    assert (student.minutes, student.epochs) == (5.0, "dense 24 + head 40")
    assert student.method == "dense, then cross entropy"


@pytest.mark.parametrize(
    ("values", "message"),
    [(None, "it has no summary.json"), (summary(complete=False), "is not finished")],
)
def test_only_finished_runs_count(tmp_path: Path, values: dict[str, object] | None, message: str) -> None:
    folder = tmp_path / "run"
    if values is None:
        folder.mkdir()
        (folder / "recipe.toml").touch()
    else:
        write(folder, values)
    with pytest.raises(DataError, match=message):
        study.rows([folder])


def test_only_the_marked_place_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "RESULTS.md"
    page.write_text("before\n<!-- utd -->\nold\n<!-- /utd -->\nafter\n")
    study.write_between_markers("new\n", page, "utd")
    assert page.read_text() == "before\n<!-- utd -->\nnew\n<!-- /utd -->\nafter\n"
    with pytest.raises(DataError, match="no place for 'other'"):
        study.write_between_markers("x", page, "other")
