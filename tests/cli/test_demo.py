from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from kd_edge import demo, recipes
from kd_edge.cli.demo import demo_table
from kd_edge.train.events import Finished
from kd_edge.train.recipe import Recipe
from kd_edge.train.results.run import Run

from .conftest import TINY


@pytest.mark.slow
def test_teacher_student_alone_and_distilled_student_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs: the recipe's, and its student without the teacher; everything else is the same."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "has_bfloat16", lambda: False)
    monkeypatch.setenv("KD_EDGE_CACHE", str(tmp_path / "cache"))
    own = Path("train/recipes/quickstart.toml")
    own.parent.mkdir(parents=True)
    tiny = recipes.load("train", "quickstart", Recipe, [f"{key}={value}" for key, value in TINY.items()])
    own.write_text(recipes.to_toml(tiny))
    tiny = tiny.model_copy(update={"precision": "32-true"})  # on a processor that emulates bfloat16
    events = list(demo.demo_train(tmp_path / "demo"))
    distilled, alone = (event.summary for event in events if isinstance(event, Finished))
    assert list(distilled.stages) == ["teacher", "student"]
    assert list(alone.stages) == ["student"]
    assert Run.load(tmp_path / "demo").recipe == tiny
    control = Run.load(tmp_path / "demo" / demo.ALONE).recipe
    assert control == tiny.model_copy(update={"name": "quickstart-alone", "teacher": None, "losses": ()})
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
