"""Gather the training data of a run: open the recordings, split them, and create missing caches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from kd_edge.data import Dataset, Sample, Split, check_split, open_dataset, training_sides
from kd_edge.data.cache.frames import CachedClips
from kd_edge.data.cache.pairs import PairedClips
from kd_edge.data.dataset import PartlyLabelled, unlabelled_of
from kd_edge.data.signals.load import Signals
from kd_edge.data.words.class_vectors import class_vectors
from kd_edge.errors import DataError
from kd_edge.train.inputs.embeddings import Embeddings
from kd_edge.train.inputs.material import Material, Progress, stamps_of, with_semantics
from kd_edge.train.inputs.targets import DenseTargets, gather_targets, targets_fingerprint
from kd_edge.train.inputs.windows import clip_length_ns
from kd_edge.train.recipe import Recipe, Stage
from kd_edge.train.recipe.student_stages import DenseTarget
from kd_edge.train.recipe.teacher_stages import OnnxTeacherConfig
from kd_edge.types import Float32


def gather_material(
    recipe: Recipe, data_root: Path | None = None, progress: Progress | None = None, *, at_most: int | None = None
) -> Material:
    """Open the recordings, split them and create missing frame caches.

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
    side = train
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
    dense_only: tuple[Sample, ...] = ()
    if at_most is None and recipe.dense_stage is not None:
        every_stage = {sample.id for sample in train}
        dense_only = tuple(sample for sample in side if sample.id not in every_stage)
    if isinstance(dataset, PartlyLabelled) and unlabelled:
        dense_only += _usable(dataset.unlabelled_apart_from((*validation, *test)), [clips["student"]])
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
        dense_only=dense_only,
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
    """Targets of a dense stage or loss, also of clips without a label; scaled by the training clips.

    So a loss that goes on with what a stage began has its units. Only a target that no training clip has is scaled by
    the others.

    The ``few`` clips of a dry run keep what a control would shuffle.
    """
    stamps, sides = material.stamps_ns, [material.train, material.validation, material.test]
    if material.dense_only:
        sides.append(material.dense_only)

    def pictures(sample: Sample) -> Float32:
        return material.student_clips([sample]).still(0, np.arange(len(stamps[sample.id])))

    if few:  # they have nobody to exchange with
        wanted = [target.model_copy(update={"shuffle": None}) for target in wanted]
    targets = gather_targets(
        wanted,
        material.dataset,
        stamps,
        (*material.dataset.samples, *unlabelled),
        material.feature_space,
        sides=sides,
        seed=material.recipe.seed,
        pictures=pictures,
        progress=progress,
    )
    targets.fit(material.train, material.dense_only)
    return targets


def data_fingerprints(recipe: Recipe, data_root: Path | None = None) -> dict[str, str]:
    """The value of ``Material.fingerprints``, without decoding anything.

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
    return with_semantics(found, semantics)


def _unlabelled(recipe: Recipe, dataset: Dataset) -> tuple[Sample, ...]:
    """All samples without a label, if a stage of the student can use them; the split decides which of them train."""
    return unlabelled_of(dataset) if recipe.dense_stage is not None else ()


def _sees_unlabelled(recipe: Recipe, name: str) -> bool:
    """Whether a network sees clips without a label: the student, and an encoder whose features it regresses."""
    stage = recipe.dense_stage
    is_regressed = isinstance(recipe.teacher, OnnxTeacherConfig) and stage is not None and stage.features is not None
    return name == "student" or is_regressed


def _load(
    recipe: Recipe,
    dataset: Dataset,
    samples: Sequence[Sample],
    progress: Progress | None,
    unlabelled: Sequence[Sample] = (),
) -> tuple[dict[str, CachedClips], dict[str, Signals], dict[str, Embeddings]]:
    """Inputs of the stages, by stage name: frame caches, signals and embeddings.

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
        spans = {sample_id: (int(when[0]), int(when[-1])) for sample_id, when in stamps_of(clips).items()}
        signals = {name: cache.on_clips(spans) for name, cache in signals.items()}
    return clips, signals, embeddings


def _usable(samples: Sequence[Sample], caches: Sequence[CachedClips | Signals]) -> tuple[Sample, ...]:
    """Samples that all of the modalities have."""
    return tuple(s for s in samples if all(s.id in cache for cache in caches))


def _check_embedded(name: str, embeddings: Embeddings, train: Sequence[Sample]) -> None:
    """Refuse an encoder that sees no training clip: training would silently go on without it."""
    if not any(sample.id in embeddings for sample in train):
        why = next(iter(embeddings.skipped.values()), "they are not there")
        raise DataError(
            f"no training clip has {embeddings.modality}, which the {name} sees (the first: {why})",
            "at least one",
            f"kd-edge data check, or remove [{name}]",
        )


def _check_exchanged(recipe: Recipe, train: Sequence[Sample], labels: Sequence[str]) -> None:
    """Refuse a control in which some clip has no other clip to be exchanged with."""
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
