from __future__ import annotations

from pathlib import Path

import pytest

from tests.shared import made_once


def test_a_folder_is_made_once_and_again_after_a_failure(tmp_path: Path) -> None:
    made: list[str] = []

    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / "half").touch()
        made.append(folder.name)
        if len(made) == 1:
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        made_once(tmp_path, "run", make)
    assert made_once(tmp_path, "run", make) == made_once(tmp_path, "run", make) == tmp_path / "run"
    assert made == ["run", "run"]


def test_writing_into_what_others_read_is_noticed(tmp_path: Path) -> None:
    folder = made_once(tmp_path, "run", lambda folder: folder.mkdir())
    (folder / "more").touch()
    with pytest.raises(AssertionError, match="a test has written into run"):
        made_once(tmp_path, "run", lambda folder: folder.mkdir())
