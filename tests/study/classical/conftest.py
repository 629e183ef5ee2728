from __future__ import annotations

from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def _own_cache(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KD_EDGE_CACHE", str(cache_folder))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
