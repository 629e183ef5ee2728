"""What a run trains on: the split, the frame caches, and the loaders made from them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kd_edge.data import Dataset, Sample, Split, check_split, open_dataset, training_sides
from kd_edge.data.cache.frames import CachedClips
from kd_edge.data.cache.pairs import PairedClips
from kd_edge.data.dataset import PartlyLabelled, unlabelled_of
from kd_edge.data.signals.load import Signals
from kd_edge.data.words.class_vectors import ClassVectors, class_vectors
from kd_edge.errors import DataError, TrainingError
from kd_edge.train.inputs.clips import Batch, ClipDataset, EpochBatches, FrameValues, SignalDataset, make_loader
from kd_edge.train.inputs.embeddings import Embeddings, FrameEmbeddings
from kd_edge.train.inputs.exchange import exchange
from kd_edge.train.inputs.signals import SignalInput
from kd_edge.train.inputs.targets import DenseTargets, FeatureSpace, gather_targets, targets_fingerprint
from kd_edge.train.inputs.windows import BEFORE_SHARE, Windows, clip_length_ns
from kd_edge.train.losses.labels import class_weights
from kd_edge.train.recipe import Recipe, Stage, StudentConfig
from kd_edge.train.recipe.stages import OnnxTeacherConfig, TrainedTeacher, Training
from kd_edge.train.recipe.student_stages import DenseTarget, WindowKind
from kd_edge.train.teachers.images import frame_feature_size
from kd_edge.types import Float32, Int64

Seen = CachedClips | Signals | Embeddings
"""What one stage sees of the recordings."""

Progress = Callable[[str, int, int], None]
"""Called with (modality, clips done, clips in all) while a cache is made."""


@dataclass(frozen=True)
class Material:
    """Everything about the recordings that a run needs.

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
        unlabelled: Samples that a dense stage trains on beside ``train``; none of anybody held out.
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
    unlabelled: tuple[Sample, ...] = ()

    @property
    def with_unlabelled(self) -> tuple[Sample, ...]:
        """What a dense stage trains on: the training clips, and those that nobody has labelled."""
        return (*self.train, *self.unlabelled)

    @property
    def dense_targets(self) -> DenseTargets:
        """What a dense stage regresses.

        Raises:
            TrainingError: The recipe has none.
        """
        if self.dense is None:
            raise TrainingError("a recipe without a dense stage", "one", "add it to stages")
        return self.dense

    @property
    def loss_targets(self) -> DenseTargets:
        """What a dense loss regresses.

        Raises:
            TrainingError: The recipe has none.
        """
        if self.loss is None:
            raise TrainingError("a recipe without a dense loss", "one", "add it to losses")
        return self.loss

    def with_targets(self, samples: Sequence[Sample]) -> tuple[Sample, ...]:
        """Those of the samples that have any dense target."""
        return tuple(s for s in samples if s.id in self.dense_targets)

    @property
    def student(self) -> StudentConfig:
        """The recipe's student; its network regresses what a dense stage leaves in it."""
        config = self.recipe.student
        if not self.recipe.keeps_targets:
            return config
        model = config.model.model_copy(update={"regressed": self.dense_targets.size})
        return config.model_copy(update={"model": model})

    @property
    def caches(self) -> dict[str, Seen]:
        """What each stage sees, by stage name."""
        seen: dict[str, Seen] = {**self.clips, **self.signals, **self.embeddings}
        return {name: seen[name] for name in self.recipe.networks}

    @property
    def skipped(self) -> dict[str, str]:
        """Sample id -> why it cannot be used, over all modalities; a clip without embeddings can."""
        needed: list[CachedClips | Signals] = [*self.clips.values(), *self.signals.values()]
        return {name: why for cache in needed for name, why in cache.skipped.items()}

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the recordings' contents as they are used."""
        return hashlib.sha256("".join(sorted(self.fingerprints.values())).encode()).hexdigest()

    @property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 (hex) of what each stage sees, by stage name; the class names' vectors count as the teacher's.

        Only with a teacher are they looked at, so a student's fingerprint is that of its recordings alone.
        """
        found = {name: cache.fingerprint for name, cache in self.caches.items()}
        if self.dense is not None:
            found["dense"] = self.dense.fingerprint
        if self.loss is not None:
            found["loss"] = self.loss.fingerprint
        return _with_semantics(found, self.semantics)

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

        Crop and flip are the first stage's, changes of intensity each stage's own. A student sees the segments of its
        labels stage.
        """
        recipe, signals = self.recipe, self._signals(stages)
        images = [name for name in stages if name in self.clips]
        if not images and signals is not None:  # resampled onto the time of the student's clips
            clips = self._pairs(["student"], self.train)
            return self._loader(SignalDataset(clips, signals, recipe.seed), stages[0], batch_size, rank, world)
        windows = self.windows(recipe.windows, self._segments(stages[0]))
        dataset = self._changing(images, windows, signals, beside=self._beside(stages))
        return self._loader(dataset, stages[0], batch_size, rank, world)

    def windows(self, kind: WindowKind, segments: int) -> Windows:
        """Where the segments of a training clip lie."""
        seconds = None if kind == "clip" else self.clip_seconds
        before = {"mixed": BEFORE_SHARE, "stream": 1.0}.get(kind, 0.0)
        return Windows(segments, seconds, kind in ("loop", "mixed", "stream"), before, kind == "stream")

    def student_clips(self, samples: Sequence[Sample], *, changing: bool = False) -> ClipDataset:
        """The student's clips, changed at random or as evaluation sees them."""
        recipe = self.recipe
        if changing:
            return self._changing(["student"], Windows(recipe.segments), None, samples)
        spec = recipe.student.preprocess
        return ClipDataset(self._pairs(["student"], samples), [spec], Windows(recipe.segments), None, recipe.seed)

    @property
    def feature_space(self) -> FeatureSpace:
        """What the features of a teacher are that sees images.

        Raises:
            TrainingError: There is no such teacher.
        """
        space = _feature_space(self.recipe, self.embeddings)
        if space is None:
            raise TrainingError("a recipe without a teacher that sees images", "one", "add [teacher]")
        return space

    def teacher_clips(self, samples: Sequence[Sample]) -> ClipDataset:
        """The clips of a teacher that sees images, as evaluation sees them."""
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
        """Training clips of some image stages with their random changes, and what is known of their frames."""
        recipe, wanted = self.recipe, self.train if samples is None else samples
        pairs = PairedClips([self.clips[name] for name in images], wanted, self._givers(wanted))
        configs = [recipe.image_stages[name] for name in images]
        specs, augments = [c.preprocess for c in configs], [c.augment for c in configs]
        return ClipDataset(pairs, specs, windows, augments, recipe.seed, self.dataset.flip_labels, signals, beside)

    def _beside(self, stages: Sequence[str]) -> list[FrameValues]:
        """What stages know of the student's frames without being shown them."""
        seen = [self.embeddings[name] for name in stages if name in self.embeddings]
        known: list[FrameValues] = [FrameEmbeddings(embeddings, self.stamps_ns) for embeddings in seen]
        return [*known, self.loss] if self.loss is not None and "student" in stages else known

    @property
    def stamps_ns(self) -> dict[str, Int64]:
        """Sample id -> (N,) stamps of the student's frames."""
        return _stamps(self.clips)

    def _givers(self, samples: Sequence[Sample]) -> dict[str, str]:
        """Whose teacher's view goes with a sample's own of the student: another one's, where the recipe says so."""
        how, seed = self.recipe.teacher_shuffle, self.recipe.seed
        return {} if how is None else exchange(samples, seed, "teacher", by_class=how == "class")

    def _segments(self, stage: str) -> int:
        """T while a stage is trained end to end."""
        return self.recipe.first_segments if stage == "student" else self.recipe.segments

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
        """How often an epoch of a stage shows each class, but for a factor: mirrored clips count for what they become.

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
        """What is made of the sensors, where they are among the stages."""
        config = self.recipe.wearables
        if config is None or not self.signals.keys() & set(stages):
            return None
        return SignalInput(self.signals["teacher"], config.points, config.jitter if training else None)

    def evaluation_loader(
        self, stage: str, samples: Sequence[Sample], segments: int | None = None
    ) -> DataLoader[Batch]:
        """Centre frames and centre crops of a stage's clips, in order; those its modality has, see ``having``.

        Args:
            stage: ``student`` or ``teacher``.
            samples: Which clips.
            segments: T; None is the recipe's.
        """
        recipe, usable = self.recipe, self.having(stage, samples)
        batches = EpochBatches(len(usable), max(self.stage(stage).batch_size, 16), None)
        signals = self._signals([stage], training=False)
        if signals is not None:
            return make_loader(SignalDataset(self._pairs(["student"], usable), signals, recipe.seed), batches, 0)
        pairs = self._pairs([stage], usable)
        spec = recipe.image_stages[stage].preprocess
        windows = Windows(segments or recipe.segments)
        return make_loader(ClipDataset(pairs, [spec], windows, None, recipe.seed), batches, 0)

    def having(self, stage: str, samples: Sequence[Sample]) -> tuple[Sample, ...]:
        """Those of the samples that a stage's modality has."""
        return tuple(s for s in samples if s.id in self.caches[stage])

    def stage(self, name: str) -> Stage:
        """The recipe's ``student`` or ``teacher``."""
        return self.recipe.networks[name]

    def trained(self, name: str) -> StudentConfig | TrainedTeacher:
        """The same, of a stage that is trained.

        Raises:
            TrainingError: An encoder's is not.
        """
        stage = self.stage(name)
        if isinstance(stage, OnnxTeacherConfig):
            raise TrainingError(f"the {name} {stage.file} is frozen", "a network to train", "teach with it as it is")
        return stage

    def _pairs(self, stages: Sequence[str], samples: Sequence[Sample]) -> PairedClips:
        return PairedClips([self.clips[name] for name in stages], samples)


def gather_material(
    recipe: Recipe, data_root: Path | None = None, progress: Progress | None = None, *, at_most: int | None = None
) -> Material:
    """Open the recordings, split them and make the frame caches that are not there yet.

    Args:
        recipe: The run.
        data_root: Folder with the recordings.
        progress: Called while a frame cache is made.
        at_most: Only so many training clips, for a dry run; no validation or test clips then.

    Raises:
        DataError: Recordings missing, a class without a sample, no room for the cache.
        ConfigError: The recipe asks for what the data set does not have.
    """
    dataset = open_dataset(recipe.data, data_root)
    split = dataset.split(recipe.split)
    unlabelled = _unlabelled(recipe, dataset)
    recipe.check_data(dataset)
    _check_labels(dataset)
    semantics = None if recipe.semantics is None else class_vectors(recipe.semantics, dataset.labels, data_root)
    if at_most is None:
        # The whole data set is cached, so that other splits, validation subjects and seeds share it.
        clips, signals, embeddings = _load(recipe, dataset, dataset.samples, progress, unlabelled)
        sides = (_usable(side, [clips["student"]]) for side in (split.train, split.test, split.validation))
        split = Split(split.name, *sides)
    check_split(split, dataset.labels, by_subject=False)
    held_out = recipe.validation_subjects, recipe.validation_trials
    train, validation = training_sides(split, *held_out, labels=dataset.labels)
    test = split.test
    if at_most is None:
        train = _usable(train, [*clips.values(), *signals.values()])
        check_split(Split(split.name, train, test), dataset.labels, by_subject=False)
    _check_exchanged(recipe, train, dataset.labels)
    if at_most is not None:
        few = train[:: max(1, len(train) // at_most)][:at_most]
        clips, signals, embeddings = _load(recipe, dataset, few, progress)
        paired = PairedClips(list(clips.values()), few).samples
        train, validation, test = _usable(paired, [*clips.values(), *signals.values()]), (), ()
    for name, known in embeddings.items():
        _check_embedded(name, known, train)
    seconds = recipe.clip_seconds
    if seconds is None:
        lengths = [clip_length_ns(clips["student"].clip(s.id).stamps_ns) for s in train]
        seconds = round(float(np.median(lengths)) / 1e9, 3)
    ours: tuple[Sample, ...] = ()
    if isinstance(dataset, PartlyLabelled) and unlabelled:
        ours = _usable(dataset.unlabelled_apart_from((*validation, *test)), [clips["student"]])
    material = Material(
        recipe,
        dataset,
        train,
        validation,
        test,
        clips,
        signals,
        seconds,
        semantics,
        embeddings=embeddings,
        unlabelled=ours,
    )
    stage, loss = recipe.dense_stage, recipe.dense_loss
    return replace(
        material,
        dense=None if stage is None else _dense(material, stage.targets, unlabelled, progress, few=at_most is not None),
        loss=None if loss is None else _dense(material, loss.targets, (), progress, few=at_most is not None),
    )


def _dense(
    material: Material,
    wanted: Sequence[DenseTarget],
    unlabelled: Sequence[Sample],
    progress: Progress | None,
    *,
    few: bool,
) -> DenseTargets:
    """What a dense stage or loss regresses, scaled by the training clips; a stage's of clips without a label, too.

    The ``few`` clips of a dry run keep what a control would shuffle.
    """
    stamps = material.stamps_ns

    def pictures(sample: Sample) -> Float32:
        return material.student_clips([sample]).still(0, np.arange(len(stamps[sample.id])))

    if few:  # they have nobody to exchange with
        wanted = [target.model_copy(update={"shuffle": None}) for target in wanted]
    targets = gather_targets(
        wanted,
        material.dataset,
        stamps,
        (*material.dataset.samples, *unlabelled),
        _feature_space(material.recipe, material.embeddings),
        sides=(material.with_unlabelled if unlabelled else material.train, material.validation, material.test),
        seed=material.recipe.seed,
        pictures=pictures,
        progress=progress,
    )
    targets.fit(material.with_unlabelled if unlabelled else material.train)
    return targets


def training_batches(
    recipe: Recipe, stage: Training, samples: Sequence[Sample], batch_size: int, *, rank: int = 0, world: int = 1
) -> EpochBatches:
    """The batches of a stage's epochs, drawn from training samples as its ``sampler`` and ``repeat`` say."""
    classes = [s.label for s in samples] if stage.sampler == "balanced" else None
    return EpochBatches(len(samples), batch_size, recipe.seed, rank, world, repeat=stage.repeat, classes=classes)


def data_fingerprints(recipe: Recipe, data_root: Path | None = None) -> dict[str, str]:
    """What ``Material.fingerprints`` is or would be; nothing is decoded.

    Raises:
        DataError: No recordings there.
    """
    dataset = open_dataset(recipe.data, data_root)
    semantics = None if recipe.semantics is None else class_vectors(recipe.semantics, dataset.labels, data_root)
    found = {name: stage.data_fingerprint(dataset, recipe.cache_every) for name, stage in recipe.networks.items()}
    if recipe.dense_stage is not None:
        more = _unlabelled(recipe, dataset)
        found["student"] = recipe.student.data_fingerprint(dataset, recipe.cache_every, more)
        if isinstance(recipe.teacher, OnnxTeacherConfig) and _sees_unlabelled(recipe, "teacher"):
            found["teacher"] = recipe.teacher.data_fingerprint(dataset, recipe.cache_every, more)
        found["dense"] = targets_fingerprint(recipe.dense_stage.targets, dataset, (*dataset.samples, *more))
    if recipe.dense_loss is not None:
        found["loss"] = targets_fingerprint(recipe.dense_loss.targets, dataset, dataset.samples)
    return _with_semantics(found, semantics)


def _unlabelled(recipe: Recipe, dataset: Dataset) -> tuple[Sample, ...]:
    """All samples without a label, where a stage of the student needs none; the split decides which of them train."""
    return unlabelled_of(dataset) if recipe.dense_stage is not None else ()


def _sees_unlabelled(recipe: Recipe, name: str) -> bool:
    """Whether a network is shown clips without a label: the student, and an encoder whose features it regresses."""
    stage = recipe.dense_stage
    is_regressed = isinstance(recipe.teacher, OnnxTeacherConfig) and stage is not None and stage.features is not None
    return name == "student" or is_regressed


def _with_semantics(fingerprints: dict[str, str], semantics: ClassVectors | None) -> dict[str, str]:
    if semantics is None or "teacher" not in fingerprints:
        return fingerprints
    seen = fingerprints["teacher"].encode() + semantics.vectors.tobytes()
    return fingerprints | {"teacher": hashlib.sha256(seen).hexdigest()}


def _load(
    recipe: Recipe,
    dataset: Dataset,
    samples: Sequence[Sample],
    progress: Progress | None,
    unlabelled: Sequence[Sample] = (),
) -> tuple[dict[str, CachedClips], dict[str, Signals], dict[str, Embeddings]]:
    """What the stages see of the samples, by stage name: frame caches, signals, and embeddings.

    Those without a label only some see, see ``_sees_unlabelled``. Signals that hardly cover its clip are lacking: found
    now, before any span is moved.
    """

    def report(stage: Stage, done: int, total: int) -> None:
        if progress is not None:
            progress(stage.modality, done, total)

    seen = {
        name: stage.load(
            dataset,
            (*samples, *unlabelled) if _sees_unlabelled(recipe, name) else samples,
            recipe.cache_every,
            partial(report, stage),
        )
        for name, stage in recipe.networks.items()
    }
    clips = {name: cache for name, cache in seen.items() if isinstance(cache, CachedClips)}
    signals = {name: cache for name, cache in seen.items() if isinstance(cache, Signals)}
    embeddings = {name: cache for name, cache in seen.items() if isinstance(cache, Embeddings)}
    if signals:
        spans = {sample_id: (int(when[0]), int(when[-1])) for sample_id, when in _stamps(clips).items()}
        signals = {name: cache.on_clips(spans) for name, cache in signals.items()}
    return clips, signals, embeddings


def _feature_space(recipe: Recipe, embeddings: dict[str, Embeddings]) -> FeatureSpace | None:
    """What a teacher that sees images makes of each, before it is trained."""
    if "teacher" in embeddings:
        return FeatureSpace(embeddings["teacher"].modality, embeddings["teacher"].size)
    images = recipe.image_stages.get("teacher")
    return None if images is None else FeatureSpace(images.modality, frame_feature_size(images))


def _stamps(clips: dict[str, CachedClips]) -> dict[str, Int64]:
    """Sample id -> (N,) stamps of the student's frames."""
    return {s.id: clips["student"].clip(s.id).stamps_ns for s in clips["student"].samples}


def _usable(samples: Sequence[Sample], caches: Sequence[CachedClips | Signals]) -> tuple[Sample, ...]:
    """Samples that all of the modalities have."""
    return tuple(s for s in samples if all(s.id in cache for cache in caches))


def _check_embedded(name: str, embeddings: Embeddings, train: Sequence[Sample]) -> None:
    """Refuse an encoder that sees not one training clip: training would go on without a word."""
    if not any(sample.id in embeddings for sample in train):
        why = next(iter(embeddings.skipped.values()), "they are not there")
        raise DataError(
            f"no training clip has {embeddings.modality}, which the {name} sees (the first: {why})",
            "at least one",
            f"kd-edge data check, or remove [{name}]",
        )


def _check_exchanged(recipe: Recipe, train: Sequence[Sample], labels: Sequence[str]) -> None:
    """Refuse a control whose teacher would see a clip's own: nobody else could be shown for it."""
    if recipe.teacher_shuffle is None:
        return
    if len(train) < 2:
        raise DataError("teacher_shuffle with a single training clip", "at least two", "train on more, or leave it out")
    counts = Counter(sample.label for sample in train)
    alone = next((label for label, count in sorted(counts.items()) if count == 1), None)
    if recipe.teacher_shuffle == "class" and alone is not None:
        raise DataError(
            f"teacher_shuffle = 'class' with a single training clip of class '{labels[alone]}'",
            "at least two of each class",
            "train on more clips or other classes, or set teacher_shuffle = 'all'",
        )


def _check_labels(dataset: Dataset) -> None:
    classes = len(dataset.labels)
    wrong = next((s for s in dataset.samples if not 0 <= s.label < classes), None)
    if wrong is not None:
        raise DataError(
            f"sample {wrong.id} of {dataset.name} has label {wrong.label}",
            f"0 to {classes - 1}, a position in its {classes} class names",
            "correct the data set's reader or its label files",
        )
    if classes < 2:
        raise DataError(f"{dataset.name} has {classes} class", "at least two", "choose more classes")
