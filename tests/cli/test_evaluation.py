"""What evaluate says on the terminal and as JSON; the figures themselves are tested where they are made."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kd_edge import evaluate
from kd_edge.artifact import BUNDLED
from kd_edge.evaluate import ClipScore, Evaluation
from kd_edge.evaluate.joined import FrameTime, LiveScore, Score, StreamingScore
from kd_edge.evaluate.spotting import Spotting
from kd_edge.evaluate.untrimmed import DetectionEvaluation, DetectionScore
from tests.cli.conftest import one_line

Kd = Callable[..., tuple[int, str, str]]

CLIPS = Evaluation(
    "m.onnx", "pku_mmd", "cross_view", "ir", "fp32", 2.0, ClipScore(50, 0.8, 0.75, 0.96, 0.585, 0.031),
    StreamingScore(Score(50, 0.7, 0.6), None, None, 1, 2, LiveScore(0.66, 3.2, 0.81, 49, 44, 0.9), 3000, 250.0,
                   FrameTime(3.256, 5.1, 33.333, 1)),
    {"bow": 0.8}, [[8, 2], [0, 10]], stream_change=-0.1,
)  # fmt: skip


def detected(settings: Spotting, iou: float) -> DetectionEvaluation:
    return DetectionEvaluation(
        "m.onnx", "pku_mmd", "cross_view", "ir", "fp32", 2.0, settings, iou, 3, 40,
        DetectionScore(90, 0.41, 0.52, 0.43, 0.44, 0.35), DetectionScore(45, 0.39, 0.61, 0.4, 0.41, 0.33), 0.3,
        {"bow": 0.5}, 1, 9000, 120.0, {"0003-R": "0003-R.avi is damaged"},
    )  # fmt: skip


def test_all_figures_of_clips_are_said(kd: Kd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "evaluate", lambda *_, **__: CLIPS)
    code, text, _ = kd("evaluate", "m.onnx", "--streaming")
    assert code == 0
    for part in (
        "80.0%",
        "75.0%",
        "mAP 58.5%",
        "top 5 96.0%",
        "calibration error 0.031",
        "70.0%",
        "250 frames/s",
        "66.0% of labels",
        "3.2 false changes a minute",
        "44 of 49 changes noticed, after 0.81 s",
        "every clip in the stream less clip by clip: -10.0 points",
        "a frame takes 3.26 ms (99 of 100 at most 5.10 ms) with 1 thread; one comes every 33.3 ms",
    ):
        assert part in text
    orders = [replace(CLIPS.streaming, every=Score(50, right, 0.6)) for right in (0.6, 0.7, 0.8)]
    monkeypatch.setattr(evaluate, "evaluate", lambda *_, **__: replace(CLIPS, orders=orders))
    text = kd("evaluate", "m.onnx", "--streaming", "--orders", "3")[1]
    assert "3 random orders: 70.0% ± 10.0% of the clips right" in text
    assert "132 of 147 changes noticed, after 0.81 ± 0.00 s" in text
    code, text, _ = kd("evaluate", "m.onnx", "--json")
    figures = json.loads(text)
    assert set(figures["clip"]) == {"clips", "accuracy", "macro_f1", "top5", "map", "ece"}
    assert figures["confusion"] == [[8, 2], [0, 10]]
    assert figures["per_class"] == {"bow": 0.8}


def test_all_figures_of_detection_are_said(kd: Kd, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def detect(model: Path, **given: Any) -> DetectionEvaluation:
        asked.update(given, model=model)
        return detected(given["settings"], given["iou"])

    monkeypatch.setattr(evaluate, "detect", detect)
    code, text, _ = kd(
        "evaluate", "m.onnx", "--detection", "--threshold", "0.25", "--iou", "0.3", "--scale", "0.5", "--scale", "2",
        "--proposals", "windows", "--split", "cross_view", "--write", "found",
    )  # fmt: skip
    assert code == 0
    assert asked["settings"] == Spotting(threshold=0.25, scales=(0.5, 2.0), proposals="windows")
    assert (asked["iou"], asked["split"], asked["write"]) == (0.3, "cross_view", Path("found"))
    for part in (
        "0.410", "0.520", "0.430", "0.440", "0.350", "proposals of at least 0.30", "0.610", "40 actions", "overlap 0.3",
        "windows of 1.00, 4.00 s", "1 videos without a proposal", "0003-R.avi is damaged", "proposals in found",
    ):  # fmt: skip
        assert part in text
    code, text, _ = kd("evaluate", "m.onnx", "--detection", "--json")
    figures = json.loads(text)
    assert figures["settings"] == Spotting().model_dump(mode="json")
    assert figures["iou"] == 0.5
    assert figures["every"]["map_action"] == 0.43


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--iou", "0.3"], ["--iou", "add --detection"]),
        (["--write", "found"], ["--write", "add --detection"]),
        (["--detection", "--streaming"], ["--detection with --streaming"]),
        (["--detection", "--threshold", "1.5"], ["threshold", "less than 1", "got 1.5"]),
        (["--detection", "--proposals", "boxes"], ["proposals", "'runs' or 'windows'", "got 'boxes'"]),
        (["--detection", "--scale", "0"], ["scales.0", "greater than or equal to 0.1"]),
    ],
)
def test_a_mistake_is_one_line(kd: Kd, arguments: list[str], parts: list[str]) -> None:
    code, text, error = kd("evaluate", "m.onnx", *arguments)
    assert code == 2
    assert text == ""
    (line,) = error.strip().splitlines()
    for part in parts:
        assert part in line


def test_a_recording_is_scored(kd: Kd, tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    camera = "synthetic:?height_px=48&width_px=64&realtime=false&frames=240"
    assert kd("run", "--camera", camera, "--record", str(path), "--engine", "onnxruntime")[0] == 0
    code, text, _ = kd("evaluate", str(BUNDLED), "--recording", str(path))
    assert code == 0
    assert re.search(r"^240 frames in 8\.0 s \(.*\); of 240 with a known action \d+ have a label$", text, re.M)
    assert re.search(r"% of labels right, [\d.]+ false changes a minute, \d of \d changes noticed", text)
    assert re.search(r"^[\d.]+% of the frames have a label|: [\d.]+% of the frames have a label", text, re.M)
    assert re.search(r"^labels sha256 [0-9a-f]{64}$", text, re.M)
    code, text, _ = kd("evaluate", str(BUNDLED), "--recording", str(path), "--json")
    figures = json.loads(text)
    assert (figures["judged"], set(figures["live"])) == (240, set(LiveScore.__slots__))
    assert sum(c["frames"] for c in figures["by_class"].values()) == 240
    path.write_bytes(path.read_bytes()[:-400])
    code, text, _ = kd("evaluate", str(BUNDLED), "--recording", str(path))
    assert (code, "scored up to a fault:" in text) == (1, True)
    assert kd("evaluate", str(BUNDLED), "--recording", str(path), "--streaming")[0] == 2
    assert kd("evaluate", str(BUNDLED), "--labels", "labels.csv")[0] == 2


def test_without_a_model_the_one_that_run_takes_is_evaluated(kd: Kd, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 48, 64), np.uint8))
    (tmp_path / "labels.csv").write_text("start_s,end_s,label\n0,9,clap\n")
    arguments = ("evaluate", "--recording", "a.npy", "--labels", "labels.csv")
    code, _, error = kd(*arguments)
    assert (code, error) == (0, f"model {BUNDLED}\n")
    shutil.copy(BUNDLED, tmp_path / "mine.onnx")
    code, _, error = kd(*arguments)
    assert (code, error) == (0, "model mine.onnx (the newest here; name another one)\n")


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (
            "evaluate --recording a --streaming --split x --iou 0.5",
            "--recording with --split, --streaming, --iou. Expected --recording with --labels, --engine, --threads,",
        ),
        ("evaluate --recording a --orders 0", "--recording with --orders."),
        ("evaluate --detection --streaming --smooth-ms 3", "--detection with --streaming, --smooth-ms."),
        ("evaluate --labels a.csv", "--labels without --recording"),
        (
            "bench --training demo --frames 100 --json",
            "--training with --frames. Expected --training with --set, --data only.",
        ),
        ("bench a.onnx --seconds 5 --motion", "an artifact with --motion, --seconds."),
        ("bench --reference resnet18 --camera ir0 --size 9x9", "--camera with --size."),
        ("export --matrix --fp16 --graph step", "--matrix with --fp16, --graph."),
        ("export a.onnx --tensorrt --out b.onnx", "--tensorrt with --out. Expected --tensorrt with --set only."),
        ("evaluate --scale 2 --iou 0.5 --threshold 0.2", "--threshold, --iou, --scale without --detection"),
        (
            "run --camera ir00 --engine onnxrun --provider q",
            "engine 'onnxrun' (did you mean 'onnxruntime'?); provider 'q'",
        ),
        ("run --camera ir00 --camera xy:1 --cuda-binding q", "unknown camera 'ir00'"),
        ("run --camera ir00 --camera xy:1 --cuda-binding q", "camera URI 'xy:1' of unknown kind"),
        ("run --camera ir00 --camera xy:1 --cuda-binding q", "binding 'q'"),
    ],
)
def test_all_wrong_options_are_told_at_once(kd: Kd, arguments: str, wrong: str) -> None:
    code, text, error = kd(*arguments.split())
    assert (code, text) == (2, "")
    assert wrong in one_line(error)
