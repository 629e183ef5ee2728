"""What one method gains over another: clip by clip on the same test clips, with intervals that know of subjects."""

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

    Both intervals hold for the networks that were trained: what other seeds would give is not in them.

    Attributes:
        points: The difference.
        by_subject: 95 % interval if the subjects were others: Student's t over their differences, one degree of freedom
            fewer than subjects, of equally large ones that would say as much. None of fewer than two subjects, or where
            it is not known of every clip who performs.
        by_clip: 95 % interval if the clips were drawn anew (bootstrap): too narrow where clips of a subject are alike.
        subjects: Subject -> difference.
    """

    points: float
    by_subject: tuple[float, float] | None
    by_clip: tuple[float, float]
    subjects: dict[str, float]


def pooled_gain(splits: Sequence[tuple[Sequence[Summary], Sequence[Summary]]]) -> Gain | None:
    """The gain over the test clips of several splits together, each clip once, such as one left-out subject each.

    Args:
        splits: Runs of either method, split by split. Runs of a split are averaged, however many there are of it.

    Returns:
        None unless in every split all were tested on the same clips of each subject, and no subject in two splits.
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
    """The gain of one method over another; None unless both were tested on the same clips of each subject.

    Args:
        a: Subject -> (clips,) share of tries that were right.
        b: The same of what it is compared with.
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
    """Subject -> (clips,) how much more often, in percent, ours was right; None if they saw other numbers of clips."""
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
    """The mean over all clips and its error by clusters, times Student's t.

    A bootstrap of four subjects covers 81 % where it says 95 (docs/adr/048).
    """
    sums, counts = (np.array([f(values) for values in differences.values()]) for f in (np.sum, len))
    as_many = counts.sum() ** 2 / (counts**2).sum()  # equal subjects would say as much: fewer than there are
    mean, subjects = sums.sum() / counts.sum(), len(sums)
    error = np.sqrt(subjects / (subjects - 1) * ((sums - mean * counts) ** 2).sum()) / counts.sum()
    half = student_t.ppf((1 + LEVEL) / 2, as_many - 1) * error
    return float(mean - half), float(mean + half)


def _of_other_clips(differences: Mapping[str, npt.NDArray[np.float64]]) -> tuple[float, float]:
    """Quantiles of means of clips drawn with replacement, a batch of draws at a time."""
    every = np.concatenate(list(differences.values()))
    rng = np.random.default_rng(0)
    means = [every[rng.integers(len(every), size=(100, len(every)))].mean(axis=1) for _ in range(RESAMPLES // 100)]
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def shown_interval(interval: tuple[float, float] | None) -> str:
    """``+1.2 to +3.4``, or a dash where there is none."""
    return "-" if interval is None else f"{interval[0]:+.1f} to {interval[1]:+.1f}"
