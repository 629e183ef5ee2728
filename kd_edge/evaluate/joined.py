"""Evaluation of test clips as a robot would see them, by the last label of each.

The clips are joined into one stream per subject, or streamed as part of the recordings they were cut from.
"""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from kd_edge import metrics
from kd_edge.artifact import Artifact
from kd_edge.data import ActionInterval, Sample
from kd_edge.engines import EngineName
from kd_edge.runtime import Recognizer
from kd_edge.runtime.tally import Tally, together
from kd_edge.types import Clip, Int64

if TYPE_CHECKING:
    from typing import Self


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracy of one way of evaluating.

    Attributes:
        clips: Number of clips.
        accuracy: Share of correctly classified clips.
        macro_f1: Mean F1 over the classes that occur, see ``kd_edge.metrics.macro_f1``.
    """

    clips: int
    accuracy: float
    macro_f1: float


@dataclass(frozen=True, slots=True)
class LiveScore:
    """Frame-by-frame scores of the labels that a robot would have seen.

    Attributes:
        accuracy: Share of right labels among those the robot may act on.
        false_changes_per_minute: Changes of the label beyond those of the action.
        delay_seconds: Mean time from a change of the action to the first right label.
        changes: Number of changes of the action.
        noticed: Number of these changes that were followed by a right label before the next one.
        labelled: Share of frames with a label the robot may act on; the others are unknown, degraded or warming.
    """

    accuracy: float
    false_changes_per_minute: float
    delay_seconds: float
    changes: int
    noticed: int
    labelled: float

    @classmethod
    def of(cls, tally: Tally) -> LiveScore:
        """Create the scores from a tally."""
        return cls(
            tally.accuracy,
            tally.false_changes_per_minute,
            tally.delay_seconds,
            tally.real_changes,
            tally.noticed,
            tally.labelled,
        )


@dataclass(frozen=True, slots=True)
class FrameTime:
    """Time from a camera frame to its label, with all work except the engine's in one thread.

    Attributes:
        median_ms: Median over all frames.
        p99_ms: 99th percentile over all frames.
        period_ms: Typical time from one recorded frame to the next, the budget of a frame.
        threads: Threads of the engine.
    """

    median_ms: float
    p99_ms: float
    period_ms: float
    threads: int


@dataclass(frozen=True, slots=True)
class StreamingScore:
    """Each subject's clips joined into one stream, or whole recordings; the last label inside each clip counts.

    Attributes:
        every: Score of all clips.
        window_filled: Score of clips at least as long as the window.
        shorter: Score of clips shorter than the window, part of which shows the previous clip; None if there are none.
        unlabelled: Number of clips without a label (the stream was still warming up); they count as wrong.
        unknown: Number of clips that were unknown at their end (unsure, or unlike the training data); scored by their
            best guess.
        live: Scores over all frames, not only the last of each clip.
        frames: Number of pushed frames.
        frames_per_second: Frames pushed per second of computing.
        frame: Time per frame; None if no clip was streamed.
    """

    every: Score
    window_filled: Score | None
    shorter: Score | None
    unlabelled: int
    unknown: int
    live: LiveScore
    frames: int
    frames_per_second: float
    frame: FrameTime | None = None


class JoinedStream:
    """Context manager that feeds joined clips to a recogniser and records the last label inside each.

    Args:
        artifact: The model.
        threads: Threads of the engine.
        engine: Engine that runs the model.
        smooth_ms: How long a window counts in a label, see ``Recognizer.load``.
    """

    def __init__(
        self, artifact: Artifact, threads: int, engine: EngineName = "onnxruntime", smooth_ms: float | None = None
    ) -> None:
        self._recognizer = Recognizer.load(
            artifact, engine=engine, threads=threads, self_test="off", smooth_ms=smooth_ms
        )
        self._window_seconds = artifact.manifest.clip_seconds
        self._names = artifact.manifest.labels
        self._tallies: list[Tally] = []  # one per subject and view
        self._next_ns: dict[str, int] = {}
        self._labels: list[int] = []
        self._guesses: list[int] = []
        self._short: list[bool] = []
        self._states: Counter[str] = Counter()
        self._threads = threads
        self._took_ns, self._periods_ns = array("q"), array("q")  # of every frame, of every clip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._recognizer.close()

    def watch(self, sample: Sample, clip: Clip) -> None:
        """Push a clip after the last one of its subject and view; clips must be grouped by subject and view."""
        source = f"{sample.subject} {sample.view}"
        self._begin(source)
        moved = Clip(clip.frames, clip.stamps_ns + self._next_ns[source])
        self._follow(source, moved, [ActionInterval(sample.label, 0, len(clip) - 1)])
        self._next_ns[source] = int(moved.stamps_ns[-1]) + _period(clip.stamps_ns)

    def watch_sequence(self, name: str, clip: Clip, actions: Sequence[ActionInterval]) -> None:
        """Push a whole recording; frames between its actions have no known truth and are not counted.

        Args:
            name: Name of the recording.
            clip: All frames of the recording.
            actions: Intervals of its actions, in order of time.
        """
        self._begin(name)
        self._follow(name, clip, actions)

    def _begin(self, source: str) -> None:
        for finished in self._next_ns.keys() - {source}:  # subjects come one after the other
            self._recognizer.forget(finished)
            del self._next_ns[finished]
        if source not in self._next_ns:
            self._tallies.append(Tally())
            self._next_ns[source] = 0

    def _follow(self, source: str, clip: Clip, actions: Sequence[ActionInterval]) -> None:
        """Push frames and record the last label inside each action."""
        period = _period(clip.stamps_ns)
        action_of = np.full(len(clip), -1)
        for k, action in enumerate(actions):
            action_of[action.start : action.end + 1] = k
        guesses, states = [-1] * len(actions), ["unlabelled"] * len(actions)
        for image, stamp, k in zip(clip.frames, clip.stamps_ns, action_of.tolist(), strict=True):
            truth = self._names[actions[k].label] if k >= 0 else None
            began_ns = time.perf_counter_ns()
            prediction = self._recognizer.push(image, int(stamp), source=source, truth=truth)
            self._took_ns.append(time.perf_counter_ns() - began_ns)
            if prediction is None:
                continue
            self._tallies[-1].add(prediction)
            if k >= 0 and prediction.index >= 0:
                guesses[k], states[k] = prediction.index, prediction.state.value
        spans_ns = [int(clip.stamps_ns[a.end] - clip.stamps_ns[a.start]) + period for a in actions]
        self._periods_ns.append(period)
        self._labels += [action.label for action in actions]
        self._guesses += guesses
        self._short += [span / 1e9 < self._window_seconds for span in spans_ns]
        self._states.update(states)

    def score(self) -> StreamingScore:
        """Compute the scores of all streamed clips."""
        classes = len(self._names)
        labels, guesses, short = np.array(self._labels), np.array(self._guesses), np.array(self._short)
        return StreamingScore(
            every=score_of(labels, guesses, classes),
            window_filled=score_of(labels[~short], guesses[~short], classes) if (~short).any() else None,
            shorter=score_of(labels[short], guesses[short], classes) if short.any() else None,
            unlabelled=self._states["unlabelled"],
            unknown=self._states["unknown"],
            live=LiveScore.of(together(self._tallies)),
            frames=len(self._took_ns),
            frames_per_second=len(self._took_ns) / max(sum(self._took_ns) / 1e9, 1e-9),
            frame=self._frame_time() if self._took_ns else None,
        )

    def _frame_time(self) -> FrameTime:
        median_ms, p99_ms = np.percentile(np.array(self._took_ns) / 1e6, [50, 99]).tolist()
        return FrameTime(median_ms, p99_ms, float(np.median(self._periods_ns)) / 1e6, self._threads)


def _period(stamps_ns: Int64) -> int:
    return int(np.median(np.diff(stamps_ns))) if len(stamps_ns) > 1 else 1_000_000_000 // 30


def score_of(labels: Int64, guesses: Int64, classes: int) -> Score:
    """Compute accuracy and macro F1; a clip without a label (-1) is wrong and counts as no class's prediction.

    Args:
        labels: (N,) int64.
        guesses: (N,) int64, -1 for a clip without a label.
        classes: Number of classes.
    """
    return Score(len(labels), metrics.accuracy(guesses, labels), metrics.macro_f1(guesses, labels, classes))
