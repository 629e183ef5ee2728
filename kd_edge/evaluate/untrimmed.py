"""Evaluation of action detection in long videos, which are streamed and scored like PKU-MMD's evaluator does.

Steps for a video: every frame is encoded once per window length, by the code a robot runs -> window probabilities ->
one row per frame, that of the window with the nearest centre -> proposals (``spotting``) -> official scores.

F1 counts every proposal, and proposals use a low threshold for the sake of average precision; therefore all scores are
also reported for the proposals above the model's unknown threshold, which was fitted on validation clips.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kd_edge import detection
from kd_edge.artifact import Artifact, Manifest
from kd_edge.data.dataset import LongVideo, LongVideos
from kd_edge.detection import Detection
from kd_edge.engines import Engine, EngineName, open_engine
from kd_edge.errors import ConfigError, DataError
from kd_edge.evaluate.spotting import Spotting, VideoScores, spot, write_proposals
from kd_edge.files import check_free
from kd_edge.runtime import Recognizer
from kd_edge.sampling import nearest
from kd_edge.types import Float32, Image, Int64

Progress = Callable[[int, int, int], None]
"""Called with (frames done, videos done, total videos)."""

FRAMES_PER_REPORT = 32


@dataclass(frozen=True, slots=True)
class DetectionScore:
    """The official scores of a set of proposals, as fractions.

    Attributes:
        proposals: Number of proposals.
        ap: Average precision over all videos and classes.
        f1: Harmonic mean of precision and recall of all these proposals.
        map_action: Mean of the average precision of each class.
        map_video: Mean of the average precision of each video with an action in it; one without a proposal counts 0.
        two_d_ap: Mean of the average precision over the overlaps 0.05, 0.10 .. 1.00.
    """

    proposals: int
    ap: float
    f1: float
    map_action: float
    map_video: float
    two_d_ap: float


@dataclass(frozen=True, slots=True)
class DetectionEvaluation:
    """Detection scores of one model on the long videos of a split.

    Attributes:
        settings: Settings of the detection.
        iou: Minimum overlap (IoU) of a match.
        actions: Number of labelled actions.
        every: Scores of all proposals.
        confident: Scores of the proposals with at least ``unknown_threshold``; None for a model without a fitted one.
        unknown_threshold: The model's threshold for unknown.
        per_class: Average precision by class name, of classes that occur.
        without_proposal: Number of videos in which nothing was found.
        frames: Frames seen.
        frames_per_second: Seen per second, decoding included.
        skipped: Video -> why it could not be read; it counts as one without a proposal.
        engine: What ran the model, and its version.
    """

    model: str
    dataset: str
    split: str
    modality: str
    precision: str
    clip_seconds: float
    settings: Spotting
    iou: float
    videos: int
    actions: int
    every: DetectionScore
    confident: DetectionScore | None
    unknown_threshold: float
    per_class: dict[str, float]
    without_proposal: int
    frames: int
    frames_per_second: float
    skipped: dict[str, str] = field(default_factory=dict)
    engine: str = ""


def detect(
    artifact: Artifact,
    source: LongVideos,
    dataset: str,
    split: str,
    *,
    settings: Spotting,
    iou: float = 0.5,
    engine: EngineName = "onnxruntime",
    threads: int = 1,
    write: Path | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> DetectionEvaluation:
    """Detect the actions in the long videos of a split's test side and score them.

    Args:
        artifact: The model.
        source: Where the videos come from; labels as the model's.
        dataset: Its name.
        split: Protocol of the data set.
        settings: How intervals are made.
        iou: Least overlap of a match, in (0, 1].
        engine: What runs the model.
        threads: Of the engine.
        write: Folder for the proposals as text, see ``write_proposals``.
        name: What to call the model; None takes the artifact's path.
        progress: Told how far it is.

    Raises:
        ConfigError: An overlap out of range.
        DataError: No video can be read, or the folder holds something already or cannot be written.
    """
    if not 0 < iou <= 1:
        raise ConfigError(f"an overlap of {iou:g}", "a number above 0 and at most 1", "for example --iou 0.5")
    if write is not None:
        check_free(write, "--write", DataError)
    manifest = artifact.manifest
    videos = source.long_videos(split)
    found: list[Detection] = []
    skipped: dict[str, str] = {}
    with open_engine(artifact, engine=engine, threads=threads) as opened:
        recognizers = _recognizers(manifest, opened, settings.scales)
        frames, start = 0, time.perf_counter()
        for done, video in enumerate(videos):
            report = None if progress is None else _counting(progress, frames, done, len(videos))
            try:
                scores = watch(recognizers, source.frames(video, manifest.modality), report)
            except DataError as error:
                skipped[video.id] = error.found
                continue
            frames += len(scores.stamps_ns)
            found += spot(video.id, scores, settings)
    seconds = time.perf_counter() - start
    if len(skipped) == len(videos):
        first = next(iter(skipped.items()), ("none", "the split has no long video"))
        raise DataError(
            f"no long video of split {split} can be read (first: {first[0]}: {first[1]})",
            "readable recordings",
            "kd-edge data check",
        )
    if write is not None:
        write_proposals(found, [video.id for video in videos], write)
    truth, classes = ground_truth(videos), len(manifest.labels)
    confident = [d for d in found if d.score >= manifest.unknown_threshold]
    return DetectionEvaluation(
        model=name or str(artifact.path),
        dataset=dataset,
        split=split,
        modality=manifest.modality,
        precision=manifest.precision,
        clip_seconds=manifest.clip_seconds,
        settings=settings,
        iou=iou,
        videos=len(videos),
        actions=len(truth),
        every=score(found, truth, classes, iou),
        confident=score(confident, truth, classes, iou) if manifest.unknown_threshold > 0 else None,
        unknown_threshold=manifest.unknown_threshold,
        per_class=_per_class(found, truth, manifest.labels, iou),
        without_proposal=len(videos) - len({d.video for d in found}),
        frames=frames,
        frames_per_second=frames / max(seconds, 1e-9),
        skipped=skipped,
        engine=opened.name,
    )


def ground_truth(videos: Iterable[LongVideo]) -> list[Detection]:
    """The labelled actions of videos, in frames."""
    return [Detection(v.id, a.label, a.start, a.end) for v in videos for a in v.actions]


def score(found: Sequence[Detection], truth: Sequence[Detection], classes: int, iou: float) -> DetectionScore:
    """Compute the official scores.

    Args:
        found: Proposals; those in videos without any action count against all scores except ``map_video``.
        truth: The labelled actions.
        classes: Number of classes.
        iou: Minimum overlap (IoU) of a match, in (0, 1].
    """
    labelled = {t.video for t in truth}
    return DetectionScore(
        proposals=len(found),
        ap=detection.detection_average_precision(found, truth, iou=iou),
        f1=detection.detection_f1(found, truth, iou=iou),
        map_action=detection.map_action(found, truth, iou=iou, classes=classes),
        map_video=detection.map_video([d for d in found if d.video in labelled], truth, iou=iou),
        two_d_ap=detection.two_d_average_precision(found, truth),
    )


def _per_class(
    found: Sequence[Detection], truth: Sequence[Detection], labels: Sequence[str], iou: float
) -> dict[str, float]:
    parts = {c: ([d for d in found if d.label == c], [t for t in truth if t.label == c]) for c in range(len(labels))}
    return {
        labels[c]: detection.detection_average_precision(mine, real, iou=iou)
        for c, (mine, real) in parts.items()
        if real
    }


# ------------------------------------------------------------------------------------------------- probabilities


def watch(
    recognizers: Sequence[Recognizer],
    frames: Iterable[tuple[Image, int]],
    progress: Callable[[int], None] | None = None,
) -> VideoScores:
    """Push a video through recognisers of several window lengths.

    Args:
        recognizers: One per window length; their state of the video is cleared at the end.
        frames: (image, stamp in ns) in order.
        progress: Called with the number of frames done, every few frames.

    Raises:
        DataError: There are no frames, or they cannot be decoded.
    """
    stamps: list[int] = []
    centres: list[list[int]] = [[] for _ in recognizers]
    rows: list[list[Float32]] = [[] for _ in recognizers]
    source = "video"
    try:
        for image, stamp_ns in frames:
            stamps.append(int(stamp_ns))
            for recognizer, middle, mine in zip(recognizers, centres, rows, strict=True):
                prediction = recognizer.push(image, int(stamp_ns), source)
                if prediction is not None and prediction.index >= 0:
                    middle.append(int(stamp_ns) - _half_span_ns(recognizer.manifest))
                    mine.append(prediction.probabilities)
            if progress is not None and len(stamps) % FRAMES_PER_REPORT == 0:
                progress(len(stamps))
    finally:
        for recognizer in recognizers:
            recognizer.forget(source)
    if not stamps:
        raise DataError("a video without a frame", "a recording", "kd-edge data check")
    at = np.array(stamps, dtype=np.int64)
    tables = [_per_frame(at, c, r, x.manifest) for x, c, r in zip(recognizers, centres, rows, strict=True)]
    return VideoScores(at, tuple(tables), tuple(x.manifest.clip_seconds for x in recognizers))


def _half_span_ns(manifest: Manifest) -> int:
    """Time from the centre of a window to its newest segment."""
    return (manifest.segments - 1) * manifest.spacing_ns // 2


def _per_frame(stamps_ns: Int64, centres: list[int], rows: list[Float32], manifest: Manifest) -> Float32:
    """Each frame's row (N, K): that of the nearest window, or 0 if the frame is in no window."""
    table: Float32 = np.zeros((len(stamps_ns), len(manifest.labels)), dtype=np.float32)
    if not centres:
        return table
    middles = np.array(centres, dtype=np.int64)
    chosen = nearest(middles, stamps_ns)
    inside = 2 * np.abs(middles[chosen] - stamps_ns) <= manifest.clip_seconds * 1e9
    for frame in np.flatnonzero(inside):
        table[frame] = rows[chosen[frame]]
    np.nan_to_num(table, copy=False, nan=0.0)  # a window whose logits are not finite says nothing
    return table


def _recognizers(manifest: Manifest, engine: Engine, scales: Sequence[float]) -> list[Recognizer]:
    """Create one recogniser per window length, all on one engine."""
    lengths = [scale * manifest.clip_seconds for scale in scales]
    windows = [manifest.model_copy(update={"clip_seconds": seconds}) for seconds in lengths]
    return [Recognizer(window, engine, smooth_ms=0) for window in windows]  # an interval needs every window by itself


def _counting(progress: Progress, before: int, done: int, total: int) -> Callable[[int], None]:
    return lambda frames: progress(before + frames, done, total)
