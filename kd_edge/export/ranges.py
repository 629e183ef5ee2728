"""Real frames on their way through the float32 graph: what quantised activations get their ranges from."""

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
"""What one run of a graph reads: arrays by input name, with a batch axis of 1."""

MOST_FLOPS = 8e11
"""Operations on all clips; of a large network fewer clips are run."""


def training_feeds(
    student: SavedStudent, recordings: Recordings, engine: Engine, profile: ExportProfile
) -> tuple[tuple[Feed, ...], ActivationRanges]:
    """Runs of the float32 graph on training clips, stepped from a reset state; nobody held out, no test clip.

    Args:
        student: Says how a clip becomes the network's input.
        recordings: Its clips.
        engine: Of the float32 graph; gives a step its older features and states.
        profile: How many clips.

    Raises:
        ExportError: There is no training clip.
        DataError: Not one can be read.
    """
    chosen = spread(recordings.train, clips_within(MOST_FLOPS, student, profile.range_clips))
    if not chosen:
        raise ExportError(
            "no training clip to take the ranges of int8 activations from",
            "the recordings the student was trained on",
            "add --data DIR, or export in fp16",
        )
    feeds: list[Feed] = []
    ids = []
    for sample, clip in recordings.opened(chosen):
        ids.append(sample.id)
        feeds += _feeds(student.network_input(clip), engine)
    facts = ActivationRanges(
        side=f"training clips (split {student.spec.split})",
        clips=tuple(ids),
        frames=len(ids) * student.spec.segments,
        method=profile.range_method,
    )
    return tuple(feeds), facts


def _feeds(clip: Float32, engine: Engine) -> list[Feed]:
    """The runs that label one clip (T, C, S, S)."""
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
