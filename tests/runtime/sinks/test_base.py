"""The thread that keeps a sink away from the labels: slow, broken, back again, gone for good."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from kd_edge.errors import ConfigError, SinkError
from kd_edge.runtime.sinks import JsonlSink, SinkState, SinkThread, TerminalSink, close_together, none_left, open_sink
from kd_edge.runtime.sinks import base as sinks_base
from kd_edge.runtime.sinks.base import QUEUE_LENGTH
from tests.runtime.conftest import HandClock
from tests.runtime.sinks.conftest import ListSink, prediction
from tests.waiting import PATIENCE_SECONDS, wait_for

NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks_base, "FIRST_RETRY_SECONDS", 0.001)
    monkeypatch.setattr(sinks_base, "LONGEST_RETRY_SECONDS", 0.004)


def lines_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def put_until(thread: SinkThread, condition: Callable[[], object]) -> int:
    """Labels until something has come about; how many there were."""
    numbers = itertools.count()

    def happens() -> bool:
        thread.put(prediction(next(numbers)))
        return bool(condition())

    wait_for(happens)
    return next(numbers)


def test_it_writes_everything_before_it_closes():
    sink = ListSink()
    thread = SinkThread(sink)
    thread.open()
    for k in range(50):
        thread.put(prediction(k))
    thread.close()
    assert sink.got == list(range(50))
    assert sink.closed == 1
    assert (thread.state, thread.fault) == (SinkState.WORKING, None)


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


def test_a_sink_that_breaks_comes_back_and_is_told_of_twice(caplog):
    """However many attempts it takes, and however many of them get as far as a label."""
    openings = iter([None, ConnectionRefusedError("refused"), None, RuntimeError("odd"), *[None] * 3])
    writings = iter([None, RuntimeError("no \x1b[31mlink"), NO_SPACE, BrokenPipeError(errno.EPIPE, "Broken pipe")])
    sink = ListSink(open=lambda: next(openings), write=lambda: next(writings, None))
    thread = SinkThread(sink)
    thread.open()
    count = put_until(thread, lambda: thread.reopened)
    assert (thread.state, thread.fault, thread.reopened) == (SinkState.WORKING, None, 1)
    thread.close()
    down, back = lines_of(caplog)
    assert down == r"sink list: is down: RuntimeError: no \x1b[31mlink; labels go on without it until it is back"
    assert back.startswith("sink list: is back; ")
    assert sink.opened == 1 + 5  # two failed, two were broken by the next label, the last one held
    assert sink.closed == 1 + 5
    assert thread.dropped == count - len(sink.got)
    assert thread.dropped >= 3


def test_what_is_wrong_now_is_told_while_it_is_down():
    faults = iter([RuntimeError("no link"), ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")])
    sink = ListSink(open=lambda: None if sink.opened == 1 else next(faults, NO_SPACE), write=lambda: next(faults, None))
    thread = SinkThread(sink)
    thread.open()
    thread.put(prediction())
    wait_for(lambda: thread.fault == "No space left on device")
    assert thread.state is SinkState.DOWN
    assert not none_left([thread])
    thread.close()
    assert (thread.state, thread.fault) == (SinkState.DOWN, "No space left on device")


def test_closing_does_not_wait_for_the_next_attempt(monkeypatch):
    monkeypatch.setattr(sinks_base, "FIRST_RETRY_SECONDS", 10 * PATIENCE_SECONDS)
    thread = SinkThread(ListSink(write=lambda: NO_SPACE))
    thread.open()
    thread.put(prediction())
    wait_for(lambda: thread.state is SinkState.DOWN)
    thread.close()
    assert not thread._thread.is_alive()


def test_a_sink_that_cannot_be_reopened_is_dead_at_once(caplog):
    sink = ListSink(write=lambda: RuntimeError("no link"))
    sink.reopens = False
    thread, other = SinkThread(sink), SinkThread(ListSink())
    thread.open()
    thread.put(prediction())
    wait_for(lambda: none_left([thread]))
    for k in range(4):
        thread.put(prediction(k))
    thread.close()
    thread.check()  # nobody waits for a live label
    assert (thread.state, thread.fault, thread.dropped) == (SinkState.DEAD, "RuntimeError: no link", 5)
    assert (sink.opened, sink.closed) == (1, 1)
    assert lines_of(caplog) == ["sink list: stopped: RuntimeError: no link"]
    assert not none_left([thread, other])
    assert not none_left([])


def test_a_pipe_that_nobody_reads_any_more_is_dead_at_once():
    reader, writer = os.pipe()
    with open(writer, "w", encoding="utf-8") as out:
        threads = [SinkThread(TerminalSink(out)), SinkThread(open_sink("jsonl:-", out))]
        for thread in threads:
            thread.open()
        os.close(reader)
        for thread in threads:
            thread.put(prediction())
        wait_for(lambda: none_left(threads))
        for thread in threads:
            thread.close()
        assert [thread.fault for thread in threads] == ["Broken pipe"] * 2
        with contextlib.suppress(BrokenPipeError):
            out.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), writer)  # what is left in its buffer


def test_a_pipe_that_nobody_reads_is_found_while_the_label_stays_the_same():
    reader, writer = os.pipe()
    with open(writer, "w", encoding="utf-8") as out:
        thread = SinkThread(TerminalSink(out))
        thread.open()
        for k in range(3):
            thread.put(prediction(k))
        wait_for(lambda: thread._written == 3)
        assert thread.state is SinkState.WORKING
        os.close(reader)
        thread.put(prediction(3))
        thread.close()
    assert (thread.state, thread.fault) == (SinkState.DEAD, "Broken pipe")


def test_a_live_stream_starts_without_a_sink_that_is_not_there_yet(caplog):
    openings = iter([ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")])
    thread = SinkThread(ListSink(open=lambda: next(openings, None)))
    thread.open()
    assert thread.state is SinkState.DOWN
    put_until(thread, lambda: thread.reopened)
    thread.close()
    assert lines_of(caplog)[0].startswith("sink list: is down: Connection refused;")
    assert (thread.state, thread.fault) == (SinkState.WORKING, None)


@pytest.mark.parametrize(
    ("lossless", "reopens", "fault", "raised", "message"),
    [
        (True, True, NO_SPACE, SinkError, r"sink list: cannot be opened \(No space left on device\)"),
        (False, False, NO_SPACE, SinkError, r"sink list: cannot be opened \(No space left on device\)"),
        (False, True, TypeError("a\nb"), SinkError, r"sink list: cannot be opened \(TypeError: a\)"),
        (False, True, ConfigError("no such folder", "one", "make it"), ConfigError, "no such folder"),
    ],
)
def test_a_sink_that_is_wrong_is_told_at_the_start(lossless, reopens, fault, raised, message):
    sink = ListSink(open=lambda: fault)
    sink.reopens = reopens
    thread = SinkThread(sink, lossless=lossless)
    with pytest.raises(raised, match=message):
        thread.open()
    thread.close()
    assert thread._thread.ident is None


def test_sink_that_hangs_is_left_behind_in_bounded_time(tmp_path, caplog, monkeypatch):
    """A pipe nobody reads."""
    monkeypatch.setattr(sinks_base, "DRAIN_SECONDS", 0.01)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))  # full
    os.close(writer)
    thread = SinkThread(JsonlSink(str(pipe)))
    thread.open()
    thread.put(prediction(0))
    wait_for(lambda: not thread._queue)  # the thread holds it
    for k in (1, 2):
        thread.put(prediction(k))
    thread.close()
    assert thread._thread.is_alive()
    assert lines_of(caplog) == [f"sink jsonl:{pipe} does not take what is queued; it is left behind"]
    while thread._thread.is_alive():  # read it empty, so that the thread can end
        with contextlib.suppress(BlockingIOError):
            os.read(reader, 1 << 16)
        thread._thread.join(0.01)
    os.close(reader)
    assert thread.dropped == 2


def test_a_live_sink_that_hangs_is_said_to_be_down_until_it_goes_on(monkeypatch, caplog):
    monkeypatch.setattr(sinks_base, "STUCK_SECONDS", 30.0)
    clock, gate = HandClock(), threading.Event()
    sink = ListSink(gate)
    thread = SinkThread(sink, clock=clock)
    thread.open()
    thread.put(prediction())
    assert sink.writing.wait(PATIENCE_SECONDS)
    for ms in (29_999, 1):
        assert thread.state is SinkState.WORKING
        clock.advance(ms)
        for k in range(QUEUE_LENGTH + 1):
            thread.put(prediction(k))
    assert (thread.state, thread.fault) == (SinkState.DOWN, "it took nothing for 30 s")
    gate.set()
    wait_for(lambda: thread.state is SinkState.WORKING)
    thread.close()
    assert (thread.fault, thread.reopened, sink.opened) == (None, 1, 1)
    assert thread.dropped + len(sink.got) == 1 + 2 * (QUEUE_LENGTH + 1)
    assert len(lines_of(caplog)) == 2


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
    thread.check()


def test_closing_waits_for_a_lossless_sink_as_long_as_it_goes_on(monkeypatch):
    """Each wait of the one who closes is for one label more, not for all of them together."""
    permits = threading.Semaphore(0)
    sink = ListSink(write=lambda: None if permits.acquire(timeout=PATIENCE_SECONDS) else NO_SPACE)
    thread = SinkThread(sink, lossless=True)
    thread.open()
    for k in range(7):
        thread.put(prediction(k))
    wait_for_change = thread._changed.wait_for

    def wait(condition: Callable[[], object], seconds: float | None = None) -> object:
        if threading.current_thread() is threading.main_thread():
            permits.release()
        return wait_for_change(condition, seconds)

    monkeypatch.setattr(thread._changed, "wait_for", wait)
    thread.close()
    thread.check()
    assert sink.got == list(range(7))
    assert thread.dropped == 0


def test_a_lossless_sink_that_hangs_breaks_instead_of_blocking_for_ever(monkeypatch):
    monkeypatch.setattr(sinks_base, "STUCK_SECONDS", 0.05)
    gate = threading.Event()
    sink = ListSink(gate)
    thread = SinkThread(sink, lossless=True)
    thread.open()
    thread.put(prediction(0))
    assert sink.writing.wait(PATIENCE_SECONDS)
    for k in range(1, 2 * QUEUE_LENGTH):
        thread.put(prediction(k))
    assert (thread.state, thread.fault) == (SinkState.DEAD, "it took nothing for 0 s")
    assert thread.dropped == 2 * QUEUE_LENGTH - 1
    with pytest.raises(SinkError, match="sink list: stopped: it took nothing"):
        thread.check()
    gate.set()
    thread.close()
    thread._thread.join(PATIENCE_SECONDS)
    assert sink.got == [0]
    assert sink.closed == 1


def test_a_lossless_sink_that_hangs_while_it_closes_is_given_up(monkeypatch, caplog):
    monkeypatch.setattr(sinks_base, "STUCK_SECONDS", 0.05)
    gate = threading.Event()
    thread = SinkThread(ListSink(gate), lossless=True)
    thread.open()
    for k in range(3):
        thread.put(prediction(k))
    assert thread.sink.writing.wait(PATIENCE_SECONDS)
    thread.close()
    with pytest.raises(SinkError, match="it took nothing"):
        thread.check()
    assert thread.dropped == 2
    assert lines_of(caplog) == ["sink list: stopped: it took nothing for 0 s"]
    gate.set()
    thread._thread.join(PATIENCE_SECONDS)


@pytest.mark.parametrize("where", ["write", "close"])
def test_the_first_fault_of_a_lossless_sink_is_its_last(where, caplog):
    """The last flush on a full disk counts as well."""
    sink = ListSink(**{where: lambda: NO_SPACE})
    thread = SinkThread(sink, lossless=True)
    thread.open()
    for k in range(3):
        thread.put(prediction(k))
    thread.close()
    with pytest.raises(SinkError, match=r"^sink list: stopped: No space left on device\. Expected"):
        thread.check()
    assert sink.opened == 1
    assert thread.dropped == (3 if where == "write" else 0)
    assert lines_of(caplog) == ["sink list: stopped: No space left on device"]


def test_a_label_for_a_broken_recording_does_not_wait():
    thread = SinkThread(ListSink(write=lambda: NO_SPACE), lossless=True)
    thread.open()
    for k in range(3 * QUEUE_LENGTH):
        thread.put(prediction(k))
    thread.close()
    assert thread.dropped == 3 * QUEUE_LENGTH


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_ends_a_recording_and_not_a_live_stream():
    recording, live = SinkThread(open_sink("jsonl:/dev/full"), lossless=True), SinkThread(open_sink("jsonl:/dev/full"))
    for thread in (recording, live):
        thread.open()
        thread.put(prediction())
    wait_for(lambda: live.fault)
    assert live.state is SinkState.DOWN
    for thread in (recording, live):
        thread.close()
        assert thread.fault == "No space left on device"
    live.check()
    with pytest.raises(SinkError, match="No space left on device"):
        recording.check()


def test_a_named_pipe_is_written_as_soon_as_somebody_reads(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    thread = SinkThread(open_sink(f"jsonl:{pipe}"))
    thread.open()
    assert (thread.state, thread.fault) == (SinkState.DOWN, "nobody reads the pipe")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    put_until(thread, lambda: thread.state is SinkState.WORKING)
    os.close(reader)
    put_until(thread, lambda: thread.state is SinkState.DOWN)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    put_until(thread, lambda: thread.reopened == 2)
    thread.close()
    os.close(reader)


def test_text_without_an_encoding_for_it_does_not_end_a_sink():
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    thread = SinkThread(TerminalSink(out))
    thread.open()
    thread.put(prediction(label="größe"))
    thread.close()
    assert thread.fault is None
    assert rb"gr\xf6\xdfe" in out.buffer.getvalue()


def test_sinks_are_closed_together():
    """The first one writes its label only once the second is closed."""
    gate = threading.Event()
    first, second = ListSink(gate), ListSink(close=lambda: gate.set())
    threads = [SinkThread(sink) for sink in (first, second)]
    for thread in threads:
        thread.open()
    threads[0].put(prediction(7))
    assert first.writing.wait(PATIENCE_SECONDS)
    close_together(threads)
    assert (first.got, first.closed, second.closed) == ([7], 1, 1)


def test_sinks_that_hang_take_the_time_of_one(monkeypatch):
    now, waited = [100.0], []
    monkeypatch.setattr(sinks_base.time, "monotonic", lambda: now[0])

    class Hanging:
        def ask_to_close(self):
            pass

        def close(self, timeout_seconds):
            waited.append(timeout_seconds)
            now[0] += timeout_seconds

    close_together([Hanging(), Hanging(), Hanging()])
    assert waited == [sinks_base.DRAIN_SECONDS, 0.0, 0.0]


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (KeyError("speed"), "KeyError: 'speed'"),
        (ZeroDivisionError(), "ZeroDivisionError"),
        (RuntimeError("no link"), "RuntimeError: no link"),
        (NO_SPACE, "No space left on device"),
        (SinkError("the sink is full", "room", "make some"), "the sink is full"),
    ],
)
def test_a_mistake_in_a_sink_is_told_with_its_kind_and_place(caplog, error, fault):
    caplog.set_level("DEBUG", "kd_edge.runtime")
    thread = SinkThread(ListSink(write=lambda: error))
    thread.open()
    put_until(thread, lambda: thread.fault)
    assert thread.fault == fault
    wait_for(lambda: any(record.exc_info for record in caplog.records))
    (record,) = [r for r in caplog.records if r.exc_info]
    assert (record.levelname, record.exc_info[1]) == ("DEBUG", error)
    thread.close()
