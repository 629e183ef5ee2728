"""Lists of other tools through the verb: what it prints, and that nothing is half-written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Kd, one_line


@pytest.fixture
def videos(tmp_path: Path, write_video: Callable[..., Path]) -> Path:
    """A folder with twelve short videos and mmaction2's lists of them."""
    root = tmp_path / "videos"
    root.mkdir()
    for k in range(12):
        write_video(root / f"{k}.mkv", [np.full((40, 48, 3), 9 * k + t, np.uint8) for t in range(4)])
    for side, numbers in {"train": range(8), "test": range(8, 12)}.items():
        (root / f"{side}_list.txt").write_text("".join(f"{k}.mkv {k % 2}\n" for k in numbers))
    (root / "classes.txt").write_text("sit\nwave\n")
    return root


def test_what_was_understood_is_told(kd: Kd, videos: Path) -> None:
    lists = [str(videos / f"{side}_list.txt") for side in ("train", "test")]
    code, text, error = kd("data", "import", *lists, "--names", str(videos / "classes.txt"))
    assert (code, error) == (0, "")
    assert text.splitlines() == [
        f"{lists[0]}: a list of videos",
        f"{lists[1]}: a list of videos",
        "12 recordings of 2 classes: sit 6, wave 6",
        "modalities: rgb 12",
        "sides: train 8, test 4",
        f"wrote {videos}/manifest.csv; next: kd-edge data check files --data {videos}",
    ]
    code, text, _ = kd("data", "check", "files", "--data", str(videos))
    assert code == 0
    assert "videos: 12 samples, 12 complete, 2 classes (6 to 6 samples each)" in text


def test_a_manifest_is_replaced_only_when_asked(kd: Kd, videos: Path) -> None:
    source = str(videos / "train_list.txt")
    (videos / "manifest.csv").write_text("mine")
    code, text, error = kd("data", "import", source)
    assert (code, text) == (2, "")
    assert "manifest.csv exists already. Expected a folder without a manifest. Fix: overwrite it" in one_line(error)
    assert (videos / "manifest.csv").read_text() == "mine"
    code, text, error = kd("data", "import", source, "--force", "--json")
    assert (code, error) == (0, "")
    assert json.loads(text) == {
        "manifest": str(videos / "manifest.csv"),
        "rows": 8,
        "classes": {"0": 4, "1": 4},
        "modalities": {"rgb": 8},
        "sides": {"train": 8},
        "remarks": [],
    }


def test_a_faulty_list_writes_nothing(kd: Kd, videos: Path) -> None:
    (videos / "train_list.txt").write_text("0.mkv 0\nabsent.mkv 1\n")
    before = sorted(videos.iterdir())
    code, text, error = kd("data", "import", str(videos / "train_list.txt"))
    assert (code, text) == (2, "")
    assert "train_list.txt: line 2: no rgb file absent.mkv. Expected rows without faults. Fix: " in one_line(error)
    assert sorted(videos.iterdir()) == before
