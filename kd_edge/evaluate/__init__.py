"""Evaluation on held-out recordings: clip by clip, as the stream a robot would see, and in long videos."""

from kd_edge.evaluate.clips import ClipScore, Evaluation, clip_logits, clip_score, detect, evaluate

__all__ = ["ClipScore", "Evaluation", "clip_logits", "clip_score", "detect", "evaluate"]
