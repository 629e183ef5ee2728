"""Every row of the papers' tables starts, on miniature trees in the data sets' official layouts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from kd_edge import recipes
from kd_edge.study.classical import check_comparator
from kd_edge.study.plan import Planned, load_study, plan
from kd_edge.study.report import report
from kd_edge.study.runner import run_study
from kd_edge.train.inputs.gathering import gather_material
from kd_edge.train.recipe import Recipe
from kd_edge.train.rehearsal import rehearse

SMALL = {"preprocess.resize_px": 36, "preprocess.input_px": 32, "batch_size": 2}


def small(run: Planned, **more: object) -> Recipe:
    """A row's recipe with small images, short clips and random weights; its networks and losses untouched."""
    assert isinstance(run.config, Recipe)
    values = run.config.model_dump(
        mode="json", exclude={"student": {"initial_weights"}, "teacher": {"initial_weights"}}
    )
    stages = [stage for stage in ("student", "teacher") if values[stage] is not None]
    settings = [f"{stage}.{key}={value}" for stage in stages for key, value in (SMALL | more).items()]
    return recipes.validate(recipes.overridden(values, ["segments=3", "threads=1", *settings]), Recipe, run.name)


def rows(*tables: str) -> list[Planned]:
    runs = [run for table in tables for run in plan(load_study(table))]
    return [run for run in runs if isinstance(run.config, Recipe)]


@pytest.fixture(autouse=True)
def _cache(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KD_EDGE_CACHE", str(cache_folder))
    torch.set_num_threads(1)


networks = pytest.mark.parametrize(
    "networks", [{"model.backbone": "tiny"}, pytest.param({}, marks=pytest.mark.slow)], ids=["tiny", "its own"]
)  # a student and a ResNet-50 for each of two dozen rows take half a minute to set up


def expected_terms(recipe: Recipe) -> set[str]:
    return {"ce", "total", *(loss.kind for loss in recipe.losses)}


@pytest.mark.slow
@networks
def test_every_row_on_ntu_rgbd_takes_a_step(ntu_tree: Path, networks: dict[str, str]) -> None:
    other_split = [run for run in rows("mgcam_table3") if (run.row.name, run.split) == ("ours", "cross_view")]
    for run in [run for run in rows("mgcam_table1", "mgcam_table3") if run.split == "cross_subject"] + other_split:
        recipe = small(run, **networks)
        result = rehearse(recipe, ntu_tree)
        assert set(result.losses) == expected_terms(recipe), run.name
        assert all(value == value and abs(value) < 1e7 for value in result.losses.values()), run.name
        assert result.samples == (60, 0, 30)
        assert result.inputs["student"] == (2, 3, 3, 32, 32)


@pytest.mark.slow
def test_the_classical_row_runs_to_its_end_on_ntu_rgbd(ntu_tree: Path, tmp_path: Path) -> None:
    """With short tracks (the miniature's clips have ten frames), small networks and few words."""
    row = load_study("mgcam_table1").rows[0]
    small = {
        "frame_px": 32,
        "tracks": {"frames": 5},
        "streams": {"epochs": 1, "backbone": "tiny"},
        "coding": {"codewords": 4, "dimensions": 4, "neighbours": 2, "sampled_clips": 4},
    }
    assert row.comparator is not None
    shrunk = row.model_copy(update={"comparator": row.comparator | small})
    study = load_study("mgcam_table1").model_copy(update={"rows": (shrunk,)})
    runs = plan(study, splits=["cross_subject"])
    assert check_comparator(runs[0].config, ntu_tree) == (60, 30)  # type: ignore[arg-type]
    list(run_study(runs, tmp_path / "studies" / "table1", data_root=ntu_tree))
    line = report(study, tmp_path / "studies" / "table1")[0]
    assert line.cells["cross_subject"].published == 72.36
    assert line.cells["cross_subject"].values.keys() == {0}


@pytest.mark.slow
def test_missing_rgb_at_test_time_does_not_change_what_the_student_is_tested_on(ntu_tree: Path) -> None:
    for path in sorted((ntu_tree / "nturgb+d_rgb").glob("*P003*"))[:5]:
        path.unlink()
    run = next(run for run in rows("mgcam_table3") if run.row.name == "ours")
    material = gather_material(small(run), ntu_tree)
    assert len(material.test) == 30
    assert len(material.having("teacher", material.test)) == 25
    assert len(material.train) == 60


@networks
def test_every_row_on_pku_mmd_takes_a_step(pku_tree: Path, networks: dict[str, str]) -> None:
    other_split = plan(load_study("mgcam_table2"), rows=["alone"], splits=["cross_subject"])
    for run in [run for run in rows("mgcam_table2", "mgcam_table4") if run.split == "cross_view"] + other_split:
        recipe = small(run, **networks)
        result = rehearse(recipe, pku_tree)
        assert set(result.losses) == expected_terms(recipe), run.name
        assert all(value == value and abs(value) < 1e7 for value in result.losses.values()), run.name


@pytest.mark.slow
def test_a_row_trains_to_its_end_and_reports_the_tables_figure(pku_tree: Path, tmp_path: Path) -> None:
    run = plan(load_study("mgcam_table2"), rows=["ours"], splits=["cross_subject"])[0]
    quick = {"epochs": 1, "batch_size": 8, "model.backbone": "tiny"}
    planned = Planned(run.name, run.row, run.split, run.seed, small(run, **quick))
    list(run_study([planned], tmp_path / "studies" / "table2", data_root=pku_tree))
    summary = json.loads((tmp_path / "studies" / "table2" / run.name / "summary.json").read_text())
    test = summary["stages"]["student"]["test"]
    assert 0 < test["map"] <= 1
    assert set(test) >= {"accuracy", "macro_f1", "ece", "per_class", "confusion", "map"}
