"""Terminal, JSONL, and the thread that keeps sinks away from the labels."""

from __future__ import annotations

import contextlib
import io
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from kd_edge.errors import ConfigError
from kd_edge.runtime.sinks import JsonlSink, SinkThread, TerminalSink, open_sink
from kd_edge.runtime.sinks.base import QUEUE_LENGTH
from kd_edge.types import Cause, LabelState, Prediction, Reason
from tests.runtime.conftest import PATIENCE_SECONDS


def prediction(
    k: int = 0, state: LabelState = LabelState.OK, label: str = "wave", truth: str | None = None
) -> Prediction:
    acts = state in (LabelState.OK, LabelState.DEGRADED)
    index = -1 if state in (LabelState.WARMING, LabelState.STALE) else 0
    probabilities = np.array([0.75, 0.25], np.float32) if index == 0 else np.zeros(2, np.float32)
    cause = Cause(Reason.NONE, "") if state is LabelState.OK else Cause(Reason.GAP, "why")
    return Prediction(
        source="ir0", label=label if acts else None, index=index, confidence=0.75 if index == 0 else 0.0,
        probabilities=probabilities, state=state, frame_id=k, captured_ns=k * 10**8, emitted_ns=None,
        valid_until_ns=k * 10**8 + 5, reason=cause.reason, detail=cause.detail, truth=truth,
    )  # fmt: skip


def test_jsonl_file(tmp_path):
    sink = open_sink(f"jsonl:{tmp_path}/labels.jsonl")
    sink.open()
    sink.write(prediction(3))
    lines = (tmp_path / "labels.jsonl").read_text().splitlines()  # flushed: a reader sees it at once
    sink.close()
    assert len(lines) == 1
    assert json.loads(lines[0]) == {
        "source": "ir0", "label": "wave", "index": 0, "confidence": 0.75, "state": "ok", "reason": "", "detail": "",
        "frame_id": 3, "captured_ns": 300000000, "emitted_ns": None, "valid_until_ns": 300000005, "truth": None,
        "probabilities": [0.75, 0.25],
    }  # fmt: skip


def test_jsonl_to_standard_output():
    out = io.StringIO()
    sink = open_sink("jsonl:-", out)
    sink.open()
    sink.write(prediction(state=LabelState.STALE))
    sink.close()
    assert json.loads(out.getvalue())["state"] == "stale"
    assert not out.closed


def test_terminal_that_is_no_tty_gets_a_line_per_change():
    out = io.StringIO()
    sink = TerminalSink(out)
    sink.open()
    for p in (
        prediction(0, LabelState.WARMING), prediction(1, LabelState.WARMING), prediction(2), prediction(3),
        prediction(4, truth="clap"), prediction(5, LabelState.UNKNOWN), prediction(6, LabelState.STALE),
    ):  # fmt: skip
        sink.write(p)
    sink.close()
    lines = out.getvalue().splitlines()
    assert [line.split()[2] for line in lines] == ["warming", "ok", "ok", "unknown", "stale"]
    assert lines[0] == "      0.00 s  warming   (why)"
    assert lines[1].split()[:5] == ["0.20", "s", "ok", "wave", "75%"]
    assert lines[2].endswith("truth: clap")
    assert "wave" not in lines[3]


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_updates_one_line():
    out = Tty()
    sink = TerminalSink(out)
    sink.open()
    for p in (prediction(0), prediction(1), prediction(2, label="clap", state=LabelState.UNKNOWN)):
        sink.write(p)
    sink.close()
    text = out.getvalue()
    assert text.count("\r") == 2
    assert text.count("\n") == 2
    assert "\r      0.10 s" in text


@pytest.mark.parametrize("uri", ["terminl:", "jsonl:", "terminal", "mqtt://x", ""])
def test_unknown_sinks(uri):
    with pytest.raises(ConfigError, match="sink"):
        open_sink(uri)
    if uri == "terminl:":
        with pytest.raises(ConfigError, match="did you mean 'terminal'"):
            open_sink(uri)


def test_unwritable_file_is_told_before_the_stream_starts(tmp_path):
    with pytest.raises(ConfigError, match="No such file or directory"):
        open_sink(f"jsonl:{tmp_path}/no/folder/x.jsonl").open()


class ListSink:
    """Keeps what it gets; ``gate`` holds it up, ``fault`` breaks it."""

    name = "list:"

    def __init__(self, gate: threading.Event | None = None, fault: Exception | None = None) -> None:
        self.got: list[int] = []
        self.gate, self.fault, self.closed = gate, fault, False
        self.writing = threading.Event()

    def open(self) -> None: ...

    def write(self, p: Prediction) -> None:
        self.writing.set()
        if self.gate is not None:
            assert self.gate.wait(PATIENCE_SECONDS)
        if self.fault is not None:
            raise self.fault
        self.got.append(p.frame_id)

    def close(self) -> None:
        self.closed = True


def test_thread_writes_everything_before_it_closes():
    sink = ListSink()
    thread = SinkThread(sink)
    thread.open()
    for k in range(50):
        thread.put(prediction(k))
    thread.close()
    assert sink.got == list(range(50))
    assert sink.closed
    assert thread.fault is None


def test_slow_sink_loses_the_oldest_and_never_delays():
    gate = threading.Event()
    sink = ListSink(gate)
    thread = SinkThread(sink)
    thread.open()
    thread.put(prediction(0))
    assert sink.writing.wait(PATIENCE_SECONDS)  # the thread holds prediction 0 now
    for k in range(1, 1001):
        thread.put(prediction(k))
    assert sink.got == []  # nobody waited for it
    gate.set()
    thread.close()
    assert sink.got == [0, *range(1001 - QUEUE_LENGTH, 1001)]
    assert thread.dropped == 1000 - QUEUE_LENGTH


def test_broken_sink_is_reported_once(caplog):
    thread = SinkThread(ListSink(fault=RuntimeError("no link")))
    thread.open()
    for k in range(5):
        thread.put(prediction(k))
    thread.close()
    assert thread.fault == "no link"
    assert [r.getMessage() for r in caplog.records] == ["sink list: stopped: no link; labels go on without it"]
    assert thread.sink.closed


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_disk_is_reported():
    thread = SinkThread(open_sink("jsonl:/dev/full"))
    thread.open()
    thread.put(prediction())
    thread.close()
    assert thread.fault == "No space left on device"


def test_sink_that_hangs_is_left_behind_in_bounded_time(tmp_path, caplog, monkeypatch):
    """A pipe nobody reads."""
    monkeypatch.setattr("kd_edge.runtime.sinks.base.DRAIN_SECONDS", 0.01)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))  # full
    os.close(writer)
    thread = SinkThread(JsonlSink(str(pipe), io.StringIO()))
    thread.open()
    for k in range(3):
        thread.put(prediction(k))
    thread.close()
    assert thread._thread.is_alive()
    assert [r.getMessage() for r in caplog.records] == [
        f"sink jsonl:{pipe} does not take what is queued; it is left behind"
    ]
    while thread._thread.is_alive():  # read it empty, so that the thread can end
        with contextlib.suppress(BlockingIOError):
            os.read(reader, 1 << 16)
        thread._thread.join(0.01)
    os.close(reader)


def test_a_bounded_jsonl_file_never_takes_more_than_twice_its_bound(tmp_path):
    sink = open_sink(f"jsonl:{tmp_path}/labels.jsonl?max_mb=0.001")
    sink.open()
    for k in range(40):
        sink.write(prediction(k))
    sink.close()
    older, newer = (tmp_path / name for name in ("labels.jsonl.1", "labels.jsonl"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["labels.jsonl", "labels.jsonl.1"]
    assert max(older.stat().st_size, newer.stat().st_size) <= 1000
    kept = [json.loads(line)["frame_id"] for file in (older, newer) for line in file.read_text().splitlines()]
    assert kept == list(range(kept[0], 40))


@pytest.mark.parametrize("query", ["max_mb=0", "max_mb=much", "max=3", "max_mb=nan"])
def test_a_faulty_bound_is_refused(query):
    with pytest.raises(ConfigError, match="max_mb=N"):
        open_sink(f"jsonl:labels.jsonl?{query}")


def test_a_lossless_sink_gets_every_label_of_a_recording():
    gate = threading.Event()
    sink = ListSink(gate)
    thread = SinkThread(sink, lossless=True)
    thread.open()
    for k in range(QUEUE_LENGTH):
        thread.put(prediction(k))
    threading.Timer(0.01, gate.set).start()  # while the queue is full
    for k in range(QUEUE_LENGTH, 3 * QUEUE_LENGTH):
        thread.put(prediction(k))
    thread.close()
    assert sink.got == list(range(3 * QUEUE_LENGTH))
    assert thread.dropped == 0


def test_a_lossless_sink_that_hangs_breaks_instead_of_blocking_for_ever(monkeypatch):
    monkeypatch.setattr("kd_edge.runtime.sinks.base.STUCK_SECONDS", 0.05)
    gate = threading.Event()
    sink = ListSink(gate)
    thread = SinkThread(sink, lossless=True)
    thread.open()
    thread.put(prediction(0))
    assert sink.writing.wait(PATIENCE_SECONDS)
    for k in range(1, 2 * QUEUE_LENGTH):
        thread.put(prediction(k))
    assert thread.fault == "it took nothing for 0 s"
    assert thread.dropped == QUEUE_LENGTH + 1  # what was queued and what did not fit; later ones were not taken at all
    gate.set()
    thread.close()
    thread._thread.join(PATIENCE_SECONDS)
    assert sink.got == [0]
