"""A session of recording: cameras open side by side, clips begin and end, and all of it is told as it happens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import cycle, islice
from pathlib import Path
from types import TracebackType

from kd_edge.errors import CameraError, ConfigError, import_extra, printable
from kd_edge.files import expanded
from kd_edge.record.clip import Clip, Finished
from kd_edge.record.folder import CameraFacts, Folder, band_seen, check_free, column, unwritable
from kd_edge.record.plan import DISCARD_KEYS, END_KEY, Plan
from kd_edge.record.room import Room
from kd_edge.record.track import Track
from kd_edge.runtime.cameras import Wanted, make_camera
from kd_edge.runtime.cameras.base import Camera, focal_of, timeouts_of
from kd_edge.runtime.cameras.config import CameraConfig, SharedConfig, camera_config, source_name
from kd_edge.runtime.capture import Capture, stop_together
from kd_edge.runtime.clock import MONOTONIC, Clock, duration
from kd_edge.runtime.scheduling import scheduled
from kd_edge.runtime.uri import shown
from kd_edge.types import Frame, Reason

LOOK_SECONDS = 0.05
"""How often cameras, keys and the disk are looked at."""
FIRST_FRAME_SECONDS = 10.0
"""A camera that is open and gives no frame for so long is none."""
LATE_SECONDS = 1.0
"""How long the end of a clip waits for frames on their way, and how late one may be beyond its time-out."""
LONGEST_SECONDS = 600.0
"""A long recording is one file after the other, so that a piece of it is found quickly."""
AHEAD_SECONDS = 0.2
"""So long before the next file begins it is made, so that frames that are on their way find it."""
BACKGROUND = "none"
"""In a folder of long recordings, the class of what lies between the pieces that keys marked."""
LAST_SECONDS = 5.0
"""So long, at most, the last clip of all can still be discarded by key."""
DISCARDED = "discarded"
"""Why a clip ends that a key has discarded."""
DEAF_SECONDS = 1.0
"""A key that discards is to be let go for so long before it discards anything else."""
LEAST_BYTES = 50_000_000
"""Nothing is begun with less room."""

Keys = Callable[[], str]
"""The keys that were pressed since it was asked last."""


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """One camera at the moment.

    Attributes:
        frames: How many were taken for clips.
        fps: Frames per second of late.
        dropped: Frames of clips that the disk was too slow for.
        age_ms: Age of its newest frame.
        trouble: Why none comes; empty while they do.
    """

    frames: int
    fps: float
    dropped: int
    age_ms: float
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """How it goes, several times a second.

    Attributes:
        cameras: By their columns.
        left_bytes: What the disk and the folder's bound leave.
        seconds: How long the clip has been running; None between clips.
        label: Of what is being recorded; empty where it has none.
        waiting: What is waited for; empty while nothing is.
    """

    cameras: Mapping[str, CameraStatus]
    left_bytes: int
    seconds: float | None = None
    label: str = ""
    waiting: str = ""


@dataclass(frozen=True, slots=True)
class Countdown:
    """A clip is about to begin: ``seconds`` are left, whole ones; clip ``number`` of ``count``."""

    label: str
    seconds: int
    number: int
    count: int


@dataclass(frozen=True, slots=True)
class Began:
    """A clip has begun, or a piece of one; with an empty label, a recording without any."""

    label: str


@dataclass(frozen=True, slots=True)
class Kept:
    """A clip has ended: what it is called and holds, and why it ended early, where it did."""

    clip: Finished
    why: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """What a user should know, one line."""

    text: str


Event = Status | Countdown | Began | Kept | Note


@dataclass(slots=True)
class Summary:
    """What a session brought.

    Attributes:
        out: The folder.
        clips: Recordings that were kept.
        rows: Rows that were added to the manifest.
        labels: How many rows each label got; those without one are not counted.
        seconds: Length of the clips together.
        size_bytes: Of their files.
        frames: Frames of each camera that were kept.
        dropped: Frames of each camera that were not, because the disk was too slow.
        cut_short: Clips of a set length that were kept and are shorter: rows that somebody should look at.
        unusable: Frames of each camera that were damaged, frozen, or bore impossible stamps.
        reconnects: How often each camera was reopened.
        repaired: Clips of a killed session that are in the manifest now.
        ended: What ended it early; empty where it came to its end, or was ended by its user.
    """

    out: str
    clips: int = 0
    rows: int = 0
    labels: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    size_bytes: int = 0
    frames: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    cut_short: list[str] = field(default_factory=list)
    unusable: dict[str, int] = field(default_factory=dict)
    reconnects: dict[str, int] = field(default_factory=dict)
    repaired: tuple[str, ...] = ()
    ended: str = ""

    def add(self, clip: Finished) -> None:
        """A recording was kept."""
        self.clips += 1
        self.rows += len(clip.rows)
        self.seconds += clip.seconds
        self.size_bytes += clip.size_bytes
        self.labels = _sum(self.labels, Counter(row["label"] for row in clip.rows if row["label"]))
        self.frames = _sum(self.frames, clip.frames)

    def remove(self, clip: Finished) -> None:
        """A recording that had been kept was discarded."""
        self.clips -= 1
        self.rows -= len(clip.rows)
        self.seconds -= clip.seconds
        self.size_bytes -= clip.size_bytes
        labels = Counter(self.labels)
        labels.subtract(row["label"] for row in clip.rows if row["label"])
        self.labels = {label: count for label, count in labels.items() if count}
        self.frames = _sum(self.frames, {name: -count for name, count in clip.frames.items()})
        self.cut_short = [id_ for id_ in self.cut_short if id_ != clip.rows[0]["id"]]


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in (*one, *other)}


class _EndError(Exception):
    """Nothing more can be recorded; the message says why."""


class _OverError(_EndError):
    """Nothing more is to be recorded, as it should be."""


class _DiscardedError(Exception):
    """The last clip is to be discarded, and taken again."""


class Session:
    """Records from cameras into a folder; used in a ``with`` block, its ``events`` are what happens.

    Leaving the block ends the clip that runs and keeps what is there of it.

    Args:
        cameras: Names or URIs, ``NAME=CAMERA`` to give one a name; or cameras of one's own, by name.
        out: The folder, new or from an earlier session with the same cameras.
        plan: What is to be recorded.
        clock: Tells the time.

    Attributes:
        summary: What it has brought so far.

    Raises:
        ConfigError: A camera twice, or a name that cannot be a column of a manifest.
    """

    def __init__(
        self, cameras: Sequence[str] | Mapping[str, Camera], out: Path | str, plan: Plan, *, clock: Clock = MONOTONIC
    ) -> None:
        self.summary = Summary(out=str(out))
        self._plan, self._clock, self._out = plan, clock, expanded(out)
        self._sources = _sources(cameras, clock)
        self._shared = None if isinstance(cameras, Mapping) else SharedConfig.of(cameras)
        self._tracks: dict[str, Track] = {}
        self._captures: dict[str, Capture] = {}
        self._clips: list[Clip] = []  # the one that runs, and the one that follows
        self._stack = ExitStack()
        self._until_ns: int | None = None
        self._deaf_until_ns = 0

    def __enter__(self) -> Session:
        import_extra("av", "replay")
        check_free(self._out)
        with self._stack as stack:
            if self._shared is not None:  # as a camera file says: all threads begin inside
                stack.enter_context(scheduled(self._shared.cpus, self._shared.priority))
            stack.callback(self._stop_cameras)
            captures = [self._started(source) for source in self._sources]
            facts = [self._facts(source, *pair) for source, pair in zip(self._sources, captures, strict=True)]
            names = [fact.modality for fact in facts]
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise ConfigError(
                    f"two cameras in one column '{twice}'", "a name for each", "--camera left=URI --camera right=URI"
                )
            self._tracks = {name: track for name, (track, _) in zip(names, captures, strict=True)}
            self._captures = {name: capture for name, (_, capture) in zip(names, captures, strict=True)}
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
        """Record as planned; ends when the plan does, or when nothing more can be recorded.

        Args:
            keys: Gives the keys that were pressed; None: there is nobody to press any.

        Raises:
            CameraError: A camera delivers other frames than before.
        """
        if self._folder.repaired:
            yield Note(f"kept of a session that was killed: {', '.join(self._folder.repaired)}")
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
            if fault := next((track.fault for track in self._tracks.values() if track.fault is not None), None):
                raise fault from end

    def _timed(self, keys: Keys | None) -> Iterator[Event]:
        """Clips of a set length, the labels in turn; one that was cut short or discarded is taken again."""
        plan, pressed = self._plan, keys or (lambda: "")
        total = plan.count * len(plan.labels)
        wanted = list(islice(cycle(plan.labels), total))
        kept: list[tuple[Finished, bool]] = []  # and whether it is whole
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
        """Remove what was kept of a clip."""
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
        """One long recording, or one of a set length; after a fault another one."""
        while True:
            yield from self._all_there()
            keys()  # those of a pause mark nothing
            _, why = yield from self._recorded("", self._plan.trial, keys)
            if not why and self._plan.seconds is not None:
                return

    def _recorded(self, label: str, trial: int | None, keys: Keys) -> Generator[Event, None, tuple[Finished, str]]:
        """One clip; gives what was kept of it, and why it was cut short, where it was."""
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
            elif len(self._clips) == 1:  # else keys wait for the next one
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
            raise _EndError("a clip without two frames of a camera: longer --seconds, or a faster camera")
        return finished, why

    def _begin(self, label: str, trial: int | None, after: Clip | None = None) -> None:
        """A clip begins, now or where another one ends."""
        plan = self._plan
        begin_ns = self._clock.now_ns() + (0 if after is None else round(AHEAD_SECONDS * 1e9))
        counted = self._folder.next_trial(label, plan.subject) if trial is None and label else trial
        cells = {
            "label": label, "subject": plan.subject, "view": plan.view, "session": self._session,
            "trial": "" if counted is None else str(counted),
        }  # fmt: skip
        end_ns = None if plan.seconds is None else begin_ns + round(plan.seconds * 1e9)
        try:
            self._clips.append(Clip(self._folder, self._tracks, cells, begin_ns, end_ns, after))
        except ConfigError as error:
            raise _EndError(error.found) from error

    def _finished(self) -> Finished:
        """End the clip that runs; it is forgotten only then: an interrupt may come meanwhile."""
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
        """A key begins a piece; the same one or the space bar ends it, another one begins the next.

        Gives why the clip ends, where it does: one of a set length can be discarded.
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
        """Whether a key discards something: one that is held, or hit twice in haste, discards once."""
        if key not in DISCARD_KEYS:
            return False
        now_ns = self._clock.now_ns()
        is_deaf = now_ns < self._deaf_until_ns
        self._deaf_until_ns = now_ns + round(DEAF_SECONDS * 1e9)
        return not is_deaf

    def _forgotten(self, clip: Clip) -> Note:
        """The last piece of a recording is none."""
        piece = clip.forget()
        if piece is None:
            return Note("nothing to discard in this recording")
        self._folder.forget_trial(piece.label, self._plan.subject, piece.trial)
        return Note(f"{DISCARDED} {piece.label}")

    def _trial(self, label: str) -> int:
        """Number of a piece: rows are written at the end of their recording, so it counts by itself."""
        following = self._folder.next_trial(label, self._plan.subject)
        if self._plan.trial is not None:
            following = max(following, self._plan.trial)
        self._folder.note_trial(label, self._plan.subject, str(following))
        return following

    def _is_long(self, clip: Clip) -> bool:
        """Whether another file should follow; a piece that runs is not cut."""
        is_due = self._clock.now_ns() - clip.begin_ns > LONGEST_SECONDS * 1e9
        return is_due and clip.end_ns is None and clip.running is None

    def _is_late(self, clip: Clip) -> bool:
        """Whether its end is so long ago that no frame of it will come any more."""
        return clip.end_ns is not None and self._clock.now_ns() > clip.end_ns + LATE_SECONDS * 1e9

    def _all_there(self) -> Iterator[Event]:
        """Wait until every camera delivers."""
        told = ""
        while why := self._lost():
            if not self._plan.waits:
                raise _EndError(why)
            if why != told:
                told = why
                yield Note(f"waiting: {why}")
            yield self._status(None, waiting=why)
            self._clock.sleep(LOOK_SECONDS)
            self._check_end()
        if told:
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
        """Which camera does not deliver, and why; empty while all do."""
        now_ns = self._clock.now_ns()
        for source, (name, capture) in zip(self._sources, self._captures.items(), strict=True):
            trouble, last_ns = capture.trouble, self._tracks[name].last_ns
            if trouble is not None and trouble.reason in (Reason.CAMERA_LOST, Reason.FROZEN):
                return f"{name}: {trouble.detail}"
            patience_ns = timeouts_of(source.camera).read_timeout_ms * 1_000_000 + LATE_SECONDS * 1e9
            if last_ns is not None and now_ns - last_ns > patience_ns:
                return f"{name}: no frame for {duration(round(patience_ns))}"
        return ""

    def _check_end(self) -> None:
        """Raise where nothing more is to be recorded: the time is over, no room, a camera that has ended."""
        if self._until_ns is not None and self._clock.now_ns() >= self._until_ns:
            raise _OverError("the time is over" if self._plan.mode == "timed" else "")
        if self._left_bytes() <= 0:
            raise _EndError(self._room.told(self._under_way()))
        for name, capture in self._captures.items():
            if self._tracks[name].fault is not None:
                raise _EndError(f"{name} delivers other frames than before")
            if capture.ended:
                if capture.error is None:
                    raise _OverError(f"{name} has ended")
                raise _EndError(f"{name}: {capture.error.found}")

    def _check_room(self) -> None:
        """Refuse to begin without room, before anything is made."""
        try:
            room = self._made_room()
            left_bytes = room.left_bytes()
        except OSError as error:
            raise unwritable(self._out, error) from error
        if left_bytes < LEAST_BYTES:
            raise ConfigError(
                f"{self._out} has no room: {room.told()}",
                f"{LEAST_BYTES / 1e6:g} MB to begin with",
                "free space, another --out, or other bounds",
            )

    def _made_room(self) -> Room:
        return Room(self._out, self._plan.most_bytes, self._plan.keep_free_bytes)

    def _left_bytes(self) -> int:
        return self._room.left_bytes(self._under_way())

    def _under_way(self) -> int:
        return sum(clip.size_bytes for clip in self._clips)

    def _status(self, clip: Clip | None, waiting: str = "") -> Status:
        now_ns = self._clock.now_ns()
        label = "" if clip is None else clip.label
        seconds = None if clip is None else (now_ns - clip.begin_ns) / 1e9
        cameras = {name: self._camera_status(name, now_ns) for name in self._tracks}
        return Status(cameras, self._left_bytes(), seconds, label, waiting)

    def _camera_status(self, name: str, now_ns: int) -> CameraStatus:
        track, capture = self._tracks[name], self._captures[name]
        trouble = capture.trouble
        age_ms = 0.0 if track.last_ns is None else (now_ns - track.last_ns) / 1e6
        return CameraStatus(
            track.frames, track.fps, capture.counters.dropped, age_ms, "" if trouble is None else trouble.detail
        )

    def _started(self, source: _Source) -> tuple[Track, Capture]:
        """Open a camera and begin to read it."""
        camera = source.camera
        camera.open()
        source.is_open = True
        track = Track(camera.name)
        capture = Capture(camera, timeouts_of(camera), self._clock, mailbox=track)
        source.capture = capture
        if not camera.live:
            raise ConfigError(
                f"camera {printable(camera.name)} is not live",
                "frames that come by themselves",
                "take realtime=false out",
            )
        capture.start()
        return track, capture

    def _facts(self, source: _Source, track: Track, capture: Capture) -> CameraFacts:
        """What a camera's first frame tells."""
        frame = self._first(source, track, capture)
        height, width = frame.image.shape[:2]
        dtype, channels = str(frame.image.dtype), 1 if frame.image.ndim == 2 else 3
        band = band_seen(source.name, source.camera.band, dtype, channels)
        return CameraFacts(
            column(source.name, band), band, dtype, channels, width, height, source.uri,
            focal_of(source.camera, source.config),
        )  # fmt: skip

    def _first(self, source: _Source, track: Track, capture: Capture) -> Frame:
        until_ns = self._clock.now_ns() + round(FIRST_FRAME_SECONDS * 1e9)
        while track.first is None:
            if capture.error is not None:
                raise capture.error
            if capture.ended or self._clock.now_ns() > until_ns:
                why = "" if capture.trouble is None else f": {capture.trouble.detail}"
                raise CameraError(
                    f"camera {printable(source.camera.name)} gives no frame{why}", "frames", "kd-edge cameras doctor"
                )
            self._clock.sleep(LOOK_SECONDS / 5)
        return track.first

    def _stop_cameras(self) -> None:
        stop_together([source.capture for source in self._sources if source.capture is not None])
        for source in self._sources:
            if source.capture is None and source.is_open:
                with suppress(Exception):
                    source.camera.close()

    def _note_losses(self) -> None:
        for name, capture in self._captures.items():
            counters = capture.counters
            self.summary.dropped[name] = counters.dropped
            self.summary.unusable[name] = counters.damaged + counters.frozen + counters.misdated
            self.summary.reconnects[name] = counters.reconnects


@dataclass(slots=True)
class _Source:
    """A camera, and what the user says about it."""

    camera: Camera
    name: str | None
    config: CameraConfig | None = None
    uri: str = ""
    is_open: bool = False
    capture: Capture | None = None


def _sources(cameras: Sequence[str] | Mapping[str, Camera], clock: Clock) -> list[_Source]:
    """Cameras that are not open yet."""
    if isinstance(cameras, Mapping):
        found = [_Source(camera, name) for name, camera in cameras.items()]
    else:
        found = [_source(asked, clock) for asked in cameras]
    if not found:
        raise ConfigError("no camera", "at least one", "name one: kd-edge cameras shows them")
    for kind, values in (("called", [s.name for s in found]), ("at", [s.uri for s in found])):
        if twice := next((value for value in values if value and values.count(value) > 1), None):
            raise ConfigError(f"two cameras {kind} '{printable(twice)}'", "each camera once", "correct --camera")
    for source in found:
        if source.name is not None:
            column(source.name, "rgb")
    return found


def _source(asked: str, clock: Clock) -> _Source:
    config = camera_config(asked)
    name, camera = source_name(asked)
    is_named = name != camera or ":" not in name
    is_grey = config.band in ("nir", "lwir", "depth")
    wanted = Wanted(channels=1) if is_grey else Wanted()
    made = make_camera(name, config, wanted, realtime=True, clock=clock)
    return _Source(made, name.removesuffix(".toml").rpartition("/")[2] if is_named else None, config, shown(config.uri))
