"""What the verbs about live labels say, and their exit codes."""

from __future__ import annotations

import json
import re
import resource
from pathlib import Path

import cv2
import numpy as np
import pytest

from kd_edge import artifact
from kd_edge.artifact import BUNDLED
from kd_edge.bench import LiveReport
from kd_edge.errors import SinkError
from kd_edge.runtime.cameras.lossless import LosslessWriter
from kd_edge.runtime.cameras.synthetic import SyntheticCamera
from kd_edge.runtime.sinks import JsonlSink
from kd_edge.types import Prediction
from tests.cli.conftest import Kd

FIGURE = "synthetic:?height_px=48&width_px=64&fps=240"
needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


@pytest.mark.slow
def test_run_says_which_engine_it_took_and_why(kd: Kd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["run", "--camera", f"{FIGURE}&realtime=false&frames=3"]
    for how in ("here", "before"):
        code, _, error = kd(*arguments)
        assert code == 0
        assert f"engine onnxruntime 1.0: 1.25 ms a step (openvino 2.50), measured {how}\n" in error
    code, _, error = kd(*arguments, "--engine", "onnxruntime")
    assert re.search(r"^engine onnxruntime [\d.]+$", error, re.M)
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("KD_EDGE_CACHE", str(tmp_path / "taken"))
    code, _, error = kd(*arguments)
    assert (code, "measured here; not kept: " in error) == (0, True)
    code, _, error = kd(*arguments, "--strict")
    assert (code, "Fix: set KD_EDGE_CACHE" in error) == (2, True)


def test_a_recording_shorter_than_the_window_says_how_long_it_would_have_to_be(kd: Kd, tmp_path: Path) -> None:
    np.save(tmp_path / "short.npy", np.random.default_rng(0).integers(0, 255, (36, 48, 64), np.uint8))  # 30 frames/s
    window = artifact.load(BUNDLED).manifest.clip_seconds
    code, _, error = kd("run", "--camera", "replay:short.npy", "--model", str(BUNDLED))
    assert code == 0
    hint = (
        rf"no label: \S+ is 1\.2 s long and the model's window {window:.1f} s: replay a longer recording, or train for "
        r"shorter ones, with clip_seconds = 1\.2 in the recipe"
    )
    assert re.search(hint, error)
    (tmp_path / "labels.csv").write_text("start_s,end_s,label\n0,1.2,clap\n")
    code, out, _ = kd("evaluate", str(BUNDLED), "--recording", "short.npy", "--labels", "labels.csv")
    assert code == 0
    assert re.search(hint, out)


@pytest.mark.slow
def test_of_several_recordings_the_short_one_is_named_and_each_is_summed_up(kd: Kd, tmp_path: Path) -> None:
    for name, frames in (("short", 36), ("long", 150)):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).integers(0, 255, (frames, 48, 64), np.uint8))
    cameras = ("--camera", "a=replay:short.npy", "--camera", "b=replay:long.npy")
    code, _, error = kd("run", *cameras, "--model", str(BUNDLED), "--sink", "jsonl:out.jsonl")
    assert code == 0
    assert "no label: a is 1.2 s long and the model's window" in error
    assert "no label: b" not in error
    assert "\n  a: 36 warming, 1.2 s\n" in error
    assert re.search(r"^  b: \d+ warming, \d+ (ok|unknown).*, 5\.0 s$", error, re.M)


@pytest.mark.slow
def test_run_labels_several_cameras(kd: Kd) -> None:
    cameras = [f"--camera={name}={FIGURE}&realtime=false&frames=30&seed={seed}" for seed, name in enumerate(("a", "b"))]
    code, out, error = kd("run", *cameras, "--sink", "jsonl:-")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [row["source"] for row in rows] == ["a", "b"] * 30
    assert [row["captured_ns"] for row in rows[::2]] == [row["captured_ns"] for row in rows[1::2]]
    assert "60 frames labelled" in error
    code, _, error = kd("run", "--camera", FIGURE, "--camera", FIGURE)
    assert (code, error.count("\n")) == (2, 2)
    assert "two cameras called 'synthetic'" in error


@pytest.mark.slow
@needs_full
def test_run_ends_with_1_where_no_sink_works_and_with_0_where_one_does(kd: Kd) -> None:
    full = ["--sink", "jsonl:/dev/full"]
    code, _, error = kd("run", "--camera", f"{FIGURE}&frames=30", *full)
    assert code == 1
    assert "sink jsonl:/dev/full does not work" in error
    code, _, error = kd("run", "--camera", f"{FIGURE}&frames=30", *full, "--sink", "jsonl:labels.jsonl")
    assert code == 0
    assert "sink jsonl:/dev/full does not work" in error


def test_a_bug_in_a_driver_is_no_mistake_of_the_user(kd: Kd, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(camera: SyntheticCamera, timeout_seconds: float) -> None:
        raise KeyError("exposure")

    monkeypatch.setattr(SyntheticCamera, "read", read)
    code, _, error = kd("run", "--camera", f"{FIGURE}&realtime=false&frames=5", "--engine", "onnxruntime")
    lines = error.splitlines()
    assert code == 1
    assert lines[-1].startswith("error: camera synthetic failed (KeyError: 'exposure'). Expected frames. Fix: ")
    assert [lines.count(line) for line in ("Traceback (most recent call last):", "KeyError: 'exposure'")] == [1, 1]
    assert "camera synthetic failed here:" in lines


@pytest.mark.slow
def test_a_recording_that_a_sink_ends_is_summarised_before_the_error(kd: Kd, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(sink: JsonlSink, prediction: Prediction) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(JsonlSink, "write", write)
    code, _, error = kd("run", "--camera", f"{FIGURE}&realtime=false&frames=5", "--sink", "jsonl:labels.jsonl")
    assert code == SinkError.exit_code
    lines = error.splitlines()
    assert "frames labelled" in error
    assert lines[-1].startswith("error: sink jsonl:labels.jsonl stopped: No space left on device")


LIVE = LiveReport(
    camera="\x1b[31mv.toml", model="[red]\x1b[2J", seconds=1, camera_fps=30, needed_fps=(4, 14), dropped=0, labels={},
    reasons={}, push=None, age=None, budget=0.3, faults=(),
)  # fmt: skip


def test_bench_watches_for_longer_than_the_window_and_shows_names_as_text(
    kd: Kd, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched: list[float] = []

    def watch(model: object, camera: str, *, seconds: float, engine: str, threads: int) -> LiveReport:
        watched.append(seconds)
        return LIVE

    monkeypatch.setattr("kd_edge.bench.watch", watch)
    window = artifact.load(BUNDLED).manifest.clip_seconds
    for seconds in ("1", "60"):
        code, text, error = kd("bench", "--camera", "./e\x1b[31mv.toml", "--seconds", seconds)
        assert code == 0
        assert r"\x1b[31mv.toml with [red]\x1b[2J" in text
        assert "\x1b" not in text + error
    assert watched == [pytest.approx(window + 2), 60]


def test_a_damaged_newest_model_says_how_to_choose_another(kd: Kd, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = bytearray(BUNDLED.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "student.onnx").write_bytes(content)
    code, _, error = kd("run", "--camera", f"{FIGURE}&realtime=false&frames=3")
    assert (code, error.count("\n")) == (2, 1)
    assert error.endswith("; or choose another with --model\n")


@pytest.mark.slow
def test_a_recording_and_its_replay_print_one_number(kd: Kd, tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    live = "synthetic:?height_px=48&width_px=64&realtime=false&frames=90"
    printed = []
    for arguments in (["--camera", live, "--record", str(path)], ["--camera", f"replay:{path}"]):
        code, _, error = kd("run", *arguments, "--engine", "onnxruntime")
        assert code == 0
        printed += re.findall(r"^labels sha256 ([0-9a-f]{64})$", error, re.M)
    assert len(printed) == 2
    assert len(set(printed)) == 1
    assert "the same as when it was recorded" in error
    _, _, error = kd("run", "--camera", f"replay:{path}", "--engine", "onnxruntime", "--smooth-ms", "0")
    assert f"when it was recorded: {printed[0]}" in error
    code, _, error = kd("run", "--camera", live, "--record", str(path))
    assert (code, "exists already" in error) == (2, True)
    path.write_bytes(path.read_bytes()[:-400])
    code, _, error = kd("run", "--camera", f"replay:{path}", "--engine", "onnxruntime")
    assert code == 1
    assert f"labels sha256 {printed[0]}" in error  # of what came before
    assert "breaks off" in error.splitlines()[-1]


@pytest.mark.parametrize("what", ["video", "images", "pages"])
def test_what_is_damaged_is_labelled_up_to_there_and_ends_with_1(kd: Kd, tmp_path: Path, what: str) -> None:
    path = _damaged(tmp_path, what, 40)
    code, _, error = kd("run", "--camera", f"replay:{path}", "--engine", "onnxruntime")
    assert code == 1
    assert "40 frames labelled" in error
    assert error.splitlines()[-1].startswith("error: ")
    assert "cannot be replayed" in error.splitlines()[-1]
    assert (
        kd("run", "--camera", f"replay:{_damaged(tmp_path, what, 0)}")[0] == 2
    )  # from the start: nothing was labelled


def _damaged(folder: Path, what: str, sound: int) -> Path:
    """A grey recording of 60 frames, damaged after so many of them."""
    rng, path = np.random.default_rng(0), folder / f"{what}{sound}"
    pictures = rng.integers(0, 255, (60, 48, 64), np.uint8)
    if what == "video":
        with path.open("wb") as file:
            writer = LosslessWriter(file, pictures[0], 30.0)
            for k, picture in enumerate(pictures):
                writer.add(picture, round(k * 1e9 / 30))
            writer.finish()
        content = bytearray(path.read_bytes())
        at = content.index(b"\xa3", content.index(b"\x1f\x43\xb6\x75"))
        frame_bytes = (len(content) - at) // 60
        middle = at + int((sound + 0.5) * frame_bytes)
        content[middle : middle + 20] = bytes(20)
        path.write_bytes(content)
    elif what == "images":
        path.mkdir()
        for k, picture in enumerate(pictures):
            cv2.imwrite(str(path / f"{k:03}.png"), picture)
        (path / f"{sound:03}.png").write_bytes(b"no image")
    else:
        whole = folder / "whole.tif"
        other = np.zeros((20, 30), np.float32 if sound == 0 else np.uint8)
        cv2.imwritemulti(str(whole), [*pictures[:sound], other, *pictures[sound:]])
        whole.rename(path)
    return path


@pytest.mark.slow
def test_run_ends_with_1_where_the_recording_does_not_go_on(kd: Kd, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        camera = f"{FIGURE}&realtime=false&frames=60"
        code, _, error = kd("run", "--camera", camera, "--record", str(tmp_path / "a.mcap"), "--engine", "onnxruntime")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 1
    assert "60 frames labelled" in error
    assert "the recording stopped early: File too large" in error
    assert re.search(r"^\d+ frames are not in the recording: its labels will differ$", error, re.M)


@pytest.mark.slow
def test_clips_are_kept_of_what_is_worth_it(kd: Kd, tmp_path: Path) -> None:
    camera = f"{FIGURE}&realtime=false&frames=520"
    out = tmp_path / "clips"
    keep = ["--record-on", "degraded", "--record-dir", str(out)]  # the first label after the start is one
    code, _, error = kd("run", "--camera", camera, *keep, "--engine", "onnxruntime")
    assert code == 0
    assert re.search(r"; [1-9]\d* clips kept", error)
    assert len((out / "manifest.csv").read_text().splitlines()) == 1 + len(list(out.glob("*.mkv")))
    code, _, error = kd("run", "--camera", camera, "--record-on", "always", "--record-dir", str(out))
    assert (code, "one of unknown, low-confidence, degraded" in error) == (2, True)
    code, _, error = kd("run", "--camera", camera, "--record-on", "unknown")
    assert (code, "record_on without record_dir" in error) == (2, True)
