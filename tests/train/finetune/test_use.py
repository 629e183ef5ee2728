"""What fine-tuning is for: few clips and few epochs."""

from __future__ import annotations

from pathlib import Path

import pytest

from kd_edge import recipes
from kd_edge.rundir import Summary
from kd_edge.train.events import Finished
from kd_edge.train.recipe import Recipe
from tests.runs import run_all

FEW = [
    "teacher=null",
    "losses=[]",
    "validation_subjects=[]",
    "data.clips_per_class=8",
    "data.subjects=8",
    "data.seed=7",  # people whom the bundled student has not seen
    "student.epochs=3",
    "precision=32-true",
]


@pytest.mark.slow  # two trainings of minutes
@pytest.mark.timeout(1800)
def test_the_bundled_student_needs_few_clips_where_a_new_one_learns_nothing(tmp_path: Path) -> None:
    def accuracy(name: str, *more: str) -> float:
        recipe = recipes.load("train", "bundled", Recipe, [*FEW, *more])
        summary: Summary = next(e.summary for e in run_all(recipe, tmp_path / name) if isinstance(e, Finished))
        test = summary.stages["student"].test
        assert test is not None
        return test.accuracy

    tuned = accuracy("tuned", "student.source=bundled")
    assert tuned >= 0.8
    assert accuracy("new") <= tuned - 0.3
