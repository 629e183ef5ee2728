"""Random schedules of faults against an oracle that knows what really happened: no label from a poisoned window.

``KD_EDGE_SCHEDULES=10000`` runs so many; a failure names its seed, and ``KD_EDGE_SCHEDULE_SEED`` runs that one alone.
"""

from __future__ import annotations

import bisect
import math
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from kd_edge.errors import ArtifactError, BadPictureError, CameraError
from kd_edge.runtime import Recognizer
from kd_edge.types import Frame, LabelState, Prediction, Reason

from .conftest import TinyStep, tiny_manifest
from .stepped import GONE, Stepped, TinyEngine

MS = 1_000_000
S = 1000 * MS
SCHEDULES = int(os.environ.get("KD_EDGE_SCHEDULES", "200"))
ONE_SEED = os.environ.get("KD_EDGE_SCHEDULE_SEED")
SEEDS = [int(ONE_SEED)] if ONE_SEED else range(SCHEDULES // 2)
"""Half of the schedules are of streams, half of pushes."""
SPACING = 100 * MS
SEGMENTS = 4
MAX_AHEAD = 50 * MS
SEPARATION = SPACING // 32
"""Features closer together than this share a place: the newer one stays."""
NO_MOMENTS = [None, math.nan, math.inf, 1 << 63, -(1 << 63), 1e300, "now"]
LABELLED = (LabelState.OK, LabelState.DEGRADED)


@dataclass
class Seen:
    """A frame that was labelled or could have been.

    Attributes:
        true_ns: When it was really captured.
        stamp_ns: When the recogniser believes it was.
        feature: What the network makes of it.
    """

    true_ns: int
    stamp_ns: int
    feature: np.ndarray


def feature_of(step: TinyStep, image: np.ndarray) -> np.ndarray:
    """The feature of a picture 16 pixels high or of twice that, worked out without the package."""
    values = image.astype(np.float64)
    if image.shape[0] == 32:  # halved by averages, rounded
        values = np.floor(values.reshape(16, 2, -1, 2).mean(axis=(1, 3)) + 0.5)
    left = (values.shape[1] - 16) // 2
    return step.feature((values[None, :, left : left + 16] / 255 - 0.5) / 0.25)


@dataclass
class Oracle:
    """What a label may be made of: the frames since the last cut."""

    step: TinyStep
    slack_ns: int
    kept: list[Seen] = field(default_factory=list)
    shape: tuple[int, ...] = ()
    labelled: int = 0

    def cut(self) -> None:
        self.kept.clear()

    def judge(self, p: Prediction, image: np.ndarray, true_ns: int, now_true_ns: int, valid_ns: int) -> None:
        """Check the prediction of one frame that was encoded."""
        if image.shape != self.shape:
            self.cut()
            self.shape = image.shape
        seen = Seen(true_ns, p.captured_ns, feature_of(self.step, image))
        if self.kept:
            assert seen.stamp_ns > self.kept[-1].stamp_ns, "an older frame"
        window = self._window(seen)
        if p.state is LabelState.OK:
            assert now_true_ns - true_ns <= valid_ns + self.slack_ns, "ok, and too old"
        if p.label is not None or p.state in LABELLED:
            assert window is not None, "a label without a window"
            assert p.valid_until_ns <= true_ns + valid_ns + MAX_AHEAD, "valid for too long"
            for k, frame in enumerate(reversed(window)):
                off_ns = abs(true_ns - frame.true_ns - k * SPACING)
                assert off_ns <= SPACING // 2 + self.slack_ns, f"segment -{k} is {off_ns / 1e6:.0f} ms off"
            logits = np.concatenate([frame.feature for frame in window]) @ self.step.w2
            expected = np.exp(logits - logits.max())
            assert np.abs(p.probabilities - expected / expected.sum()).max() < 2e-5, "of other frames"
            self.labelled += 1
        elif p.state is LabelState.WARMING:
            assert window is None, "warming with a full window"
        if p.reason is Reason.NOT_FINITE and p.state is LabelState.UNKNOWN:
            self.cut()
        else:
            self._keep(seen)

    def _window(self, newest: Seen) -> list[Seen] | None:
        """The frames of the segments, oldest first; None where one has none within half a spacing."""
        stamps = [frame.stamp_ns for frame in self.kept]
        window = [newest]
        for k in range(1, SEGMENTS):
            wanted_ns = newest.stamp_ns - k * SPACING
            after = bisect.bisect_left(stamps, wanted_ns)
            near = [abs(stamps[i] - wanted_ns) for i in (after - 1, after) if 0 <= i < len(stamps)]
            if not near or min(near) * 2 > SPACING:
                return None
            window.append(self.kept[max(after - 1, 0) if near[0] <= near[-1] else after])
        return window[::-1]

    def _keep(self, seen: Seen) -> None:
        if len(self.kept) >= 2 and self.kept[-1].stamp_ns - self.kept[-2].stamp_ns < SEPARATION:
            self.kept.pop()
        self.kept.append(seen)


class Schedule:
    """One camera, one stream and what befalls them."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.kind = str(self.rng.choice(["monotonic", "wall", "device", "arrival"]))
        self.stream = Stepped(self.kind)
        self.clock, self.camera, self.engine = self.stream.clock, self.stream.camera, self.stream.engine
        self.period_ms = float(self.rng.choice([10, 20, 33, 33, 60, 95]))
        self.delay_ms = float(self.rng.uniform(0.5, 8))
        self.oracle = Oracle(self.engine.step, self._slack_ns())
        self.shape: tuple[int, ...] = (16, 24)
        self.skew_ns = int(self.rng.integers(0, 1 << 50)) if self.kind == "device" else 0
        self.drift = float(self.rng.uniform(-2e-4, 2e-4)) if self.kind == "device" else 0.0
        self.wraps_at = 1 << 62
        self.captured: dict[int, tuple[np.ndarray, int]] = {}
        self.next_id = self.cuts = 0
        self.befell: list[str] = []

    def run(self) -> int:
        """How many labels there were."""
        with self.stream.running():
            for _ in range(int(self.rng.integers(45, 75))):
                self._one()
                if self.rng.random() < 0.1:
                    self.befell.append(str(self.rng.choice(FAULTS)))
                    getattr(self, self.befell[-1])()
            failures = self.stream.labels.statistics
            assert failures.captured >= failures.pushed
        return self.oracle.labelled

    def _slack_ns(self) -> int:
        """How far a stamp may lie without being found out: the clock's bound, and what frames in turn leave open."""
        return MAX_AHEAD + round((1.1 * self.period_ms + 20) * MS)

    def _true_ns(self) -> int:
        """Real time, which sleep does not stop."""
        return self.clock.ns + self.clock.nap_ns

    def _stamp(self, error_ns: int = 0) -> Any:
        """What the camera stamps a frame with that it captures now."""
        if self.kind == "arrival":
            return self.rng.choice(np.array([*NO_MOMENTS, 0], dtype=object))
        now_ns = self.clock.ns + self.skew_ns + error_ns
        if self.kind == "wall":
            return now_ns + self.clock.wall_ahead_ns
        if self.kind == "device":
            return (now_ns + round(self.drift * self.clock.ns)) % self.wraps_at
        return now_ns

    def _capture(self, stamp: Any = ..., image: Any = None) -> Frame:
        stamp = self._stamp() if stamp is ... else stamp
        image = self.stream.picture(self.shape) if image is None else image
        frame = Frame(image, stamp, self.next_id, self.camera.name)
        self.captured[self.next_id] = image, self._true_ns()
        self.next_id += 1
        return frame

    def _deliver(self, *frames: Frame) -> None:
        """Frames arrive now."""
        opened = self.camera.opened
        for frame in frames:
            if self.kind == "arrival":  # how long it lay in buffers is not known, and not claimed
                self.captured[frame.frame_id] = frame.image, self._true_ns()
            if self.camera.turns.reading:
                self.camera.turns.give(frame)
        self._check(opened)

    def _check(self, opened: int) -> None:
        given = self.stream.take()
        if self.camera.opened != opened or self.stream.labels._cut.number != self.cuts:
            self.cuts = self.stream.labels._cut.number
            self.oracle.cut()
        for p in given:
            if p.state is LabelState.STALE:
                assert p.label is None
                assert not p.probabilities.any()
                assert p.reason is not Reason.NONE
                if p.reason is Reason.ENGINE_FAILED:
                    self.oracle.cut()
                if p.reason is not Reason.LATE and not p.detail.startswith("the machine slept"):
                    continue  # it says that there is no frame; those two had one, which is remembered
            image, true_ns = self.captured[p.frame_id]
            self.oracle.judge(p, image, true_ns, self._true_ns(), self.stream.recognizer.valid_ns)

    def _pass(self, ms: float) -> None:
        end_ns = self.clock.ns + round(ms * MS)
        while self.clock.ns < end_ns:
            opened = self.camera.opened
            self.camera.turns.advance(min(20.0, (end_ns - self.clock.ns) / MS))
            self._check(opened)

    def _one(self) -> None:
        """A frame on its ordinary way."""
        self._pass(max(4.0, self.period_ms * self.rng.uniform(0.9, 1.1) - self.delay_ms))
        frame = self._capture()
        self._pass(self.delay_ms * self.rng.uniform(0.9, 1.1))
        self._deliver(frame)

    def duplicate(self) -> None:
        frame = self._capture()
        self._deliver(frame)
        self._deliver(frame)

    def reorder(self) -> None:
        first = self._capture()
        self._pass(self.period_ms)
        second = self._capture()
        self._pass(self.delay_ms)
        self._deliver(second)
        self._deliver(first)

    def gap(self) -> None:
        self._pass(float(self.rng.choice([60, 120, 200, 400])))

    def silence(self) -> None:
        self._pass(float(self.rng.uniform(1000, 2500)))

    def burst(self) -> None:
        frames = []
        for _ in range(int(self.rng.integers(2, 8))):
            self._pass(self.period_ms)
            frames.append(self._capture())
        if self.rng.random() < 0.5:
            self._deliver(*frames)
        else:
            for frame in frames:
                self._deliver(frame)

    def late(self) -> None:
        frame = self._capture()
        self._pass(float(self.rng.uniform(20, 400)))
        self._deliver(frame)

    def stray_stamp(self) -> None:
        error_ms = float(self.rng.choice([5, 40, 49, 51, 80, 3_600_000, 1e12, -20, -80, -900, -1100, -9000, -11_000]))
        self._deliver(self._capture(self._stamp(round(error_ms * MS))))

    def no_moment(self) -> None:
        self._deliver(self._capture(self.rng.choice(np.array(NO_MOMENTS, dtype=object))))

    def clock_steps(self) -> None:
        step_ms = float(
            self.rng.choice([-3_600_000, -5000, -900, -400, -200, -150, -100, -60, -30, 30, 60, 400, 3_600_000])
        )
        self.skew_ns += round(step_ms * MS)
        for _ in range(int(500 / self.period_ms)):  # each step may hide within the bound
            self._one()

    def clock_is_mended(self) -> None:
        if self.kind != "device":
            self._pass(500)  # less than a window would look like lost frames
            self.skew_ns = 0
            for _ in range(int(500 / self.period_ms)):
                self._one()

    def wrap(self) -> None:
        self.wraps_at = int(self.rng.choice([1 << 62, (1 << 32) * 1000, self.clock.ns + self.skew_ns + 300 * MS]))

    def wall_steps(self) -> None:
        self.clock.wall_ahead_ns += int(self.rng.choice([-3600 * S, -S, -100 * MS, 100 * MS, S, 3600 * S]))

    def another_size(self) -> None:
        shapes = [(16, 24), (16, 16), (32, 32), (32, 48)]
        self.shape = shapes[int(self.rng.integers(len(shapes)))]

    def another_rate(self) -> None:
        self.period_ms = float(self.rng.choice([10, 20, 33, 60, 95, 140]))
        self.oracle.slack_ns = max(self.oracle.slack_ns, self._slack_ns())

    def no_picture(self) -> None:
        for _ in range(int(self.rng.integers(1, 4))):
            opened = self.camera.opened
            bad = [BadPictureError("cut short", "a whole one", "cable"), None, np.zeros((0, 4), np.uint8)]
            chosen = bad[int(self.rng.integers(3))]
            item = chosen if isinstance(chosen, Exception) else Frame(chosen, self.clock.ns, 0, "stepped")
            if self.camera.turns.reading:
                self.camera.turns.give(item)
            self._check(opened)
            self._pass(self.period_ms)

    def driver_raises(self) -> None:
        errors = [GONE, RuntimeError("USB"), OSError(19, "No such device"), MemoryError(), ValueError("x")]
        self.camera.open_errors = [errors[int(i)] for i in self.rng.integers(0, 5, int(self.rng.integers(0, 4)))]
        opened = self.camera.opened
        if self.camera.turns.reading:
            self.camera.turns.give(errors[int(self.rng.integers(5))])
        self._check(opened)
        self._pass(float(self.rng.uniform(0, 3000)))

    def suspend(self) -> None:
        frame = self._capture()
        self.clock.nap_ns += int(self.rng.choice([S, 3600 * S]))
        self.oracle.cut()
        if self.rng.random() < 0.5:
            self._deliver(frame)
        if self.rng.random() < 0.5 and self.camera.turns.reading:
            self.camera.turns.give(self._capture())  # waits for the stream while the machine sleeps
            self.clock.nap_ns += int(self.rng.choice([S, 3600 * S]))
            self._check(self.camera.opened)

    def frozen(self) -> None:
        image = self.stream.picture(self.shape)
        seconds = float(self.rng.choice([0.5, 2.5]))
        for _ in range(int(seconds * 1000 / self.period_ms)):
            self._pass(self.period_ms)
            self._deliver(self._capture(image=image))

    def engine_fails(self) -> None:
        if not self.stream.labels._failures_in_turn:  # five in turn end a stream
            self.engine.failures = int(self.rng.integers(1, 4))

    def no_numbers(self) -> None:
        self.engine.nans = 1


FAULTS = [
    name for name, value in vars(Schedule).items() if callable(value) and not name.startswith("_") and name != "run"
]


@pytest.mark.parametrize("part", range(4))
def test_a_stream_gives_no_label_from_a_poisoned_window(part):
    labels = 0
    for seed in SEEDS[part::4]:
        schedule = Schedule(seed)
        try:
            labels += schedule.run()
        except Exception as error:
            told = f"KD_EDGE_SCHEDULE_SEED={seed}, {schedule.kind} stamps, {', '.join(schedule.befell)}"
            raise AssertionError(f"{told}: {error}") from error
    assert labels > 10 * len(SEEDS[part::4])  # else nothing was tested


class Pushes:
    """Several sources pushed by a program of its own, with a ``now`` or without one."""

    NAMES = ("left", "right")

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng([seed, 1])
        self.engine = TinyEngine(TinyStep(tiny_manifest()))
        self.recognizer = Recognizer(self.engine.step.manifest, self.engine)
        self.now_ns = int(self.rng.integers(1, 1 << 50))
        self.period_ms = float(self.rng.choice([10, 20, 33, 60, 95]))
        self.oracles = {name: Oracle(self.engine.step, 0) for name in self.NAMES}
        self.shapes: dict[str, tuple[int, ...]] = dict.fromkeys(self.NAMES, (16, 24))
        self.newest_ns: dict[str, int | None] = dict.fromkeys(self.NAMES)
        self.befell: list[str] = []

    def run(self) -> int:
        """How many labels there were."""
        for _ in range(int(self.rng.integers(45, 75))):
            self.now_ns += round(max(4.0, self.period_ms * self.rng.uniform(0.9, 1.1)) * MS)
            if self.rng.random() < 0.1:
                self.befell.append(str(self.rng.choice(PUSH_FAULTS)))
                getattr(self, self.befell[-1])()
            self._push({name: self.now_ns for name in self.NAMES if self.rng.random() < 0.9})
        return sum(oracle.labelled for oracle in self.oracles.values())

    def _push(self, stamps: dict[str, Any], *, takes_ms: float = 1.0) -> None:
        if not stamps:
            return
        images = {name: self.rng.integers(0, 256, self.shapes[name], dtype=np.uint8) for name in stamps}
        now_ns = self.now_ns + round(takes_ms * MS) if self.rng.random() < 0.7 else None
        may_fail = any(stamp is not None for stamp in stamps.values()) and self.engine.failures
        try:
            given = self.recognizer.push_many({n: (images[n], stamps[n]) for n in stamps}, now_ns=now_ns)
        except ArtifactError:
            assert may_fail
            for name in stamps:
                if self._is_ahead(stamps[name], now_ns) or self._is_late(name, stamps[name]):
                    continue  # its frame was not in the batch that failed
                self._cut(name)
            return
        for name, p in given.items():
            self._judge(name, images[name], stamps[name], now_ns, p)

    def _judge(self, name: str, image: np.ndarray, stamp_ns: int, now_ns: int | None, p: Prediction | None) -> None:
        if self._is_ahead(stamp_ns, now_ns):
            assert p is not None
            assert (p.state, p.reason, p.label) == (LabelState.STALE, Reason.CLOCK_AHEAD, None)
            return
        if self._is_late(name, stamp_ns):
            assert p is None
            return
        assert p is not None
        if (newest_ns := self.newest_ns[name]) is not None and stamp_ns < newest_ns:
            self.oracles[name].cut()
        self.newest_ns[name] = stamp_ns
        self.oracles[name].judge(p, image, stamp_ns, stamp_ns if now_ns is None else now_ns, self.recognizer.valid_ns)
        if p.reason is Reason.NOT_FINITE and p.state is LabelState.UNKNOWN:
            self.newest_ns[name] = None
        if now_ns is not None and now_ns - stamp_ns > self.recognizer.valid_ns:
            assert p.state is LabelState.STALE
            assert p.label is None

    def _is_ahead(self, stamp_ns: int, now_ns: int | None) -> bool:
        return now_ns is not None and stamp_ns - now_ns > MAX_AHEAD

    def _is_late(self, name: str, stamp_ns: int) -> bool:
        """Whether a frame is not newer than the last one, but of the same clock."""
        newest_ns = self.newest_ns[name]
        return newest_ns is not None and 0 <= newest_ns - stamp_ns <= S

    def _cut(self, name: str) -> None:
        self.oracles[name].cut()
        self.newest_ns[name] = None

    def _one_of_them(self) -> str:
        return str(self.rng.choice(self.NAMES))

    def ahead(self) -> None:
        by_ms = float(self.rng.choice([10, 49, 60, 3_600_000, 1e12]))
        self._push({self._one_of_them(): self.now_ns + round(by_ms * MS)})

    def back(self) -> None:
        by_ms = float(self.rng.choice([1, 15, 200, 999, 1001, 5000, 3_600_000]))
        self._push({self._one_of_them(): self.now_ns - round(by_ms * MS)})

    def again(self) -> None:
        name = self._one_of_them()
        self._push({name: self.now_ns})
        self._push({name: self.now_ns})

    def gap(self) -> None:
        self.now_ns += round(float(self.rng.choice([60, 120, 200, 400, 3000])) * MS)

    def close_together(self) -> None:
        for _ in range(6):
            self.now_ns += int(self.rng.integers(1, 4 * MS))
            self._push({self._one_of_them(): self.now_ns})

    def too_slow(self) -> None:
        self._push({self._one_of_them(): self.now_ns}, takes_ms=float(self.rng.choice([200, 249, 251, 5000])))

    def no_moment(self) -> None:
        stamp = self.rng.choice(np.array(NO_MOMENTS, dtype=object))
        with pytest.raises(CameraError):
            self._push({"left": self.now_ns, "right": stamp})

    def no_frame(self) -> None:
        bad = [None, np.zeros((16, 24, 3), np.uint8), np.zeros((16, 24), np.uint16), np.zeros((1, 900), np.uint8)]
        for image in bad:
            with pytest.raises(CameraError):
                self.recognizer.push_many({"left": (bad[1], self.now_ns), "right": (image, self.now_ns)})

    def another_size(self) -> None:
        shapes = [(16, 24), (16, 16), (32, 32), (32, 48)]
        self.shapes[self._one_of_them()] = shapes[int(self.rng.integers(len(shapes)))]

    def another_rate(self) -> None:
        self.period_ms = float(self.rng.choice([10, 20, 33, 60, 95, 140]))

    def reset(self) -> None:
        name = self._one_of_them()
        self.recognizer.reset(name)
        self._cut(name)

    def forget(self) -> None:
        name = self._one_of_them()
        self.recognizer.forget(name)
        self._cut(name)

    def engine_fails(self) -> None:
        self.engine.failures = int(self.rng.integers(1, 4))

    def no_numbers(self) -> None:
        self.engine.nans = 1


PUSH_FAULTS = [
    name for name, value in vars(Pushes).items() if callable(value) and not name.startswith("_") and name != "run"
]


@pytest.mark.parametrize("part", range(4))
def test_a_push_gives_no_label_from_a_poisoned_window(part):
    labels = 0
    for seed in SEEDS[part::4]:
        pushes = Pushes(seed)
        try:
            labels += pushes.run()
        except Exception as error:
            raise AssertionError(f"KD_EDGE_SCHEDULE_SEED={seed}, {', '.join(pushes.befell)}: {error}") from error
    assert labels > 10 * len(SEEDS[part::4])
