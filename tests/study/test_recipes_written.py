"""Every recipe that ships, and that of every study's row, is written as TOML and read back as the same one."""

from __future__ import annotations

from pathlib import Path

import pytest

from kd_edge import recipes
from kd_edge.study.plan import load_study, plan
from kd_edge.train.recipe import Recipe

TRAIN = Path(__file__).parents[2] / "train"
RECIPES = sorted(path.stem for path in (TRAIN / "recipes").glob("*.toml"))
STUDIES = sorted(path.stem for path in (TRAIN / "studies").glob("*.toml"))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_reads_back(name: str, tmp_path: Path) -> None:
    recipe = recipes.load("train", name, Recipe)
    (tmp_path / "r.toml").write_text(recipes.to_toml(recipe), encoding="utf-8")
    again = recipes.load("train", str(tmp_path / "r.toml"), Recipe)
    assert again == recipe
    assert again.fingerprint() == recipe.fingerprint()


@pytest.mark.parametrize("name", STUDIES)
def test_every_row_of_a_study_reads_back(name: str, tmp_path: Path) -> None:
    study = load_study(name)
    runs = plan(study, splits=study.splits[:1], seeds=[0])
    assert runs
    for run in runs:
        (tmp_path / "r.toml").write_text(recipes.to_toml(run.config), encoding="utf-8")
        again = recipes.load("train", str(tmp_path / "r.toml"), type(run.config))
        assert again == run.config, run.name
        assert again.fingerprint() == run.config.fingerprint(), run.name
