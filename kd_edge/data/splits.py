"""Training, validation and test sides: split by subject or trial, and checked for leaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from kd_edge.data.dataset import Sample, Split, listed
from kd_edge.errors import DataError, did_you_mean


def require_split(name: str, names: Sequence[str], dataset: str) -> None:
    """Raise a DataError unless the data set has the split."""
    if name not in names:
        raise DataError(
            f"{dataset} has no split '{name}'{did_you_mean(name, names)}",
            f"one of {', '.join(names)}",
            "correct the recipe's split",
        )


def split_by_subject(name: str, samples: Iterable[Sample], test_subjects: Iterable[str]) -> Split:
    """Split with whole subjects on the test side."""
    chosen, held_out = tuple(samples), frozenset(test_subjects)
    return Split(
        name,
        train=tuple(s for s in chosen if s.subject not in held_out),
        test=tuple(s for s in chosen if s.subject in held_out),
    )


def check_split(split: Split, labels: Sequence[str], *, by_subject: bool = True) -> None:
    """Check that a split can be trained on and has no leaks into the test side.

    Args:
        split: The split to check.
        labels: Class names.
        by_subject: Whether the protocol requires that no subject is on both sides.

    Raises:
        DataError: A class has no training sample, the test side is empty, or a sample (or subject) is on both sides.
    """
    present = {s.label for s in split.train}
    absent = [name for label, name in enumerate(labels) if label not in present]
    if absent:
        raise DataError(
            f"split '{split.name}' has no training sample of {listed(absent)}",
            "at least one training sample of every class",
            "complete the data set (kd-edge data check) or choose another split",
        )
    if not split.test:
        raise DataError(
            f"split '{split.name}' has no test sample",
            "at least one",
            "complete the data set (kd-edge data check) or choose another split",
        )
    learned = (*split.train, *split.validation)
    shared = {s.id for s in learned} & {s.id for s in split.test}
    if not shared and by_subject:
        shared = {s.subject for s in learned} & {s.subject for s in split.test}
    if shared:
        raise DataError(
            f"split '{split.name}' has {listed(sorted(shared))} on both sides",
            "training and test sides without overlap",
            "check the data set's sample names",
        )


def training_sides(
    split: Split, subjects: Sequence[str], trials: Sequence[str] = (), *, labels: Sequence[str] = ()
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Return training and validation samples: the protocol's validation side, or the samples that a recipe holds out.

    Returns:
        (train, validation); see ``validation_split``.

    Raises:
        DataError: See ``validation_split``.
    """
    if not subjects and not trials:
        return split.train, split.validation
    return validation_split((*split.train, *split.validation), subjects, trials, labels=labels)


def validation_split(
    train: Sequence[Sample], subjects: Sequence[str], trials: Sequence[str] = (), *, labels: Sequence[str] = ()
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Hold out whole subjects or repetitions of the training side for choosing epochs and settings.

    Args:
        train: Training samples of a split.
        subjects: Subjects to hold out.
        trials: Repetitions of every subject to hold out.
        labels: Class names for the message, which contains numbers without them.

    Returns:
        (train, validation), each in the given order.

    Raises:
        DataError: A subject or trial is not on the training side, or a class is left without a training sample.
    """
    for field, wanted, known in (
        ("subject", subjects, sorted({s.subject for s in train})),
        ("trial", trials, sorted({s.trial for s in train})),
    ):
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise DataError(
                f"validation {field} {listed(unknown)} is not on the training side",
                f"some of {', '.join(known)}",
                f"correct validation_{field}s in the recipe",
            )
    kept = tuple(s for s in train if s.subject not in subjects and s.trial not in trials)
    held_out = tuple(s for s in train if s.subject in subjects or s.trial in trials)
    lost = Counter(s.label for s in held_out).keys() - {s.label for s in kept}
    if lost:
        raise DataError(
            f"holding out {listed([*subjects, *trials])} leaves no training sample of class "
            f"{listed(labels[k] if labels else str(k) for k in sorted(lost))}",
            "at least one training sample of every class",
            "hold out fewer in validation_subjects and validation_trials",
        )
    return kept, held_out
