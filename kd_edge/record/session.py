"""A recording session: opens the cameras, records clips and reports events."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from itertools import cycle, islice
from pathlib import Path
from types import TracebackType

from kd_edge.errors import ConfigError
from kd_edge.files import expanded
from kd_edge.packages import import_extra
from kd_edge.record.clip import Clip, Finished
from kd_edge.record.events import Began, Countdown, Event, Kept, Note, Status, Summary
from kd_edge.record.folder import Folder, check_free, unwritable
from kd_edge.record.plan import DISCARD_KEYS, END_KEY, Plan
from kd_edge.record.room import Room
from kd_edge.record.source import LATE_SECONDS, Source, make_sources, stop_all
from kd_edge.runtime.cameras.base import Camera
from kd_edge.runtime.cameras.config import SharedConfig
from kd_edge.runtime.clock import MONOTONIC, Clock
from kd_edge.runtime.scheduling import scheduled

LOOK_SECONDS = 0.05
"""Interval at which cameras, keys and the disk are checked."""
LONGEST_SECONDS = 600.0
"""A long recording is split into files of about this length, so that seeking stays fast."""
AHEAD_SECONDS = 0.2
"""How far ahead the next file is created, so that it exists when its first frames arrive."""
BACKGROUND = "none"
"""In a folder of long recordings, the class of everything between the pieces marked by key."""
LAST_SECONDS = 5.0
"""How long the very last clip can still be discarded by key, at most."""
DISCARDED = "discarded"
"""The reason given for a clip that was discarded by key."""
DEAF_SECONDS = 1.0
"""How long a discarding key must be released before it discards again."""
LEAST_BYTES = 50_000_000
"""Free space below which no session starts."""

Keys = Callable[[], str]
"""Returns the keys pressed since the last call."""


class _EndError(Exception):
    """The session cannot continue; the message is the reason."""


class _OverError(_EndError):
    """The session is complete."""


class _DiscardedError(Exception):
    """The last clip is to be discarded and repeated."""


class Session:
    """Records from cameras into a folder. Use it in a ``with`` block and iterate over ``events``.

    Leaving the block ends the running clip and keeps its frames.

    Args:
        cameras: Names or URIs, ``NAME=CAMERA`` to name one; or custom camera objects, by name.
        out: The folder, new or from an earlier session with the same cameras.
        plan: What to record.
        clock: Source of time.

    Attributes:
        summary: Results so far.

    Raises:
        ConfigError: There is no camera, a camera is given twice, or a name cannot be a column of a manifest.
    """

    def __init__(
        self, cameras: Sequence[str] | Mapping[str, Camera], out: Path | str, plan: Plan, *, clock: Clock = MONOTONIC
    ) -> None:
        self.summary = Summary(out=str(out))
        self._plan, self._clock, self._out = plan, clock, expanded(out)
        self._sources = make_sources(cameras, clock)
        self._shared = None if isinstance(cameras, Mapping) else SharedConfig.of(cameras)
        self._cameras: dict[str, Source] = {}  # the same sources, by manifest column
        self._clips: list[Clip] = []  # the running clip, and the next one
        self._stack = ExitStack()
        self._until_ns: int | None = None
        self._deaf_until_ns = 0

    def __enter__(self) -> Session:
        import_extra("av", "replay")
        check_free(self._out)
        with self._stack as stack:
            if self._shared is not None:  # as set in the camera file; all threads must start inside
                stack.enter_context(scheduled(self._shared.cpus, self._shared.priority))
            stack.callback(stop_all, self._sources)
            for source in self._sources:
                source.start()
            facts = [source.facts() for source in self._sources]
            names = [fact.modality for fact in facts]
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise ConfigError(
                    f"two cameras for column '{twice}'", "a name for each", "--camera left=URI --camera right=URI"
                )
            self._cameras = dict(zip(names, self._sources, strict=True))
            self._check_room()
            self._folder = Folder(self._out)
            stack.callback(self._folder.close)
            self._folder.fit(facts, BACKGROUND if self._plan.mode == "keys" else None)
            self._folder.check_labels(self._plan.labels)
            self._room = self._made_room()
            self._stack = stack.pop_all()
        self.summary.repaired = self._folder.repaired
        now = datetime.fromtimestamp(self._clock.wall_ns() / 1e9, timezone.utc)
        self._session = f"{now:%Y%m%dT%H%M%SZ}" if self._plan.session is None else self._plan.session
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            while self._clips:
                self._finished()
            self._note_losses()

    def events(self, keys: Keys | None = None) -> Iterator[Event]:
        """Record as planned and yield events, until the plan is complete or recording cannot continue.

        Args:
            keys: Returns the keys pressed; None if there is no keyboard.

        Raises:
            CameraError: A camera changed its frame size or type.
        """
        if self._folder.repaired:
            yield Note(f"recovered from an interrupted session: {', '.join(self._folder.repaired)}")
        if self._plan.duration_seconds is not None:
            self._until_ns = self._clock.now_ns() + round(self._plan.duration_seconds * 1e9)
        try:
            if self._plan.mode == "timed":
                yield from self._timed(keys)
            else:
                yield from self._long(keys or (lambda: ""))
        except (_EndError, OSError) as end:
            why = f"the disk: {end.strerror}" if isinstance(end, OSError) else str(end)
            if why and not self._clips and isinstance(end, _OverError):
                yield Note(f"ended: {why}")
            while self._clips:
                yield Kept(self._finished(), why)
            if not isinstance(end, _OverError):
                self.summary.ended = why
            if fault := next((s.track.fault for s in self._sources if s.track.fault is not None), None):
                raise fault from end

    def _timed(self, keys: Keys | None) -> Iterator[Event]:
        """Record clips of a fixed length, cycling through the labels; a clip cut short or discarded is repeated."""
        plan, pressed = self._plan, keys or (lambda: "")
        total = plan.count * len(plan.labels)
        wanted = list(islice(cycle(plan.labels), total))
        kept: list[tuple[Finished, bool]] = []  # and whether it is complete
        while (done := sum(is_whole for _, is_whole in kept)) < total:
            label = wanted[done]
            trial = None if plan.trial is None else plan.trial + done // len(plan.labels)
            try:
                yield from self._counted_down(label, done + 1, total, pressed)
                clip, why = yield from self._recorded(label, trial, pressed)
                kept += [(clip, not why)] if clip.rows else []
                if not why and (done + 1 < total or keys is not None):
                    most = plan.pause_seconds if done + 1 < total else min(plan.pause_seconds, LAST_SECONDS)
                    yield from self._waited(most, pressed)
            except _DiscardedError:
                yield self._discarded(kept.pop()[0]) if kept else Note("nothing to discard")

    def _discarded(self, clip: Finished) -> Note:
        """Remove a clip that had been kept."""
        self._folder.remove(clip.rows, clip.files)
        self.summary.remove(clip)
        self._room.wrote(-clip.size_bytes)
        return Note(f"discarded {clip.rows[0]['id']} {clip.rows[0]['label']}")

    def _counted_down(self, label: str, number: int, total: int, keys: Keys) -> Iterator[Event]:
        yield from self._all_there()
        for left in range(round(self._plan.countdown_seconds), 0, -1):
            yield Countdown(label, left, number, total)
            yield from self._waited(1.0, keys)
        yield from self._all_there()

    def _long(self, keys: Keys) -> Iterator[Event]:
        """Record one long recording, or one of a fixed length; start another one after a fault."""
        while True:
            yield from self._all_there()
            keys()  # ignore keys pressed during a pause
            _, why = yield from self._recorded("", self._plan.trial, keys)
            if not why and self._plan.seconds is not None:
                return

    def _recorded(self, label: str, trial: int | None, keys: Keys) -> Generator[Event, None, tuple[Finished, str]]:
        """Record one clip; return what was kept, and why it was cut short (empty if it was not)."""
        if not self._clips:
            self._begin(label, trial)
            yield Began(label)
        clip, why = self._clips[0], ""
        while not (clip.is_over or self._is_late(clip)) and not why:
            yield self._status(clip)
            self._clock.sleep(LOOK_SECONDS)
            self._check_end()
            if self._is_long(clip):
                self._begin(label, trial, after=clip)
            elif len(self._clips) == 1:  # otherwise keys apply to the next one
                why = yield from self._pressed(clip, keys())
            why = why or clip.broken or self._lost()
        finished = self._finished()
        yield Note(f"{DISCARDED} {label}") if why == DISCARDED else Kept(finished, why)
        while why and self._clips:
            yield Kept(self._finished(), why)
        if finished.fault:
            raise _EndError(f"the disk: {finished.fault}")
        if why and why != DISCARDED and not self._plan.waits:
            raise _EndError(why)
        if not why and not finished.rows:
            raise _EndError("a clip has fewer than two frames of a camera: use a longer --seconds or a faster camera")
        return finished, why

    def _begin(self, label: str, trial: int | None, after: Clip | None = None) -> None:
        """Begin a clip, now or where another one ends."""
        plan = self._plan
        begin_ns = self._clock.now_ns() + (0 if after is None else round(AHEAD_SECONDS * 1e9))
        counted = self._folder.next_trial(label, plan.subject) if trial is None and label else trial
        cells = {
            "label": label, "subject": plan.subject, "view": plan.view, "session": self._session,
            "trial": "" if counted is None else str(counted),
        }  # fmt: skip
        end_ns = None if plan.seconds is None else begin_ns + round(plan.seconds * 1e9)
        tracks = {name: source.track for name, source in self._cameras.items()}
        try:
            self._clips.append(Clip(self._folder, tracks, cells, begin_ns, end_ns, after))
        except ConfigError as error:
            raise _EndError(error.found) from error

    def _finished(self) -> Finished:
        """End the running clip; it is removed from the list last, because an interrupt may come at any time."""
        clip = self._clips[0]
        is_cut = self._plan.seconds is not None and clip.end_ns is not None and self._clock.now_ns() < clip.end_ns
        finished = clip.finish()
        self._clips.pop(0)
        if finished.rows:
            self._room.wrote(finished.size_bytes)
            self.summary.add(finished)
            self.summary.cut_short += [finished.rows[0]["id"]] if is_cut else []
        return finished

    def _pressed(self, clip: Clip, keys: str) -> Generator[Event, None, str]:
        """Handle keys: a key begins a piece, the same key or the space bar ends it, another key begins the next one.

        Returns why the clip ends (a clip of fixed length can be discarded); empty if it continues.
        """
        for key in keys:
            running, label = clip.running, self._plan.keys.get(key)
            now_ns = self._clock.now_ns()
            if self._discards(key):
                if self._plan.mode == "timed":
                    clip.discard()
                    return DISCARDED
                yield self._forgotten(clip)
            elif label is not None and (running is None or running.label != label):
                clip.mark(label, str(self._trial(label)), now_ns)
                yield Began(label)
            elif running is not None and (label is not None or key == END_KEY):
                clip.unmark(now_ns)
                yield Note(f"{running.label}: {(now_ns - running.begin_ns) / 1e9:.1f} s")
        return ""

    def _discards(self, key: str) -> bool:
        """Whether a key discards something; a key that is held or pressed twice quickly discards once."""
        if key not in DISCARD_KEYS:
            return False
        now_ns = self._clock.now_ns()
        is_deaf = now_ns < self._deaf_until_ns
        self._deaf_until_ns = now_ns + round(DEAF_SECONDS * 1e9)
        return not is_deaf

    def _forgotten(self, clip: Clip) -> Note:
        """Discard the last piece of a recording."""
        piece = clip.forget()
        if piece is None:
            return Note("nothing to discard in this recording")
        self._folder.forget_trial(piece.label, self._plan.subject, piece.trial)
        return Note(f"{DISCARDED} {piece.label}")

    def _trial(self, label: str) -> int:
        """Number of a piece, counted here because rows are written only at the end of their recording."""
        following = self._folder.next_trial(label, self._plan.subject)
        if self._plan.trial is not None:
            following = max(following, self._plan.trial)
        self._folder.note_trial(label, self._plan.subject, str(following))
        return following

    def _is_long(self, clip: Clip) -> bool:
        """Whether to start another file; a running piece is not split."""
        is_due = self._clock.now_ns() - clip.begin_ns > LONGEST_SECONDS * 1e9
        return is_due and clip.end_ns is None and clip.running is None

    def _is_late(self, clip: Clip) -> bool:
        """Whether its end is so long ago that no more of its frames will arrive."""
        return clip.end_ns is not None and self._clock.now_ns() > clip.end_ns + LATE_SECONDS * 1e9

    def _all_there(self) -> Iterator[Event]:
        """Wait until every camera delivers frames."""
        noted = ""
        while why := self._lost():
            if not self._plan.waits:
                raise _EndError(why)
            if why != noted:
                noted = why
                yield Note(f"waiting: {why}")
            yield self._status(None, waiting=why)
            self._clock.sleep(LOOK_SECONDS)
            self._check_end()
        if noted:
            yield Note("all cameras deliver again")

    def _waited(self, seconds: float, keys: Keys) -> Iterator[Event]:
        until_ns = self._clock.now_ns() + round(seconds * 1e9)
        while (left_ns := until_ns - self._clock.now_ns()) > 0:
            yield self._status(None)
            self._clock.sleep(min(LOOK_SECONDS, left_ns / 1e9))
            self._check_end()
            if any(map(self._discards, keys())):
                raise _DiscardedError

    def _lost(self) -> str:
        """The first camera that does not deliver, and why; empty if all do."""
        return next((f"{name}: {why}" for name, source in self._cameras.items() if (why := source.lost())), "")

    def _check_end(self) -> None:
        """Raise if recording must end: the time is over, there is no space, or a camera has ended."""
        if self._until_ns is not None and self._clock.now_ns() >= self._until_ns:
            raise _OverError("the time is over" if self._plan.mode == "timed" else "")
        if self._left_bytes() <= 0:
            raise _EndError(self._room.reason(self._under_way()))
        for name, source in self._cameras.items():
            if source.track.fault is not None:
                raise _EndError(f"{name} changed its frame size or type")
            if source.capture.ended:
                if source.capture.error is None:
                    raise _OverError(f"{name} has ended")
                raise _EndError(f"{name}: {source.capture.error.found}")

    def _check_room(self) -> None:
        """Check that there is space, before anything is created."""
        try:
            room = self._made_room()
            left_bytes = room.left_bytes()
        except OSError as error:
            raise unwritable(self._out, error) from error
        if left_bytes < LEAST_BYTES:
            raise ConfigError(
                f"{self._out} has no space: {room.reason()}",
                f"at least {LEAST_BYTES / 1e6:g} MB",
                "free space, choose another --out, or change the bounds",
            )

    def _made_room(self) -> Room:
        return Room(self._out, self._plan.most_bytes, self._plan.keep_free_bytes)

    def _left_bytes(self) -> int:
        return self._room.left_bytes(self._under_way())

    def _under_way(self) -> int:
        return sum(clip.size_bytes for clip in self._clips)

    def _status(self, clip: Clip | None, waiting: str = "") -> Status:
        label = "" if clip is None else clip.label
        seconds = None if clip is None else (self._clock.now_ns() - clip.begin_ns) / 1e9
        cameras = {name: source.status() for name, source in self._cameras.items()}
        return Status(cameras, self._left_bytes(), seconds, label, waiting)

    def _note_losses(self) -> None:
        for name, source in self._cameras.items():
            counters = source.capture.counters
            self.summary.dropped[name] = counters.dropped
            self.summary.unusable[name] = counters.damaged + counters.frozen + counters.misdated
            self.summary.reconnects[name] = counters.reconnects
