from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "train" / "examples" / "own_loop.py"


@pytest.mark.slow
def test_the_losses_work_in_ones_own_loop(capsys: pytest.CaptureFixture[str]) -> None:
    assert runpy.run_path(str(EXAMPLE))["main"]() > 0.9
    assert "student accuracy" in capsys.readouterr().out
