"""Which trained teachers a recipe may take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from kd_edge import recipes
from kd_edge.errors import TrainingError
from kd_edge.models.weights import local_state
from kd_edge.rundir import RECIPE, TEACHER
from kd_edge.train.given import check_settings, weights_metadata
from kd_edge.train.recipe import Recipe
from kd_edge.train.recipe.teacher_stages import SensorTeacherConfig
from kd_edge.train.results.run import save_weights
from tests.runs import tiny_values

TRAINED = {
    "kind": "sensors",
    "sensors": ["accelerometer", "gyroscope"],
    "points": 64,
    "scaling": "sensor",
    "ranges": {"gyroscope": [-500.0, 500.0]},
    "semantic_weight": 0,
}


def config(**changes: Any) -> SensorTeacherConfig:
    return SensorTeacherConfig.model_validate(TRAINED | changes)


def given(folder: Path, form: str) -> Path:
    """A run directory without its weights, or a file of weights."""
    if form == "run":
        values = tiny_values(teacher=TRAINED, losses=[{"kind": "soft_target"}])
        (folder / RECIPE).write_text(recipes.to_toml(Recipe.model_validate(values)), encoding="utf-8")
        return folder
    path = folder / TEACHER if form == "folder" else folder / "teacher.safetensors"
    save_weights(path, {"w": torch.ones(2)}, weights_metadata(config()))
    return folder if form == "folder" else path


@pytest.mark.parametrize("form", ["run", "folder", "file"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sensors": ["gyroscope", "accelerometer"]}, r'sensors = \["accelerometer", "gyroscope"\], the recipe has'),
        ({"points": 96}, "points = 64, the recipe has 96"),
        ({"scaling": "sample", "ranges": {}}, 'scaling = "sensor", the recipe has "sample"'),
        ({"interval": "unit"}, 'interval = "signed", the recipe has "unit"'),
        ({"ranges": {"gyroscope": [-400, 500]}}, r"ranges = .*-500.0, 500.0.*the recipe has .*-400.0, 500.0"),
        ({"ranges": {}}, r"ranges = .*the recipe has \{\}"),
        ({"model": {"variant": "paper"}}, 'model.variant = "official", the recipe has "paper"'),
        ({"model": {"fusion": ["fc2"]}}, r'model.fusion = .*the recipe has \["fc2"\]'),
        ({"model": {"width": 50}}, "model.width = 300, the recipe has 50"),
        ({"points": 96, "interval": "unit", "model": {"width": 50}}, "points = 64"),  # the first that differs
    ],
)
def test_a_teacher_that_saw_something_else_is_refused(
    form: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=f"was trained with teacher.{message}"):
        check_settings(given(tmp_path, form), config(**changes))


@pytest.mark.parametrize("form", ["run", "folder", "file"])
def test_what_does_not_touch_the_weights_may_differ(form: str, tmp_path: Path) -> None:
    path = given(tmp_path, form)
    check_settings(path, config())
    check_settings(path, config(model={"similarity": "identity"}, jitter={"shift": 0.1}, epochs=3))


def test_files_that_say_nothing_are_taken(tmp_path: Path) -> None:
    save_weights(tmp_path / "plain.safetensors", {"w": torch.ones(2)})
    torch.save({"w": torch.ones(2)}, tmp_path / "plain.pt")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    odd = {"sensor_teacher": "{"}
    save_weights(tmp_path / "odd.safetensors", {"w": torch.ones(2)}, odd)
    for name in ("plain.safetensors", "plain.pt", "broken.safetensors", "odd.safetensors", "absent.safetensors"):
        check_settings(tmp_path / name, config())


def test_metadata_is_beside_the_weights(tmp_path: Path) -> None:
    path = given(tmp_path, "file")
    with safe_open(path, "pt") as file:
        told = json.loads(file.metadata()["sensor_teacher"])
    assert (told["points"], told["scaling"], told["model.network"]) == (64, "sensor", "vgg16")
    assert "model.similarity" not in told
    assert torch.equal(local_state(path)["w"], torch.ones(2))
    images = Recipe.model_validate(tiny_values()).teacher
    assert images is not None
    assert weights_metadata(images) is None
