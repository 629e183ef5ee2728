"""kd-edge record: from cameras to a student, keys of a real terminal, and each mistake as one line."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kd_edge.cli.keys import has_keys, key_presses
from kd_edge.cli.record import status_line
from kd_edge.data.readers.files import Files
from kd_edge.recipes import to_toml
from kd_edge.record import Session, Status, make_plan
from kd_edge.record.events import CameraStatus
from kd_edge.train.recipe import Recipe
from tests.cli.conftest import one_line
from tests.record.conftest import PlayedCamera, Stage
from tests.runs import tiny_values
from tests.waiting import PATIENCE_SECONDS

Kd = Callable[..., tuple[int, str, str]]
SYNTHETIC = ("--camera", "ir0=synthetic:?seed=1&width_px=48&height_px=36", "--keep-free-gb", "0")


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def record_people(out: Path) -> None:
    """Four people, two cameras, two labels, three clips of each."""
    for subject in "1234":
        stage = Stage()
        cameras = {
            "ir0": PlayedCamera(stage, "ir0", shape=(40, 48)),
            "rgb0": PlayedCamera(stage, "rgb0", band="rgb", shape=(40, 48, 3), late_ms=7),
        }
        plan = make_plan(
            labels=["wave", "kick"], seconds=0.6, count=3, countdown_seconds=0, pause_seconds=0, subject=subject,
            keep_free_gb=0,
        )  # fmt: skip
        with Session(cameras, out, plan, clock=stage) as session:
            assert sum(isinstance(event, Status) for event in session.events()) > 0
        assert session.summary.labels == {"wave": 3, "kick": 3}


@pytest.mark.slow
def test_from_cameras_to_a_student(kd: Kd, tmp_path: Path) -> None:
    out = tmp_path / "gestures"
    record_people(out)
    code, text, _ = kd("data", "check", "files", "--data", str(out))
    assert code == 0
    assert "gestures: 24 samples, 24 complete, 2 classes (12 to 12 samples each), 4 subjects" in text
    assert [line.split()[:3] for line in text.splitlines() if line[:4] in ("ir0 ", "rgb0")] == [
        ["ir0", "24", "0"], ["rgb0", "24", "0"],
    ]  # fmt: skip
    values = tiny_values(data={"kind": "files"}, split="default")
    values["student"] |= {"modality": "ir0", "epochs": 1}
    values["teacher"] |= {"modality": "rgb0", "epochs": 1}
    (tmp_path / "mine.toml").write_text(to_toml(Recipe.model_validate(values)))
    code, _, error = kd("train", "mine.toml", "--data", str(out), "--out", "run")
    assert code == 0, error
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert [summary["protocol"][f"{side}_samples"] for side in ("train", "validation", "test")] == [12, 6, 6]


@pytest.mark.slow
def test_data_init_proposes_a_recipe_for_it(kd: Kd, tmp_path: Path) -> None:
    out = tmp_path / "gestures"
    record_people(out)
    manifest = (out / "manifest.csv").read_bytes()
    code, text, error = kd("data", "init", str(out))
    assert code == 0, error
    assert "24 clips, 2 classes, 4 subjects, 24 clips with every modality" in text
    assert "the student sees ir0 (nir); rgb0 teaches" in text
    assert (out / "manifest.csv").read_bytes() == manifest
    code, _, error = kd("train", "--data", str(out), "--dry-run")
    assert code == 0, error


@pytest.mark.slow
def test_two_generated_cameras_with_labels(kd: Kd, tmp_path: Path) -> None:
    cameras = ("--camera", "ir0=synthetic:?seed=1", "--camera", "synthetic:?seed=2&modality=rgb")
    timed = ("--label", "wave", "--label", "kick", "--seconds", "0.6", "--countdown", "0", "--pause", "0")
    code, text, error = kd(
        "record", *cameras, "--out", "own", *timed, "--subject", "3", "--keep-free-gb", "0", "--json"
    )
    assert code == 0, error
    summary = json.loads(text)
    assert summary["labels"] == {"wave": 1, "kick": 1}
    assert summary["frames"].keys() == {"ir0", "rgb"}
    assert "kept 00001 wave" in error
    data = Files(tmp_path / "own")
    for sample in data.samples:
        for name in ("ir0", "rgb"):
            stamps = np.array((tmp_path / f"own/clips/{sample.id}_{name}.mkv.stamps").read_text().split()[1:], np.int64)
            clip = data.open(sample, name)
            np.testing.assert_array_equal(np.diff(clip.stamps_ns), np.diff(stamps))
            assert 0 <= clip.stamps_ns[0] < 1e9


class Terminal:
    """kd-edge record at a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self.handle, theirs = pty.openpty()
        command = [sys.executable, "-m", "kd_edge", "record", *SYNTHETIC, *arguments]
        self.process = subprocess.Popen(command, stdin=theirs, stderr=theirs, stdout=subprocess.PIPE)
        os.close(theirs)
        self.said = ""

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text not in self.said:
            assert time.monotonic() < deadline, self.said
            self.said += os.read(self.handle, 65536).decode(errors="replace")

    def wait_for_frames(self, count: int) -> None:
        """Wait until so many more frames were recorded."""
        self.said = ""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (
            len(told := [int(n) for n in re.findall(r"ir0 (\d+) frames", self.said)]) < 2 or told[-1] < told[0] + count
        ):
            assert time.monotonic() < deadline, self.said
            self.said += os.read(self.handle, 65536).decode(errors="replace")

    def press(self, keys: str) -> None:
        self.said = ""
        os.write(self.handle, keys.encode())

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        while True:
            try:
                if not os.read(self.handle, 65536):
                    break
            except OSError:  # they have closed it
                break
        code = self.process.wait(PATIENCE_SECONDS)
        os.close(self.handle)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


@pytest.mark.slow
def test_keys_of_a_terminal_mark_pieces(tmp_path: Path) -> None:
    out = tmp_path / "own"
    terminal = Terminal("--out", str(out), "--key", "w=wave", "--label", "kick")
    terminal.wait_for("keys: w wave, 1 kick")
    terminal.wait_for("recording")
    for keys, said in (("w", "recording wave"), ("\x1b[Ax1\x1bOP", "recording kick"), (" ", "kick: ")):
        terminal.press(keys)  # arrows, function keys and those of no label do nothing
        terminal.wait_for(said)
        terminal.wait_for_frames(5)
    assert terminal.end() == 0
    found = rows(out)
    assert [(row["label"], row["trial"], row["ir0"]) for row in found][:1] == [("wave", "1", "clips/00001_ir0.mkv")]
    assert [row["label"] for row in found] == ["wave", "kick"]
    assert float(found[0]["end_s"]) == float(found[1]["start_s"])


@pytest.mark.slow
def test_backspace_at_a_terminal_discards_a_piece(tmp_path: Path) -> None:
    out = tmp_path / "own"
    terminal = Terminal("--out", str(out), "--key", "w=wave", "--key", "k=kick")
    terminal.wait_for("backspace discards it")
    terminal.wait_for("recording")
    for keys, said in (("w", "recording wave"), ("w", "wave: "), ("k", "recording kick"), ("\x7f", "discarded kick")):
        terminal.press(keys)
        terminal.wait_for(said)
        terminal.wait_for_frames(5)
    assert terminal.end() == 0
    assert [row["label"] for row in rows(out)] == ["wave"]


@pytest.mark.slow
def test_backspace_at_a_terminal_discards_a_clip(tmp_path: Path) -> None:
    out = tmp_path / "own"
    timed = ("--label", "wave", "--seconds", "300", "--countdown", "0")
    terminal = Terminal("--out", str(out), *timed)
    terminal.wait_for("backspace discards a clip")
    terminal.wait_for("recording wave")
    terminal.wait_for_frames(5)
    terminal.press("\x7f")
    terminal.wait_for("discarded wave")
    terminal.wait_for_frames(5)
    assert terminal.end() == 0
    assert [row["ir0"] for row in rows(out)] == ["clips/00002_ir0.mkv"]
    assert sorted(path.name for path in (out / "clips").iterdir()) == ["00002_ir0.mkv", "00002_ir0.mkv.stamps"]


def test_a_terminal_that_goes_away_presses_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with open(theirs, closefd=True) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert has_keys()
        with key_presses() as pressed:
            os.write(ours, "ä\x1b[A\x7f".encode())
            assert select.select([theirs], [], [], PATIENCE_SECONDS)[0]
            assert pressed() == "ä\x7f"
            assert pressed() == ""
            os.close(ours)
            assert pressed() == ""
    for nobody in (None, stdin):  # closed
        monkeypatch.setattr("sys.stdin", nobody)
        assert not has_keys()


@pytest.mark.slow
def test_an_interrupt_keeps_what_is_there(tmp_path: Path) -> None:
    out = tmp_path / "own"
    terminal = Terminal("--out", str(out), "--label", "wave", "--seconds", "300", "--countdown", "0")
    terminal.wait_for("recording wave")
    terminal.wait_for_frames(9)
    assert terminal.end() == 0
    (row,) = rows(out)
    assert row["label"] == "wave"


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("--camera", "ir9"), "ir9"),
        (("--camera", "a=synthetic:", "--camera", "b=synthetic:"), "two cameras at 'synthetic:'"),
        (("--camera", "a=synthetic:", "--camera", "a=synthetic:?seed=1"), "two cameras called 'a'"),
        (("--camera", "synthetic:?seed=2", "--camera", "synthetic:?seed=1"), "two cameras for column 'ir'"),
        (("--camera", "label=synthetic:"), "a camera called 'label'"),
        (("--camera", "7=synthetic:"), "a camera called '7'"),
        (("--camera", "synthetic:?realtime=false"), "is not live"),
        (("--camera", "replay:none.mkv"), "none.mkv"),
        (("--camera", "synthetic:", "--count", "3"), "--count 3 without --seconds"),
        (("--camera", "synthetic:", "--label", "a\nb", "--seconds", "1"), r"label 'a\nb'"),
        (("--camera", "synthetic:", "--label", "wave"), "keys without a terminal"),
        (("--camera", "synthetic:", "--max-gb", "0.001"), "has no space"),
        (("--camera", "synthetic:", "--keep-free-gb", "1e9"), "has no space"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    kd: Kd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], found: str
) -> None:
    with open(os.devnull, encoding="utf-8") as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        code, text, error = kd("record", "--out", "own", *arguments)
    assert (code, text) == (2, "")
    assert found in one_line(error)
    assert not list((tmp_path / "own").glob("clips/*"))


@pytest.mark.parametrize(
    "option",
    [
        ("--duration", "inf"),
        ("--max-gb", "inf"),
        ("--keep-free-gb", "inf"),
        ("--seconds", "nan"),
        ("--trial", "9" * 30),
    ],
)
def test_absurd_numbers_are_told(kd: Kd, tmp_path: Path, option: tuple[str, str]) -> None:
    code, text, error = kd("record", "--out", "own", "--camera", "synthetic:", *option)
    assert (code, text) == (2, "")
    assert f"Invalid value for '{option[0]}'" in error
    assert not (tmp_path / "own").exists()


@pytest.mark.slow
def test_a_manifest_that_is_no_plain_file_is_told_before(kd: Kd, tmp_path: Path) -> None:
    assert kd("record", "--out", "own", *SYNTHETIC, "--seconds", "0.3")[0] == 0
    manifest = tmp_path / "own/manifest.csv"
    manifest.rename(tmp_path / "elsewhere.csv")
    manifest.symlink_to(tmp_path / "elsewhere.csv")
    before = (tmp_path / "elsewhere.csv").read_bytes()
    code, _, error = kd("record", "--out", "own", *SYNTHETIC, "--seconds", "0.3")
    assert (code, "manifest.csv cannot be appended to (" in one_line(error)) == (2, True)
    manifest.unlink()
    manifest.mkdir()
    code, _, error = kd("record", "--out", "own", *SYNTHETIC, "--seconds", "0.3")
    assert (code, "manifest.csv cannot be appended to (Is a directory)" in one_line(error)) == (2, True)
    assert (tmp_path / "elsewhere.csv").read_bytes() == before


def test_a_folder_of_something_else_is_refused(kd: Kd, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/text.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, found in (("notes", "contains other files"), ("file", "is not a folder")):
        code, _, error = kd("record", "--out", name, *SYNTHETIC, "--seconds", "0.3")
        assert (code, found in one_line(error)) == (2, True)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "notes", "text.txt"]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_one_line(kd: Kd, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    code, _, error = kd("record", "--out", "locked/own", *SYNTHETIC, "--seconds", "0.3")
    assert (code, "cannot be recorded into (Permission denied)" in one_line(error)) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "content", "found"),
    [
        ("manifest.csv", "id,class\n", "has no column label"),
        ("manifest.csv", "ID;Label\n", "has no column id and no column label"),
        ("manifest.csv", "id,label\n\xff\n", "cannot be read"),
        ("manifest.jsonl", "", "has a manifest.jsonl"),
        (".record/cameras.json", "{", "cameras.json cannot be read"),
        (".record/cameras.json", '{"format": 9}', "format 9, not 1"),
        (".record/cameras.json", '{"format": 1, "cameras": [{"modality": 1}]}', "cameras.json cannot be read"),
    ],
)
def test_a_damaged_folder_is_one_line(kd: Kd, tmp_path: Path, file: str, content: str, found: str) -> None:
    assert kd("record", "--out", "own", *SYNTHETIC, "--seconds", "0.3")[0] == 0
    (tmp_path / "own" / file).write_bytes(content.encode("latin-1"))
    code, _, error = kd("record", "--out", "own", *SYNTHETIC, "--seconds", "0.3")
    assert (code, found in one_line(error)) == (2, True)


@pytest.mark.slow
def test_a_camera_that_ends_ends_it_as_it_should_be(kd: Kd, tmp_path: Path) -> None:
    camera = "ir0=synthetic:?frames=30&width_px=48&height_px=36"
    code, text, error = kd("record", "--out", "own", "--camera", camera, "--keep-free-gb", "0")
    assert code == 0
    assert "cut short: ir0 has ended" in error
    assert text.startswith("own: 1 recording, ")
    short = ("--seconds", "0.3", "--count", "9", "--label", "wave", "--countdown", "0", "--pause", "9")
    code, _, error = kd("record", "--out", "own", "--camera", camera, "--keep-free-gb", "0", *short)
    assert code == 0
    assert error.strip().splitlines()[-1] == "ended: ir0 has ended"


def test_a_camera_file_says_its_name_and_its_cores(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    core = min(before)
    file = tmp_path / "left.toml"
    file.write_text(f'uri = "synthetic:?width_px=48&height_px=36"\nhfov_deg = 60\ncpus = [{core}]\n')
    with Session([str(file)], tmp_path / "own", make_plan(seconds=0.3, keep_free_gb=0)) as session:
        assert sum(isinstance(event, Status) for event in session.events()) > 0
        assert os.sched_getaffinity(0) == {core}
    assert os.sched_getaffinity(0) == before
    assert session.summary.frames.keys() == {"left"}
    (camera,) = json.loads((tmp_path / "own/.record/cameras.json").read_text())["cameras"]
    assert camera["focal"] == pytest.approx(0.8660254)  # 0.5 / tan(30 degrees)
    assert "focal = 0.866" in (tmp_path / "own/dataset.toml").read_text()


def test_the_line_that_says_how_it_goes() -> None:
    cameras = {"ir0": CameraStatus(120, 29.97, 0, 12.4), "rgb0": CameraStatus(118, 29.5, 2, 40.0)}
    assert status_line(Status(cameras, 69_250_000_000, 4.02, "wave")) == (
        "wave 4.0 s  ir0 120 frames 30.0/s 12 ms old  rgb0 118 frames 29.5/s 2 DROPPED 40 ms old  69.2 GB left"
    )
    assert status_line(Status({}, 1_000_000_000, None, "", "ir0: gone")) == "waiting for ir0: gone  1.0 GB left"
    assert status_line(Status({}, 1_000_000_000, 1.0)) == "no label 1.0 s  1.0 GB left"
    assert status_line(Status({}, 1_000_000_000)) == "ready  1.0 GB left"
