"""The rows of docs/faults.md that no other test covers, on a clock moved by hand; and the table itself."""

from __future__ import annotations

import ast
import json
import math
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kd_edge.errors import ArtifactError, BadPictureError, CameraError
from kd_edge.runtime.clock import StampMapper
from kd_edge.runtime.log_throttle import INTERVAL_NS
from kd_edge.runtime.stream import MOST_FAILURES
from kd_edge.types import Cause, Frame, LabelState, Reason
from tests.waiting import PATIENCE_SECONDS, wait_for

from .conftest import HandClock
from .stepped import GONE, Stepped

MS = 1_000_000
S = 1000 * MS
PERIOD_MS = 20
BACK_MS = 2000
"""Frames are back so soon after a fault's end."""
CLIP_MS = 400
"""The first label follows so soon after that: the window's length."""
SHORTEST_MS = 250
"""No window can be full sooner: its oldest segment lies 300 ms back, give or take 50."""
LABELLED = (LabelState.OK, LabelState.DEGRADED)
DOCS = Path(__file__).parents[2] / "docs" / "faults.md"


@pytest.fixture
def up():
    """Starts a stream and brings it to its first ``ok``: ``up(kind) -> Stepped``."""
    with ExitStack() as opened:

        def start(kind: str = "monotonic", **options) -> Stepped:
            stream = opened.enter_context(Stepped(kind, **options).running())
            until_ok(stream)
            return stream

        yield start


def stamped(stream: Stepped, kind: str | None = None):
    """What the camera stamps a frame with that it captures now."""
    kind = kind or stream.camera.clock_kind
    return {
        "monotonic": stream.clock.ns,
        "wall": stream.clock.ns + stream.clock.wall_ahead_ns,
        "device": stream.clock.ns + 777 * S,
        "arrival": None,
    }[kind]


def until_ok(stream: Stepped, shift_ns: int = 0, image=None) -> tuple[float, float]:
    """Deliver frames until one is ``ok``: ms to the first one that is not stale, and from there to the ``ok``."""
    began_ns, fresh_ns = stream.clock.ns, None
    while stream.clock.ns - began_ns < (BACK_MS + CLIP_MS + 1000) * MS:
        stream.pass_by(PERIOD_MS, PERIOD_MS)
        stamp = stamped(stream)
        picture = image() if image else ...
        for p in stream.frame(picture, stamp if stamp is None else stamp + shift_ns):
            if p.state is not LabelState.STALE and fresh_ns is None:
                fresh_ns = stream.clock.ns
            if p.state is LabelState.OK:
                return (fresh_ns - began_ns) / MS, (stream.clock.ns - fresh_ns) / MS
    pytest.fail("no label came back")


def comes_back(stream: Stepped, **options) -> None:
    """Frames within 2 s of the fault's end, and the first ``ok`` within the window's length after that; never sooner
    than a window of new frames is full."""
    fresh_ms, ok_ms = until_ok(stream, **options)
    assert fresh_ms <= BACK_MS
    assert SHORTEST_MS <= ok_ms <= CLIP_MS


def since(stream: Stepped, count: int):
    """The predictions after the first ``count``; no label among them."""
    given = stream.given[count:]
    assert not [p for p in given if p.state in LABELLED or p.label is not None]
    return given


DRIVERS = [GONE, RuntimeError("USB\nerror"), OSError(19, "No such device"), cv2.error("no frame"), MemoryError(), None]


@pytest.mark.parametrize("outage", [0, 9])
@pytest.mark.parametrize("error", DRIVERS, ids=lambda error: type(error).__name__)
def test_a_camera_that_raises_or_is_silent_is_reopened(up, caplog, error, outage):
    """Unplugged and plugged in again, with every kind of exception; nothing at all (``None``) is a stall."""
    stream = up()
    count, stream.camera.open_errors = len(stream.given), [error or GONE] * outage
    stream.camera.close_error = error
    if error is None:
        stream.pass_by(1001)
    else:
        stream.give(error)
    while stream.camera.open_errors:
        stream.pass_by(20)
    stream.pass_by(300 if not outage else 0)
    told = since(stream, count)
    assert {p.state for p in told} == {LabelState.STALE}
    assert {p.reason for p in told} <= {Reason.CAMERA_LOST, Reason.NO_FRAME}
    if outage:
        assert told[-1].reason is Reason.CAMERA_LOST
    comes_back(stream)
    assert stream.labels.statistics.reconnects == 1
    lines = [r.getMessage() for r in caplog.records]
    causes = 2 if error is None and outage else 1  # silent at first, and then not there
    assert [line.endswith("; reopening") for line in lines[:-1]] == [True] * causes
    assert lines[-1] == "camera stepped is back"


def test_a_camera_that_opens_and_fails_at_every_read_is_opened_less_and_less_often(up, caplog):
    stream = up()
    count, began_ns = len(stream.given), stream.clock.ns
    while stream.clock.ns - began_ns < 10 * S:
        stream.give(RuntimeError("protocol error"))
        stream.pass_by(10)
    assert {p.reason for p in since(stream, count)} == {Reason.CAMERA_LOST}
    assert stream.camera.turns.pauses[:6] == [0.1, 0.2, 0.4, 0.8, 1.5, 1.5]
    assert stream.labels.statistics.reconnects < 12
    assert len(caplog.records) == 1
    comes_back(stream)


def test_a_bug_in_a_camera_that_comes_back_each_time_is_logged_with_its_traceback_once_in_a_while(up, caplog):
    stream = up()
    began_ns = stream.clock.ns
    for _ in range(30):
        stream.give(KeyError("exposure"))
        comes_back(stream)
    lost = [r for r in caplog.records if r.getMessage() == "camera stepped: KeyError: 'exposure'; reopening"]
    traces = [r for r in caplog.records if r.exc_info]
    assert len(lost) == 30
    assert {(r.levelname, r.getMessage()) for r in traces} == {("ERROR", "camera stepped was lost here:")}
    assert 1 < len(traces) <= 1 + (stream.clock.ns - began_ns) / INTERVAL_NS


def test_a_camera_that_opens_and_gives_nothing(up):
    stream = up()
    count = len(stream.given)
    stream.pass_by(20_000)
    told = since(stream, count)
    assert told[0].reason is Reason.NO_FRAME
    assert told[-1].reason is Reason.CAMERA_LOST
    assert 20_000 / 270 <= len(told) <= 20_000 / 250  # one each time a label would have run out
    assert 5 <= stream.labels.statistics.reconnects <= 12
    comes_back(stream)


def test_a_pause_shorter_than_the_read_time_out_is_a_gap(up):
    stream = up()
    count = len(stream.given)
    stream.pass_by(600)
    assert {p.reason for p in since(stream, count)} == {Reason.NO_FRAME}
    count = len(stream.given)
    comes_back(stream)
    assert stream.given[count].reason is Reason.GAP
    assert stream.labels.statistics.reconnects == 0


def test_a_frozen_picture_is_not_fresh(up):
    stream, image = up(), np.full((16, 24), 99, np.uint8)
    for k in range(200):
        stream.pass_by(PERIOD_MS)
        given = stream.frame(image)
        if k * PERIOD_MS > 2000 + 250:
            assert not [p for p in given if p.state is not LabelState.STALE]
    assert stream.given[-1].reason is Reason.FROZEN
    assert stream.given[-1].detail.endswith("the same picture for over 2000 ms")
    assert stream.labels.statistics.frozen > 90
    comes_back(stream)


def test_another_size_begins_another_window(up):
    stream = up()
    count = len(stream.given)
    comes_back(stream, image=lambda: stream.picture((32, 32)))
    assert stream.given[count].reason is Reason.SIZE_CHANGE


@pytest.mark.parametrize("image", [np.zeros((16, 24), np.uint16), np.zeros((16, 24, 3), np.uint8)])
def test_another_format_ends_the_stream(up, image):
    stream = up()
    stream.pass_by(PERIOD_MS)
    with pytest.raises(CameraError, match="stepped delivers uint"):
        stream.frame(image)


@pytest.mark.parametrize("image", [None, np.zeros((0, 24), np.uint8), "no picture"])
def test_frames_without_a_picture_are_lost_one_by_one(up, image):
    stream = up()
    for _ in range(10):  # one in six
        for _ in range(5):
            stream.pass_by(PERIOD_MS)
            assert [p.state for p in stream.frame()] == [LabelState.OK]
        stream.pass_by(PERIOD_MS)
        assert stream.frame(image) == []
        if image is None:
            stream.camera.turns.advance(5)  # the pause after what was no picture
            stream.camera.turns.give(BadPictureError("a damaged picture", "a whole one", "cable"))
    assert stream.labels.statistics.damaged == 10 * (1 + (image is None))
    assert stream.labels.statistics.reconnects == 0


def test_pictures_that_are_all_damaged_reopen_the_camera(up):
    stream = up()
    count = len(stream.given)
    for _ in range(200):
        stream.pass_by(PERIOD_MS)
        stream.give(BadPictureError("a damaged picture", "a whole one", "cable"))
    reasons = {p.reason for p in since(stream, count)}
    assert Reason.BAD_PICTURE in reasons
    assert reasons <= {Reason.BAD_PICTURE, Reason.CAMERA_LOST}
    assert stream.labels.statistics.damaged > 100
    assert 1 <= stream.labels.statistics.reconnects <= 3
    comes_back(stream)


STAMPS = [
    ("monotonic", 61 * MS, Reason.CLOCK_AHEAD), ("monotonic", 3600 * S, Reason.CLOCK_AHEAD),
    ("monotonic", 1_795_000_000 * S, Reason.CLOCK_AHEAD), ("monotonic", -11 * S, Reason.CLOCK_BEHIND),
    ("monotonic", -3600 * S, Reason.CLOCK_BEHIND), ("wall", 3600 * S, Reason.CLOCK_AHEAD),
    ("wall", -3600 * S, Reason.CLOCK_BEHIND),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "shift_ns", "reason"), STAMPS)
def test_stamps_of_another_clock_are_stale_as_long_as_they_come(up, caplog, kind, shift_ns, reason):
    stream = up(kind)
    count = len(stream.given)
    for _ in range(100):
        stream.pass_by(PERIOD_MS)
        stream.frame(stamp=stamped(stream) + shift_ns)
    told = since(stream, count)
    assert {(p.state, p.reason) for p in told} == {(LabelState.STALE, reason)}
    assert stream.labels.statistics.misdated == 100
    assert len(caplog.records) == 1
    assert "set clock = " in caplog.text
    comes_back(stream)


@pytest.mark.parametrize("stamp", [None, math.nan, math.inf, 1 << 63, -(1 << 63), "now"], ids=repr)
@pytest.mark.parametrize("kind", ["monotonic", "wall", "device"])
def test_what_is_no_stamp_is_stale_as_long_as_it_comes(up, kind, stamp):
    stream = up(kind)
    count = len(stream.given)
    for _ in range(50):
        stream.pass_by(PERIOD_MS)
        stream.frame(stamp=stamp)
    assert {(p.state, p.reason) for p in since(stream, count)} == {(LabelState.STALE, Reason.CLOCK_INVALID)}
    assert stream.labels.statistics.misdated == 50
    comes_back(stream)


@pytest.mark.parametrize(
    ("kind", "shift_ns"),
    [("device", 3600 * S), ("device", 300 * MS), ("device", -300 * MS), ("device", -3600 * S), ("device", -777 * S),
     ("monotonic", -200 * MS), ("monotonic", -2 * S), ("wall", -200 * MS)],
)  # fmt: skip
def test_a_clock_that_jumps_costs_a_frame_and_a_window(up, kind, shift_ns):
    """A device's that is set, wraps or begins anew, however it jumps; ours cannot, and is not believed when it does."""
    stream = up(kind)
    count = len(stream.given)
    if kind == "device":
        comes_back(stream, shift_ns=shift_ns)
    else:  # moments of ours that lie behind: labels have less time left, or none
        for _ in range(60):
            stream.pass_by(PERIOD_MS)
            stream.frame(stamp=stamped(stream) + shift_ns)
    after = [p for p in stream.given[count:] if p.state is LabelState.WARMING or p.reason is Reason.CLOCK_JUMP]
    labels = [p for p in stream.given[count:] if p.state in LABELLED]
    assert {p.reason for p in after} <= {Reason.CLOCK_JUMP}
    assert stream.labels.statistics.misdated == 1
    assert not labels or labels[0].captured_ns - (stream.given[count].captured_ns) >= SHORTEST_MS * MS


def test_stamps_that_stand_still_are_not_fresh(up):
    stream = up()
    count, stamp = len(stream.given), stream.clock.ns
    for _ in range(150):
        stream.pass_by(PERIOD_MS)
        stream.frame(stamp=stamp)
    told = since(stream, count)
    assert told[0].reason is Reason.NO_FRAME
    assert told[-1].reason is Reason.FROZEN
    comes_back(stream)


@pytest.mark.parametrize("step_ns", [-3600 * S, -100 * MS, 100 * MS, 3600 * S])
def test_a_step_of_the_time_of_day_costs_at_most_a_window_and_only_cameras_that_stamp_with_it(up, step_ns):
    for kind in ("monotonic", "device", "arrival", "wall"):
        stream = up(kind)
        count = len(stream.given)
        stream.clock.wall_ahead_ns += step_ns
        if kind == "wall":
            stream.frame(stamp=stamped(stream) - step_ns)  # on its way when the clock was set
            until_ok(stream)
            assert stream.labels.statistics.misdated == 1
        else:
            assert until_ok(stream) == (PERIOD_MS, 0)
            assert len(stream.given) == count + 1


def test_a_device_clock_that_is_late_at_first_is_not_believed():
    """The first frame lay in a buffer for 400 ms: the moments of those after it contradict its own."""
    stream = Stepped("device")
    with stream.running():
        late = stamped(stream)
        stream.pass_by(400)
        stream.frame(stamp=late)
        stream.pass_by(PERIOD_MS)
        assert stream.frame(stamp=stamped(stream)) == []
        assert stream.labels.statistics.misdated == 1
        comes_back(stream)


@pytest.mark.parametrize("ppm", [-200, 200])
def test_a_device_clock_is_followed_through_drift_bursts_and_a_wrap(ppm):
    """Five minutes of a 32-bit microsecond clock; half a second is held back and comes at once, every 20 s."""
    clock, rng = HandClock(), np.random.default_rng(3)
    mapper = StampMapper("device", 50 * MS, clock)
    wrap_us, jumps, errors_ms = 1 << 32, [], []
    for k in range(9000):
        true_ns = 5 * S + k * 33 * MS
        held_ms = 33 * (15 - k % 600) if k % 600 < 15 and k >= 600 else 0
        received_ns = true_ns + round((4 + held_ms + rng.exponential(3)) * MS)
        stamp_us = (wrap_us - 150_000_000 + round((true_ns - 5 * S) * (1 + ppm * 1e-6) / 1000)) % wrap_us
        moment = mapper.moment(stamp_us * 1000, received_ns)
        if isinstance(moment, Cause):
            jumps.append(k)
        else:
            errors_ms.append((moment - true_ns) / MS)
    assert [round(k * 0.033) for k in jumps] == [150]
    settled = [e for k, e in enumerate(errors_ms) if k % 4545 > 300]  # the wrap begins another epoch
    assert min(settled) > 0
    assert max(settled) < 12


@pytest.mark.parametrize("waits", ["in the driver", "for the engine"])
def test_nothing_from_before_a_sleep_is_labelled_after_it(up, waits):
    stream = up()
    count = len(stream.given)
    frame = Frame(stream.picture(), stream.clock.ns + 1, 500, "stepped")
    stream.pass_by(PERIOD_MS)
    if waits == "in the driver":
        stream.clock.nap_ns += 3600 * S
        assert stream.give(frame) == []
    else:
        stream.camera.turns.give(frame)
        stream.clock.nap_ns += 3600 * S
        told = stream.take()
        assert [(p.state, p.reason) for p in told] == [(LabelState.STALE, Reason.SUSPENDED)]
        assert told[0].detail == "the machine slept for 1.0 hours"
    fresh_ms, ok_ms = until_ok(stream)
    assert fresh_ms + ok_ms >= SHORTEST_MS
    assert fresh_ms <= 2 * PERIOD_MS + 1
    after = [p for p in stream.given[count:] if p.state not in LABELLED]
    assert {p.reason for p in after} == {Reason.SUSPENDED}


def test_more_frames_than_anybody_wants_are_dropped(up):
    """A camera at 5000 frames/s, fifty for each one that is labelled."""
    stream = up()
    for _ in range(100):
        for _ in range(50):
            stream.camera.turns.advance(0.2)
            stream.camera.turns.give(Frame(stream.picture(), stream.clock.ns, stream.count, "stepped"))
            stream.count += 1
        assert [p.state for p in stream.take()] == [LabelState.OK]
    assert stream.labels.statistics.dropped == 100 * 49


@pytest.mark.parametrize(
    ("period_ms", "state"), [(140, LabelState.WARMING), (70, LabelState.DEGRADED), (45, LabelState.OK)]
)
def test_a_camera_that_becomes_slow(up, period_ms, state):
    stream = up()
    for _ in range(40):
        stream.pass_by(period_ms)
        stream.frame()
    fresh = [p for p in stream.given[-20:] if p.state is not LabelState.STALE]
    assert {p.state for p in fresh[-10:]} == {state} or state is LabelState.DEGRADED
    assert state in {p.state for p in fresh[-10:]}
    if state is LabelState.WARMING:
        assert {p.reason for p in fresh[-10:]} == {Reason.SLOW_RATE}
    fresh_ms, ok_ms = until_ok(stream)
    assert fresh_ms <= BACK_MS
    assert ok_ms <= CLIP_MS


def test_a_network_without_numbers_is_no_label(up):
    stream = up()
    count, stream.engine.nans = len(stream.given), 1
    fresh_ms, ok_ms = until_ok(stream)
    assert SHORTEST_MS <= ok_ms - PERIOD_MS <= CLIP_MS
    bad, *after = [p for p in stream.given[count:] if p.state not in LABELLED]
    assert (bad.state, bad.label) == (LabelState.UNKNOWN, None)
    assert {p.reason for p in [bad, *after]} == {Reason.NOT_FINITE}
    assert fresh_ms == PERIOD_MS


def test_an_engine_that_fails_once_costs_a_window(up, caplog):
    stream = up()
    count, stream.engine.failures = len(stream.given), MOST_FAILURES - 1
    comes_back(stream)
    told = [p for p in stream.given[count:] if p.state is LabelState.STALE]
    assert [p.reason for p in told] == [Reason.ENGINE_FAILED] * (MOST_FAILURES - 1)
    assert stream.labels.statistics.engine_failures == MOST_FAILURES - 1
    assert len(caplog.records) == 1


def test_an_engine_that_always_fails_ends_the_stream(up):
    stream = up()
    stream.engine.failures = 10**9
    for _ in range(MOST_FAILURES - 1):
        stream.pass_by(PERIOD_MS)
        assert [p.reason for p in stream.frame()] == [Reason.ENGINE_FAILED]
    with pytest.raises(ArtifactError, match="out of memory"):
        stream.frame()
    assert stream.labels.statistics.engine_failures == MOST_FAILURES


class Pipe:
    """A sink that nobody reads any more."""

    name, reopens = "pipe", False

    def open(self) -> None: ...

    def close(self) -> None: ...

    def write(self, prediction) -> None:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_program_goes_on_without_a_sink_and_can_tell_that_nobody_listens(up, tmp_path, monkeypatch, caplog):
    """``kd-edge run`` ends then with exit code 1; systemd hears no more of it."""
    alive: list[int] = []
    monkeypatch.setattr("kd_edge.runtime.watchdog.ServiceNotifier.alive", lambda self, now_ns: alive.append(now_ns))
    stream = up(sinks=(Pipe(),), notify=True)
    wait_for(lambda: not stream.labels.is_heard)
    told = len(alive)
    for _ in range(20):
        stream.pass_by(PERIOD_MS)
        assert [p.state for p in stream.frame()] == [LabelState.OK]
    assert len(alive) == told
    assert stream.labels.statistics.sink_faults == {"pipe": "Broken pipe"}
    assert stream.labels.statistics.sink_dropped >= 20
    assert [r.getMessage() for r in caplog.records] == ["sink pipe stopped: Broken pipe"]


LIVE = """
import signal
import sys
from kd_edge.runtime import stream
from kd_edge.runtime.signals import interrupt_on_termination
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests that run under nohup hand on that it is ignored
with interrupt_on_termination(), stream(
    model=sys.argv[1], camera="synthetic:?height_px=48&width_px=64&fps=50", sinks=["jsonl:" + sys.argv[2]]
) as labels:
    for prediction in labels:
        pass
"""


@pytest.fixture
def live(make_model, tmp_path):
    """A stream in a process of its own, and where its labels go: ``live() -> Popen, Path``."""
    model, out, started = make_model()[0], tmp_path / "labels.jsonl", []

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", LIVE, str(model), str(out)], stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process, out

    yield start
    for process in started:
        process.kill()
        process.communicate()


def lines(path: Path) -> list[dict[str, Any]]:
    """What the whole lines say."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def test_a_process_that_stood_still_goes_on_and_one_that_was_killed_left_whole_lines(live):
    process, out = live()
    wait_for(lambda: any(p["state"] == "ok" for p in lines(out)))
    process.send_signal(signal.SIGSTOP)
    stat = Path(f"/proc/{process.pid}/stat")
    wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
    stopped_ns = time.monotonic_ns()
    time.sleep(0.4)  # longer than a label lasts
    going_on_ns = time.monotonic_ns()
    process.send_signal(signal.SIGCONT)
    wait_for(lambda: any(p["state"] == "ok" and p["captured_ns"] > going_on_ns for p in lines(out)))
    process.kill()
    assert process.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    text = out.read_text()
    whole, cut = text[: text.rfind("\n") + 1], text[text.rfind("\n") + 1 :]
    assert cut == ""
    labels = [json.loads(line) for line in whole.splitlines()]
    assert all(p["emitted_ns"] <= p["valid_until_ns"] for p in labels if p["label"] is not None)
    assert not [p for p in labels if p["label"] and p["emitted_ns"] > going_on_ns and p["captured_ns"] < stopped_ns]

    process, out = live()  # the next one goes on behind
    wait_for(lambda: len(lines(out)) > len(labels) + 5)
    process.send_signal(signal.SIGHUP)
    error = process.communicate(timeout=PATIENCE_SECONDS)[1]
    assert "KeyboardInterrupt" in error  # what a program of one's own catches; kd-edge run ends with its summary
    after = out.read_text()
    assert after.startswith(whole)
    assert after.endswith("\n")
    assert len(lines(out)) == len(after.splitlines())


def table() -> list[list[str]]:
    """The rows of the table of faults."""
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def test_every_row_of_the_table_names_a_test_that_there_is():
    rows = [row for row in table() if len(row) == 7 and row[0] not in ("Fault", "---")]
    assert len(rows) > 40
    for row in rows:
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", row[6])
        assert named, f"no test for: {row[0]}"
        for file, test in named:
            texts = [path.read_text() for path in (DOCS.parents[1] / "tests" / "runtime").rglob(file)]
            tests = {n.name for t in texts for n in ast.walk(ast.parse(t)) if isinstance(n, ast.FunctionDef)}
            assert test in tests, f"{row[0]}: {file} has no {test}"


def test_every_reason_is_in_the_table():
    text = DOCS.read_text()
    assert [r.value for r in Reason if r and f"`{r.value}`" not in text] == []
    assert [s.value for s in LabelState if f"`{s.value}`" not in text] == []
