from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from kd_edge import recipes
from kd_edge.study.plan import StudyConfig, plan
from kd_edge.study.runner import run_study
from kd_edge.train.recipe import Recipe
from tests.runs import tiny_values
from tests.shared import Once


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_folder: Path) -> StudyConfig:
    """Three rows of the tiny recipe, which stands in the working directory's ``train/recipes``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KD_EDGE_CACHE", str(cache_folder))
    torch.set_num_threads(1)
    recipe = Recipe.model_validate(tiny_values(name="tiny"))
    place = tmp_path / "train" / "recipes"
    place.mkdir(parents=True)
    (place / "tiny.toml").write_text(recipes.to_toml(recipe))
    return recipes.validate(
        {
            "title": "tiny methods",
            "base": "tiny",
            "set": {"student": {"epochs": 1}, "teacher": {"epochs": 1}},
            "splits": ["subjects"],
            "rows": [
                {"name": "alone", "title": "alone", "without": ["teacher"], "set": {"losses": []}},
                {"name": "st", "title": "ST", "set": {"losses": [{"kind": "soft_target"}]}},
                {"name": "at", "title": "AT", "published": {"subjects": 74.58}, "set": {"losses": [{"kind": "at"}]}},
            ],
        },
        StudyConfig,
        "study",
    )


@pytest.fixture
def finished_rows(study: StudyConfig, once: Once, tmp_path: Path) -> Path:
    """The study's folder with its three rows finished, one's own to change."""
    finished = once("study", lambda folder: list(run_study(plan(study), folder)))
    return Path(shutil.copytree(finished, tmp_path / "studies" / "tiny"))
