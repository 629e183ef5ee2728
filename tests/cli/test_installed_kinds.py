"""The shipped example of a data set that another package brings, through the verbs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from kd_edge.recipes import to_toml
from kd_edge.train.recipe import Recipe
from tests.cli.conftest import Kd, one_line
from tests.packages import Install
from tests.runs import tiny_values


def write_recipe(path: Path) -> str:
    """A tiny student alone."""
    values = tiny_values(data={"kind": "gestures"}, losses=[])
    del values["teacher"]
    values["student"] |= {"modality": "ir", "epochs": 1}
    path.write_text(to_toml(Recipe.model_validate(values)))
    return str(path)


def test_it_is_checked_and_drawn(kd: Kd, gestures: Path, tmp_path: Path) -> None:
    code, text, _ = kd("data", "check", "gestures", "--data", str(gestures))
    assert code == 0
    assert "gestures: 24 samples, 24 complete, 2 classes (12 to 12 samples each), 4 subjects" in text
    code, text, error = kd("data", "examples", "gestures", "--data", str(gestures), "--out", "classes.png")
    assert (code, error) == (0, "")
    assert text.startswith("2 rows in classes.png")


def test_without_the_package_all_known_kinds_are_told(kd: Kd, tmp_path: Path, gestures: Path) -> None:
    recipe = write_recipe(tmp_path / "gestures.toml")
    shutil.rmtree(next(tmp_path.glob("site-*")))
    code, _, error = kd("data", "check", recipe, "--data", str(gestures))
    assert code == 2
    assert "data.kind: unknown 'gestures', known here: synthetic, utd_mhad, ntu_rgbd, pku_mmd" in one_line(error)


def test_a_broken_package_is_one_line(kd: Kd, install: Install) -> None:
    install("1 / 0")
    code, text, error = kd("data", "check", "mine")
    assert (code, text) == (2, "")
    assert "the package mine-package 1.0 provides the data kind 'mine' as mine_package:Mine" in one_line(error)
    assert kd("data", "check", "synthetic", "--modality", "none")[2].startswith("error: synthetic has no modality")


@pytest.mark.slow
def test_from_recordings_to_figures_of_a_student(kd: Kd, gestures: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "gestures.toml")
    code, _, error = kd("train", recipe, "--data", str(gestures), "--out", "run")
    assert code == 0, error
    code, _, error = kd("export", "run", "--out", "gestures.onnx")
    assert code == 0, error
    code, text, error = kd("evaluate", "gestures.onnx", "--data", str(gestures), "--json")
    assert code == 0, error
    assert json.loads(text)["clip"]["clips"] == 6
