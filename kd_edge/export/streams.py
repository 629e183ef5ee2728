"""Streams labelled frame by frame, as a robot sees them: does what ships answer as the float32 graph does?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from kd_edge import metrics
from kd_edge.artifact import StreamFigures
from kd_edge.data import Sample
from kd_edge.engines import Engine, carry
from kd_edge.errors import ExportError
from kd_edge.export.recordings import Recordings, spread
from kd_edge.models.saved import SavedStudent
from kd_edge.preprocess import recorded_input
from kd_edge.sampling import gather
from kd_edge.types import Clip, Float32, Int64

_STREAMS = 4
"""Streams that are labelled frame by frame: of each so many clips as it takes, evenly over the classes."""

_AT_ONCE = 64
"""Frames of a stream that are prepared together."""


def stream_figures(
    student: SavedStudent, recordings: Recordings, exact: Engine, shipped: Engine, frames: int
) -> StreamFigures:
    """Label every frame of clips that follow one another, as a robot sees them, with two graphs of one student.

    Args:
        student: Says how frames become the network's input.
        recordings: Its clips; those that an export is judged by are taken.
        exact: The float32 step.
        shipped: The step in the precision that ships.
        frames: How many, at least, where there are so many.
    """
    ours: list[int] = []
    theirs: list[int] = []
    truth: list[int] = []
    of: list[str] = []
    windows = [_Window(engine) for engine in (exact, shipped)]
    for stream in _streams(recordings, student, frames):
        for window in windows:
            window.restart()
        for sample, inputs, stamps_ns in stream:
            for frame, stamp_ns in zip(inputs, stamps_ns.tolist(), strict=True):
                answers = [window.label(frame, stamp_ns) for window in windows]
                if answers[0] is not None and answers[1] is not None:
                    theirs.append(answers[0])
                    ours.append(answers[1])
                    truth.append(sample.label)
                    of.append(sample.id)
    if not truth:
        raise ExportError(
            f"no window of {student.spec.clip_seconds:.2f} s is ever full on the {recordings.side}",
            "clips that fill it when they follow one another",
            "set stream_frames = 0 in a profile of your own",
        )
    same, right, before = (np.array(a) == np.array(b) for a, b in ((ours, theirs), (ours, truth), (theirs, truth)))
    agreement = metrics.paired_interval(same, np.ones_like(same), of)
    low, high = metrics.proportion_interval(int(same.sum()), len(same))  # says something where all frames agree, too
    change = metrics.paired_interval(right, before, of)
    return StreamFigures(
        clips=len(set(of)),
        frames=len(truth),
        agreement=1 + agreement.difference,
        agreement_interval=(min(low, 1 + agreement.low), max(high, 1 + agreement.high)),
        accuracy=float(np.mean(right)),
        accuracy_change=change.difference,
        accuracy_change_interval=(change.low, change.high),
    )


class _Window:
    """The features a step is handed back, of one engine and one stream."""

    def __init__(self, engine: Engine) -> None:
        self._manifest, self._binding = engine.manifest, engine.bind(1)
        self.restart()

    def restart(self) -> None:
        self._binding.reset()
        self._stamps_ns: list[int] = []
        self._features: list[Float32] = []

    def label(self, frame: Float32, stamp_ns: int) -> int | None:
        """The class of the window that ends with a frame (C, S, S); None while the window is not full."""
        manifest, binding = self._manifest, self._binding
        if binding.states_in and self._stamps_ns and stamp_ns - self._stamps_ns[-1] < manifest.spacing_ns:
            return None  # such a model is clocked by its segments
        stamps_ns = np.array([*self._stamps_ns, stamp_ns], dtype=np.int64)
        at = gather(stamps_ns, stamp_ns, manifest.segments, manifest.spacing_ns)
        binding.frame[0] = frame
        if at is not None:
            for row, older in enumerate(at[:-1]):
                binding.past[0, row] = self._features[min(older, len(self._features) - 1)]
        binding.run()
        carry(binding)
        self._stamps_ns.append(stamp_ns)
        self._features.append(binding.feature[0].copy())
        oldest_ns = stamp_ns - manifest.segments * manifest.spacing_ns
        while self._stamps_ns[0] < oldest_ns:
            del self._stamps_ns[0], self._features[0]
        return None if at is None else int(binding.logits[0].argmax())


def _streams(
    recordings: Recordings, student: SavedStudent, frames: int
) -> Iterator[Iterator[tuple[Sample, Float32, Int64]]]:
    """Clips of the same subject and view, one behind the other: network inputs (F, C, S, S) and stamps."""
    for samples in _enough(recordings, student, frames):
        yield _joined(recordings, student, samples)


def _joined(
    recordings: Recordings, student: SavedStudent, samples: Sequence[Sample]
) -> Iterator[tuple[Sample, Float32, Int64]]:
    now_ns = 0
    for sample, clip in recordings.opened(samples):
        stamps_ns = clip.stamps_ns - clip.stamps_ns[0] + now_ns
        now_ns = int(stamps_ns[-1]) + _period_ns(clip)
        for at in np.split(np.arange(len(clip)), range(_AT_ONCE, len(clip), _AT_ONCE)):
            yield sample, recorded_input(clip, at, student.spec.preprocess), stamps_ns[at]


def _period_ns(clip: Clip) -> int:
    return int(np.median(np.diff(clip.stamps_ns))) if len(clip) > 1 else 33_333_333


def _enough(recordings: Recordings, student: SavedStudent, frames: int) -> list[list[Sample]]:
    """Clips of a few subjects before one camera each, whose windows are full in about so many frames."""
    _, first = next(recordings.opened(recordings.compared))
    before_full = -(-round(student.spec.clip_seconds * 1e9) // (_period_ns(first) * len(first)))  # clips
    ordered = sorted(recordings.compared, key=lambda s: (s.subject, s.view, s.id))
    groups = [list(same) for _, same in groupby(ordered, key=lambda s: (s.subject, s.view))]
    chosen = [
        groups[i] for i in np.unique(np.linspace(0, len(groups) - 1, min(_STREAMS, len(groups))).round().astype(int))
    ]
    each = before_full + -(-frames // (len(chosen) * len(first)))
    return [sorted(spread(group, each), key=lambda s: s.id) for group in chosen]
