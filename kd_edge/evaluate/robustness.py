"""How good is a model on its test clips when the camera gets worse."""

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
    """Figures of clips that were corrupted alike.

    Attributes:
        clips: Number of clips.
        accuracy: Share of right ones.
        right: Subject -> ``1`` or ``0`` for each of their clips in the order of the clips' ids, right or wrong.
    """

    clips: int
    accuracy: float
    right: dict[str, str]


class CorruptedTest:
    """A model and its test clips; each score is a pass over all of them.

    Attributes:
        manifest: The model's.
        dataset: Name of the data set.
        split: Name of the protocol.
        clips: How many test clips there are.
        content: SHA-256 (hex) that tells the model from any other: of a run's weights, or an artifact's own.
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
        """Figures clip by clip, under one corruption.

        Args:
            corruption: What is done to every clip's frames.
            progress: Called with (clips done, clips in all).

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
        split: Protocol of the data set; None takes the one the student was trained under.
        engine: What runs the model, see ``open_engine``.
        threads: Of the engine.

    Raises:
        KdEdgeError: As ``kd_edge.evaluate.evaluate``.
    """
    with opened_model(model, data_root, as_stream=False) as artifact:
        dataset, chosen = recordings_of(artifact, data_root, split)
        with open_engine(artifact, engine=engine, threads=threads) as opened:
            # A run's artifact is made for this one time: its weights stay what they are.
            content = FileHashes().sha256(model / STUDENT) if model.is_dir() else None
            yield CorruptedTest(artifact, dataset, chosen, opened, content)
