from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kd_edge.train.recipe import Recipe
from tests.runs import tiny_values


@pytest.fixture(autouse=True)
def _own_cache(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KD_EDGE_CACHE", str(cache_folder))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def tiny() -> Recipe:
    return Recipe.model_validate(tiny_values())
