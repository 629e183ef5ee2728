from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.recordings import REQUIRED, absent

TINY = "def test_reading(utd_root): pass\ndef test_counting(utd_root): pass\ndef test_another(): pass\n"


def test_tests_without_recordings_are_listed_in_one_place(tmp_path: Path) -> None:
    (tmp_path / "test_tiny.py").write_text(TINY)
    arguments = ["-m", "pytest", "-p", "tests.recordings", "-p", "no:cacheprovider", "test_tiny.py"]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("KD_EDGE_", "PYTEST_"))}
    environment = inherited | {"KD_EDGE_DATA": str(tmp_path / "none"), "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    head, listed = done.stdout.split("2 tests skipped: no recordings (KD_EDGE_DATA)")
    assert "test_tiny.py ss." in head
    assert listed.splitlines()[1:3] == ["test_tiny.py::test_reading", "test_tiny.py::test_counting"]


def test_where_recordings_must_be_there_a_test_that_lacks_them_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REQUIRED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="no recordings: no dome"):
        absent("no dome")
    monkeypatch.setenv(REQUIRED, "1")
    with pytest.raises(pytest.fail.Exception, match=f"no recordings: no dome, though {REQUIRED} says"):
        absent("no dome")
