from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from tests.pictures.runs import write_student

Kd = Callable[..., tuple[int, str, str]]

STUDY = """
title = "two weights"
base = "quickstart"
splits = ["subjects"]
[[rows]]
name = "low"
title = "low"
published = { subjects = 71.5 }
set.losses = [{ kind = "soft_target", weight = 0.1 }, { kind = "at", weight = 10 }]
[[rows]]
name = "high"
title = "high"
published = { subjects = 73.25 }
set.losses = [{ kind = "soft_target", weight = 1 }, { kind = "at", weight = 1000 }]
"""


def write_scores(folder: Path, counts: list[list[int]]) -> None:
    test = {"accuracy": 0.8, "per_class": {"sitting down": 0.8, "standing up": 0.9}, "confusion": counts}
    stage = {"backbone": "resnet18", "modality": "ir", "test": test}
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({"complete": True, "stages": {"student": stage}}))


@pytest.mark.slow
def test_confusion_is_drawn_and_the_worst_pairs_are_named(kd: Kd, tmp_path: Path) -> None:
    write_scores(tmp_path / "runs" / "now", [[39, 11], [2, 18]])
    write_scores(tmp_path / "runs" / "before", [[40, 10], [4, 16]])
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


@pytest.mark.slow
def test_class_examples_of_a_kind_and_of_a_recipe(kd: Kd) -> None:
    code, text, _ = kd("data", "examples", "synthetic", "--classes", "clap, drink", "--frames", "3", "--out", "a.png")
    assert code == 0
    assert "4 rows in a.png" in text
    code, text, _ = kd("data", "examples", "quickstart", "--classes", "clap", "--modalities", "nir", "--out", "b.png")
    assert code == 0
    assert "1 row in b.png" in text
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
        (["study", "confusion", "gone", "--out", "a.png"], ["no run gone"]),
        (["study", "confusion", "runs/now", "--stage", "techer", "--out", "a.png"], ["no stage 'techer'", "student"]),
        (["study", "confusion", "runs/now", "--out", "runs/now/summary.json"], ["ending in .png"]),
        (["explain", "gone", "--sample", "a1_s1_t1"], ["no run gone"]),
        (
            ["explain", "runs/now", "--sample", "a1_s1_t1"],
            ["runs/now is a finished run", "student.safetensors is missing"],
        ),
        (["explain", "runs/now"], ["no sample to explain", "--wrong 3"]),
        (["study", "sensitivity", "mgcam_table1", "--y", "att", "--out", "a.png"], ["'att'", "did you mean 'at'?"]),
        (["study", "sensitivity", "sakdn_table9_mmact", "--out", "a.png"], ["no row of", "add --published"]),
        (["study", "sensitivity", "sakdn_table9_mmat", "--published", "--out", "a.png"], ["sakdn_table9_mmact"]),
        (["study", "sensitivity", "sakdn_table9_mmact", "--seeds", "0,x", "--out", "a.png"], ["--seeds 0,x"]),
        (["study", "sensitivity", "sakdn_table9_mmact", "--out", "a.pdf"], ["--out a.pdf", "a.png"]),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    kd: Kd, tmp_path: Path, arguments: list[str], parts: list[str]
) -> None:
    write_scores(tmp_path / "runs" / "now", [[39, 11], [2, 18]])
    code, text, error = kd(*arguments)
    assert code == 2
    assert text == ""
    (line,) = error.strip().splitlines()
    assert line.startswith("error: ")
    for part in parts:
        assert part in line
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["summary.json"]


@pytest.mark.slow
def test_samples_and_mistakes_of_a_run_are_explained(kd: Kd, tmp_path: Path) -> None:
    write_student(tmp_path / "runs" / "thin", epochs=2)
    code, text, _ = kd("explain", "runs/thin", "--sample", "a1_s1_t1", "--layer", "backbone.layer3", "--out", "one")
    assert code == 0
    assert text.startswith("a1_s1_t1 (training clip): ")
    assert "  cam.png, gaf.png, curves.png in one\n" in text
    assert "  no gsdm.png: the run's recipe has no [semantics], vectors of the class names\n" in text
    assert cv2.imread("one/cam.png") is not None
    code, text, _ = kd("explain", "runs/thin", "--wrong", "1", "--json")
    assert code == 0
    (found,) = json.loads(text)
    assert found["predicted"] != found["true"]
    assert found["side"] == "test clip"
    assert found["folder"] == f"runs/thin/explain/{found['sample']}"
    assert sorted(p.name for p in Path(found["folder"]).iterdir()) == sorted(found["pictures"])


@pytest.mark.slow
def test_fewer_mistakes_than_asked_for_are_counted(kd: Kd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kd_edge.pictures import explain
    from kd_edge.pictures.view import View

    write_student(tmp_path / "run")
    monkeypatch.setattr(View, "correct", property(lambda view: view.sample.id != "a1_s4_t1"))
    code, text, _ = kd("explain", "run", "--wrong", "2")
    assert code == 0
    assert text.endswith("1 in all: no more test clips are taken for another class\n")
    assert [p.name for p in (tmp_path / "run" / explain.FOLDER).iterdir()] == ["a1_s4_t1"]


@pytest.mark.slow
def test_a_studys_settings_are_drawn(kd: Kd, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(STUDY)
    keys = ("--y", "at", "--colour", "student.learning_rate")
    code, text, _ = kd("study", "sensitivity", "mine.toml", "--published", *keys, "--out", "plain.png")
    assert (code, text) == (0, "2 points in plain.png\n")
    code, text, _ = kd(
        "study", "sensitivity", "mine.toml", "--published", "--polar", *keys, "--json", "--out", "polar.png"
    )
    assert code == 0
    points = json.loads(text)["subjects: published"]
    assert [(point["row"], point["values"][:2], point["result"]) for point in points] == [
        ("low", [0.1, 10.0], 71.5), ("high", [1.0, 1000.0], 73.25),
    ]  # fmt: skip
    plain, polar = cv2.imread("plain.png"), cv2.imread("polar.png")
    assert plain.shape == polar.shape
    assert (plain != polar).any()


def test_help_has_examples(kd: Kd) -> None:
    for verb in (("data", "examples"), ("study", "confusion"), ("study", "sensitivity"), ("explain",)):
        code, text, _ = kd(*verb, "--help")
        assert code == 0
        assert f"kd-edge {' '.join(verb)}" in text
