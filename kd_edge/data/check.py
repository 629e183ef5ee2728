"""Check recordings before training on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from kd_edge.data.balance import ClassCount, Sides, class_counts, imbalances
from kd_edge.data.dataset import Dataset, Probe, Probed, Sample, Split, Wearables, listed, require_modality
from kd_edge.data.readers.files import Files
from kd_edge.data.readers.files.rows import manifest_of
from kd_edge.data.splits import check_split, training_sides
from kd_edge.data.survey import unlisted, unlisted_said
from kd_edge.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True)
class ModalityReport:
    """One modality of a data set.

    Attributes:
        modality: Name of the modality.
        usable: Number of clips that can be decoded; in a quick check, those whose file exists with a valid header.
        unusable: Sample id -> what is wrong with its file (missing or damaged), with the file name.
        frames: Shortest, median and longest clip, in frames; zeros if none is usable.
        seconds: Shortest, median and longest clip, in seconds from first to last frame; zeros if none is usable.
    """

    modality: str
    usable: int
    unusable: dict[str, str]
    frames: tuple[int, int, int]
    seconds: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class SplitReport:
    """Whether a training run on a split could start.

    Attributes:
        name: Name of the split.
        train: Number of training samples with every modality; 0 with a fault.
        validation: Number of samples held out of the training samples; 0 with a fault.
        test: Number of test samples with every modality; 0 with a fault.
        fault: Why a training run could not start; None if it could.
    """

    name: str
    train: int
    validation: int
    test: int
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Result of ``check``.

    Attributes:
        dataset: Name of the data set.
        samples: Number of samples with at least one recording.
        complete: Number of samples whose modalities can all be decoded.
        gaps: Sample id -> remark, for samples of the complete data set that are entirely missing from this copy.
        modalities: One report per modality.
        per_class: Class name -> number of samples.
        per_subject: Subject -> number of samples.
        remarks: Further remarks: counts against the official ones, repaired labels, modalities of one sample that
            differ in length by more than a tenth.
        quick: Whether only headers were read.
        split: Report on the requested split; None without one.
        sides: Name of the split on whose sides the classes are counted: the requested one, otherwise the data set's
            first; empty if the split fails.
        classes: Clips of each class, in total and on each side.
        imbalances: Classes with few clips or subjects, or none on a side, each with the rule.
    """

    dataset: str
    samples: int
    complete: int
    gaps: dict[str, str]
    modalities: tuple[ModalityReport, ...]
    per_class: dict[str, int]
    per_subject: dict[str, int]
    remarks: tuple[str, ...] = ()
    quick: bool = False
    split: SplitReport | None = None
    sides: str = ""
    classes: dict[str, ClassCount] = field(default_factory=dict)
    imbalances: tuple[str, ...] = ()

    @property
    def faultless(self) -> bool:
        """Whether every sample is usable in all its modalities."""
        return self.complete == self.samples

    @property
    def trainable(self) -> bool:
        """Whether a training run on the requested split could start; true if none was requested."""
        return self.split is None or self.split.fault is None


def check(
    dataset: Dataset,
    modalities: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    quick: bool = False,
    split: str | None = None,
    validation_subjects: Sequence[str] = (),
    validation_trials: Sequence[str] = (),
    fits: Callable[[Dataset], None] | None = None,
) -> Report:
    """Decode every clip once and report what is present, missing and damaged.

    Args:
        dataset: The data set to check.
        modalities: Modalities to check; None for all.
        progress: Called with (samples done, total number of samples).
        quick: Read only the headers of the files, if the data set supports it: presence, size and number of frames.
            Damage inside a file is not detected.
        split: Also report whether a training run on this split could start with the usable samples. A modality that
            this copy lacks then counts as unusable in every sample.
        validation_subjects: Subjects held out of the split's training side.
        validation_trials: Repetitions of every subject held out of the split's training side.
        fits: Raises a ConfigError or DataError if a training run on the split would refuse the data set.

    Raises:
        DataError: A modality is unknown and no split was given.
    """
    chosen = dataset.modalities if modalities is None else tuple(dict.fromkeys(modalities))
    for modality in chosen if split is None else ():
        require_modality(modality, dataset.modalities, dataset.name, fix="correct --modality")
    probed = dataset if quick and isinstance(dataset, Probed) else None
    unusable: dict[str, dict[str, str]] = {m: {} for m in chosen}
    lengths: dict[str, dict[str, Probe]] = {m: {} for m in chosen}
    for done, sample in enumerate(dataset.samples, 1):
        for modality in chosen:
            length = _length(dataset, probed, sample, modality)
            if isinstance(length, DataError):
                unusable[modality][sample.id] = length.found
            else:
                lengths[modality][sample.id] = length
        if progress is not None:
            progress(done, len(dataset.samples))
    held_out = (validation_subjects, validation_trials)
    faulty = {sample_id for found in unusable.values() for sample_id in found}
    classes, subjects = Counter(s.label for s in dataset.samples), Counter(s.subject for s in dataset.samples)
    counted_on = split or next(iter(dataset.splits()), "")
    # Without a recipe it is unknown which modalities are needed: a sample counts if one of them is usable.
    in_none = {"every": dict.fromkeys(set.intersection(*map(set, unusable.values())), "")} if unusable else {}
    usable = _counted(dataset, counted_on, unusable if split else in_none, held_out)
    counts = class_counts(dataset.labels, dataset.samples, usable)
    return Report(
        dataset=dataset.name,
        samples=len(dataset.samples),
        complete=len(dataset.samples) - len(faulty),
        gaps=dataset.gaps(),
        modalities=tuple(_report(m, list(lengths[m].values()), unusable[m]) for m in chosen),
        per_class={name: classes[label] for label, name in enumerate(dataset.labels)},
        per_subject=dict(sorted(subjects.items(), key=lambda item: (len(item[0]), item[0]))),
        remarks=(*_unlisted(dataset), *dataset.remarks(), *_uneven(lengths)),
        quick=probed is not None,
        split=None if split is None else _split_report(dataset, split, unusable, held_out, fits),
        sides="" if usable is None else counted_on,
        classes=counts,
        imbalances=tuple(imbalances(counts)),
    )


def _unlisted(dataset: Dataset) -> Iterator[str]:
    """Remark on recordings in a folder whose manifest does not name them."""
    if isinstance(dataset, Files) and (manifest := manifest_of(dataset.root)):
        with suppress(DataError):  # a link out of the folder: the files named in the manifest are usable anyway
            if names := unlisted(dataset.root, dataset.table, links=dataset.settings.links):
                yield unlisted_said(manifest.name, names)


def _length(dataset: Dataset, probed: Probed | None, sample: Sample, modality: str) -> Probe | DataError:
    try:
        if probed is not None:
            return probed.probe(sample, modality)
        clip = dataset.open(sample, modality)
        return Probe(len(clip), clip.seconds)
    except DataError as error:
        return error


def _split_report(
    dataset: Dataset,
    name: str,
    unusable: Mapping[str, Mapping[str, str]],
    held_out: tuple[Sequence[str], Sequence[str]],
    fits: Callable[[Dataset], None] | None,
) -> SplitReport:
    """Report whether a training run could start."""
    try:
        for modality in unusable:
            if not (isinstance(dataset, Wearables) and modality in dataset.sensors):
                dataset.image_format(modality)
        if fits is not None:
            fits(dataset)
        split = _usable(dataset, name, unusable)
        check_split(split, dataset.labels, by_subject=False)
        train, validation = training_sides(split, *held_out, labels=dataset.labels)
    except (ConfigError, DataError) as error:
        return SplitReport(name, 0, 0, 0, str(error))
    return SplitReport(name, len(train), len(validation), len(split.test))


def _counted(
    dataset: Dataset,
    name: str,
    unusable: Mapping[str, Mapping[str, str]],
    held_out: tuple[Sequence[str], Sequence[str]],
) -> Sides | None:
    """Usable samples on the sides of a split, even if a class has none; None if the split fails."""
    with suppress(DataError):  # reported by ``_split_report`` if the split was requested
        split = _usable(dataset, name, unusable)
        return *training_sides(split, *held_out), split.test
    return None


def _usable(dataset: Dataset, name: str, unusable: Mapping[str, Mapping[str, str]]) -> Split:
    """Usable samples of a split, by the same rule as at the start of training."""
    sensors = [m for m in unusable if isinstance(dataset, Wearables) and m in dataset.sensors]
    found = dataset.split(name)
    without = {i for m, faults in unusable.items() if m not in sensors for i in faults}
    if sensors:  # one of them is enough
        without |= set.intersection(*(set(unusable[sensor]) for sensor in sensors))
    sides = (found.train, found.test, found.validation)
    return Split(name, *(tuple(s for s in side if s.id not in without) for side in sides))


def _uneven(lengths: Mapping[str, Mapping[str, Probe]]) -> Iterator[str]:
    """Remarks on samples whose modalities differ so much in length that one may be truncated."""
    for first, second in combinations(lengths, 2):
        pairs = {
            i: (lengths[first][i].seconds, lengths[second][i].seconds) for i in lengths[first] if i in lengths[second]
        }
        uneven = [i for i, (a, b) in pairs.items() if abs(a - b) > max(0.1 * max(a, b), 0.2)]
        if uneven:
            yield f"{first} and {second} differ in length by more than a tenth: {listed(uneven)}"


def _report(modality: str, lengths: list[Probe], unusable: dict[str, str]) -> ModalityReport:
    if not lengths:
        return ModalityReport(modality, 0, unusable, (0, 0, 0), (0.0, 0.0, 0.0))
    frames, seconds = (np.array(column) for column in zip(*lengths, strict=True))
    return ModalityReport(
        modality,
        len(lengths),
        unusable,
        (int(frames.min()), int(np.median(frames)), int(frames.max())),
        (float(seconds.min()), float(np.median(seconds)), float(seconds.max())),
    )
