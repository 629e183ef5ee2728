from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from kd_edge import demo, recipes
from kd_edge.cli.demo import demo_table
from kd_edge.study.plan import load_study, plan
from kd_edge.train.events import Finished
from kd_edge.train.recipe import Recipe
from kd_edge.train.results.run import Run

from .conftest import TINY

STAGES = {
    "demo": ["stages.dense.epochs=1", 'stages.dense.targets=[{kind="features", components=4}]', "stages.head.epochs=1"],
    "demo_alone": ["stages.head.epochs=1"],
}


def tiny_recipe(name: str) -> Recipe:
    """The recipe with few small clips and epochs, its way the same."""
    absent = {"demo": "student.epochs", "demo_alone": "teacher."}[name]
    changes = [f"{key}={value}" for key, value in TINY.items() if not key.startswith(absent)]
    return recipes.load("train", name, Recipe, [*changes, 'validation_subjects=["1"]', *STAGES[name]])


def test_the_control_is_the_same_student_without_a_teacher() -> None:
    taught, alone = (recipes.load("train", name, Recipe) for name in ("demo", "demo_alone"))
    differ = {"name", "teacher", "stages", "student"}
    assert taught.model_dump(exclude=differ) == alone.model_dump(exclude=differ)
    assert taught.student.model_dump(exclude={"epochs"}) == alone.student.model_dump(exclude={"epochs"})
    assert [stage.kind for stage in taught.stages] == ["dense", "head"]
    assert [stage.kind for stage in alone.stages] == ["labels", "head"]
    assert taught.stages[1] == alone.stages[1]
    assert alone.teacher is None


def test_the_control_is_a_row_of_the_study() -> None:
    planned = {run.row.name: run.config for run in plan(load_study("demo"), seeds=[0])}
    for row, name in (("features", "demo"), ("alone", "demo_alone")):
        recipe = recipes.load("train", name, Recipe, ["precision=32-true"])
        assert planned[row].model_dump(exclude={"name"}) == recipe.model_dump(exclude={"name"})


@pytest.mark.slow
def test_teacher_student_alone_and_distilled_student_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs: the recipe's, and its student without the teacher; everything else is the same."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "has_bfloat16", lambda: False)
    monkeypatch.setenv("KD_EDGE_CACHE", str(tmp_path / "cache"))
    tiny = {name: tiny_recipe(name) for name in ("demo", "demo_alone")}
    for name, recipe in tiny.items():
        own = Path(f"train/recipes/{name}.toml")
        own.parent.mkdir(parents=True, exist_ok=True)
        own.write_text(recipes.to_toml(recipe))
    events = list(demo.demo_train(tmp_path / "demo"))
    distilled, alone = (event.summary for event in events if isinstance(event, Finished))
    assert list(distilled.stages) == ["teacher", "student"]
    assert list(alone.stages) == ["student"]
    for folder, name in ((tmp_path / "demo", "demo"), (tmp_path / "demo" / demo.ALONE, "demo_alone")):
        on_this_processor = {"precision": "32-true"}  # it emulates bfloat16
        assert Run.load(folder).recipe == tiny[name].model_copy(update=on_this_processor)
    text = io.StringIO()
    Console(file=text, width=120).print(demo_table(distilled, alone))
    title, _, *rows = text.getvalue().splitlines()
    assert title == "10 test clips of other people, seed 0"
    accuracies = [
        summary.stages[of].test.accuracy
        for summary, of in ((distilled, "teacher"), (alone, "student"), (distilled, "student"))
    ]
    for row, name, modality, accuracy in zip(
        rows, ("teacher", "student alone", "distilled student"), ("rgb", "nir", "nir"), accuracies, strict=True
    ):
        assert row.startswith(name)
        assert modality in row
        assert f"{accuracy:.1%}" in row
