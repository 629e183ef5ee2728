"""The verb adapt, on the student that ships."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from kd_edge import artifact
from kd_edge.artifact import load
from tests.adapt.conftest import write_clips
from tests.cli.conftest import Kd, one_line


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_clips(tmp_path / "clips", seconds=2.8)
    return Path(shutil.copy(artifact.BUNDLED, tmp_path / "student.onnx"))


@pytest.mark.usefixtures("model")
def test_a_class_is_added_and_told(kd: Kd, tmp_path: Path) -> None:
    code, text, error = kd("adapt", "student.onnx", "--add", "wave=clips")
    assert (code, error) == (0, "")
    lines = text.splitlines()
    assert lines[0].split()[:2] == ["class", "clips"]
    assert lines[1].split()[:4] == ["wave", "6", "24", "100.0%"]
    assert "student-adapted.onnx" in text
    assert "11 classes" in text
    assert "not checked on clips of the existing classes" in text
    assert load(tmp_path / "student-adapted.onnx").manifest.labels[-1] == "wave"
    code, text, error = kd("run", "--camera", "replay:clips/subject0_trial0_nir.npy", "--model", "student-adapted.onnx")
    assert code == 0
    assert "frames labelled" in text + error


@pytest.mark.slow
@pytest.mark.usefixtures("model")
def test_clips_that_taught_nothing_and_what_a_robot_will_doubt_are_told(kd: Kd, tmp_path: Path) -> None:
    write_clips(tmp_path / "short", 1, seconds=1.0)
    (tmp_path / "short" / "subject0_trial0_nir.npy").rename(tmp_path / "clips" / "subject8_trial8_nir.npy")
    np.save(tmp_path / "clips" / "subject9_trial9_nir.npy", np.zeros((84, 64, 80), dtype=np.uint8))
    code, text, _ = kd("adapt", "student.onnx", "--add", "wave=clips", "--json")
    assert code == 0
    (added,) = json.loads(text)["added"]
    assert (added["clips"], added["shorter"], added["empty"]) == (6, 1, 1)
    assert 0 <= added["healthy"] <= 1
    code, text, _ = kd("adapt", "student.onnx", "--add", "wave=clips")
    assert code == 0
    assert "1 too short, 1 empty" in " ".join(text.split())
    assert ("will be labelled degraded" in text) == (added["healthy"] < 0.8)
    assert ("(unfamiliar)" in text) == (added["familiar"] < 0.8)


@pytest.mark.slow
@pytest.mark.usefixtures("model")
def test_figures_as_json(kd: Kd, tmp_path: Path) -> None:
    code, text, _ = kd("adapt", "student.onnx", "--add", "a wave=clips", "--out", "deep/robot.onnx", "--json")
    assert code == 0
    told = json.loads(text)
    assert (told["file"], told["labels"][-1]) == ("deep/robot.onnx", "a wave")
    (added,) = told["added"]
    assert (added["label"], added["clips"], added["accuracy"]) == ("a wave", 6, 1.0)
    assert added["parent_sha256"] == load("student.onnx").manifest.sha256
    assert (tmp_path / "deep" / "robot.onnx").is_file()


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("student.onnx", "--add", "wave"), "--add 'wave'. Expected LABEL=DIR"),
        (("student.onnx", "--add", "wave="), "LABEL=DIR"),
        (("student.onnx", "--add", "=clips"), "blank"),
        (("student.onnx", "--add", "clap=clips"), "a class already"),
        (("student.onnx", "--add", "wave=none"), "no folder none. Expected a folder of recordings. Fix: correct --add"),
        (("student.onnx", "--add", "wave=empty"), "empty contains no recording. Expected files with one of ."),
        (("student.onnx", "--add", "wave=clips", "--keep", "none"), "Fix: correct --keep"),
        (("student.onnx", "--add", "wave=clips", "--key", "none.key"), "none.key"),
        (("student.onnx", "--add", "wave=clips", "--out", "clips"), "it is a folder"),
        (("none.onnx", "--add", "wave=clips"), "no file none.onnx"),
        (("clips", "--add", "wave=clips"), "clips is a folder"),
        (("foreign.onnx", "--add", "wave=clips"), "is not an ONNX model"),
    ],
)
def test_a_mistake_is_one_line(kd: Kd, model: Path, arguments: tuple[str, ...], found: str) -> None:
    (model.parent / "empty").mkdir()
    (model.parent / "foreign.onnx").write_bytes(b"no model at all")
    before = sorted(path.name for path in model.parent.iterdir())
    code, text, error = kd("adapt", *arguments)
    assert (code, text) == (2, "")
    assert found in one_line(error)
    assert sorted(path.name for path in model.parent.iterdir()) == before
