"""Metrics of action detection in untrimmed video, exactly as PKU-MMD's published evaluator computes them.

The public names are those of ``kd_edge.metrics``. Source: Liu et al., "PKU-MMD", 2017, and its evaluation script; where
that script skips videos without a proposal file or divides by zero, the value here is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kd_edge.errors import KdEdgeError

OVERLAPS = tuple(k * 0.05 for k in range(1, 21))
"""Overlaps 0.05, 0.10 .. 1.00 over which the 2D-AP averages.

Computed by multiplication as in the evaluator: seven of them (0.15, 0.3, 0.35, 0.6, 0.7, 0.85, 0.95) exceed their
nominal value by the last bit, so that a proposal with exactly the nominal overlap does not match at it.
"""


@dataclass(frozen=True, slots=True)
class Detection:
    """One action interval: a proposal, or a ground truth (whose score is ignored).

    Attributes:
        video: Name of the video.
        label: Index of the class.
        start: First frame or second.
        end: Last frame or second, after ``start``, in the same unit.
        score: Confidence.
    """

    video: str
    label: int
    start: float
    end: float
    score: float = 1.0


def interval_overlap(a: Detection, b: Detection) -> float:
    """Intersection over hull, ``(min(ends) - max(starts)) / (max(ends) - min(starts))``; negative when disjoint."""
    hull = max(a.end, b.end) - min(a.start, b.start)
    if not hull > 0:
        raise KdEdgeError(f"an interval from {a.start} to {a.end}", "end after start", "check the detections")
    return (min(a.end, b.end) - max(a.start, b.start)) / hull


def detection_average_precision(
    detections: Sequence[Detection], ground_truth: Sequence[Detection], *, iou: float
) -> float:
    """Average precision of proposals, exactly as PKU-MMD's evaluator computes it.

    Proposals are removed in ascending order of score (equal scores in the order given). Whenever a matched one is
    removed, the result grows by the largest precision so far (including the new one) times the drop in recall.
    This is neither COCO's nor Pascal's AP: precision is evaluated only when a match is removed.

    Args:
        detections: Proposals of any videos and labels.
        ground_truth: The actions actually performed.
        iou: Smallest overlap of a match, in (0, 1].

    Returns:
        The average precision; 0.0 without proposals or without ground truths.
    """
    ranked = sorted(detections, key=lambda d: d.score)  # stable
    matched, counts = _match(ranked, ground_truth, iou)
    positives, proposals, area = sum(c > 0 for c in counts), len(ranked), 0.0
    best, recall_before = _precision_recall(positives, proposals, len(ground_truth))
    for truth in matched:
        proposals -= 1
        if truth is None:
            continue
        counts[truth] -= 1
        positives -= counts[truth] == 0
        precision, recall = _precision_recall(positives, proposals, len(ground_truth))
        best = max(best, precision)
        area += best * (recall_before - recall)
        recall_before = recall
    return area


def detection_f1(detections: Sequence[Detection], ground_truth: Sequence[Detection], *, iou: float) -> float:
    """Harmonic mean of precision and recall; 0.0 if nothing matches.

    A ground truth counts once, regardless of how many proposals match it.
    """
    _, counts = _match(detections, ground_truth, iou)
    precision, recall = _precision_recall(sum(c > 0 for c in counts), len(detections), len(ground_truth))
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def map_action(
    detections: Sequence[Detection], ground_truth: Sequence[Detection], *, iou: float, classes: int
) -> float:
    """Mean over all ``classes`` of the average precision of each label (mAP_action); empty classes count 0."""
    for detection in (*detections, *ground_truth):
        if not 0 <= detection.label < classes:
            raise KdEdgeError(f"label {detection.label}", f"0 to {classes - 1}", "check the class list")
    return _mean_over(range(classes), lambda d: d.label, detections, ground_truth, iou)


def map_video(detections: Sequence[Detection], ground_truth: Sequence[Detection], *, iou: float) -> float:
    """Mean over the videos of the ground truth (mAP_video); a video without proposals counts as 0, never skipped."""
    videos = sorted({truth.video for truth in ground_truth})
    foreign = sorted({d.video for d in detections} - set(videos))
    if foreign:
        raise KdEdgeError(
            f"detections in video '{foreign[0]}', which has no ground truth",
            "the same video names in both",
            "check the names, or leave out videos without any action",
        )
    return _mean_over(videos, lambda d: d.video, detections, ground_truth, iou)


def two_d_average_precision(detections: Sequence[Detection], ground_truth: Sequence[Detection]) -> float:
    """Mean average precision over the overlaps 0.05, 0.10 .. 1.00, all videos and labels pooled (2D-AP)."""
    return sum(detection_average_precision(detections, ground_truth, iou=t) for t in OVERLAPS) / len(OVERLAPS)


def _match(
    detections: Sequence[Detection], ground_truth: Sequence[Detection], iou: float
) -> tuple[list[int | None], list[int]]:
    """Match each proposal to a ground truth (best overlap >= iou, the later on a tie); count proposals per truth."""
    if not 0 < iou <= 1:
        raise KdEdgeError(f"iou {iou}", "a number in (0, 1]", "pass iou=0.5")
    by_key: dict[tuple[str, int], list[int]] = {}
    for position, truth in enumerate(ground_truth):
        by_key.setdefault((truth.video, truth.label), []).append(position)
    matched: list[int | None] = []
    counts = [0] * len(ground_truth)
    for detection in detections:
        rivals = by_key.get((detection.video, detection.label), [])
        overlap, best = max(((interval_overlap(detection, ground_truth[r]), r) for r in rivals), default=(-1.0, -1))
        matched.append(best if overlap >= iou else None)
        if overlap >= iou:
            counts[best] += 1
    return matched, counts


def _precision_recall(positives: int, proposals: int, truths: int) -> tuple[float, float]:
    if proposals == 0 or truths == 0:
        return 0.0, 0.0
    return positives / proposals, positives / truths


def _mean_over(
    keys: Sequence[object],
    key_of: Callable[[Detection], object],
    detections: Sequence[Detection],
    ground_truth: Sequence[Detection],
    iou: float,
) -> float:
    parts = [([d for d in detections if key_of(d) == k], [d for d in ground_truth if key_of(d) == k]) for k in keys]
    return sum(detection_average_precision(mine, truth, iou=iou) for mine, truth in parts) / max(len(parts), 1)
