"""kd-edge train --from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from kd_edge.rundir import read_summary
from kd_edge.train.results.run import load_recipe
from tests.cli.conftest import TINY, Kd, one_line


def settings(*changes: str) -> list[str]:
    """The tiny student without a teacher, with some changes."""
    alone = [f"{key}={value}" for key, value in TINY.items() if not key.startswith("teacher.")]
    return [part for key in (*alone, "teacher=null", "losses=[]", *changes) for part in ("--set", key)]


BUNDLED = settings(
    "student.model.backbone=resnet10_thin",
    "student.model.hidden=128",
    "student.preprocess.motion_offsets_ms=[0, 70, 140]",
)


@pytest.mark.slow
def test_train_from_the_bundled_student(kd: Kd, tmp_path: Path) -> None:
    chosen = [*BUNDLED, "--set", "student.freeze=['layer1', 'layer2']", "--set", "student.head_rate=5"]
    code, _, told = kd("train", "quickstart", *chosen, "--from", "bundled", "--out", "run")
    assert code == 0, told
    assert "fine-tuned from bundled (artifact, rounded to fp16, SHA-256 " in told
    assert "\n  backbone: taken; frozen: layer1, layer2 (81,056 parameters)" in told
    assert "\n  learning rate of classifier and new parts: 5 times the rest (student.head_rate)" in told
    assert "\n  differs: preprocess.input_px: 96 there, 24 here" in told
    note = read_summary(Path("run")).source
    assert note is not None
    assert note.new == 0
    assert load_recipe(Path("run")).student.source_sha256 == note.sha256


@pytest.mark.slow
def test_a_run_is_named_wherever_one_stands_and_resumed_elsewhere(kd: Kd, tmp_path: Path) -> None:
    code, _, error = kd("train", "quickstart", *settings(), "--out", "first")
    assert code == 0, error
    changes = settings("student.initial_weights=imagenet")  # whose place it takes
    code, text, error = kd("train", "quickstart", *changes, "--from", "first", "--out", "second", "--json")
    assert code == 0, error
    summary = json.loads(text)
    assert summary["source"]["source"] == str(tmp_path / "first")
    assert summary["recipe"]["student"]["source"] == str(tmp_path / "first")
    assert summary["recipe"]["student"]["initial_weights"] is None


@pytest.mark.slow
def test_a_dry_run_shows_the_report(kd: Kd) -> None:
    code, text, error = kd("train", "quickstart", *BUNDLED, "--from", "bundled", "--dry-run")
    assert code == 0, error
    assert "fine-tuned from bundled (artifact" in text
    assert "temporal head: kept" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--from", "gone"], ["gone cannot be read (No such file or directory)", "a run's folder, an artifact"]),
        (["--from", "gone.onnx"], ["gone.onnx cannot be read (No such file or directory)"]),
        (["--from", "bundled", "--set", "student.source=x.pt"], ["--from with --set student.source"]),
        (["--from", "empty"], ["empty is a folder without a run"]),
        (["--from", "bundled", "--set", "student.freeze=layer9"], ["'layer9', which is not a stage of tiny"]),
        (["--from", "open"], ["open is not finished"]),
        (["--from", "empty.pt"], ["empty.pt cannot be read (it is empty)"]),
        (["--from", "other.pt"], ["nothing is taken from", "its backbone is another one"]),
        (["--from", "nested.pt"], ["contain several dictionaries of tensors: 'state_dict', 'model'"]),
        (["--from", "bundled"], ["nothing is taken from bundled: its backbone is another one"]),
        (["--from", "bundled", "--resume"], ["--resume with", "--from", "--resume alone"]),
        (["--from", "bundled", "--set", "student.freeze=['layer9']"], ["'layer9', which is not a stage of tiny"]),
        (["--set", "student.freeze=backbone"], ["freeze needs pretrained weights"]),
    ],
)
def test_bad_sources_are_one_line_and_leave_nothing(
    arguments: list[str], said: list[str], kd: Kd, tmp_path: Path
) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "recipe.toml").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.pt").write_bytes(b"")
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "other.pt")
    two = {"a": torch.zeros(1)}
    torch.save({"state_dict": two, "model": two}, tmp_path / "nested.pt")
    before = sorted(tmp_path.rglob("*"))
    chosen = [] if "--resume" in arguments else ["quickstart", *settings(), "--out", "new"]
    code, _, error = kd("train", *chosen, *arguments)
    assert code == 2
    for part in said:
        assert part in one_line(error)
    assert [path for path in sorted(tmp_path.rglob("*")) if "cache" not in path.parts] == before
