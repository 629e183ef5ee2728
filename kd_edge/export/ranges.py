"""Run training frames through the float32 graph, to calibrate the ranges of quantised activations."""

from __future__ import annotations

from kd_edge.artifact import ActivationRanges
from kd_edge.engines import Engine, carry
from kd_edge.errors import ExportError
from kd_edge.export.profile import ExportProfile
from kd_edge.export.recordings import Recordings, spread
from kd_edge.export.report import clips_within
from kd_edge.models.saved import SavedStudent
from kd_edge.types import Float32

Feed = dict[str, Float32]
"""Inputs of one run of a graph: arrays by input name, with a batch axis of 1."""

MOST_FLOPS = 8e11
"""Upper limit for the operations on all clips; it limits the clips of a large network."""


def training_feeds(
    student: SavedStudent, recordings: Recordings, engine: Engine, profile: ExportProfile
) -> tuple[tuple[Feed, ...], ActivationRanges]:
    """Collect the inputs of the float32 graph on training clips, stepped from a reset state.

    Held-out clips and test clips are not used.

    Args:
        student: The student, for preprocessing the clips.
        recordings: Its clips.
        engine: An engine with the float32 graph; it computes the past features and states of a step.
        profile: The profile with the number of clips.

    Returns:
        The inputs of each run, and the manifest's record of the clips.

    Raises:
        ExportError: There is no training clip.
        DataError: No clip can be read.
    """
    chosen = spread(recordings.train, clips_within(MOST_FLOPS, student, profile.range_clips))
    if not chosen:
        raise ExportError(
            "no training clip to calibrate the ranges of int8 activations on",
            "the recordings the student was trained on",
            "add --data DIR, or export in fp16",
        )
    feeds: list[Feed] = []
    ids = []
    for sample, clip in recordings.opened(chosen):
        ids.append(sample.id)
        feeds += _clip_feeds(student.network_input(clip), engine)
    facts = ActivationRanges(
        side=f"training clips (split {student.spec.split})",
        clips=tuple(ids),
        frames=len(ids) * student.spec.segments,
        method=profile.range_method,
    )
    return tuple(feeds), facts


def _clip_feeds(clip: Float32, engine: Engine) -> list[Feed]:
    """Collect the inputs of the runs that classify one clip (T, C, S, S)."""
    if engine.manifest.graph == "clip":
        return [{"clip": clip[None]}]
    binding, feeds = engine.bind(1), []
    for segment, frame in enumerate(clip):
        binding.frame[0] = frame
        feeds.append({name: array.copy() for name, array in binding.inputs.items()})
        binding.run()
        if segment < len(clip) - 1:
            binding.past[0, segment] = binding.feature[0]
        carry(binding)
    return feeds
