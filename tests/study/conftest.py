from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kd_edge import recipes
from kd_edge.study.plan import StudyConfig
from kd_edge.train.recipe import Recipe
from tests.train.conftest import tiny_values


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


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")
