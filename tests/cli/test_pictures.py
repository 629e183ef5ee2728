from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

Kd = Callable[..., tuple[int, str, str]]


def write_run(folder: Path, counts: list[list[int]]) -> None:
    test = {"accuracy": 0.8, "per_class": {"sitting down": 0.8, "standing up": 0.9}, "confusion": counts}
    stage = {"backbone": "resnet18", "modality": "ir", "test": test}
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({"complete": True, "stages": {"student": stage}}))


def test_confusion_is_drawn_and_the_worst_pairs_are_named(kd: Kd, tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "now", [[39, 11], [2, 18]])
    write_run(tmp_path / "runs" / "before", [[40, 10], [4, 16]])
    code, text, _ = kd("study", "confusion", "runs/now", "--out", "plots/now.png")
    assert code == 0
    assert "sitting down taken for standing up  22% (11 clips)\n" in text
    assert cv2.imread("plots/now.png") is not None
    code, text, _ = kd("study", "confusion", "runs/now", "--against", "runs/before", "--out", "two.png", "--json")
    assert code == 0
    worst = json.loads(text)[0]
    assert (worst["true"], worst["predicted"], worst["clips"]) == ("sitting down", "standing up", 11)
    assert worst["change"] == pytest.approx(0.02)
    code, text, _ = kd("study", "confusion", "runs/now", "--against", "runs/before", "--out", "two.png", "--pairs", "1")
    assert "22% (11 clips), +2 points" in text
    assert "standing up taken for sitting down" not in text


def test_class_examples_of_a_kind_and_of_a_recipe(kd: Kd) -> None:
    code, text, _ = kd("data", "examples", "synthetic", "--classes", "clap, drink", "--frames", "3", "--out", "a.png")
    assert code == 0
    assert "4 rows in a.png" in text
    code, text, _ = kd("data", "examples", "quickstart", "--classes", "clap", "--modalities", "nir", "--out", "b.png")
    assert code == 0
    assert "1 rows in b.png" in text
    assert cv2.imread("a.png").shape[0] > cv2.imread("b.png").shape[0]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["data", "examples", "utd_mahd", "--out", "a.png"], ["no data set or recipe", "did you mean 'utd_mhad'?"]),
        (["data", "examples", "quikstart", "--out", "a.png"], ["did you mean 'quickstart'?"]),
        (["data", "examples", "synthetic", "--classes", "clapp", "--out", "a.png"], ["did you mean 'clap'?"]),
        (["data", "examples", "synthetic", "--modalities", "rgb,nri", "--out", "a.png"], ["did you mean 'nir'?"]),
        (["data", "examples", "synthetic", "--out", "a.jpeg"], ["--out a.jpeg", "a.png"]),
        (["data", "examples", "utd_mhad", "--out", "a.png"], ["no folder given", "KD_EDGE_DATA"]),
        (["study", "confusion", "gone", "--out", "a.png"], ["gone has no readable summary.json"]),
        (["study", "confusion", "runs/now", "--stage", "techer", "--out", "a.png"], ["no stage 'techer'", "student"]),
        (["study", "confusion", "runs/now", "--out", "runs/now/summary.json"], ["ending in .png"]),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    kd: Kd, tmp_path: Path, arguments: list[str], parts: list[str]
) -> None:
    write_run(tmp_path / "runs" / "now", [[39, 11], [2, 18]])
    code, text, error = kd(*arguments)
    assert code == 2
    assert text == ""
    (line,) = error.strip().splitlines()
    assert line.startswith("error: ")
    for part in parts:
        assert part in line
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["summary.json"]


def test_help_has_examples(kd: Kd) -> None:
    for verb in (("data", "examples"), ("study", "confusion")):
        code, text, _ = kd(*verb, "--help")
        assert code == 0
        assert f"kd-edge {' '.join(verb)}" in text
