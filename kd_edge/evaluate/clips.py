"""Evaluation on held-out recordings: clip by clip, and as the stream a robot would see."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from kd_edge import artifact as artifacts
from kd_edge import metrics, recipes, sampling
from kd_edge.artifact import Artifact, Manifest
from kd_edge.data import Dataset, Sample, Split, data_of_model, open_dataset
from kd_edge.data.dataset import LongVideos, Sequences, listed
from kd_edge.engines import Engine, EngineName, engine_name, open_engine
from kd_edge.errors import ArtifactError, ConfigError, DataError, printable
from kd_edge.evaluate import untrimmed
from kd_edge.evaluate.joined import JoinedStream, Score, StreamingScore, score_of
from kd_edge.evaluate.spotting import Spotting
from kd_edge.preprocess import recorded_input
from kd_edge.types import Clip, Float32, Int64

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ClipScore(Score):
    """Scores of trimmed clips, with one prediction each.

    Attributes:
        top5: Share of clips whose class is among the five most probable ones.
        map: Mean over the classes of the average precision of their probability, one class against the rest.
        ece: Expected calibration error of the probabilities, 15 bins.
    """

    top5: float
    map: float
    ece: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The scores of one model on one split.

    Attributes:
        per_class: Recall by class name, clip by clip.
        confusion: (K, K) counts, clip by clip; rows are the truth.
        skipped: Sample id -> why it could not be read.
        engine: Name and version of the engine.
        orders: Scores of each random order of a subject's clips, like ``streaming``.
        stream_change: Accuracy at the clips' ends in the stream minus that clip by clip; None without a stream.
    """

    model: str
    dataset: str
    split: str
    modality: str
    precision: str
    clip_seconds: float
    clip: ClipScore
    streaming: StreamingScore | None
    per_class: dict[str, float]
    confusion: list[list[int]]
    skipped: dict[str, str] = field(default_factory=dict)
    engine: str = ""
    orders: list[StreamingScore] = field(default_factory=list)
    stream_change: float | None = None


@runtime_checkable
class _HasLongVideos(LongVideos, Protocol):
    """``LongVideos`` as a protocol that supports ``isinstance``."""


def evaluate(
    model: Path,
    *,
    data_root: Path | None = None,
    split: str | None = None,
    streaming: bool = False,
    orders: int = 0,
    smooth_ms: float | None = None,
    engine: EngineName = "onnxruntime",
    threads: int = 1,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate an artifact, or a run directory through an fp32 export of its student, on trimmed clips.

    Args:
        model: ``student.onnx`` or a run directory.
        data_root: Folder with the recordings.
        split: Protocol of the data set; None for the one the student was trained under.
        streaming: Whether to also join each subject's test clips into one stream, in the order of their ids; in a data
            set whose recordings have several actions, each recording is streamed whole instead.
        orders: Number of further streams in random order, with seeds 0, 1, 2 and so on.
        smooth_ms: How long a window counts in a stream's label, see ``Recognizer.load``.
        engine: Engine that runs the model, see ``open_engine``.
        threads: Threads of the engine.
        progress: Called with (clips done, total).

    Raises:
        KdEdgeError: The model or the recordings are missing, or the model does not name a data set.
    """
    with opened_model(model, data_root, as_stream=streaming or orders > 0) as artifact:
        dataset, chosen = recordings_of(artifact, data_root, split)
        if orders and isinstance(dataset, Sequences):
            raise ConfigError(
                f"{orders} random orders of {dataset.name}, whose recordings are watched whole",
                "--streaming alone",
                "leave out --orders",
            )
        subject = Evaluated(artifact, dataset, chosen, engine, threads, smooth_ms)
        return judged(subject, str(model), streaming=streaming, orders=orders, progress=progress)


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A model, its test recordings and the settings of the engine."""

    artifact: Artifact
    dataset: Dataset
    split: Split
    engine: EngineName = "onnxruntime"
    threads: int = 1
    smooth_ms: float | None = None

    def stream(self) -> JoinedStream:
        """Open a stream for joined clips."""
        return JoinedStream(self.artifact, self.threads, self.engine, self.smooth_ms)

    def clips(self, skipped: dict[str, str], seed: int | None = None) -> Iterator[tuple[Sample, Clip]]:
        """Iterate over the test clips, see ``clips_of``."""
        return clips_of(self.dataset, self.split, self.artifact.manifest.modality, skipped, seed)


def judged(
    subject: Evaluated, name: str, *, streaming: bool = False, orders: int = 0, progress: Progress | None = None
) -> Evaluation:
    """Compute all scores of a model with one engine: ``auto`` chooses once, for the clips and every stream.

    Args:
        subject: The model and its test recordings.
        name: Name of the model in the report.
        streaming: See ``evaluate``.
        orders: See ``evaluate``.
        progress: See ``evaluate``.

    Raises:
        DataError: No test clip can be read.
    """
    manifest, skipped = subject.artifact.manifest, dict[str, str]()
    each = Counted(progress, (1 + orders) * len(subject.split.test))
    with open_engine(subject.artifact, engine=subject.engine, threads=subject.threads) as clipwise:
        subject = replace(subject, engine=engine_name(clipwise.key))
        with subject.stream() if streaming else nullcontext() as stream:
            labels, answers = _answers(subject, clipwise, stream, each, skipped)
            streamed = None if stream is None else stream.score()
        ran = clipwise.name
    truth, classes = np.array(labels), len(manifest.labels)
    recall = metrics.per_class_accuracy(answers.argmax(1), truth, classes)
    clipwise_score = clip_score(answers, truth, manifest.temperature)
    return Evaluation(
        model=name,
        dataset=subject.dataset.name,
        split=subject.split.name,
        modality=manifest.modality,
        precision=manifest.precision,
        clip_seconds=manifest.clip_seconds,
        clip=clipwise_score,
        streaming=streamed,
        per_class={n: float(r) for n, r in zip(manifest.labels, recall, strict=True) if not np.isnan(r)},
        confusion=metrics.confusion(answers.argmax(1), truth, classes).tolist(),
        skipped=skipped,
        engine=ran,
        orders=[_in_order(subject, seed, each) for seed in range(orders)],
        stream_change=None if streamed is None else streamed.every.accuracy - clipwise_score.accuracy,
    )


def _answers(
    subject: Evaluated, engine: Engine, stream: JoinedStream | None, each: Counted, skipped: dict[str, str]
) -> tuple[list[int], Float32]:
    """Compute labels and logits (N, K) of the test clips, and feed the clips to the stream, if any."""
    manifest, dataset = subject.artifact.manifest, subject.dataset
    labels: list[int] = []
    logits: list[Float32] = []
    for sample, clip in each(subject.clips(skipped)):
        labels.append(sample.label)
        logits.append(clip_logits(engine, clip, manifest))
        if stream is not None and not isinstance(dataset, Sequences):
            stream.watch(sample, clip)
    if stream is not None and isinstance(dataset, Sequences):
        readable = [sample for sample in subject.split.test if sample.id not in skipped]
        for samples in dataset.sequences(readable):
            stream.watch_sequence(samples[0].id, *dataset.sequence(samples, manifest.modality))
    if not labels:
        first = next(iter(skipped.items()), ("none", "the split has no test clip"))
        raise DataError(
            f"no test clip of split {subject.split.name} can be read (first: {first[0]}: {first[1]})",
            "readable recordings",
            "kd-edge data check",
        )
    return labels, np.stack(logits)


def _in_order(subject: Evaluated, seed: int, each: Counted) -> StreamingScore:
    """Score streams of each subject's clips in a random order."""
    with subject.stream() as stream:
        for sample, clip in each(subject.clips({}, seed)):
            stream.watch(sample, clip)
        return stream.score()


def detect(
    model: Path,
    *,
    data_root: Path | None = None,
    split: str | None = None,
    settings: Spotting | None = None,
    iou: float = 0.5,
    engine: EngineName = "onnxruntime",
    threads: int = 1,
    write: Path | None = None,
    progress: untrimmed.Progress | None = None,
) -> untrimmed.DetectionEvaluation:
    """Detect the actions in the long videos of a data set with an artifact or a run's student, and score them.

    Args:
        model: ``student.onnx`` or a run directory.
        data_root: Folder with the recordings.
        split: Protocol of the data set; None for the one the student was trained under.
        settings: Settings of the detection; None for the defaults.
        iou: Minimum overlap (IoU) of a match, in (0, 1].
        engine: Engine that runs the model, see ``open_engine``.
        threads: Threads of the engine.
        write: Folder for the proposals, in the text format of PKU-MMD's evaluator.
        progress: Called with (frames done, videos done, total videos).

    Raises:
        KdEdgeError: The model or the recordings are missing, or the data set has trimmed clips only.
    """
    with opened_model(model, data_root, as_stream=True) as artifact:
        dataset, name = _dataset(artifact, data_root), split or artifact.manifest.split
        _check_unseen(dataset, name, artifact.manifest.split)
        if not isinstance(dataset, _HasLongVideos):
            raise DataError(
                f"data set {dataset.name} has no long videos",
                "one of untrimmed recordings (pku_mmd)",
                "leave out --detection",
            )
        return untrimmed.detect(
            artifact,
            dataset,
            dataset.name,
            name,
            settings=settings or Spotting(),
            iou=iou,
            engine=engine,
            threads=threads,
            write=write,
            name=str(model),
            progress=progress,
        )


@contextmanager
def opened_model(model: Path, data_root: Path | None, *, as_stream: bool) -> Iterator[Artifact]:
    """Load an artifact, or export a run directory to one that exists only inside the context."""
    if not model.is_dir():
        artifact = artifacts.load(model)
        _check_graph(model, artifact.manifest.temporal, artifact.manifest.graph, as_stream)
        yield artifact
        return
    from kd_edge.export.exporter import export
    from kd_edge.export.profile import ExportProfile
    from kd_edge.models.saved import SavedStudent

    temporal = SavedStudent.load(model).spec.model.temporal
    graph = "clip" if temporal == "tsm" else "step"  # a TSM in both directions cannot step: evaluated by clips
    _check_graph(model, temporal, graph, as_stream)
    with tempfile.TemporaryDirectory() as folder:
        profile = recipes.load("export", "fp32", ExportProfile, [f"graph={graph}"])
        yield export(model, profile, Path(folder) / "student.onnx", data_root=data_root).artifact


def _check_graph(model: Path, temporal: str, graph: str, as_stream: bool) -> None:
    """Refuse early to stream a model that cannot."""
    if not as_stream or graph == "step":
        return
    if temporal == "tsm":
        raise ArtifactError(
            f"{model} is a TSM in both directions, which needs the segments after the newest one",
            "a model that sees the past only, for --streaming and --detection",
            "train one with temporal = 'tsm_causal', or leave the option out",
        )
    raise ArtifactError(f"{model} contains a clip graph", "a streaming step", "export the run again with --graph step")


def clip_score(logits: Float32, labels: Int64, temperature: float) -> ClipScore:
    """Score one prediction per clip.

    Args:
        logits: (N, K) float32.
        labels: (N,) int64.
        temperature: Divides the logits before the softmax.
    """
    basic = score_of(labels, logits.argmax(1), logits.shape[1])
    probabilities = metrics.softmax(logits, temperature)
    return ClipScore(
        basic.clips,
        basic.accuracy,
        basic.macro_f1,
        top5=metrics.top_k(logits, labels, 5),
        map=metrics.mean_average_precision(probabilities, labels),
        ece=metrics.expected_calibration_error(probabilities, labels),
    )


def clip_logits(engine: Engine, clip: Clip, manifest: Manifest) -> Float32:
    """Logits (K,) of a recorded clip from its centre-sampled segment frames, in one run or stepped from a reset state.

    Args:
        engine: Engine of a step or clip graph.
        clip: (T, H, W[, 3]) in the camera's dtype.
        manifest: The artifact's manifest.
    """
    at = sampling.segment_indices(len(clip), manifest.segments, mode="centre")
    answer: Float32 = engine.run_clip(recorded_input(clip, at, manifest.preprocess)[None])[0]
    return answer


def recordings_of(artifact: Artifact, data_root: Path | None, split: str | None) -> tuple[Dataset, Split]:
    """Open a model's data set, and a protocol whose test side the model has not seen.

    Raises:
        KdEdgeError: The recordings are missing or not the model's, or the model was trained on some of the test side.
    """
    dataset, name = _dataset(artifact, data_root), split or artifact.manifest.split
    _check_unseen(dataset, name, artifact.manifest.split)
    return dataset, dataset.split(name)


def _check_unseen(dataset: Dataset, split: str, trained_on: str) -> None:
    """Refuse to score a model on clips it was trained on."""
    if split == trained_on or not trained_on:
        return
    known = dataset.split(trained_on)
    trained = {sample.id for sample in (*known.train, *known.validation)}
    test = dataset.split(split).test
    seen = sum(sample.id in trained for sample in test)
    if seen:
        raise DataError(
            f"{seen} of the {len(test)} test clips of split '{split}' are training clips of '{trained_on}', which this "
            "model learned from",
            "test clips it has not seen",
            f"evaluate on '{trained_on}', or train on '{split}'",
        )


def _dataset(artifact: Artifact, data_root: Path | None) -> Dataset:
    manifest = artifact.manifest
    if not manifest.dataset:
        raise ArtifactError(
            f"{artifact.path} does not say which data set it was trained on",
            "an artifact exported from a run",
            "export the run again",
        )
    dataset = open_dataset(data_of_model(manifest.dataset, str(artifact.path)), data_root)
    if dataset.labels not in (manifest.labels, manifest.trained_labels):
        raise ArtifactError(
            f"{artifact.path} knows {len(manifest.labels)} labels, data set {dataset.name} has {len(dataset.labels)}: "
            + different_labels(manifest.trained_labels, dataset.labels),
            "the same labels in the same order",
            "evaluate on the data set it was trained on",
        )
    return dataset


def different_labels(model: Sequence[str], dataset: Sequence[str]) -> str:
    """Describe how class names differ: the names that only one side has, or the first one out of order."""
    alone = {"the model": set(model) - set(dataset), "the data set": set(dataset) - set(model)}
    if any(alone.values()):
        return ", ".join(f"{listed(map(printable, sorted(its)))} of {who} alone" for who, its in alone.items() if its)
    at = next((k for k, (one, other) in enumerate(zip(model, dataset, strict=False)) if one != other), 0)
    return f"label {at} is '{printable(model[at])}' of the model and '{printable(dataset[at])}' of the data set"


class Counted:
    """Passes clips through and reports the progress of all passes together.

    Args:
        progress: Called with (clips done, total).
        total: Number of clips of all passes.
    """

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, clips: Iterable[tuple[Sample, Clip]]) -> Iterator[tuple[Sample, Clip]]:
        """One pass."""
        for item in clips:
            yield item
            self._done += 1
            if self._progress is not None:
                self._progress(self._done, self._total)


def clips_of(
    dataset: Dataset, split: Split, modality: str, skipped: dict[str, str], seed: int | None = None
) -> Iterator[tuple[Sample, Clip]]:
    """Iterate over test clips by subject and view, ordered by id or randomly; unreadable ones are recorded.

    Args:
        dataset: The data set.
        split: The protocol whose test side is used.
        modality: The modality to open.
        skipped: Filled with the unreadable clips and the reasons.
        seed: Of the random order.
    """
    ordered = sorted(split.test, key=lambda s: (s.subject, s.view, s.id))
    rng = None if seed is None else np.random.default_rng(seed)
    for _, group in groupby(ordered, key=lambda s: (s.subject, s.view)):
        samples = list(group)
        if rng is not None:
            samples = [samples[k] for k in rng.permutation(len(samples))]
        for sample in samples:
            try:
                yield sample, dataset.open(sample, modality)
            except DataError as error:
                skipped[sample.id] = error.found
