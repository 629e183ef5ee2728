"""Every row of the strong student's table starts, and one goes to its end and is exported, on a miniature tree."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kd_edge import recipes
from kd_edge.artifact import load
from kd_edge.export import ExportProfile, export
from kd_edge.rundir import read_summary
from kd_edge.study.plan import Planned, load_study, plan
from kd_edge.study.runner import run_study
from kd_edge.train.recipe import DenseStage, HeadStage, LabelsStage, Recipe
from tests.study.test_miniature_sensors import start, utd_tree, vectors_file

__all__ = ["utd_tree"]  # pytest finds it here

TABLE = "utd_mhad_strong_methods"
METHODS = ("st", "logits", "fitnet", "at", "sp", "cc", "rkd", "ccskd", "dkd", "mgcam", "ours")
SENSORS = ("sakdn", "skdn", "kdn", "sadn", "akdn")


@pytest.fixture(autouse=True)
def _cache(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KD_EDGE_CACHE", str(cache_folder))
    torch.set_num_threads(1)


def test_the_table_has_every_method_with_and_without_a_dense_stage_on_one_student() -> None:
    runs = {run.row.name: run.config for run in plan(load_study(TABLE), seeds=[0])}
    control = runs.pop("logits_class")
    assert control.model_copy(update={"teacher_shuffle": None, "name": "any"}) == runs["logits"].model_copy(
        update={"name": "any"}
    )
    assert runs.keys() == {f"{row}{more}" for row in ("alone", *METHODS, *SENSORS) for more in ("", "_joints")}
    assert len({config.student.model_dump_json() for config in runs.values()}) == 1
    for row in ("alone", *METHODS, *SENSORS):
        without, after = runs[row], runs[f"{row}_joints"]
        assert [type(stage) for stage in without.stages] == [LabelsStage, HeadStage]
        assert [type(stage) for stage in after.stages] == [DenseStage, LabelsStage, HeadStage]
        assert after.stages[1:] == without.stages
        assert after.model_copy(update={"stages": without.stages, "name": without.name}) == without
    assert len({config.teacher_fingerprint() for config in runs.values() if config.teacher}) == 4


def small(run: Planned, tree: Path, folder: Path, *more: str) -> Recipe:
    """A row's recipe with four moments, small images and signals; its networks and losses untouched."""
    assert isinstance(run.config, Recipe)
    values = run.config.model_dump(mode="json")
    for stage in values["stages"]:
        if stage["kind"] == "labels":
            stage["segments"] = 4
    settings = ["segments=6", "student.preprocess.resize_px=36", "student.preprocess.input_px=32"]
    settings += ["student.batch_size=2"]
    if run.config.wearables is not None:
        settings += ["teacher.points=32", "teacher.batch_size=2"]
        settings += [f"semantics.vectors='{vectors_file(run.config, tree, folder)}'"]
    elif run.config.teacher is not None:
        settings += ["teacher.preprocess.resize_px=36", "teacher.preprocess.input_px=32", "teacher.batch_size=2"]
    return recipes.validate(recipes.overridden(values, [*settings, *more]), Recipe, run.name)


AT_ONCE = ("alone", "ours")
ROWS = [row if row in AT_ONCE else pytest.param(row, marks=pytest.mark.slow) for row in ("alone", *METHODS, *SENSORS)]


@pytest.mark.parametrize("row", ROWS)
def test_every_row_takes_a_step(row: str, utd_tree: Path, tmp_path: Path) -> None:
    run = plan(load_study(TABLE), rows=[row], seeds=[0])[0]
    result = start(run, small(run, utd_tree, tmp_path), utd_tree)
    assert result.samples == (54, 0, 54)
    assert result.inputs["student"] == (2, 4, 3, 32, 32)


@pytest.mark.slow
def test_a_row_goes_to_its_end_and_is_exported(utd_tree: Path, tmp_path: Path) -> None:
    """Through a dense stage, the labels with the losses and the head, each for an epoch."""
    run = plan(load_study(TABLE), rows=["ours_joints"], seeds=[0])[0]
    recipe = small(
        run, utd_tree, tmp_path, "teacher.model.backbone=tiny", "teacher.epochs=1", "teacher.batch_size=27",
        "student.epochs=1", "student.batch_size=27",
    )  # fmt: skip
    short = {"epochs": 1, "batch_size": 27}
    stages = [s if s.kind == "labels" else s.model_copy(update=short) for s in recipe.stages]
    recipe = recipe.model_copy(update={"stages": tuple(stages)})
    planned = Planned(run.name, run.row, run.split, run.seed, recipe)
    list(run_study([planned], tmp_path / "studies" / TABLE, data_root=utd_tree))
    folder = tmp_path / "studies" / TABLE / run.name
    assert read_summary(folder).stages.keys() >= {"teacher", "student"}
    out = tmp_path / "student.onnx"
    export(folder, recipes.load("export", "fp32", ExportProfile), out, data_root=utd_tree)
    assert load(out).manifest.segments == 6
