"""Sessions of cameras moved by hand: what is recorded, what ends a clip, and what is kept of it."""

from __future__ import annotations

import csv
import logging
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kd_edge.data.readers.files import Files
from kd_edge.errors import BadPictureError, CameraError, ConfigError, DataError
from kd_edge.record import Began, Countdown, Kept, Note, Session, Status, make_plan
from kd_edge.record import session as module
from kd_edge.record.journal import Journal, JournalFile
from kd_edge.record.writer import FrameWriter
from kd_edge.types import Frame

from .conftest import PlayedCamera, Stage

MS = 1_000_000


@pytest.fixture
def ir(stage: Stage) -> PlayedCamera:
    return PlayedCamera(stage, "ir0")


@pytest.fixture
def rgb(stage: Stage) -> PlayedCamera:
    return PlayedCamera(stage, "rgb0", late_ms=7, band="rgb", shape=(20, 30, 3))


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def record(stage: Stage, out: Path, cameras: list[PlayedCamera], pressed: Any = None, **plan: Any) -> list[Any]:
    """All events of a session but its statuses, and the summary behind them."""
    plan = {"countdown_seconds": 0, "pause_seconds": 0, "keep_free_gb": 0, **plan}
    with Session({c.name: c for c in cameras}, out, make_plan(**plan), clock=stage) as session:
        found = [e for e in session.events(pressed or (lambda: "")) if not isinstance(e, Status)]
    return [*found, session.summary]


def between(camera: PlayedCamera, begin_ns: int, end_ns: int) -> list[Frame]:
    return [frame for frame in camera.shown if begin_ns <= frame.captured_ns < end_ns]


def test_clips_come_back_to_the_bit_and_to_the_nanosecond(stage: Stage, out: Path, ir: Any, rgb: Any) -> None:
    *events, summary = record(stage, out, [ir, rgb], labels=["wave", "kick"], seconds=1.0, count=2, subject="3")
    found = rows(out)
    assert [(r["id"], r["label"], r["subject"], r["trial"]) for r in found] == [
        ("00001", "wave", "3", "1"), ("00002", "kick", "3", "1"), ("00003", "wave", "3", "2"),
        ("00004", "kick", "3", "2"),
    ]  # fmt: skip
    assert [type(e) for e in events] == [Began, Kept] * 4
    assert (summary.clips, summary.labels, summary.frames) == (4, {"wave": 2, "kick": 2}, {"ir0": 100, "rgb0": 100})
    assert summary.dropped == {"ir0": 0, "rgb0": 0}
    assert summary.cut_short == []
    assert summary.ended == ""
    data = Files(out)
    assert tuple(data.labels) == ("kick", "wave")
    for sample in data.samples:
        firsts = []
        for camera in (ir, rgb):
            clip = data.open(sample, camera.name)
            stamps = [int(s) for s in (out / f"clips/{sample.id}_{camera.name}.mkv.stamps").read_text().split()[1:]]
            taken = between(camera, stamps[0], stamps[-1] + 1)
            assert len(clip) == len(taken) == 25
            np.testing.assert_array_equal(clip.frames, [frame.image for frame in taken])
            assert stamps == [frame.captured_ns for frame in taken]
            firsts.append((stamps[0], clip.stamps_ns))
        zero_ns = min(first for first, _ in firsts)
        for first_ns, stamps_ns in firsts:  # one clock for both cameras
            np.testing.assert_array_equal(stamps_ns, first_ns - zero_ns + 40 * MS * np.arange(25))


@pytest.mark.parametrize(("shape", "dtype"), [((24, 32), "uint16"), ((24, 32, 3), "uint16"), ((23, 31), "uint8")])
def test_pixels_of_every_kind_come_back(stage: Stage, out: Path, shape: Any, dtype: str) -> None:
    camera = PlayedCamera(stage, "cam", shape=shape, dtype=dtype, band="lwir" if len(shape) == 2 else "rgb")
    record(stage, out, [camera], labels=["wave", "kick"], seconds=0.4)
    clip = Files(out).open(Files(out).samples[0], "cam")
    assert (clip.frames.dtype, clip.frames.shape) == (dtype, (10, *shape))
    first_ns = int((out / "clips/00001_cam.mkv.stamps").read_text().split()[1])
    np.testing.assert_array_equal(clip.frames, [f.image for f in between(camera, first_ns, first_ns + 400 * MS)])


def test_the_focal_length_of_a_camera_stands_beside_its_clips(stage: Stage, out: Path, ir: Any, rgb: Any) -> None:
    ir.focal = 0.61
    record(stage, out, [ir, rgb], labels=["wave", "kick"], seconds=0.4)
    assert Files(out).image_format("ir0").focal == 0.61
    assert Files(out).image_format("rgb0").focal is None


def test_keys_mark_pieces_of_one_recording(stage: Stage, out: Path, ir: Any, rgb: Any) -> None:
    pressed = {20: "w", 40: "w", 60: "k", 80: "w", 100: " ", 105: " x", 120: "w"}
    looks = iter(range(1000))
    *events, summary = record(
        stage, out, [ir, rgb], lambda: pressed.get(next(looks), ""), keys=["w=wave", "k=kick"], duration_seconds=8.0
    )
    found = rows(out)
    assert [(r["id"], r["label"], r["trial"]) for r in found] == [
        ("00001-1", "wave", "1"), ("00001-2", "kick", "1"), ("00001-3", "wave", "2"), ("00001-4", "wave", "3"),
    ]  # fmt: skip
    lengths = [float(r["end_s"]) - float(r["start_s"]) for r in found[:3]]
    assert lengths == pytest.approx([1.0, 1.0, 1.0])  # 20 looks of 50 ms
    stamps = [(out / f"clips/00001_{c.name}.mkv.stamps").read_text().split()[1:] for c in (ir, rgb)]
    ran_s = (min(int(s[-1]) for s in stamps) - min(int(s[0]) for s in stamps)) / 1e9
    assert float(found[3]["end_s"]) == pytest.approx(ran_s + 0.001, abs=5e-4)  # to the end of the recording
    assert {r["ir0"] for r in found} == {"clips/00001_ir0.mkv"}
    assert [e.label for e in events if isinstance(e, Began)] == ["", "wave", "kick", "wave", "wave"]
    assert summary.clips == 1
    assert summary.rows == 4
    data = Files(out)
    assert [data.labels[s.label] for s in data.samples].count("none") >= 2  # what lies between
    assert set(data.labels) == {"wave", "kick", "none"}
    piece = data.open(next(s for s in data.samples if s.id == "00001-1"), "ir0")
    assert len(piece) == 25


def test_backspace_discards_a_piece(stage: Stage, out: Path, ir: Any) -> None:
    pressed = {5: "\x7f", 20: "w", 40: "w", 50: "k", 60: "\b", 70: "w", 90: " ", 95: "\x7f", 100: "w", 120: "w"}
    looks = iter(range(1000))
    *events, summary = record(
        stage, out, [ir], lambda: pressed.get(next(looks), ""), keys=["w=wave", "k=kick"], duration_seconds=8.0
    )
    notes = [event.text for event in events if isinstance(event, Note)]
    assert notes == [
        "nothing to discard in this recording", "wave: 1.0 s", "discarded kick", "wave: 1.0 s", "discarded wave",
        "wave: 1.0 s",
    ]  # fmt: skip
    found = rows(out)
    assert [(r["id"], r["label"], r["trial"]) for r in found] == [("00001-1", "wave", "1"), ("00001-2", "wave", "2")]
    assert float(found[1]["start_s"]) - float(found[0]["start_s"]) == pytest.approx(4.0)  # 80 looks of 50 ms
    assert summary.labels == {"wave": 2}


def keyed(stage: Stage, out: Path, ir: Any, presses: Any, **plan: Any) -> tuple[list[Any], Any]:
    """Events of a session whose backspace is pressed after the events that ``presses`` picks, and its summary."""
    waiting: list[str] = []
    plan = {"countdown_seconds": 1, "pause_seconds": 1, "keep_free_gb": 0, **plan}
    found = []
    with Session({"ir0": ir}, out, make_plan(**plan), clock=stage) as session:
        for event in session.events(lambda: waiting.pop() if waiting else ""):
            if not isinstance(event, Status):
                found.append(event)
                if presses(found):
                    waiting.append("\x7f")
    return found, session.summary


def test_backspace_discards_the_last_clip_which_is_taken_again(stage: Stage, out: Path, ir: Any) -> None:
    def presses(found: list[Any]) -> bool:
        """In the pause after the second clip, in the count-down that follows, and after the last one."""
        kept, notes = (sum(isinstance(event, kind) for event in found) for kind in (Kept, Note))
        is_last_second = isinstance(found[-1], Countdown) and found[-1].seconds == 1
        return (kept in (2, 5) and isinstance(found[-1], Kept)) or (kept == 2 and notes == 1 and is_last_second)

    events, summary = keyed(
        stage, out, ir, presses, labels=["wave", "kick"], seconds=0.4, count=2, subject="3", countdown_seconds=3
    )
    notes = [event.text for event in events if isinstance(event, Note)]
    assert notes == ["discarded 00002 kick", "discarded 00001 wave", "discarded 00005 wave"]
    assert [(r["id"], r["label"], r["trial"]) for r in rows(out)] == [
        ("00003", "wave", "1"), ("00004", "kick", "1"), ("00006", "wave", "2"), ("00007", "kick", "2"),
    ]  # fmt: skip
    assert sorted({path.name[:5] for path in (out / "clips").iterdir()}) == ["00003", "00004", "00006", "00007"]
    assert (summary.clips, summary.rows, summary.labels) == (4, 4, {"wave": 2, "kick": 2})
    assert summary.frames == {"ir0": 40}
    assert summary.size_bytes == sum(path.stat().st_size for path in (out / "clips").glob("*.mkv"))


def test_backspace_that_is_held_discards_once(stage: Stage, out: Path, ir: Any) -> None:
    def presses(found: list[Any]) -> bool:
        return sum(isinstance(event, Kept) for event in found) == 2 and isinstance(found[-1], (Kept, Note, Countdown))

    events, _ = keyed(
        stage, out, ir, presses, labels=["wave"], seconds=0.4, count=3, countdown_seconds=1, pause_seconds=0.5
    )
    assert [event.text for event in events if isinstance(event, Note)] == ["discarded 00002 wave"]
    assert [row["id"] for row in rows(out)] == ["00001", "00003", "00004"]


def test_backspace_discards_the_clip_that_runs(stage: Stage, out: Path, ir: Any) -> None:
    began = []

    def presses(found: list[Any]) -> bool:
        began.extend(found[-1:] if isinstance(found[-1], Began) else [])
        return len(began) == 1 and isinstance(found[-1], Began)

    events, summary = keyed(stage, out, ir, presses, labels=["wave"], seconds=2.0, waits=False)
    assert [type(e) for e in events] == [Countdown, Began, Note, Countdown, Began, Kept]
    assert events[2].text == "discarded wave"
    assert [(r["id"], r["trial"]) for r in rows(out)] == [("00002", "1")]
    assert sorted(path.name for path in (out / "clips").iterdir()) == ["00002_ir0.mkv", "00002_ir0.mkv.stamps"]
    assert (summary.clips, summary.cut_short, summary.frames) == (1, [], {"ir0": 50})
    assert list((out / ".record").glob("*.jsonl")) == []


def test_backspace_without_a_clip_discards_nothing(stage: Stage, out: Path, ir: Any) -> None:
    events, _ = keyed(stage, out, ir, lambda found: len(found) == 1, labels=["wave"], seconds=0.4)
    assert [type(e) for e in events] == [Countdown, Note, Countdown, Began, Kept]
    assert events[1].text == "nothing to discard"
    assert len(rows(out)) == 1


def test_a_clip_that_was_cut_short_can_be_discarded(stage: Stage, out: Path, ir: Any) -> None:
    losing, pressed = Losing(ir, 0.5), []

    def keys() -> str:
        return pressed.pop() if pressed else ""

    made = make_plan(labels=["wave"], seconds=2.0, countdown_seconds=1, pause_seconds=0, keep_free_gb=0)
    with Session({"ir0": ir}, out, made, clock=stage) as session:
        for event in session.events(keys):
            losing.see(event)
            if isinstance(event, Kept) and event.why:
                pressed.append("\x7f")
    assert [row["id"] for row in rows(out)] == ["00002"]
    assert session.summary.cut_short == []
    assert session.summary.labels == {"wave": 1}


def test_without_labels_it_is_one_recording_until_the_time_is_over(stage: Stage, out: Path, ir: Any) -> None:
    *_, summary = record(stage, out, [ir], duration_seconds=2.0)
    (row,) = rows(out)
    assert (row["id"], row["label"], row["trial"], row["start_s"], row["end_s"]) == ("00001", "", "", "", "")
    assert (summary.clips, summary.ended) == (1, "")
    assert summary.frames["ir0"] in (50, 51)


def test_a_long_recording_is_several_files_that_follow_one_another(
    stage: Stage, out: Path, ir: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_SECONDS", 1.0)
    record(stage, out, [ir], duration_seconds=3.5)
    stamps = [int(s) for n in range(1, 4) for s in (out / f"clips/{n:05d}_ir0.mkv.stamps").read_text().split()[1:]]
    assert len(rows(out)) == 3
    assert set(np.diff(stamps)) == {40 * MS}  # none is lost between two files


def test_a_manifest_that_another_program_wrote_gets_the_columns_it_lacks(
    stage: Stage, out: Path, ir: Any, rgb: Any
) -> None:
    record(stage, out, [ir, rgb], labels=["wave"], seconds=0.4)
    (out / "manifest.csv").write_text('id,label,ir0,said\n1,"sit, down",clips/00001_ir0.mkv,by me')
    again = Stage()
    cameras = [PlayedCamera(again, "ir0"), PlayedCamera(again, "rgb0", late_ms=7, band="rgb", shape=(20, 30, 3))]
    record(again, out, cameras, labels=["wave"], seconds=0.4)
    first, second = rows(out)
    assert (first["id"], first["label"], first["said"], first["rgb0_offset_s"]) == ("1", "sit, down", "by me", None)
    assert (second["id"], second["rgb0"], second["said"]) == ("00002", "clips/00002_rgb0.mkv", "")
    assert float(second["ir0_offset_s"] or 0) + float(second["rgb0_offset_s"] or 0) > 0


@pytest.mark.parametrize(
    "edited",
    [
        pytest.param(lambda text: "\ufeff" + text.replace("\n", "\r\n"), id="bom and carriage returns"),
        pytest.param(lambda text: text.replace(",", ";"), id="semicolons"),
        pytest.param(lambda text: text.replace(",", "\t").rstrip("\n"), id="tabs, no end of line"),
        pytest.param(lambda text: text.replace(",", " , ") + "\n\n", id="blanks"),
        pytest.param(lambda _: "label;ir0; id\nwave;clips/00001_ir0.mkv;00001\n", id="another order, fewer columns"),
    ],
)
def test_a_manifest_as_a_spreadsheet_writes_it_goes_on(stage: Stage, out: Path, ir: Any, edited: Any) -> None:
    record(stage, out, [ir], labels=["wave"], seconds=0.4, subject="3")
    file = out / "manifest.csv"
    file.write_bytes(edited(file.read_text()).encode())
    again = Stage()
    record(again, out, [PlayedCamera(again, "ir0")], labels=["kick"], seconds=0.4, subject='../a;b,c "d"')
    first, second = Files(out).rows
    assert (first.id, first.label, str(first.files["ir0"])) == ("00001", "wave", "clips/00001_ir0.mkv")
    assert (second.id, second.label, str(second.files["ir0"])) == ("00002", "kick", "clips/00002_ir0.mkv")
    assert second.subject == '../a;b,c "d"'
    assert not any("not read" in remark for remark in Files(out).remarks())


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('9,"wave\n', "line 3: unexpected end of data"),
        (f"9{',' * 40}\n", "line 3 has 41 cells for 11 columns"),
    ],
)
def test_a_line_that_would_swallow_or_shift_others_is_told_before_anything_is_recorded(
    stage: Stage, out: Path, ir: Any, line: str, found: str
) -> None:
    record(stage, out, [ir], labels=["wave"], seconds=0.4)
    file = out / "manifest.csv"
    file.write_text(file.read_text() + line)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    again = Stage()
    with pytest.raises(DataError, match=found):
        record(again, out, [PlayedCamera(again, "ir0")], labels=["kick"], seconds=0.4)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def edited_meanwhile(stage: Stage, out: Path, ir: Any, content: bytes) -> Any:
    """What becomes of a session while whose first clip runs somebody writes the manifest."""
    plan = make_plan(labels=["wave"], seconds=0.4, countdown_seconds=0, keep_free_gb=0)
    with Session({"ir0": ir}, out, plan, clock=stage) as session:
        for event in session.events():
            if isinstance(event, Began):
                (out / "manifest.csv").write_bytes(content)
    return session.summary


def test_columns_that_an_editor_takes_out_while_it_records_are_there_again(stage: Stage, out: Path, ir: Any) -> None:
    summary = edited_meanwhile(stage, out, ir, b"id;label;said\n")
    assert (summary.rows, summary.ended) == (1, "")
    (row,) = csv.DictReader((out / "manifest.csv").read_text().splitlines(), delimiter=";")
    assert (row["id"], row["label"], row["said"], row["ir0"]) == ("00001", "wave", "", "clips/00001_ir0.mkv")


def test_a_manifest_that_becomes_unreadable_while_it_records_loses_nothing(stage: Stage, out: Path, ir: Any) -> None:
    summary = edited_meanwhile(stage, out, ir, "id,label\n".encode("utf-16"))
    assert summary.rows == 0
    assert "its rows cannot be written" in summary.ended
    (out / "manifest.csv").write_text("id,label\n")
    again = Stage()
    record(again, out, [PlayedCamera(again, "ir0")], labels=["wave"], seconds=0.4)
    assert [(r["id"], r["label"]) for r in rows(out)] == [("00001", "wave"), ("00002", "wave")]


def test_an_interrupt_while_rows_are_written_writes_them_once(
    stage: Stage, out: Path, ir: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, []

    def interrupted(handle: int) -> None:
        real(handle)
        if os.readlink(f"/proc/self/fd/{handle}").endswith("manifest.csv") and not calls:
            calls.append(handle)
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        record(stage, out, [ir], labels=["wave"], seconds=0.4)
    assert len(calls) == 1
    assert [row["id"] for row in rows(out)] == ["00001"]
    assert list((out / ".record").glob("*.jsonl")) == []


def test_numbers_go_on_behind_the_largest_one_however_large(stage: Stage, out: Path, ir: Any) -> None:
    record(stage, out, [ir], labels=["wave"], seconds=0.4)
    file = out / "manifest.csv"
    file.write_text(file.read_text().replace("00001,", "20261129120000,"))
    for number in (1, 2):
        again = Stage()
        record(again, out, [PlayedCamera(again, "ir0")], labels=["wave"], seconds=0.4)
        assert rows(out)[-1]["id"] == f"2026112912000{number}"


def test_a_clip_asks_for_no_list_of_the_folder(
    stage: Stage, out: Path, ir: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []
    real = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: looked.append(path) or real(path))
    record(stage, out, [ir], labels=["wave"], seconds=0.4, count=5)
    assert looked.count(out / "clips") == 1


def test_a_countdown_is_told(stage: Stage, out: Path, ir: Any) -> None:
    events = record(stage, out, [ir], labels=["wave"], seconds=0.4, countdown_seconds=2.0)
    assert events[:2] == [Countdown("wave", 2, 1, 1), Countdown("wave", 1, 1, 1)]


class Losing:
    """Loses a camera when a clip has run for a while, and brings it back after so many looks."""

    def __init__(self, camera: PlayedCamera, after_seconds: float, looks: int = 5) -> None:
        self.camera, self.after_seconds, self.looks = camera, after_seconds, looks
        self.state = "before"

    def see(self, event: Any) -> None:
        if not isinstance(event, Status):
            return
        if self.state == "before" and event.seconds is not None and event.seconds >= self.after_seconds:
            self.camera.lose()
            self.state = "lost"
        elif self.state == "lost" and event.waiting:
            self.looks -= 1
            if self.looks == 0:
                self.camera.bring_back()
                self.state = "back"


def lossy(stage: Stage, out: Path, cameras: Any, losing: Losing, **plan: Any) -> tuple[list[Any], Any]:
    made = make_plan(**{"countdown_seconds": 0, "pause_seconds": 0, "keep_free_gb": 0, **plan})
    events = []
    with Session({c.name: c for c in cameras}, out, made, clock=stage) as session:
        for event in session.events():
            losing.see(event)
            events += [] if isinstance(event, Status) else [event]
    return events, session.summary


def test_a_lost_camera_ends_the_clip_and_is_waited_for(stage: Stage, out: Path, ir: Any, rgb: Any, caplog: Any) -> None:
    events, summary = lossy(stage, out, [ir, rgb], Losing(rgb, 0.5), labels=["wave"], seconds=2.0, count=1)
    assert [type(e) for e in events] == [Began, Kept, Note, Note, Began, Kept]
    assert "the cable was pulled" in events[1].why
    assert "waiting: rgb0: the cable was pulled" in events[2].text
    assert events[5].why == ""
    assert [r["trial"] for r in rows(out)] == ["1", "2"]
    assert 0.3 < events[1].clip.seconds < 2.0  # when the loss is seen is the machine's
    assert events[5].clip.frames == {"ir0": 50, "rgb0": 50}
    assert summary.reconnects == {"ir0": 0, "rgb0": 1}
    assert summary.cut_short == ["00001"]
    assert next(r.message for r in caplog.records if r.levelno >= logging.WARNING).startswith("camera rgb0: the cable")


def test_a_session_that_could_not_begin_can_later(stage: Stage, out: Path, ir: Any, rgb: Any) -> None:
    plan = make_plan(labels=["wave"], seconds=1.0, count=1, countdown_seconds=0, keep_free_gb=0)
    session = Session({"ir": ir, "rgb": rgb}, out, plan, clock=stage)
    rgb.lose()
    for _ in range(2):
        with pytest.raises(CameraError, match="pulled"), session:
            pass
    rgb.bring_back()
    with session:
        kinds = [type(event) for event in session.events() if not isinstance(event, Status)]
    assert kinds == [Began, Kept]
    assert session.summary.frames == {"ir": 25, "rgb": 25}


def test_a_camera_that_learns_its_name_when_it_is_opened_is_told_by_it(stage: Stage, out: Path) -> None:
    class Bag(PlayedCamera):
        def open(self) -> None:
            super().open()
            self.name = "bag_ir"

    camera = Bag(stage, "file.mcap")
    with (  # noqa: PT012
        pytest.raises(CameraError, match="camera bag_ir now delivers 64x48"),
        Session({"ir": camera}, out, make_plan(keep_free_gb=0), clock=stage) as session,
    ):
        for _ in session.events():
            camera.shape = (48, 64)


def test_a_lost_camera_ends_it_all_where_nobody_waits(stage: Stage, out: Path, ir: Any, rgb: Any) -> None:
    events, summary = lossy(stage, out, [ir, rgb], Losing(rgb, 0.5), waits=False, duration_seconds=60)
    assert "the cable was pulled" in summary.ended
    (row,) = rows(out)
    assert row["ir0"]
    assert row["rgb0"]
    assert [type(e) for e in events] == [Began, Kept]


def test_another_size_ends_it_with_an_error_and_keeps_what_came(stage: Stage, out: Path, ir: Any) -> None:
    with Session({"ir0": ir}, out, make_plan(keep_free_gb=0), clock=stage) as session:  # noqa: SIM117
        with pytest.raises(CameraError, match=r"now delivers 40x30 uint8\. Expected 32x24 uint8, as before"):  # noqa: PT012
            for event in session.events():
                if isinstance(event, Status) and event.seconds is not None and event.seconds > 0.5:
                    ir.shape = (30, 40)
    assert len(rows(out)) == 1


def test_pictures_that_cannot_be_decoded_are_counted(stage: Stage, out: Path, ir: Any) -> None:
    decoded, count = ir.read, iter(range(10_000))

    def read(timeout_seconds: float) -> Frame | None:
        frame: Frame | None = decoded(timeout_seconds)
        if frame is not None and next(count) == 10:
            raise BadPictureError("half a picture", "a whole one", "check the cable")
        return frame

    ir.read = read
    *_, summary = record(stage, out, [ir], duration_seconds=2)
    assert summary.unusable == {"ir0": 1}
    assert summary.frames["ir0"] in (48, 49, 50)


def test_trials_begin_where_they_are_told(stage: Stage, out: Path, ir: Any) -> None:
    record(stage, out, [ir], labels=["wave", "kick"], seconds=0.4, count=2, trial=0)
    assert [(r["label"], r["trial"]) for r in rows(out)] == [("wave", "0"), ("kick", "0"), ("wave", "1"), ("kick", "1")]


def test_a_clip_that_the_end_of_the_time_cuts_says_so(stage: Stage, out: Path, ir: Any) -> None:
    *_, last, summary = record(stage, out, [ir], labels=["wave"], seconds=3.0, duration_seconds=1.0)
    assert (last.why, summary.ended) == ("the time is over", "")
    assert 20 <= last.clip.frames["ir0"] <= 25


def test_a_camera_slower_than_the_clips_ends_it(stage: Stage, out: Path) -> None:
    *_, summary = record(stage, out, [PlayedCamera(stage, "ir0", period_ms=900)], labels=["wave"], seconds=0.5)
    assert summary.ended == "a clip has fewer than two frames of a camera: use a longer --seconds or a faster camera"
    assert rows(out) == []
    assert list((out / "clips").iterdir()) == []


def test_a_folder_that_vanishes_ends_it_in_one_line(stage: Stage, out: Path, ir: Any) -> None:
    with Session({"ir0": ir}, out, make_plan(keep_free_gb=0), clock=stage) as session:
        for event in session.events():
            if isinstance(event, Status) and event.seconds is not None and event.seconds > 0.5:
                shutil.rmtree(out, ignore_errors=True)
            assert not isinstance(event, Status) or event.seconds is None or event.seconds < 1.0
    assert session.summary.ended == "the disk: No such file or directory"
    assert session.summary.clips == 0


def test_a_writer_takes_no_file_that_is_there(tmp_path: Path) -> None:
    for taken in ("a.mkv", "a.mkv.stamps"):
        (tmp_path / taken).write_text("mine")
        with pytest.raises(ConfigError, match=r"cannot be created \(File exists\)"):
            FrameWriter(tmp_path / "a.mkv", 30.0, 1000)
        assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(taken, "mine")]
        (tmp_path / taken).unlink()


def test_leaving_in_the_middle_keeps_what_is_there(stage: Stage, out: Path, ir: Any) -> None:
    with Session({"ir0": ir}, out, make_plan(keep_free_gb=0, labels=["wave"], seconds=60), clock=stage) as session:
        for event in session.events():
            if isinstance(event, Status) and event.seconds is not None and event.seconds > 1:
                break
    (row,) = rows(out)
    assert row["label"] == "wave"
    assert session.summary.frames["ir0"] >= 25
    assert session.summary.cut_short == ["00001"]
    assert list((out / ".record").glob("*.jsonl")) == []


def test_a_session_goes_on_with_the_numbers_and_overwrites_nothing(stage: Stage, out: Path, ir: Any) -> None:
    record(stage, out, [ir], labels=["wave"], seconds=0.4, count=2, subject="3")
    before = {path: path.read_bytes() for path in (out / "clips").iterdir()}
    (out / "dataset.toml").write_text('labels = ["wave", "kick"]\n')
    again = Stage()
    record(again, out, [PlayedCamera(again, "ir0")], labels=["wave"], seconds=0.4, subject="3", session="two")
    assert [(r["id"], r["trial"]) for r in rows(out)] == [("00001", "1"), ("00002", "2"), ("00003", "3")]
    assert rows(out)[2]["session"] == "two"
    assert all(path.read_bytes() == content for path, content in before.items())
    assert (out / "dataset.toml").read_text() == 'labels = ["wave", "kick"]\n'


@pytest.mark.parametrize(
    ("other", "found"),
    [
        ({"name": "ir1"}, "contains clips of ir0 32x24 uint8 (nir), these cameras are ir1 32x24 uint8 (nir)"),
        ({"shape": (30, 40)}, "these cameras are ir0 40x30 uint8 (nir)"),
        ({"dtype": "uint16"}, "these cameras are ir0 32x24 uint16 (nir)"),
        ({"band": "depth"}, "these cameras are ir0 32x24 uint8 (depth)"),
    ],
)
def test_other_cameras_are_refused(stage: Stage, out: Path, ir: Any, other: Any, found: str) -> None:
    record(stage, out, [ir], labels=["wave"], seconds=0.4)
    before = (out / "manifest.csv").read_bytes()
    again = Stage()
    with pytest.raises(ConfigError, match="Expected the same cameras") as raised:
        record(again, out, [PlayedCamera(again, **{"name": "ir0", **other})], labels=["wave"], seconds=0.4)
    assert found in str(raised.value)
    assert (out / "manifest.csv").read_bytes() == before


def test_a_label_spelt_otherwise_is_refused(stage: Stage, out: Path, ir: Any) -> None:
    record(stage, out, [ir], labels=["sit down"], seconds=0.4)
    again = Stage()
    with pytest.raises(ConfigError, match="labels 'sit_down' and 'sit down'"):
        record(again, out, [PlayedCamera(again, "ir0")], labels=["sit_down"], seconds=0.4)


@pytest.mark.parametrize(
    ("settings", "labels", "found"),
    [
        ('labels = ["wave"]\n', ["wave", "kick"], "label 'kick', which is not among the labels in .*dataset.toml"),
        ('labels = ["wave"]\n', ["Wave"], "labels 'Wave' and 'wave'"),
        ('background = "none"\n', ["wave", "None"], "labels 'None' and 'none'"),
        ("labels = 3\n", ["wave"], "dataset.toml"),
    ],
)
def test_labels_with_which_nobody_could_train_are_refused(
    stage: Stage, out: Path, ir: Any, settings: str, labels: list[str], found: str
) -> None:
    record(stage, out, [ir], seconds=0.4)
    (out / "dataset.toml").write_text(settings)
    again = Stage()
    with pytest.raises(ConfigError, match=found):
        record(again, out, [PlayedCamera(again, "ir0")], labels=labels, seconds=0.4)
    assert len(rows(out)) == 1
    assert list((out / ".record").iterdir()) == [out / ".record/cameras.json"]


def test_a_label_like_the_background_of_a_new_folder_is_refused(stage: Stage, out: Path, ir: Any) -> None:
    with pytest.raises(ConfigError, match="labels 'None' and 'none'"):
        record(stage, out, [ir], keys=["n=None"], duration_seconds=1.0)


def test_pieces_of_a_killed_session_are_kept(stage: Stage, out: Path, ir: Any, rgb: Any, tmp_path: Path) -> None:
    """A copy of the folder in the middle of a recording is what a kill leaves."""
    left = tmp_path / "left"
    looks = iter(range(1000))
    pressed = {10: "w", 30: " ", 40: "k"}
    plan = make_plan(keep_free_gb=0, keys=["w=wave", "k=kick"], subject="3")
    with Session({"ir0": ir, "rgb0": rgb}, out, plan, clock=stage) as session:
        for event in session.events(lambda: pressed.get(next(looks), "")):
            if isinstance(event, Status) and event.seconds is not None and event.seconds > 4:
                for name in ("ir0", "rgb0"):  # the disk catches up with the clock that is moved by hand
                    wait_for_lines(out / f"clips/00001_{name}.mkv.stamps", 99)
                shutil.copytree(out, left)
                break
    again = Stage()
    cameras = [PlayedCamera(again, "ir0"), PlayedCamera(again, "rgb0", late_ms=7, band="rgb", shape=(20, 30, 3))]
    note, *_, summary = record(again, left, cameras, labels=["wave"], seconds=0.4, subject="3")
    assert note == Note("recovered from an interrupted session: 00001")
    assert summary.repaired == ("00001",)
    found = rows(left)
    assert [(r["id"], r["label"], r["trial"]) for r in found] == [
        ("00001-1", "wave", "1"), ("00001-2", "kick", "1"), ("00002", "wave", "2"),
    ]  # fmt: skip
    data = Files(left)
    for sample in data.samples:
        if sample.id == "00001-1":
            assert [len(data.open(sample, name)) for name in ("ir0", "rgb0")] == [25, 25]  # 20 looks of 50 ms
        if sample.id == "00001-2":
            assert len(data.open(sample, "ir0")) >= 35


def test_a_killed_clip_that_has_a_row_by_now_gets_no_other(stage: Stage, out: Path, ir: Any) -> None:
    """Its owner has written one by hand, or the label page has renamed it."""
    record(stage, out, [ir], labels=["wave"], seconds=0.4)
    file = out / "manifest.csv"
    file.write_text(file.read_text().replace("00001,wave", "mine,kick"))
    JournalFile(
        out / ".record/00001.jsonl", Journal("00001", {"ir0": "clips/00001_ir0.mkv"}, {"label": "wave"})
    ).close()
    again = Stage()
    *_, summary = record(again, out, [PlayedCamera(again, "ir0")], labels=["wave"], seconds=0.4)
    assert [(r["id"], r["label"]) for r in rows(out)] == [("mine", "kick"), ("00002", "wave")]
    assert summary.repaired == ()
    assert (out / "clips/00001_ir0.mkv").is_file()
    assert list((out / ".record").glob("*.jsonl")) == []


def wait_for_lines(file: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while file.read_bytes().count(b"\n") < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_recorders_do_not_share_a_folder(stage: Stage, out: Path, ir: Any) -> None:
    with Session({"ir0": ir}, out, make_plan(keep_free_gb=0), clock=stage):
        again = Stage()
        with pytest.raises(ConfigError, match="another process records into"):
            record(again, out, [PlayedCamera(again, "ir0")])


def test_the_folders_bound_ends_it(stage: Stage, out: Path, ir: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_BYTES", 1000)
    *_, last, summary = record(stage, out, [ir], max_gb=0.0000512)
    assert summary.ended == "the folder has reached its 5.12e-05 GB (--max-gb)"
    assert isinstance(last, Kept)
    assert last.why == summary.ended
    assert len(rows(out)) == 1
    assert summary.size_bytes >= 51_200
    again = Stage()
    with pytest.raises(ConfigError, match=r"has no space: the folder has reached its 5\.12e-05 GB"):
        record(again, out, [PlayedCamera(again, "ir0")], max_gb=0.0000512)


def test_a_full_disk_is_called_full(stage: Stage, out: Path, ir: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1_000_000})())
    with pytest.raises(ConfigError, match=r"has no space: the disk is full\. Expected at least 50 MB"):
        record(stage, out, [ir], labels=["wave"], seconds=0.4)


def test_what_is_to_stay_free_ends_it(stage: Stage, out: Path, ir: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 2_000_000_000

    monkeypatch.setattr("kd_edge.record.room.shutil.disk_usage", lambda folder: Usage)
    with Session({"ir0": ir}, out, make_plan(keep_free_gb=1.0), clock=stage) as session:
        for event in session.events():
            if isinstance(event, Status) and event.seconds is not None and event.seconds > 0.5:
                assert event.left_bytes in (1_000_000_000, 0)
                Usage.free = 1_000_000_000
    assert session.summary.ended == "the disk has no more than 1 GB left (--keep-free-gb)"
    assert len(rows(out)) == 1


def test_a_disk_that_is_too_slow_leaves_frames_out_and_counts_them(
    stage: Stage, out: Path, ir: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kd_edge.record import clip, writer

    go_on = threading.Event()

    class Slow(writer.LosslessWriter):
        def add(self, image: Any, stamp_ns: int) -> None:
            assert go_on.wait(60)
            super().add(image, stamp_ns)

    monkeypatch.setattr(writer, "LosslessWriter", Slow)
    monkeypatch.setattr(clip, "QUEUE_BYTES", 4 * 24 * 32)  # four frames
    with Session({"ir0": ir}, out, make_plan(keep_free_gb=0, duration_seconds=2), clock=stage) as session:
        for event in session.events():
            if isinstance(event, Status) and event.seconds is not None and event.seconds > 1.5:
                go_on.set()
    assert len(rows(out)) == 1
    summary = session.summary
    assert summary.dropped["ir0"] >= 25
    assert summary.frames["ir0"] + summary.dropped["ir0"] in (50, 51)
