from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kd_edge import recipes
from kd_edge.errors import ConfigError
from kd_edge.study.plan import StudyConfig, load_study, merged, plan
from kd_edge.train.recipe import Recipe

SHIPPED = sorted((Path(__file__).parents[2] / "train" / "studies").glob("*.toml"))


def test_rows_splits_and_seeds_are_multiplied_in_the_order_of_the_table(study: StudyConfig) -> None:
    assert [run.name for run in plan(study, seeds=[0, 3], rows=["at", "st"])] == [
        "st-subjects-s0",
        "st-subjects-s3",
        "at-subjects-s0",
        "at-subjects-s3",
    ]


def test_a_rows_changes_come_after_the_studys_and_overrides_last(study: StudyConfig) -> None:
    alone, taught, _ = (run.config for run in plan(study, seeds=[7], overrides=["student.batch_size=3"]))
    assert isinstance(alone, Recipe)
    assert isinstance(taught, Recipe)
    assert alone.teacher is None
    assert alone.losses == ()
    assert taught.teacher is not None
    assert (taught.student.epochs, taught.teacher.epochs, taught.student.batch_size, taught.seed) == (1, 1, 3, 7)
    assert taught.student.model.hidden == 8, "what nobody changes stays"
    assert [loss.kind for loss in taught.losses] == ["soft_target"]
    assert taught.name == "tiny-st"


def test_tables_are_merged_and_lists_replaced() -> None:
    base: dict[str, Any] = {"a": {"x": 1, "y": {"z": 2}}, "b": [1, 2]}
    assert merged(base, {"a": {"y": {"w": 3}}, "b": [5], "c": 1}) == {
        "a": {"x": 1, "y": {"z": 2, "w": 3}},
        "b": [5],
        "c": 1,
    }
    assert base == {"a": {"x": 1, "y": {"z": 2}}, "b": [1, 2]}


def test_a_comparator_sees_the_recordings_as_the_student_does(study: StudyConfig) -> None:
    rows = [{"name": "classical", "title": "x", "comparator": {"kind": "tstdds", "frame_px": 32}}]
    changed = recipes.validate(study.model_dump() | {"rows": rows}, StudyConfig, "study")
    config = plan(changed, seeds=[5])[0].config
    assert not isinstance(config, Recipe)
    assert (config.kind, config.modality, config.split, config.seed, config.frame_px) == (
        "tstdds",
        "nir",
        "subjects",
        5,
        32,
    )
    assert config.data.kind == "synthetic"


def test_overrides_reach_a_comparator_through_the_base_recipe(study: StudyConfig) -> None:
    rows = [{"name": "classical", "title": "x", "comparator": {"kind": "tstdds"}}]
    changed = recipes.validate(study.model_dump() | {"rows": rows}, StudyConfig, "study")
    config = plan(changed, overrides=["data.clips_per_class=2", 'validation_subjects=["1"]'])[0].config
    assert (config.data.clips_per_class, config.validation_subjects) == (2, ("1",))  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="unknown key"):
        plan(changed, overrides=["studnet.epochs=3"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": ["aat"]}, "no row 'aat' .did you mean 'at'"),
        ({"splits": ["views"]}, "no split 'views'"),
        ({"overrides": ["student.epochs=0"]}, "row 'alone'.*student.epochs"),
        ({"overrides": ["student"]}, "key=value"),
        ({"overrides": ["seed=7"]}, "--set seed=7.*--seeds"),
        ({"overrides": ["split=views"]}, "--set split=views"),
    ],
)
def test_faults_are_found_before_anything_is_trained(
    study: StudyConfig, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(study, **arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": [{"name": "a", "title": "a"}, {"name": "a", "title": "b"}]}, "same name"),
        ({"rows": [{"name": "a", "title": "a", "published": {"views": 1.0}}]}, "not in splits"),
        ({"rows": [{"name": "a", "title": "a", "comparator": {}, "without": ["teacher"]}]}, "takes no recipe"),
        ({"metric": "auc"}, "metric"),
    ],
)
def test_a_study_with_faults_is_refused(study: StudyConfig, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipes.validate(study.model_dump() | changes, StudyConfig, "study")


def test_the_papers_tables_are_there() -> None:
    assert {path.stem for path in SHIPPED} >= {f"mgcam_table{n}" for n in (1, 2, 3, 4)}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_row_of_every_shipped_study_validates(path: Path) -> None:
    study = load_study(path.stem)
    runs = plan(study)
    assert len(runs) == len(study.rows) * len(study.splits) * len(study.seeds)
    assert len({run.config.fingerprint() for run in runs}) == len(runs)


@pytest.mark.parametrize(("table", "alpha", "epochs"), [("mgcam_table1", 0.1, 80), ("mgcam_table2", 0.01, 120)])
def test_the_papers_hyper_parameters(table: str, alpha: float, epochs: int) -> None:
    config = plan(load_study(table), rows=["ours"])[0].config
    assert isinstance(config, Recipe)
    assert config.teacher is not None
    dkd, mgcam = config.losses
    assert (dkd.kind, dkd.weight, mgcam.kind, mgcam.weight) == ("dkd", alpha, "mgcam", 1.0)
    assert (getattr(dkd, "target_weight", None), getattr(dkd, "nontarget_weight", None)) == (0.7, 0.35)
    assert (config.student.epochs, config.teacher.epochs) == (epochs, epochs)
    assert (config.student.batch_size, config.teacher.batch_size, config.segments) == (8, 16, 8)
    assert (config.student.learning_rate, config.teacher.learning_rate) == (0.001, 0.001)
    assert (config.student.model.backbone, config.teacher.model.backbone) == ("resnet18", "resnet50")
    assert (config.student.modality, config.teacher.modality) == ("ir", "rgb")
