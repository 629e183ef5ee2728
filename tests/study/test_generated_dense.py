"""Every row of the generated set's table starts, and one goes to its end, on few and small pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kd_edge import recipes
from kd_edge.rundir import read_summary
from kd_edge.study.plan import Planned, load_study, plan
from kd_edge.study.runner import run_study
from kd_edge.train.recipe import DenseStage, Recipe
from kd_edge.train.rehearsal import rehearse

TABLE = "generated_dense"
ROWS = (
    "alone", "alone_long", "dkd", "mgcam", "ours", "joints", "joints_labels", "joints_ours", "signals", "both",
    "features", "features_class", "dkd_class", "joints_class", "pca",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _cache(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KD_EDGE_CACHE", str(cache_folder))
    torch.set_num_threads(1)


def small(run: Planned, *more: str) -> Recipe:
    """A row's recipe on the generated pictures of four people; its networks, stages and losses untouched."""
    assert isinstance(run.config, Recipe)
    settings = ["data.clips_per_class=4", "data.subjects=4", "data.height_px=40", "data.width_px=48", "data.fps=8"]
    settings += ["segments=4"]
    for stage in run.config.networks:
        settings += [f"{stage}.{key}" for key in ("preprocess.resize_px=36", "preprocess.input_px=32", "batch_size=2")]
    values = run.config.model_dump(mode="json")
    for target in (target for stage in values["stages"] for target in stage.get("targets", [])):
        target |= {"side_px": 16} if target["kind"] == "pixels" else {}
    return recipes.validate(recipes.overridden(values, [*settings, *more]), Recipe, run.name)


def test_rows_share_student_and_recordings() -> None:
    runs = {run.row.name: run.config for run in plan(load_study(TABLE), seeds=[0])}
    assert set(runs) == {*ROWS, "random"}
    lasting = {name: config.student.model_copy(update={"epochs": 32}) for name, config in runs.items()}
    assert len({student.model_dump_json() for student in lasting.values()}) == 1
    assert len({config.data.model_dump_json() for config in runs.values()}) == 1
    # the control sees as many pictures with their labels as other rows see with joints and with labels
    dense, alone = runs["joints_labels"].dense_stage, runs["alone"]
    assert dense is not None
    both = alone.student.epochs * alone.segments + dense.epochs * dense.frames
    assert runs["alone_long"].student.epochs * alone.segments == both
    assert {name for name, config in runs.items() if config.teacher} == {
        "dkd", "mgcam", "ours", "joints_ours", "features", "features_class", "dkd_class"
    }  # fmt: skip
    assert len({config.teacher_fingerprint() for config in runs.values() if config.teacher}) == 1


@pytest.mark.parametrize(
    "row", ["ours", *(pytest.param(row, marks=pytest.mark.slow) for row in (*ROWS, "random") if row != "ours")]
)
def test_every_row_takes_a_step(row: str) -> None:
    run = plan(load_study(TABLE), rows=[row], seeds=[0])[0]
    result = rehearse(small(run))
    assert set(result.losses) == {"ce", "total", *(loss.kind for loss in run.config.losses)}
    assert all(0 <= value < 1e6 for value in result.losses.values())
    dense = run.config.dense_stage
    assert (result.dense is None) == (dense is None or dense.features is not None)
    assert result.inputs["student"] == (2, 4, 3, 32, 32)


@pytest.mark.slow
def test_a_row_with_joints_and_signals_goes_to_its_end(tmp_path: Path) -> None:
    run = plan(load_study(TABLE), rows=["both"], seeds=[0])[0]
    recipe = small(run)
    stages = tuple(stage.model_copy(update={"epochs": 1, "batch_size": 10}) for stage in recipe.stages)
    recipe = recipe.model_copy(update={"stages": stages})
    assert isinstance(recipe.stages[0], DenseStage)
    planned = Planned(run.name, run.row, run.split, run.seed, recipe)
    list(run_study([planned], tmp_path / "studies" / TABLE))
    dense = read_summary(tmp_path / "studies" / TABLE / run.name).stages["student"].dense
    assert dense is not None
    assert dense.targets == 2 * 60 + 3 + 3
    assert dense.lacking == {"skeleton": 0, "accelerometer": 0, "gyroscope": 0}
