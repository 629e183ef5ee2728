"""Gain of one method over another, paired clip by clip on the same test clips, with intervals by subject and clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student_t

from kd_edge.rundir import Summary

RESAMPLES = 10_000
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Gain:
    """Difference of two methods' accuracies, in points; each is the mean over its seeds.

    Both intervals are for the trained networks: they do not include the variation over other seeds.

    Attributes:
        points: The difference.
        by_subject: 95 % interval over other subjects: Student's t over the subjects' differences, with one degree of
            freedom less than the effective number of equally large subjects. None with fewer than two subjects, or if
            the subject of some clip is unknown.
        by_clip: 95 % interval over other clips (bootstrap): too narrow if clips of a subject are similar.
        subjects: Subject -> difference.
    """

    points: float
    by_subject: tuple[float, float] | None
    by_clip: tuple[float, float]
    subjects: dict[str, float]


def pooled_gain(splits: Sequence[tuple[Sequence[Summary], Sequence[Summary]]]) -> Gain | None:
    """Compute the gain over the pooled test clips of several splits, for example leave-one-subject-out.

    Args:
        splits: Runs of both methods for each split. The runs of a split are averaged, whatever their number.

    Returns:
        The gain; None if the runs of a split were tested on different clips of a subject, or if a subject is in two
        splits.
    """
    differences: dict[str, npt.NDArray[np.float64]] = {}
    for ours, theirs in splits:
        a, b = _share_right(ours), _share_right(theirs)
        found = None if a is None or b is None else _differences(a, b)
        if found is None or found.keys() & differences.keys():
            return None
        differences |= found
    return _gain(differences) if differences else None


def paired(a: Mapping[str, npt.NDArray[np.float64]], b: Mapping[str, npt.NDArray[np.float64]]) -> Gain | None:
    """Compute the gain of one method over another; None unless both were tested on the same clips of each subject.

    Args:
        a: Subject -> (clips,) share of runs that were right.
        b: The same for the reference method.
    """
    differences = _differences(a, b)
    return None if differences is None else _gain(differences)


def _gain(differences: Mapping[str, npt.NDArray[np.float64]]) -> Gain:
    """The mean over all clips of all subjects, and its intervals."""
    differences = {subject: differences[subject] for subject in sorted(differences)}
    return Gain(
        points=float(np.concatenate(list(differences.values())).mean()),
        by_subject=_of_other_subjects(differences) if len(differences) > 1 and all(differences) else None,
        by_clip=_of_other_clips(differences),
        subjects={subject: float(values.mean()) for subject, values in differences.items()},
    )


def _differences(
    a: Mapping[str, npt.NDArray[np.float64]], b: Mapping[str, npt.NDArray[np.float64]]
) -> dict[str, npt.NDArray[np.float64]] | None:
    """Subject -> (clips,) difference in the share of right runs, in percent; None if numbers of clips differ."""
    if {k: len(v) for k, v in a.items()} != {k: len(v) for k, v in b.items()}:
        return None
    return {subject: 100 * (a[subject] - b[subject]) for subject in a}


def _share_right(runs: Sequence[Summary]) -> dict[str, npt.NDArray[np.float64]] | None:
    """Subject -> (clips,) share of the runs that were right."""
    marks = [student.test.right for run in runs if (student := run.stages.get("student")) and student.test is not None]
    if len(marks) < len(runs) or not marks or not all(marks):
        return None
    shape = {subject: len(each) for subject, each in marks[0].items()}
    if any({subject: len(each) for subject, each in other.items()} != shape for other in marks):
        return None
    return {
        subject: np.mean([[int(mark) for mark in each[subject]] for each in marks], axis=0) for subject in sorted(shape)
    }


def _of_other_subjects(differences: Mapping[str, npt.NDArray[np.float64]]) -> tuple[float, float]:
    """Interval from the mean over all clips and its cluster-robust error, times Student's t.

    A bootstrap over four subjects has 81 % coverage at a nominal 95 % (docs/adr/048).
    """
    sums, counts = (np.array([f(values) for values in differences.values()]) for f in (np.sum, len))
    effective = counts.sum() ** 2 / (counts**2).sum()  # effective number of equally large subjects
    mean, subjects = sums.sum() / counts.sum(), len(sums)
    error = np.sqrt(subjects / (subjects - 1) * ((sums - mean * counts) ** 2).sum()) / counts.sum()
    half = student_t.ppf((1 + LEVEL) / 2, effective - 1) * error
    return float(mean - half), float(mean + half)


def _of_other_clips(differences: Mapping[str, npt.NDArray[np.float64]]) -> tuple[float, float]:
    """Bootstrap interval of the mean over clips, computed in batches of draws."""
    every = np.concatenate(list(differences.values()))
    rng = np.random.default_rng(0)
    means = [every[rng.integers(len(every), size=(100, len(every)))].mean(axis=1) for _ in range(RESAMPLES // 100)]
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def shown_interval(interval: tuple[float, float] | None) -> str:
    """Format an interval as ``+1.2 to +3.4``, or as a dash if there is none."""
    return "-" if interval is None else f"{interval[0]:+.1f} to {interval[1]:+.1f}"
