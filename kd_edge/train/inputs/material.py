"""Training data of a run: the split, the frame caches, and the loaders made from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kd_edge.data import Dataset, Sample
from kd_edge.data.cache.frames import CachedClips
from kd_edge.data.cache.pairs import PairedClips
from kd_edge.data.signals.load import Signals
from kd_edge.data.words.class_vectors import ClassVectors
from kd_edge.errors import TrainingError
from kd_edge.train.inputs.clips import Batch, ClipDataset, EpochBatches, FrameValues, SignalDataset, make_loader
from kd_edge.train.inputs.embeddings import Embeddings, FrameEmbeddings
from kd_edge.train.inputs.exchange import exchange
from kd_edge.train.inputs.signals import SignalInput
from kd_edge.train.inputs.targets import DenseTargets, FeatureSpace
from kd_edge.train.inputs.windows import BEFORE_SHARE, Windows
from kd_edge.train.losses.labels import class_weights
from kd_edge.train.recipe import Recipe, Stage, StudentConfig
from kd_edge.train.recipe.stages import Training
from kd_edge.train.recipe.student_stages import WindowKind
from kd_edge.train.recipe.teacher_stages import OnnxTeacherConfig, TrainedTeacher
from kd_edge.train.teachers.images import frame_feature_size
from kd_edge.types import Int64

Seen = CachedClips | Signals | Embeddings
"""Input data of one stage."""

Progress = Callable[[str, int, int], None]
"""Called with (modality, clips done, total clips) while a cache is created."""


@dataclass(frozen=True)
class Material:
    """All data that a run needs from the recordings.

    Attributes:
        recipe: The run.
        dataset: The recordings.
        train: Samples to train on, with every stage's modality.
        validation: Samples to choose by, with the student's modality; may be empty.
        test: Samples touched once, at the end, with the student's modality: what a teacher lacks must not change them.
        clips: The frame caches of the stages that see images, by stage name; the student's among them.
        signals: The signals of wearable sensors, by the name of the stage that sees them.
        embeddings: What frozen encoders made of the frames, by stage name.
        clip_seconds: Length of the live window.
        semantics: Vectors of the class names, where the recipe has some.
        dense: What a dense stage regresses, where the recipe has one.
        loss: What a dense loss regresses, where the recipe has one.
        dense_only: Samples that a dense stage trains on beside ``train``, and nothing else does: without a label, or
            without what a later stage's teacher sees; none of anybody held out.
    """

    recipe: Recipe
    dataset: Dataset
    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    test: tuple[Sample, ...]
    clips: dict[str, CachedClips]
    signals: dict[str, Signals]
    clip_seconds: float
    semantics: ClassVectors | None = None
    dense: DenseTargets | None = None
    embeddings: dict[str, Embeddings] = field(default_factory=dict)
    loss: DenseTargets | None = None
    dense_only: tuple[Sample, ...] = ()

    @property
    def dense_train(self) -> tuple[Sample, ...]:
        """Clips of a dense stage: the training clips, and those used by it alone."""
        return (*self.train, *self.dense_only)

    @property
    def dense_targets(self) -> DenseTargets:
        """Targets of a dense stage.

        Raises:
            TrainingError: The recipe has none.
        """
        if self.dense is None:
            raise TrainingError("a recipe without a dense stage", "one", "add it to stages")
        return self.dense

    @property
    def loss_targets(self) -> DenseTargets:
        """Targets of a dense loss.

        Raises:
            TrainingError: The recipe has none.
        """
        if self.loss is None:
            raise TrainingError("a recipe without a dense loss", "one", "add it to losses")
        return self.loss

    def with_targets(self, samples: Sequence[Sample]) -> tuple[Sample, ...]:
        """The samples that have any dense target."""
        return tuple(s for s in samples if s.id in self.dense_targets)

    @property
    def student(self) -> StudentConfig:
        """The recipe's student, including the outputs that a dense stage leaves in it."""
        config = self.recipe.student
        if not self.recipe.keeps_targets:
            return config
        model = config.model.model_copy(update={"regressed": self.dense_targets.size})
        return config.model_copy(update={"model": model})

    @property
    def caches(self) -> dict[str, Seen]:
        """Input data of each stage, by stage name."""
        seen: dict[str, Seen] = {**self.clips, **self.signals, **self.embeddings}
        return {name: seen[name] for name in self.recipe.networks}

    @property
    def skipped(self) -> dict[str, str]:
        """Sample id -> why it cannot be used, over all modalities; missing embeddings do not count."""
        needed: list[CachedClips | Signals] = [*self.clips.values(), *self.signals.values()]
        return {name: why for cache in needed for name, why in cache.skipped.items()}

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the recordings' contents as used."""
        return hashlib.sha256("".join(sorted(self.fingerprints.values())).encode()).hexdigest()

    @property
    def trained_on(self) -> str:
        """SHA-256 (hex) of the training clips' ids, which depend on the modalities that clips must have."""
        return hashlib.sha256(json.dumps(sorted(sample.id for sample in self.train)).encode()).hexdigest()

    @property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 (hex) of each stage's input, by stage name; the class vectors count as the teacher's.

        Only with a teacher are they looked at, so a student's fingerprint is that of its recordings alone.
        """
        found = {name: cache.fingerprint for name, cache in self.caches.items()}
        if self.dense is not None:
            found["dense"] = self.dense.fingerprint
        if self.loss is not None:
            found["loss"] = self.loss.fingerprint
        return with_semantics(found, self.semantics)

    @property
    def class_vectors(self) -> Tensor | None:
        """(K, D) float32 of the class names, where the recipe has some."""
        return None if self.semantics is None else torch.from_numpy(self.semantics.vectors)

    @property
    def lacking(self) -> dict[str, int]:
        """Sensor -> number of training samples that have another sensor but not this one."""
        ids = {s.id for s in self.train}
        lacking = {sensor: lacks for signals in self.signals.values() for sensor, lacks in signals.lacking.items()}
        return {sensor: len(ids & lacks.keys()) for sensor, lacks in lacking.items()}

    def training_loader(
        self, stages: Sequence[str], batch_size: int, *, rank: int = 0, world: int = 1
    ) -> tuple[DataLoader[Batch], EpochBatches]:
        """Shuffled, augmented clips of one or more stages side by side, and the batches that carry the epoch.

        Crop and flip are the first stage's, changes of intensity each stage's own. All show as many segments
        as the labels stage has.
        """
        recipe, signals = self.recipe, self._signals(stages)
        images = [name for name in stages if name in self.clips]
        if not images and signals is not None:  # resampled onto the time of the student's clips
            clips = self._pairs(["student"], self.train)
            return self._loader(SignalDataset(clips, signals, recipe.seed), stages[0], batch_size, rank, world)
        windows = self.windows(recipe.windows, recipe.first_segments)
        dataset = self._changing(images, windows, signals, beside=self._beside(stages))
        return self._loader(dataset, stages[0], batch_size, rank, world)

    def windows(self, kind: WindowKind, segments: int) -> Windows:
        """How the segments of a training clip are placed."""
        seconds = None if kind == "clip" else self.clip_seconds
        before = {"mixed": BEFORE_SHARE, "stream": 1.0}.get(kind, 0.0)
        return Windows(segments, seconds, kind in ("loop", "mixed", "stream"), before, kind == "stream")

    def student_clips(self, samples: Sequence[Sample], *, changing: bool = False) -> ClipDataset:
        """The student's clips, with random changes or without."""
        recipe = self.recipe
        if changing:
            return self._changing(["student"], Windows(recipe.segments), None, samples)
        spec = recipe.student.preprocess
        return ClipDataset(self._pairs(["student"], samples), [spec], Windows(recipe.segments), None, recipe.seed)

    @property
    def feature_space(self) -> FeatureSpace | None:
        """Input of a teacher that sees images, for its own training; None without such a teacher."""
        if "teacher" in self.embeddings:
            return FeatureSpace(self.embeddings["teacher"].modality, self.embeddings["teacher"].size)
        images = self.recipe.image_stages.get("teacher")
        return None if images is None else FeatureSpace(images.modality, frame_feature_size(images))

    def teacher_clips(self, samples: Sequence[Sample]) -> ClipDataset:
        """The clips of a teacher that sees images, without random changes."""
        spec = self.recipe.image_stages["teacher"].preprocess
        return ClipDataset(self._pairs(["teacher"], samples), [spec], Windows(2), None, self.recipe.seed)

    def _changing(
        self,
        images: Sequence[str],
        windows: Windows,
        signals: SignalInput | None,
        samples: Sequence[Sample] | None = None,
        *,
        beside: Sequence[FrameValues] = (),
    ) -> ClipDataset:
        """Training clips of some image stages with random changes, and per-frame values."""
        recipe, wanted = self.recipe, self.train if samples is None else samples
        pairs = PairedClips([self.clips[name] for name in images], wanted, self._givers(wanted))
        configs = [recipe.image_stages[name] for name in images]
        specs, augments = [c.preprocess for c in configs], [c.augment for c in configs]
        return ClipDataset(pairs, specs, windows, augments, recipe.seed, self.dataset.flip_labels, signals, beside)

    def _beside(self, stages: Sequence[str]) -> list[FrameValues]:
        """Per-frame values of the student's frames for stages that do not see them."""
        seen = [self.embeddings[name] for name in stages if name in self.embeddings]
        known: list[FrameValues] = [FrameEmbeddings(embeddings, self.stamps_ns) for embeddings in seen]
        return [*known, self.loss] if self.loss is not None and "student" in stages else known

    @property
    def stamps_ns(self) -> dict[str, Int64]:
        """Sample id -> (N,) stamps of the student's frames."""
        return stamps_of(self.clips)

    def _givers(self, samples: Sequence[Sample]) -> dict[str, str]:
        """Which sample's teacher input is paired with each sample: another one's, if the recipe says so."""
        how, seed = self.recipe.teacher_shuffle, self.recipe.seed
        return {} if how is None else exchange(samples, seed, "teacher", by_class=how == "class")

    def _loader(
        self, dataset: ClipDataset | SignalDataset, stage: str, batch_size: int, rank: int, world: int
    ) -> tuple[DataLoader[Batch], EpochBatches]:
        config = self.trained(stage)
        batches = training_batches(self.recipe, config, dataset.pairs.samples, batch_size, rank=rank, world=world)
        return make_loader(dataset, batches, self.recipe.workers), batches

    def class_weights(self, name: str, training: Training | None = None) -> Tensor | None:
        """(K,) float32 of the classes in a stage's cross-entropy, as its ``class_weights`` say; None weighs nothing.

        Args:
            name: ``student`` or ``teacher``.
            training: What says so, where it is another stage of the student.
        """
        training = training or self.trained(name)
        weights, labels = training.class_weights, self.dataset.labels
        if weights is None:
            return None
        named = None if weights == "balanced" else {labels.index(label): factor for label, factor in weights.items()}
        return class_weights(self._class_counts(name, training), named)

    def _class_counts(self, name: str, training: Training) -> list[float]:
        """Relative frequency of each class in an epoch of a stage; mirrored clips count for the class they become.

        A clip whose class changes in the mirror stays as it is where sensors teach, see ``ClipDataset``.
        """
        stage, classes = self.stage(name), len(self.dataset.labels)
        counts = np.bincount([s.label for s in self.train], minlength=classes).astype(float)
        if training.sampler == "balanced":
            counts = (counts > 0).astype(float)
        mirrored, images = self.dataset.flip_labels, stage.images
        if images is not None and images.augment.flip and mirrored is not None and not self.signals:
            counts = (counts + counts[list(mirrored)]) / 2
        return [float(count) for count in counts]

    def _signals(self, stages: Sequence[str], *, training: bool = True) -> SignalInput | None:
        """Signals of the sensors, if a stage uses them."""
        config = self.recipe.wearables
        if config is None or not self.signals.keys() & set(stages):
            return None
        return SignalInput(self.signals["teacher"], config.points, config.jitter if training else None)

    def evaluation_loader(
        self, stage: str, samples: Sequence[Sample], segments: int | None = None
    ) -> DataLoader[Batch]:
        """Centre frames and centre crops of those clips that have a stage's modality (see ``having``), in order.

        Args:
            stage: ``student`` or ``teacher``.
            samples: Which clips.
            segments: T; None is the recipe's for the student, who ships with it, and the labels stage's for a teacher.
        """
        recipe, usable = self.recipe, self.having(stage, samples)
        batches = EpochBatches(len(usable), max(self.stage(stage).batch_size, 16), None)
        signals = self._signals([stage], training=False)
        if signals is not None:
            return make_loader(SignalDataset(self._pairs(["student"], usable), signals, recipe.seed), batches, 0)
        pairs = self._pairs([stage], usable)
        spec = recipe.image_stages[stage].preprocess
        windows = Windows(segments or (recipe.segments if stage == "student" else recipe.first_segments))
        return make_loader(ClipDataset(pairs, [spec], windows, None, recipe.seed), batches, 0)

    def having(self, stage: str, samples: Sequence[Sample]) -> tuple[Sample, ...]:
        """The samples that have a stage's modality."""
        return tuple(s for s in samples if s.id in self.caches[stage])

    def stage(self, name: str) -> Stage:
        """The recipe's ``student`` or ``teacher``."""
        return self.recipe.networks[name]

    def trained(self, name: str) -> StudentConfig | TrainedTeacher:
        """The recipe's ``student`` or ``teacher``, if it is trained.

        Raises:
            TrainingError: An encoder's is not.
        """
        stage = self.stage(name)
        if isinstance(stage, OnnxTeacherConfig):
            raise TrainingError(f"the {name} {stage.file} is frozen", "a network to train", "teach with it as it is")
        return stage

    def _pairs(self, stages: Sequence[str], samples: Sequence[Sample]) -> PairedClips:
        return PairedClips([self.clips[name] for name in stages], samples)


def training_batches(
    recipe: Recipe, stage: Training, samples: Sequence[Sample], batch_size: int, *, rank: int = 0, world: int = 1
) -> EpochBatches:
    """The batches of a stage's epochs, drawn according to its ``sampler`` and ``repeat``."""
    classes = [s.label for s in samples] if stage.sampler == "balanced" else None
    return EpochBatches(len(samples), batch_size, recipe.seed, rank, world, repeat=stage.repeat, classes=classes)


def with_semantics(fingerprints: dict[str, str], semantics: ClassVectors | None) -> dict[str, str]:
    """Fingerprints of the stages' inputs; the teacher's includes the class vectors, if it uses them."""
    if semantics is None or "teacher" not in fingerprints:
        return fingerprints
    seen = fingerprints["teacher"].encode() + semantics.vectors.tobytes()
    return fingerprints | {"teacher": hashlib.sha256(seen).hexdigest()}


def stamps_of(clips: dict[str, CachedClips]) -> dict[str, Int64]:
    """Sample id -> (N,) stamps of the student's frames."""
    return {s.id: clips["student"].clip(s.id).stamps_ns for s in clips["student"].samples}
