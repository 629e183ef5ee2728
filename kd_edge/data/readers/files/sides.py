"""Splits of your own recordings, background pieces between labelled ones, and remarks."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import inf
from pathlib import PurePosixPath

import numpy as np

from kd_edge.data.dataset import listed
from kd_edge.data.readers.files.names import other_spellings, person
from kd_edge.data.readers.files.rows import Row
from kd_edge.data.readers.files.settings import Settings
from kd_edge.errors import DataError, printable

SHARE = 4
"""By default, one in this many subjects, or clips of each class, is held out."""
LEAST_GAP_S = 0.5
"""Shorter pauses between two labelled pieces are not background."""
_ROUNDING_S = 1e-5


def default_sides(rows: Sequence[Row], settings: Settings) -> dict[str, str]:
    """Map row id to ``train``, ``val`` or ``test`` by the first rule that applies; see ``Files``.

    Raises:
        DataError: ``test_subjects`` names an unknown subject.
    """
    subjects = in_order(rows)
    if settings.test_subjects is not None:
        tested, known = {person(name) for name in settings.test_subjects}, {person(name) for name in subjects}
        unknown = sorted(name for name in settings.test_subjects if person(name) not in known)
        if unknown:
            raise DataError(
                f"test_subjects in dataset.toml names {listed(unknown)}",
                f"some of {', '.join(subjects)}",
                "correct it",
            )
        return by_subject(rows, [name for name in subjects if person(name) in tested])
    if any(row.split == "test" for row in rows):
        return _with_validation(rows, {row.id: row.split or "train" for row in rows})
    if held_out := _test_subjects(rows):
        test = {row.id for row in _training_rows(rows) if row.subject in held_out}
        return _with_validation(rows, {row.id: "test" if row.id in test else _train_or_val(row) for row in rows})
    return by_clip(rows)


def by_subject(rows: Sequence[Row], held_out: Sequence[str]) -> dict[str, str]:
    """Put whole subjects on the test side."""
    return _with_validation(rows, {row.id: "test" if row.subject in held_out else _train_or_val(row) for row in rows})


def by_clip(rows: Sequence[Row]) -> dict[str, str]:
    """Put the last quarter of each class's pieces, by id, on the test side; validation rows stay there."""
    test = _last_of_each_class(_training_rows(rows))
    return _with_validation(rows, {row.id: "test" if row.id in test else _train_or_val(row) for row in rows})


def _training_rows(rows: Sequence[Row]) -> list[Row]:
    """Rows from which a test side may be taken."""
    return [row for row in rows if _train_or_val(row) == "train"]


def _test_subjects(rows: Sequence[Row]) -> Sequence[str]:
    """Subjects of the default test side; empty if fewer than two are known."""
    subjects = in_order(_training_rows(rows))
    return _last(subjects) if len(subjects) > 1 else ()


def _train_or_val(row: Row) -> str:
    return "val" if row.split == "val" else "train"


def _with_validation(rows: Sequence[Row], sides: dict[str, str]) -> dict[str, str]:
    """Move part of the training side to validation, unless there is one already or a class would lose all its samples.

    The last subjects are moved, or clips if the same people are on both sides anyway.
    """
    if "val" in sides.values():
        return sides
    train = [row for row in rows if sides[row.id] == "train"]
    subjects = in_order(train)
    tested = {row.subject for row in rows if sides[row.id] == "test"}
    of_subjects = {row.id for row in train if row.subject in _last(subjects)} if len(subjects) > 1 else set()
    is_by_clip = len(subjects) <= 1 or not tested.isdisjoint(subjects)
    for held_out in (of_subjects, _last_of_each_class(train) if is_by_clip else set()):
        remaining = {row.label for row in train if row.id not in held_out}
        if held_out and remaining == {row.label for row in train}:
            return sides | dict.fromkeys(held_out, "val")
    return sides


def in_order(rows: Sequence[Row]) -> list[str]:
    """Known subjects in natural order: alphabetical, with numbers, also inside names, by value."""
    return sorted({row.subject for row in rows if row.subject}, key=_natural)


def _natural(name: str) -> tuple[list[str | int], str]:
    parts = re.split(r"(\d+)", name.casefold())  # text at even indices, numbers at odd ones
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def _last(names: Sequence[str]) -> Sequence[str]:
    return names[-max(1, len(names) // SHARE) :]


def _last_of_each_class(rows: Sequence[Row]) -> set[str]:
    """Ids of the last quarter of each class with more than one row."""
    ids = defaultdict[str, list[str]](list)
    for row in rows:
        ids[row.label].append(row.id)
    return {name for ids_of_class in ids.values() if len(ids_of_class) > 1 for name in _last(sorted(ids_of_class))}


def background(rows: Sequence[Row], label: str | None, length: Callable[[Row], float | None]) -> Iterator[Row]:
    """Yield the gaps before, between and after labelled pieces of long recordings, in parts about as long as a piece.

    A recording consists of all rows that share a file and a clock, directly or through other rows, whatever their
    modalities. Its gaps are unknown if it has only one piece or a piece without an end.

    Args:
        rows: Labelled pieces, and pieces without a label yet.
        label: Name of the background class; None yields nothing.
        length: Returns the end of a row's recording on the row's clock, in seconds; None if unknown.
    """
    if label is None:
        return
    elsewhere = _pieces_on_other_clocks(rows)
    yield from (part for part in _gaps(rows, label, length) if not _is_within(part, elsewhere))


def _gaps(rows: Sequence[Row], label: str, length: Callable[[Row], float | None]) -> Iterator[Row]:
    """See ``background``; each recording on its own clock."""
    lengths = [row.end_s - row.start_s for row in rows if row.end_s is not None]
    for pieces in _recordings(rows):
        if len(pieces) < 2 or any(row.end_s is None for row in pieces):
            continue
        gap_start, usual = 0.0, float(np.median(lengths))
        for row in sorted(pieces, key=lambda row: row.start_s):
            yield from _parts(row, f"{row.id}-before", label, (gap_start, row.start_s), usual)
            gap_start = max(gap_start, row.end_s or 0.0)
        last = max(pieces, key=lambda row: row.end_s or 0.0)
        if (end := length(last)) is not None:
            yield from _parts(last, f"{last.id}-after", label, (gap_start, end), usual)


_Clock = tuple[PurePosixPath, float]
"""A file and its offset from a row's clock, in seconds; positive if the file begins later."""


def _clocks(row: Row) -> list[_Clock]:
    return [(path, row.offsets_s.get(name, 0.0)) for name, path in row.files.items()]


def _recordings(rows: Sequence[Row]) -> list[list[Row]]:
    """Group rows by recording: those that share a file, directly or through other rows (union-find)."""
    parents: dict[_Clock, _Clock] = {}

    def root(clock: _Clock) -> _Clock:
        while (parent := parents.setdefault(clock, clock)) != clock:
            parents[clock] = clock = parents[parent]
        return clock

    for row in rows:
        first, *others = _clocks(row)
        for clock in others:
            parents[root(clock)] = root(first)
    found = defaultdict[_Clock, list[Row]](list)
    for row in rows:
        found[root(_clocks(row)[0])].append(row)
    return list(found.values())


_Pieces = dict[PurePosixPath, list[tuple[float, float]]]
"""Start and end of the pieces of a file, in seconds since its beginning."""


def _pieces_on_other_clocks(rows: Sequence[Row]) -> _Pieces:
    """All pieces of the files for which rows give different offsets."""
    offsets = defaultdict[PurePosixPath, set[float]](set)
    for row in rows:
        for path, offset in _clocks(row):
            offsets[path].add(offset)
    found: _Pieces = defaultdict(list)
    for row in rows:
        for path, offset in _clocks(row):
            if len(offsets[path]) > 1:
                found[path].append((row.start_s - offset, (inf if row.end_s is None else row.end_s) - offset))
    return found


def _is_within(part: Row, pieces: _Pieces) -> bool:
    """Whether a gap overlaps a piece of one of its files."""
    end = part.start_s if part.end_s is None else part.end_s
    return any(
        start < end - offset - _ROUNDING_S and part.start_s - offset + _ROUNDING_S < stop
        for path, offset in _clocks(part)
        for start, stop in pieces.get(path, ())
    )


def _parts(row: Row, name: str, label: str, gap: tuple[float, float], usual: float) -> Iterator[Row]:
    """Split a gap next to a piece into equal parts."""
    begin, seconds = gap[0], gap[1] - gap[0]
    count = max(1, round(seconds / usual)) if seconds >= max(LEAST_GAP_S, usual / 4) else 0
    for k in range(count):
        start, stop = (round(begin + seconds * part / count, 6) for part in (k, k + 1))
        yield replace(row, id=f"{name}-{k}", label=label, start_s=start, end_s=stop)


def notable(rows: Sequence[Row], modalities: Sequence[str], settings: Settings) -> Iterator[str]:
    """Yield remarks that a user should know before training."""
    yield from _notable_subjects(rows)
    if settings.test_subjects is None:
        yield from _notable_test_side(rows)
    counts = Counter(row.label for row in rows)
    (most, many), (least, few) = counts.most_common()[0], counts.most_common()[-1]
    if many > 3 * few:
        yield f"'{most}' has {many} recordings, '{least}' {few}"
    for name in modalities:
        count = sum(name in row.files for row in rows)
        if count < len(rows):
            yield f"{name} exists for {count} of {len(rows)} recordings"
    if settings.mirror is None:
        yield "pictures are not mirrored; if mirroring changes no class, set mirror = [] in dataset.toml"


def _notable_subjects(rows: Sequence[Row]) -> Iterator[str]:
    sides = defaultdict[str, set[str]](set)
    subjects = defaultdict[str, set[str]](set)
    for row in rows:
        subjects[row.label].add(row.subject)
        sides[row.subject].add(row.split or "train")
    known = in_order(rows)
    if len(known) == 1 and "" not in sides:
        yield f"one subject, {known[0]}, performs everything: nobody else is tested"
    elif len(known) < 2:
        if not any(row.split for row in rows):
            yield "the subjects are unknown: one person's clips may be on both sides (column subject)"
    elif of_one := sorted(label for label, names in subjects.items() if len(names) == 1 and "" not in names):
        yield f"classes performed by only one subject: {listed(of_one)}"
    yield from _notable_names(rows)
    if both := sorted(name for name, names in sides.items() if name and {"train", "test"} <= names):
        yield f"subjects on both the training and the test side: {listed(both)}"


def _notable_names(rows: Sequence[Row]) -> Iterator[str]:
    """Remarks on subjects that may be one person, and on recordings without a subject if others have one."""
    if spelled := other_spellings(row.subject for row in rows):
        pairs = [f"{name} and {first}" for name, first in spelled.items()]
        yield f"subjects that may be one person, written in two ways: {listed(pairs)}"
    unknown = [row.id for row in rows if not row.subject]
    if unknown and in_order(rows):
        yield f"recordings of an unknown subject: {len(unknown)}, for example {printable(unknown[0])}"


def _notable_test_side(rows: Sequence[Row]) -> Iterator[str]:
    """Remarks on the default test side if other sides are named."""
    named = {row.split for row in rows} - {""}
    if not named or "test" in named:
        return
    held_out = _test_subjects(rows)
    taken = f"subjects {listed(held_out)}" if held_out else "the last quarter of each class's clips"
    yield f"no recording is on the test side: {taken} of the training side are used for it"
    validated = {row.subject for row in rows if row.split == "val"}
    if both := [name for name in held_out if name in validated]:
        yield f"subjects on both the validation and the test side: {listed(both)}"
