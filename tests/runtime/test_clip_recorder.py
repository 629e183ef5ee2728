"""Clips of what the model did not know: which moments, which frames, to the bit, and never too many."""

from __future__ import annotations

import csv
import errno
import logging
import re
import threading

import numpy as np
import pytest

from kd_edge.data.readers.files import appending
from kd_edge.data.readers.files.appending import written_alone
from kd_edge.errors import ConfigError
from kd_edge.runtime import clip_recorder, stream
from kd_edge.runtime.cameras import Wanted, open_camera
from kd_edge.runtime.clip_recorder import ClipRecorder, record_on
from kd_edge.runtime.recognizer import Recognizer
from kd_edge.types import Cause, Frame, LabelState, Prediction, Reason
from tests.waiting import wait_for

from .cameras.test_replay import read_all
from .conftest import HandClock, tiny_manifest

STEP_NS = 20_000_000  # 20 frames are the tiny model's window of 0.4 s
COLUMNS = [
    "id", "label", "subject", "view", "trial", "split", "start_s", "end_s", "nir",
    "suggestion", "confidence", "state", "reason", "model", "recorded",
]  # fmt: skip
SAID = {
    "ok": (LabelState.OK, Reason.NONE),
    "unknown": (LabelState.UNKNOWN, Reason.UNFAMILIAR),
    "low": (LabelState.UNKNOWN, Reason.LOW_CONFIDENCE),
    "degraded": (LabelState.DEGRADED, Reason.SPARSE),
    "stale": (LabelState.STALE, Reason.NO_FRAME),
}


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    monkeypatch.setattr(clip_recorder, "STUCK_SECONDS", 60.0)


class Watching:
    """A clip recorder that is shown frames and labels by a hand clock."""

    def __init__(self, folder, on="unknown", shape=(12, 16), dtype="uint8", **options):
        self.clock, self.shape, self.dtype = HandClock(), shape, dtype
        self.recorder = ClipRecorder(on, folder, tiny_manifest(), clock=self.clock, **{"lossless": True, **options})
        self.recorder.open()
        self.recorder.add_camera("ir0", "nir", None)
        self.recorder.start()
        self.shown = []
        self.rng = np.random.default_rng(0)

    def show(self, count, said="ok", gap_ns=STEP_NS):
        for _ in range(count):
            self.clock.ns += gap_ns
            high = 256 if self.dtype == "uint8" else 65536
            image = self.rng.integers(0, high, self.shape).astype(self.dtype)
            self.shown.append(image)
            frame_id = len(self.shown) - 1
            self.recorder.frame("ir0", Frame(image, self.clock.ns, frame_id, "ir0"))
            state, reason = SAID[said]
            self.recorder.label(
                Prediction(
                    source="ir0", index=-1 if said == "stale" else 1, confidence=0.5, state=state, reason=reason,
                    probabilities=np.zeros(3, np.float32), frame_id=frame_id, captured_ns=self.clock.ns,
                    emitted_ns=self.clock.ns, valid_until_ns=0,
                )
            )  # fmt: skip
        return self

    def close(self):
        self.recorder.close()
        return self.recorder


def rows(folder):
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def images(folder, row):
    return [f.image for f in read_all(open_camera(f"replay:{folder / row['nir']}"))]


@pytest.mark.parametrize(
    ("shape", "dtype"), [((12, 16), "uint8"), ((13, 17), "uint16"), ((13, 17, 3), "uint8"), ((13, 17, 3), "uint16")]
)
def test_a_clip_is_two_windows_before_the_moment_and_one_after_it(tmp_path, shape, dtype):
    watching = Watching(tmp_path / "new", shape=shape, dtype=dtype)
    recorder = watching.show(100).show(5, "unknown").show(60).close()
    assert (recorder.counters.clips, recorder.counters.lost, recorder.fault) == (1, 0, None)
    (row,) = rows(tmp_path / "new")
    assert list(row) == COLUMNS
    frames = read_all(open_camera(f"replay:{tmp_path}/new/{row['nir']}"))
    np.testing.assert_array_equal([f.image for f in frames], watching.shown[60:121])  # the moment is frame 100
    assert frames[0].image.dtype == dtype
    assert [f.captured_ns for f in frames] == [k * STEP_NS for k in range(61)]
    assert (row["start_s"], row["end_s"]) == ("0.400", "0.800")  # the window that was not known
    assert (row["label"], row["suggestion"], row["view"], row["id"]) == ("", "clap", "ir0", row["nir"][:-4])
    assert (row["confidence"], row["state"], row["reason"]) == ("0.500", "unknown", "unfamiliar")
    assert re.fullmatch(r"ir0_2026\d{4}T\d{6}_0\.mkv", row["nir"])
    assert re.fullmatch(r"2026-\d\d-\d\dT\d\d:\d\d:\d\dZ", row["recorded"])
    assert (tmp_path / "new" / row["nir"]).stat().st_mode & 0o137 == 0


def test_grey_is_made_of_colour_where_the_model_wants_it(tmp_path):
    watching = Watching(tmp_path, shape=(12, 16, 3))
    watching.show(40).show(1, "unknown").show(30).close()
    (row,) = rows(tmp_path)
    (first, *_) = read_all(open_camera(f"replay:{tmp_path / row['nir']}", Wanted(channels=1)))
    red, green, blue = watching.shown[0][0, 0].astype(int)
    assert first.image.shape == (12, 16)
    assert abs(int(first.image[0, 0]) - (0.299 * red + 0.587 * green + 0.114 * blue)) <= 1


@pytest.mark.parametrize(
    ("on", "said", "count"),
    [
        ("unknown", "unknown", 1),
        ("unknown", "low", 1),
        ("unknown", "degraded", 0),
        ("low-confidence", "low", 1),
        ("low-confidence", "unknown", 0),
        ("degraded", "degraded", 1),
        ("degraded", "unknown", 0),
        ("unknown", "stale", 0),
    ],
)
def test_what_is_worth_a_clip(tmp_path, on, said, count):
    assert Watching(tmp_path, on).show(30).show(3, said).show(30).close().counters.clips == count
    assert len(rows(tmp_path)) == count


def test_a_long_phase_gives_one_clip_until_a_window_was_calm(tmp_path):
    watching = Watching(tmp_path)
    watching.show(50).show(500, "unknown").show(10).show(500, "unknown")  # ten calm frames are no window
    assert watching.recorder._watched["ir0"].is_armed is False
    watching.show(30).show(1, "unknown").show(30).close()
    assert len(rows(tmp_path)) == 2


def test_a_clip_ends_at_a_cut_a_gap_and_another_size(tmp_path):
    watching = Watching(tmp_path)
    watching.show(50).show(5, "unknown")
    watching.recorder.cut("ir0", Cause(Reason.RECONNECT, "reconnect"))
    watching.show(50)
    watching.show(5, "unknown").show(1, gap_ns=1_500_000_000).show(49)
    watching.show(5, "unknown")
    watching.shape = (20, 24)
    watching.show(50).close()
    first, second, third = (images(tmp_path, row) for row in rows(tmp_path))
    shown = watching.shown
    np.testing.assert_array_equal(first, shown[10:55])
    np.testing.assert_array_equal(second, shown[65:110])
    np.testing.assert_array_equal(third, shown[120:165])


def test_what_is_under_way_at_the_end_is_kept(tmp_path):
    watching = Watching(tmp_path)
    watching.show(50).show(3, "unknown").close()
    np.testing.assert_array_equal(images(tmp_path, rows(tmp_path)[0]), watching.shown[10:53])


def test_frames_in_memory_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(clip_recorder, "CLIP_BYTES", 192 * 10)
    watching = Watching(tmp_path)
    watching.show(200)
    assert len(watching.recorder._watched["ir0"].frames) == 10
    watching.show(1, "unknown").show(100).close()
    assert len(images(tmp_path, rows(tmp_path)[0])) == 21


def test_the_folder_has_a_bound(tmp_path, caplog):
    Watching(tmp_path / "one").show(60).show(1, "unknown").show(30).close()
    (one,) = (tmp_path / "one").glob("*.mkv")
    room_mb = 2.5 * one.stat().st_size / 1e6
    watching = Watching(tmp_path, max_mb=room_mb)
    for _ in range(5):
        watching.show(60).show(1, "unknown").show(30)
    recorder = watching.close()
    assert recorder.counters.clips == len(rows(tmp_path)) == len(list(tmp_path.glob("*.mkv"))) == 2
    assert (recorder.counters.lost, recorder.fault) == (3, None)
    assert caplog.text.count("has reached its size limit") == 1
    watching = Watching(tmp_path, max_mb=room_mb)  # what is there counts
    assert watching.show(60).show(1, "unknown").show(30).close().counters.clips == 0


def test_a_full_disk_is_said_once_and_leaves_no_half_clip(tmp_path, monkeypatch, caplog):
    watching = Watching(tmp_path)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("kd_edge.runtime.cameras.lossless.LosslessWriter.add", full)
    with caplog.at_level(logging.WARNING, "kd_edge.runtime"):
        for _ in range(3):
            watching.show(60).show(1, "unknown").show(30)
        recorder = watching.close()
    assert recorder.fault == "No space left on device"
    assert (recorder.counters.clips, recorder.counters.lost) == (0, 3)
    assert caplog.text.count("are no longer kept: No space left on device") == 1
    assert (list(tmp_path.glob("*.mkv")), rows(tmp_path)) == ([], [])


def test_a_slow_disk_loses_clips_and_delays_nothing(tmp_path, monkeypatch):
    leave = threading.Event()
    write = ClipRecorder._write
    monkeypatch.setattr(ClipRecorder, "_write", lambda self, clip: (leave.wait(60), write(self, clip)))
    watching = Watching(tmp_path, lossless=False)
    for k in range(6):
        watching.show(60).show(1, "unknown").show(30)
        wait_for(lambda k=k: k > 0 or watching.recorder._queue.empty())  # the first one is being written
    assert watching.recorder.counters.lost == 3
    leave.set()
    assert watching.close().counters.clips == 3


def test_rows_go_into_a_manifest_as_its_owner_has_it(tmp_path):
    path = tmp_path / "manifest.csv"
    path.write_text(
        "nir,label,id,subject,view,trial,split,start_s,end_s,mood\na.mkv,wave,a,,,,,,,good"
    )  # no line's end
    Watching(tmp_path).show(50).show(1, "unknown").show(30).close()
    first, second = rows(tmp_path)
    assert (first["mood"], second["mood"], second["label"]) == ("good", "", "")
    assert (tmp_path / second["nir"]).is_file()
    path.write_text("id,label\n")
    with pytest.raises(ConfigError, match=r"has no column subject, view, .*, nir"):
        Watching(tmp_path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda lines: ["nir;label;id", *(";".join((f"{k}.mkv", "wave", str(k))) for k in range(len(lines) - 1))],
        lambda lines: ["id,label,nir,state", *(f"{k},wave,{k}.mkv,unknown" for k in range(len(lines) - 1))],
    ],
    ids=["another order and another delimiter", "columns that were empty are gone"],
)
def test_a_manifest_that_is_edited_between_two_clips(tmp_path, edit):
    """As by a spreadsheet or the labelling page while the robot runs: no cell lands in another column."""
    path = tmp_path / "manifest.csv"
    watching = Watching(tmp_path).show(50).show(1, "unknown").show(30)
    wait_for(lambda: watching.recorder.counters.clips == 1)
    path.write_text("\n".join(edit(path.read_text().splitlines())) + "\n")
    assert watching.show(1, "unknown").show(30).close().counters.clips == 2
    text = path.read_text()
    first, second = csv.DictReader(text.splitlines(), delimiter=";" if ";" in text else ",")
    assert (first["id"], first["label"], first["nir"]) == ("0", "wave", "0.mkv")
    assert (second["label"], second["state"], second["reason"]) == ("", "unknown", "unfamiliar")
    assert (tmp_path / second["nir"]).is_file()
    assert None not in second, "no cell without a column"


def one_clip(watching):
    return watching.show(50).show(1, "unknown").show(30)


def put_off(caplog):
    wait_for(lambda: "are tried again" in caplog.text)


def test_a_row_waits_while_the_manifest_is_held(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(clip_recorder, "ROW_SECONDS", 0.01)
    monkeypatch.setattr(clip_recorder, "AGAIN_SECONDS", 0.01)
    watching = Watching(tmp_path)
    with written_alone(tmp_path / "manifest.csv"):
        one_clip(watching)
        put_off(caplog)
    wait_for(lambda: watching.recorder.counters.clips == 1)  # without another clip
    recorder = one_clip(watching).close()
    assert (recorder.counters.clips, recorder.counters.lost, recorder.fault) == (2, 0, None)
    assert all((tmp_path / row["nir"]).is_file() for row in rows(tmp_path))
    assert (len(rows(tmp_path)), caplog.text.count("tried again")) == (2, 1)


@pytest.mark.parametrize("broken", ["", 'id,label\na,"wave\n', None], ids=["empty", "an open quote", "taken away"])
def test_a_row_waits_while_the_manifest_is_none(tmp_path, monkeypatch, caplog, broken):
    """As while its owner's program saves it in place: first it is empty, then half there."""
    monkeypatch.setattr(clip_recorder, "AGAIN_SECONDS", 0.01)
    watching, path = Watching(tmp_path), tmp_path / "manifest.csv"
    whole = path.read_text()
    path.unlink() if broken is None else path.write_text(broken)
    one_clip(watching)
    put_off(caplog)
    path.write_text(whole)
    wait_for(lambda: watching.recorder.counters.clips == 1)
    assert (watching.close().fault, len(rows(tmp_path))) == (None, 1)


def test_clips_that_stay_without_a_row_are_told_by_name(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(clip_recorder, "ROW_SECONDS", 0.01)
    watching = Watching(tmp_path)
    with written_alone(tmp_path / "manifest.csv"):
        recorder = one_clip(watching).close()
    (clip,) = tmp_path.glob("*.mkv")
    assert f"clips without a row in {tmp_path}/manifest.csv: {clip.name}" in caplog.text
    assert (recorder.counters.clips, recorder.counters.lost) == (0, 1)
    assert "has been locked by another program" in recorder.fault


def test_rows_that_wait_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(clip_recorder, "ROW_SECONDS", 0.01)
    monkeypatch.setattr(clip_recorder, "MOST_ROWS", 2)
    watching = Watching(tmp_path)
    with written_alone(tmp_path / "manifest.csv"):
        for _ in range(3):
            one_clip(watching)
        wait_for(lambda: watching.recorder.fault is not None)
    assert (len(list(tmp_path.glob("*.mkv"))), watching.recorder.counters.lost) == (2, 1)
    assert watching.close().counters.clips == len(rows(tmp_path)) == 2


def test_a_row_that_the_disk_does_not_take_leaves_no_clip(tmp_path, monkeypatch):
    watching = Watching(tmp_path)
    before = (tmp_path / "manifest.csv").read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(appending.os, "fsync", full)
    recorder = one_clip(watching).close()
    assert (recorder.counters.clips, recorder.counters.lost, recorder.fault) == (0, 1, "No space left on device")
    assert (list(tmp_path.glob("*.mkv")), (tmp_path / "manifest.csv").read_bytes()) == ([], before)


def test_what_cannot_be_kept_is_said_at_the_start(tmp_path, make_model, noise):
    (tmp_path / "file").write_text("")
    np.save(tmp_path / "clip.npy", noise(3))
    model, _ = make_model()
    camera = f"replay:{tmp_path}/clip.npy"
    for options, found in (
        ({"record_on": "unknown", "record_dir": tmp_path / "file"}, "clips cannot be kept in"),
        ({"record_on": "unknown"}, "record_on without record_dir"),
        ({"record_dir": tmp_path}, "record_dir without record_on"),
        ({"record_on": "unknown", "record_dir": tmp_path, "record_max_mb": 0}, "record_max_mb 0"),
    ):
        with pytest.raises(ConfigError, match=found), stream(model=model, camera=camera, **options):
            pass
    with pytest.raises(ConfigError, match="--record-on sometimes"):
        record_on("sometimes")


def test_the_stream_keeps_clips_of_a_recording(tmp_path, make_model, noise):
    model, _ = make_model(unknown_threshold=1.0)  # nothing is ever known
    np.save(tmp_path / "clip.npy", noise(60))
    out = tmp_path / "clips"
    with stream(
        model=model, camera=f"replay:{tmp_path}/clip.npy", record_on="low-confidence", record_dir=out
    ) as labels:
        given = list(labels)
    assert (labels.statistics.clips, labels.statistics.lost_clips, labels.statistics.record_fault) == (1, 0, "")
    (row,) = rows(out)
    first = next(p for p in given if p.state is LabelState.UNKNOWN)
    kept = images(out, row)
    np.testing.assert_array_equal(kept, np.load(tmp_path / "clip.npy")[: len(kept)])
    assert float(row["end_s"]) == pytest.approx(first.captured_ns / 1e9, abs=0.001)
    assert row["suggestion"] == Recognizer.load(model).manifest.labels[first.index]
