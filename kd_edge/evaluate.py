"""How good is a model on held-out recordings: clip by clip, and as the stream a robot would see."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from kd_edge import artifact as artifacts
from kd_edge import metrics, recipes, sampling
from kd_edge.artifact import Artifact, Manifest
from kd_edge.data import DataConfig, Dataset, Sample, Split, open_dataset
from kd_edge.engines import Binding, open_engine
from kd_edge.errors import ArtifactError, DataError
from kd_edge.preprocess import recorded_input
from kd_edge.runtime import Recognizer
from kd_edge.types import Clip, Float32, Int64

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracy of one way of evaluating.

    Attributes:
        clips: Number of clips.
        accuracy: Share of right ones.
        macro_f1: Mean F1 over the classes.
    """

    clips: int
    accuracy: float
    macro_f1: float


@dataclass(frozen=True, slots=True)
class StreamingScore:
    """Each subject's clips joined into one stream; the last label inside each clip counts.

    Attributes:
        every: Over all clips.
        window_filled: Over clips at least as long as the window.
        shorter: Over clips shorter than the window: part of it showed the clip before; None when there is none.
        unlabelled: Clips without any label (the stream was still warming up); they count as wrong.
        unknown: Clips whose last label was below the unknown threshold; scored by their best guess.
        frames: Frames pushed.
        frames_per_second: Pushed per second of computing.
    """

    every: Score
    window_filled: Score | None
    shorter: Score | None
    unlabelled: int
    unknown: int
    frames: int
    frames_per_second: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The figures of one model on one split.

    Attributes:
        per_class: Recall by class name, clip by clip.
        skipped: Sample id -> why it could not be read.
    """

    model: str
    dataset: str
    split: str
    modality: str
    precision: str
    clip_seconds: float
    clip: Score
    streaming: StreamingScore | None
    per_class: dict[str, float]
    skipped: dict[str, str] = field(default_factory=dict)


def evaluate(
    model: Path,
    *,
    data_root: Path | None = None,
    split: str | None = None,
    streaming: bool = False,
    threads: int = 1,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate an artifact, or a run directory through an fp32 export of its student.

    Args:
        model: ``student.onnx`` or a run directory.
        data_root: Folder with the recordings.
        split: Protocol of the data set; None takes the one the student was trained under.
        streaming: Also join each subject's test clips into one stream.
        threads: Of the engine.
        progress: Called with (clips done, clips in all).

    Raises:
        KdEdgeError: No such model, no such recordings, or a model that knows no data set.
    """
    if not model.is_dir():
        return _evaluate_artifact(artifacts.load(model), data_root, split, streaming, threads, progress)
    from kd_edge.export.export import export  # torch is only needed for a run directory
    from kd_edge.export.profile import ExportProfile

    with tempfile.TemporaryDirectory() as folder:
        profile = recipes.load("export", "fp32", ExportProfile)
        exported = export(model, profile, Path(folder) / "student.onnx", data_root=data_root)
        return _evaluate_artifact(exported.artifact, data_root, split, streaming, threads, progress, name=str(model))


def _evaluate_artifact(
    artifact: Artifact,
    data_root: Path | None,
    split_name: str | None,
    streaming: bool,
    threads: int,
    progress: Progress | None,
    name: str | None = None,
) -> Evaluation:
    manifest = artifact.manifest
    dataset, split = _recordings(artifact, data_root, split_name)
    binding = open_engine(artifact, threads=threads).bind(1)
    stream = _Stream(artifact, threads) if streaming else None
    labels: list[int] = []
    guesses: list[int] = []
    skipped: dict[str, str] = {}
    for done, (sample, clip) in enumerate(_clips(dataset, split, manifest.modality, skipped), start=1):
        labels.append(sample.label)
        guesses.append(int(np.argmax(clip_logits(binding, clip, manifest))))
        if stream is not None:
            stream.watch(sample, clip)
        if progress is not None:
            progress(done, len(split.test))
    if not labels:
        first = next(iter(skipped.items()), ("none", "the split has no test clip"))
        raise DataError(
            f"no test clip of split {split.name} can be read (first: {first[0]}: {first[1]})",
            "readable recordings",
            "kd-edge data check",
        )
    truth, predicted = np.array(labels), np.array(guesses)
    recall = metrics.per_class_accuracy(predicted, truth, len(manifest.labels))
    return Evaluation(
        model=name or str(artifact.path),
        dataset=dataset.name,
        split=split.name,
        modality=manifest.modality,
        precision=manifest.precision,
        clip_seconds=manifest.clip_seconds,
        clip=_score(truth, predicted, len(manifest.labels)),
        streaming=None if stream is None else stream.score(),
        per_class={n: float(r) for n, r in zip(manifest.labels, recall, strict=True) if not np.isnan(r)},
        skipped=skipped,
    )


def clip_logits(binding: Binding, clip: Clip, manifest: Manifest) -> Float32:
    """Logits (K,) of a recorded clip: its centre-sampled segment frames stepped through the engine.

    Args:
        binding: Of a step graph, batch 1.
        clip: (T, H, W[, 3]) in the camera's dtype.
        manifest: The artifact's.
    """
    at = sampling.segment_indices(len(clip), manifest.segments, mode="centre")
    frames = recorded_input(clip, at, manifest.preprocess)  # (T, C, S, S)
    binding.past[:] = 0
    features = []
    for frame in frames[:-1]:
        binding.frame[0] = frame
        binding.run()
        features.append(binding.feature[0].copy())
    if features:
        binding.past[0] = np.stack(features)  # (T-1, D)
    binding.frame[0] = frames[-1]
    binding.run()
    logits: Float32 = binding.logits[0].copy()
    return logits


class _Stream:
    """Feeds joined clips to a recogniser and remembers the last label inside each."""

    def __init__(self, artifact: Artifact, threads: int) -> None:
        self._recognizer = Recognizer.load(artifact.path, threads=threads, self_test="off")
        self._window_seconds = artifact.manifest.clip_seconds
        self._classes = len(artifact.manifest.labels)
        self._next_ns: dict[str, int] = {}
        self._labels: list[int] = []
        self._guesses: list[int] = []
        self._short: list[bool] = []
        self._states: Counter[str] = Counter()
        self._frames = 0
        self._seconds = 0.0

    def watch(self, sample: Sample, clip: Clip) -> None:
        source = f"{sample.subject} {sample.view}"
        for finished in self._next_ns.keys() - {source}:  # subjects come one after the other
            self._recognizer.forget(finished)
            del self._next_ns[finished]
        period = _period(clip.stamps_ns)
        stamps = clip.stamps_ns + self._next_ns.get(source, 0)
        guess, state = -1, "unlabelled"
        start = time.perf_counter()
        for image, stamp in zip(clip.frames, stamps, strict=True):
            prediction = self._recognizer.push(image, int(stamp), source=source)
            if prediction is not None and prediction.index >= 0:
                guess, state = prediction.index, prediction.state.value
        self._seconds += time.perf_counter() - start
        self._frames += len(clip)
        self._next_ns[source] = int(stamps[-1]) + period
        self._labels.append(sample.label)
        self._guesses.append(guess)
        self._short.append(clip.seconds + period / 1e9 < self._window_seconds)
        self._states[state] += 1

    def score(self) -> StreamingScore:
        labels, guesses, short = np.array(self._labels), np.array(self._guesses), np.array(self._short)
        return StreamingScore(
            every=_score(labels, guesses, self._classes),
            window_filled=_score(labels[~short], guesses[~short], self._classes) if (~short).any() else None,
            shorter=_score(labels[short], guesses[short], self._classes) if short.any() else None,
            unlabelled=self._states["unlabelled"],
            unknown=self._states["unknown"],
            frames=self._frames,
            frames_per_second=self._frames / max(self._seconds, 1e-9),
        )


def _recordings(artifact: Artifact, data_root: Path | None, split: str | None) -> tuple[Dataset, Split]:
    manifest = artifact.manifest
    if not manifest.dataset:
        raise ArtifactError(
            f"{artifact.path} does not say which data set it was trained on",
            "an artifact exported from a run",
            "export the run again",
        )
    config: Any = TypeAdapter(DataConfig).validate_python(manifest.dataset)
    dataset = open_dataset(config, data_root)
    if dataset.labels != manifest.labels:
        raise ArtifactError(
            f"{artifact.path} knows {len(manifest.labels)} labels, data set {dataset.name} has {len(dataset.labels)}",
            "the same labels in the same order",
            "evaluate on the data set it was trained on",
        )
    return dataset, dataset.split(split or manifest.split)


def _clips(dataset: Dataset, split: Split, modality: str, skipped: dict[str, str]) -> Iterator[tuple[Sample, Clip]]:
    """Test clips, subject by subject, view by view, in the order of their ids; unreadable ones are named."""
    ordered = sorted(split.test, key=lambda s: (s.subject, s.view, s.id))
    for _, samples in groupby(ordered, key=lambda s: (s.subject, s.view)):
        for sample in samples:
            try:
                yield sample, dataset.open(sample, modality)
            except DataError as error:
                skipped[sample.id] = error.found


def _period(stamps_ns: Int64) -> int:
    return int(np.median(np.diff(stamps_ns))) if len(stamps_ns) > 1 else 1_000_000_000 // 30


def _score(labels: Int64, guesses: Int64, classes: int) -> Score:
    """Accuracy and macro F1; a clip without a label (-1) is wrong and no class's prediction."""
    labelled = guesses >= 0
    f1 = 0.0
    if labelled.any():
        counts = metrics.confusion(guesses[labelled], labels[labelled], classes)
        support = np.bincount(labels, minlength=classes)
        f1 = float(np.mean([2 * counts[c, c] / (counts[:, c].sum() + support[c]) for c in np.flatnonzero(support)]))
    return Score(len(labels), float(np.mean(guesses == labels)), f1)
