"""Figures of evaluations as text for a terminal. Builds what the verbs print; prints nothing itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.markup import escape

from kd_edge.cli.show import faults, table

if TYPE_CHECKING:  # a robot shows labels without the packages of the other stages
    from kd_edge.evaluate import Evaluation
    from kd_edge.evaluate.joined import Score
    from kd_edge.evaluate.untrimmed import DetectionEvaluation, DetectionScore
    from kd_edge.pictures.confusion import ConfusedPair


def evaluation(result: Evaluation) -> RenderableType:
    """Clip by clip, and as a stream."""
    scores: list[tuple[str, Score | None]] = [("clip by clip", result.clip)]
    clip = result.clip
    lines = [f"clip by clip: mAP {clip.map:.1%}, top 5 {clip.top5:.1%}, calibration error {clip.ece:.3f}"]
    if result.streaming is not None:
        stream = result.streaming
        scores += [
            ("streaming, every clip", stream.every),
            ("streaming, clips that fill the window", stream.window_filled),
            ("streaming, clips shorter than the window", stream.shorter),
        ]
        lines.append(
            f"{stream.frames} frames at {stream.frames_per_second:.0f} frames/s; {stream.unlabelled} clips without a "
            f"label (counted as wrong), {stream.unknown} below the unknown threshold"
        )
    rows = [(name, str(s.clips), f"{s.accuracy:.1%}", f"{s.macro_f1:.1%}") for name, s in scores if s is not None]
    title = f"{result.model} ({result.precision}) on {result.dataset}, split {result.split}, {result.modality}"
    lines.append(f"window {result.clip_seconds:.2f} s{faults(result.skipped, 'could not be read')}")
    return Group(escape(title), table(("", "clips", "accuracy", "macro F1"), rows), *lines)


def detections(result: DetectionEvaluation) -> RenderableType:
    """What was found in long videos."""
    scores: list[tuple[str, DetectionScore | None]] = [
        ("all proposals", result.every),
        (f"proposals of at least {result.unknown_threshold:.2f}", result.confident),
    ]
    rows = [
        (
            name,
            str(s.proposals),
            *(f"{value:.3f}" for value in (s.ap, s.f1, s.map_action, s.map_video, s.two_d_ap)),
        )
        for name, s in scores
        if s is not None
    ]
    header = ("", "proposals", "AP", "F1", "mAP_action", "mAP_video", "2D-AP")
    windows = ", ".join(f"{scale * result.clip_seconds:.2f}" for scale in result.settings.scales)
    title = f"{result.model} ({result.precision}) on {result.dataset}, split {result.split}, {result.modality}"
    lines = [
        f"{result.videos} long videos, {result.actions} actions, overlap {result.iou:g}; "
        f"{result.without_proposal} videos without a proposal (they count 0)",
        f"windows of {windows} s, {result.settings.proposals} from probability {result.settings.threshold:g}; "
        f"{result.frames} frames at {result.frames_per_second:.0f} frames/s",
    ]
    if result.confident is None:
        lines.append("F1 depends on --threshold, which is not fitted: choose it on training videos")
    unread = faults(result.skipped, "could not be read (they count 0)")
    return Group(escape(title), table(header, rows), *lines, *([unread.lstrip("\n")] if unread else []))


def confused(pairs: Sequence[ConfusedPair]) -> str:
    """One line per pair: what was taken for what, how often."""
    if not pairs:
        return "no clip was taken for another class"
    return "\n".join(
        f"{escape(p.true)} taken for {escape(p.predicted)}  {p.share:.0%} ({p.clips} clips)"
        + ("" if p.change is None else f", {100 * p.change:+.0f} points")
        for p in pairs
    )
