"""One's own recordings through the verbs: check, examples, train, evaluate; and --data where none of it is read."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kd_edge.artifact import BUNDLED
from kd_edge.recipes import to_toml
from kd_edge.train.recipe import Recipe
from tests.cli.conftest import one_line
from tests.runs import tiny_values

Kd = Callable[..., tuple[int, str, str]]


@pytest.fixture
def squares(tmp_path: Path, write_video: Callable[..., Path]) -> Path:
    """24 clips of a square that goes to the left or to the right, by four people; a manifest names them."""
    root = tmp_path / "squares"
    rows = [["id", "label", "subject", "ir"]]
    for k in range(24):
        label = ("left", "right")[k % 2]
        images = np.full((12, 40, 48), 30 + k, np.uint8)
        for t, image in enumerate(images):
            at = 3 * t if label == "right" else 33 - 3 * t
            image[10:26, at : at + 12] = 220
        write_video(root / f"clips/{k}.mkv", list(images))
        rows.append([str(k), label, f"p{k // 6}", f"clips/{k}.mkv"])
    with (root / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    (root / "dataset.toml").write_text('mirror = [["left", "right"]]\n')
    return root


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    """A tiny student alone, of whatever --data names."""
    values = tiny_values(data={"kind": "files"}, split="default", losses=[])
    del values["teacher"]
    values["student"] |= {"modality": "ir", "epochs": 1}
    path = tmp_path / "mine.toml"
    path.write_text(to_toml(Recipe.model_validate(values)))
    return str(path)


def test_training_could_start(kd: Kd, squares: Path, recipe: str) -> None:
    code, text, _ = kd("data", "check", recipe, "--data", str(squares))
    assert code == 0
    assert "squares: 24 samples, 24 complete, 2 classes (12 to 12 samples each), 4 subjects" in text
    assert "training can start, with 12 training, 6 validation and 6 test samples" in text


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("student.class_weights={lefft=2.0}", "student.class_weights names 'lefft', which is not a class"),
        ("student.preprocess.channels=3", "student.preprocess.channels is 3, ir of squares has 1"),
    ],
)
def test_a_check_refuses_what_a_training_refuses(kd: Kd, squares: Path, recipe: str, setting: str, said: str) -> None:
    words = (recipe, "--data", str(squares), "--set", setting)
    code, text, _ = kd("data", "check", *words, "--quick")
    assert (code, f"training cannot start: {said}" in text) == (1, True)
    code, _, error = kd("train", *words, "--dry-run")
    assert (code, said in one_line(error)) == (2, True)


@pytest.mark.slow
def test_from_a_folder_to_figures_of_a_student(kd: Kd, squares: Path, recipe: str, tmp_path: Path) -> None:
    code, text, error = kd("train", recipe, "--data", str(squares), "--out", str(tmp_path / "run"))
    assert code == 0, error
    protocol = json.loads((tmp_path / "run" / "summary.json").read_text())["protocol"]
    assert [protocol[f"{side}_samples"] for side in ("train", "validation", "test")] == [12, 6, 6]
    code, text, error = kd("export", str(tmp_path / "run"), "--out", str(tmp_path / "mine.onnx"))
    assert code == 0, error
    code, text, error = kd("evaluate", str(tmp_path / "mine.onnx"), "--data", str(squares), "--streaming", "--json")
    assert code == 0, error
    assert json.loads(text)["clip"]["clips"] == 6


def test_classes_are_drawn(kd: Kd, squares: Path, tmp_path: Path) -> None:
    code, text, error = kd("data", "examples", "files", "--data", str(squares), "--out", str(tmp_path / "classes.png"))
    assert (code, error) == (0, "")
    assert text.startswith("2 rows in")


def test_a_folder_must_be_named(kd: Kd, recipe: str) -> None:
    code, _, error = kd("data", "check", recipe)
    assert (code, "no folder given" in one_line(error)) == (2, True)


@pytest.mark.parametrize(
    "words",
    [
        ("train", "quickstart"),
        ("data", "check", "synthetic"),
        ("data", "prepare", "quickstart"),
        ("evaluate", str(BUNDLED)),
    ],
    ids=lambda words: " ".join(words[:2]) if words[0] == "data" else words[0],
)
def test_no_folder_is_passed_over(kd: Kd, squares: Path, words: tuple[str, ...]) -> None:
    code, _, error = kd(*words, "--data", str(squares))
    assert code == 2
    assert "generated data (kind = 'synthetic'), which reads no folder" in one_line(error)


@pytest.fixture
def taught(squares: Path, tmp_path: Path) -> str:
    """A recipe in which skeletons beside the clips teach the camera."""
    for k in range(24):
        joints = np.zeros((12, 20, 3), np.float32)
        joints[..., 0] = np.arange(12)[:, None] * (1 if k % 2 else -1) + 1
        joints[..., 1] = np.linspace(2, 1, 20)
        np.save(squares / f"clips/{k}_joints.npy", joints)
    lines = (squares / "manifest.csv").read_text().splitlines()
    lines = [f"{line},{'skeleton' if k == 0 else f'clips/{k - 1}_joints.npy'}" for k, line in enumerate(lines)]
    (squares / "manifest.csv").write_text("\n".join(lines))
    values = tiny_values(data={"kind": "files"}, split="default")
    values["student"] |= {"modality": "ir", "epochs": 1}
    values["teacher"] |= {"modality": "pose", "epochs": 1}
    path = tmp_path / "taught.toml"
    path.write_text(to_toml(Recipe.model_validate(values)))
    return str(path)


def test_skeletons_may_teach(kd: Kd, squares: Path, taught: str) -> None:
    code, text, error = kd("data", "check", taught, "--data", str(squares))
    assert (code, error) == (0, "")
    assert "pose 24 0 12 / 12 / 12" in " ".join(text.split())
    assert "training can start, with 12 training, 6 validation and 6 test samples" in text


@pytest.mark.slow
def test_skeletons_teach(kd: Kd, squares: Path, taught: str, tmp_path: Path) -> None:
    code, _, error = kd("train", taught, "--data", str(squares), "--out", str(tmp_path / "run"))
    assert code == 0, error
    assert {"student", "teacher"} <= set(json.loads((tmp_path / "run" / "summary.json").read_text())["stages"])
