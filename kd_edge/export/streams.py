"""Compare the exported graph with the float32 graph on streams, labelled frame by frame as on a robot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from kd_edge import metrics
from kd_edge.artifact import StreamFigures
from kd_edge.data import Sample
from kd_edge.engines import Engine, carry
from kd_edge.errors import ExportError
from kd_edge.export.recordings import Recordings, evenly, spread
from kd_edge.models.saved import SavedStudent
from kd_edge.preprocess import recorded_input
from kd_edge.sampling import gather
from kd_edge.types import Clip, Float32, Int64

_STREAMS = 4
"""Smallest number of streams; each has as many clips as needed, evenly over the classes."""

_CHUNK = 64
"""Number of frames of a stream that are prepared together."""


class StreamComparison:
    """Streams of consecutive clips, with the float32 graph's label of every frame.

    Args:
        student: The student, for preprocessing the frames.
        recordings: Its clips; the compared ones are used.
        exact: An engine with the float32 step.
        frames: Approximate number of frames to label, if there are enough.

    Raises:
        ExportError: No window is ever full.
    """

    def __init__(self, student: SavedStudent, recordings: Recordings, exact: Engine, frames: int) -> None:
        self._student, self._recordings = student, recordings
        self._streams = _choose_clips(recordings, student, frames)
        self._exact = self._classify(exact)
        if not self._exact:
            raise ExportError(
                f"no window of {student.spec.clip_seconds:.2f} s is ever full on the {recordings.side}",
                "clips that fill it when they follow one another",
                "set stream_frames = 0 in a profile of your own",
            )

    def figures(self, shipped: Engine) -> StreamFigures:
        """Compare the labels of the exported step on the same frames."""
        labels = self._classify(shipped)
        clip_ids = [sample.id for sample, _ in labels]
        truth = np.array([sample.label for sample, _ in labels])
        found, exact = (np.array([label for _, label in pairs]) for pairs in (labels, self._exact))
        same, right, right_before = found == exact, found == truth, exact == truth
        agreement = metrics.paired_interval(same, np.ones_like(same), clip_ids)
        low, high = metrics.proportion_interval(int(same.sum()), len(same))  # has a width even if all frames agree
        change = metrics.paired_interval(right, right_before, clip_ids)
        return StreamFigures(
            clips=len(set(clip_ids)),
            frames=len(labels),
            agreement=1 + agreement.difference,
            agreement_interval=(min(low, 1 + agreement.low), max(high, 1 + agreement.high)),
            accuracy=float(np.mean(right)),
            accuracy_change=change.difference,
            accuracy_change_interval=(change.low, change.high),
        )

    def _classify(self, engine: Engine) -> list[tuple[Sample, int]]:
        """Classify every frame whose window is full; return its clip and class."""
        found: list[tuple[Sample, int]] = []
        for samples in self._streams:
            window = _Window(engine)
            for sample, inputs, stamps_ns in _join(self._recordings, self._student, samples):
                for frame, stamp_ns in zip(inputs, stamps_ns.tolist(), strict=True):
                    label = window.label(frame, stamp_ns)
                    if label is not None:
                        found.append((sample, label))
        return found


class _Window:
    """The past features of one engine on one stream."""

    def __init__(self, engine: Engine) -> None:
        self._manifest, self._binding = engine.manifest, engine.bind(1)
        self._stamps_ns: list[int] = []
        self._features: list[Float32] = []

    def label(self, frame: Float32, stamp_ns: int) -> int | None:
        """Classify the window that ends with a frame (C, S, S); None while the window is not full."""
        manifest, binding = self._manifest, self._binding
        if binding.states_in and self._stamps_ns and stamp_ns - self._stamps_ns[-1] < manifest.spacing_ns:
            return None  # a model with states advances one segment spacing at a time
        stamps_ns = np.array([*self._stamps_ns, stamp_ns], dtype=np.int64)
        at = gather(stamps_ns, stamp_ns, manifest.segments, manifest.spacing_ns)
        binding.frame[0] = frame
        if at is not None:
            for row, older in enumerate(at[:-1]):
                binding.past[0, row] = self._features[older]
        binding.run()
        carry(binding)
        self._stamps_ns.append(stamp_ns)
        self._features.append(binding.feature[0].copy())
        oldest_ns = stamp_ns - manifest.segments * manifest.spacing_ns
        while self._stamps_ns[0] < oldest_ns:
            del self._stamps_ns[0], self._features[0]
        return None if at is None else int(binding.logits[0].argmax())


def _join(
    recordings: Recordings, student: SavedStudent, samples: Sequence[Sample]
) -> Iterator[tuple[Sample, Float32, Int64]]:
    """Concatenate clips: yield network inputs (F, C, S, S) and stamps (F,), a few frames at a time."""
    now_ns = 0
    for sample, clip in recordings.opened(samples):
        stamps_ns = clip.stamps_ns - clip.stamps_ns[0] + now_ns
        now_ns = int(stamps_ns[-1]) + _period_ns(clip)
        for at in np.split(np.arange(len(clip)), range(_CHUNK, len(clip), _CHUNK)):
            yield sample, recorded_input(clip, at, student.spec.preprocess), stamps_ns[at]


def _period_ns(clip: Clip) -> int:
    return int(np.median(np.diff(clip.stamps_ns))) if len(clip) > 1 else 33_333_333


def _choose_clips(recordings: Recordings, student: SavedStudent, frames: int) -> list[list[Sample]]:
    """Choose the clips of each stream (one subject and view) so that windows are full in about this many frames."""
    _, first = next(recordings.opened(recordings.compared))
    before_full = -(-round(student.spec.clip_seconds * 1e9) // (_period_ns(first) * len(first)))  # clips
    ordered = sorted(recordings.compared, key=lambda s: (s.subject, s.view, s.id))
    groups = [list(same) for _, same in groupby(ordered, key=lambda s: (s.subject, s.view))]
    usable = sum(max(0, len(group) - before_full) for group in groups) * len(first)  # frames with a full window
    chosen = evenly(groups, max(_STREAMS, -(-len(groups) * frames // max(1, usable))))
    per_stream = before_full + -(-frames // (len(chosen) * len(first)))  # clips
    return [sorted(spread(group, per_stream), key=lambda s: s.id) for group in chosen]
