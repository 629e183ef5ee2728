"""Evaluation of a model on corrupted test clips."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kd_edge.artifact import Artifact, Manifest
from kd_edge.data import Dataset, Split
from kd_edge.data.readers.hashes import FileHashes
from kd_edge.engines import Engine, EngineName, open_engine
from kd_edge.errors import DataError
from kd_edge.evaluate.clips import Counted, Progress, clip_logits, clips_of, opened_model, recordings_of
from kd_edge.evaluate.corruptions import Corruption, Sensor, corrupt
from kd_edge.rundir import STUDENT


@dataclass(frozen=True, slots=True)
class CorruptedScore:
    """Scores of clips under one corruption.

    Attributes:
        clips: Number of clips.
        accuracy: Share of correctly classified clips.
        right: Subject -> a string with ``1`` (right) or ``0`` (wrong) for each clip, in the order of the clip ids.
    """

    clips: int
    accuracy: float
    right: dict[str, str]


class CorruptedTest:
    """A model and its test clips; each score is a pass over all of them.

    Attributes:
        manifest: The model's manifest.
        dataset: Name of the data set.
        split: Name of the protocol.
        clips: Number of test clips.
        content: SHA-256 (hex) that identifies the model: of a run's weights, or the artifact's own.
    """

    def __init__(
        self, artifact: Artifact, dataset: Dataset, split: Split, engine: Engine, content: str | None = None
    ) -> None:
        self.manifest: Manifest = artifact.manifest
        self.content = artifact.manifest.manifest_sha256 if content is None else content
        self.dataset, self.split, self.clips = dataset.name, split.name, len(split.test)
        self._recordings, self._chosen, self._engine = dataset, split, engine
        self._sensor = Sensor(artifact.manifest.band, artifact.manifest.value_range)

    def score(self, corruption: Corruption, progress: Progress | None = None) -> CorruptedScore:
        """Score the test clips under one corruption.

        Args:
            corruption: Corruption applied to the frames of every clip.
            progress: Called with (clips done, total).

        Raises:
            DataError: No test clip can be read.
        """
        manifest, skipped = self.manifest, dict[str, str]()
        marks = defaultdict[str, dict[str, bool]](dict)  # by subject and clip
        each = Counted(progress, self.clips)
        for sample, clip in each(clips_of(self._recordings, self._chosen, manifest.modality, skipped)):
            logits = clip_logits(self._engine, corrupt(clip, corruption, self._sensor, sample.id), manifest)
            marks[sample.subject][sample.id] = int(logits.argmax()) == sample.label
        every = [mark for own in marks.values() for mark in own.values()]
        if not every:
            raise DataError(
                f"no test clip of split {self.split} can be read", "readable recordings", "kd-edge data check"
            )
        right = {subject: "".join("01"[own[clip]] for clip in sorted(own)) for subject, own in sorted(marks.items())}
        return CorruptedScore(len(every), sum(every) / len(every), right)


@contextmanager
def corrupted_test(
    model: Path,
    *,
    data_root: Path | None = None,
    split: str | None = None,
    engine: EngineName = "onnxruntime",
    threads: int = 1,
) -> Iterator[CorruptedTest]:
    """Open an artifact, or a run directory through an fp32 export of its student, on its test clips.

    Args:
        model: ``student.onnx`` or a run directory.
        data_root: Folder with the recordings.
        split: Protocol of the data set; None for the one the student was trained under.
        engine: Engine that runs the model, see ``open_engine``.
        threads: Threads of the engine.

    Raises:
        KdEdgeError: As ``kd_edge.evaluate.evaluate``.
    """
    with opened_model(model, data_root, as_stream=False) as artifact:
        dataset, chosen = recordings_of(artifact, data_root, split)
        with open_engine(artifact, engine=engine, threads=threads) as opened:
            # The artifact of a run is exported anew each time, so the run's weights identify the model.
            content = FileHashes().sha256(model / STUDENT) if model.is_dir() else None
            yield CorruptedTest(artifact, dataset, chosen, opened, content)
