"""Which of one's own recordings are for training, validation and test; what lies between labelled pieces; remarks."""

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
"""One subject in so many, or one clip of each class, is held out where nothing says which."""
LEAST_GAP_S = 0.5
"""A shorter pause between two labelled pieces is none of the background."""
_ROUNDING_S = 1e-5


def default_sides(rows: Sequence[Row], settings: Settings) -> dict[str, str]:
    """Row id -> ``train``, ``val`` or ``test`` by the first rule that applies.

    Raises:
        DataError: ``test_subjects`` names one that is not there.
    """
    subjects = in_order(rows)
    if settings.test_subjects is not None:
        wanted, known = {person(name) for name in settings.test_subjects}, {person(name) for name in subjects}
        absent = sorted(name for name in settings.test_subjects if person(name) not in known)
        if absent:
            raise DataError(
                f"test_subjects in dataset.toml names {listed(absent)}", f"some of {', '.join(subjects)}", "correct it"
            )
        return by_subject(rows, [name for name in subjects if person(name) in wanted])
    if any(row.split == "test" for row in rows):
        return _validated(rows, {row.id: row.split or "train" for row in rows})
    if held_out := _tested(rows):
        test = {row.id for row in _trained(rows) if row.subject in held_out}
        return _validated(rows, {row.id: "test" if row.id in test else _training(row) for row in rows})
    return by_clip(rows)


def by_subject(rows: Sequence[Row], held_out: Sequence[str]) -> dict[str, str]:
    """Whole subjects on the test side."""
    return _validated(rows, {row.id: "test" if row.subject in held_out else _training(row) for row in rows})


def by_clip(rows: Sequence[Row]) -> dict[str, str]:
    """The last quarter of each class's pieces on the test side, by their ids; what is for validation stays there."""
    test = _last_of_each_class(_trained(rows))
    return _validated(rows, {row.id: "test" if row.id in test else _training(row) for row in rows})


def _trained(rows: Sequence[Row]) -> list[Row]:
    """Of which a test side may be made."""
    return [row for row in rows if _training(row) == "train"]


def _tested(rows: Sequence[Row]) -> Sequence[str]:
    """Subjects that become the test side where nothing names one; none where fewer than two are known."""
    subjects = in_order(_trained(rows))
    return _last(subjects) if len(subjects) > 1 else ()


def _training(row: Row) -> str:
    return "val" if row.split == "val" else "train"


def _validated(rows: Sequence[Row], sides: dict[str, str]) -> dict[str, str]:
    """With a validation side made of the training side, unless there is one or a class would have no other sample.

    It is made of the last subjects; of clips where people are on both sides anyway.
    """
    if "val" in sides.values():
        return sides
    train = [row for row in rows if sides[row.id] == "train"]
    subjects = in_order(train)
    tested = {row.subject for row in rows if sides[row.id] == "test"}
    by_whom = {row.id for row in train if row.subject in _last(subjects)} if len(subjects) > 1 else set()
    is_by_clip = len(subjects) <= 1 or not tested.isdisjoint(subjects)
    for held_out in (by_whom, _last_of_each_class(train) if is_by_clip else set()):
        left = {row.label for row in train if row.id not in held_out}
        if held_out and left == {row.label for row in train}:
            return sides | dict.fromkeys(held_out, "val")
    return sides


def in_order(rows: Sequence[Row]) -> list[str]:
    """Subjects that are known: words by the alphabet, numbers, also those in names, by their value."""
    return sorted({row.subject for row in rows if row.subject}, key=_natural)


def _natural(name: str) -> tuple[list[str | int], str]:
    parts = re.split(r"(\d+)", name.casefold())  # text at even places, numbers at odd ones
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def _last(names: Sequence[str]) -> Sequence[str]:
    return names[-max(1, len(names) // SHARE) :]


def _last_of_each_class(rows: Sequence[Row]) -> set[str]:
    """Ids of the last quarter of each class; of a class of one none."""
    ids = defaultdict[str, list[str]](list)
    for row in rows:
        ids[row.label].append(row.id)
    return {name for its in ids.values() if len(its) > 1 for name in _last(sorted(its))}


def background(rows: Sequence[Row], label: str | None, length: Callable[[Row], float | None]) -> Iterator[Row]:
    """What lies before, between and after the labelled pieces of long recordings, in parts about as long as a piece.

    A recording is all rows that share a file and a clock, or are joined by rows that do, whatever modalities each of
    them has. One with a piece that has no end, or with one piece only, has no gaps that can be told.

    Args:
        rows: Labelled pieces, and pieces that nobody has labelled yet.
        label: Name of the class; None makes nothing.
        length: Where a row's recording ends, on the row's clock, s; None where that cannot be found out.
    """
    if label is None:
        return
    elsewhere = _pieces_on_other_clocks(rows)
    yield from (part for part in _gaps(rows, label, length) if not _is_within(part, elsewhere))


def _gaps(rows: Sequence[Row], label: str, length: Callable[[Row], float | None]) -> Iterator[Row]:
    """See ``background``; each recording by its own clock."""
    lengths = [row.end_s - row.start_s for row in rows if row.end_s is not None]
    for its in _recordings(rows):
        if len(its) < 2 or any(row.end_s is None for row in its):
            continue
        since, usual = 0.0, float(np.median(lengths))
        for row in sorted(its, key=lambda row: row.start_s):
            yield from _parts(row, f"{row.id}-before", label, (since, row.start_s), usual)
            since = max(since, row.end_s or 0.0)
        last = max(its, key=lambda row: row.end_s or 0.0)
        if (end := length(last)) is not None:
            yield from _parts(last, f"{last.id}-after", label, (since, end), usual)


_Clock = tuple[PurePosixPath, float]
"""A file, and how much later than a row's clock it begins, s."""


def _clocks(row: Row) -> list[_Clock]:
    return [(path, row.offsets_s.get(name, 0.0)) for name, path in row.files.items()]


def _recordings(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows that belong to one recording: those that share a file, directly or by way of others (union-find)."""
    above: dict[_Clock, _Clock] = {}

    def topmost(clock: _Clock) -> _Clock:
        while (parent := above.setdefault(clock, clock)) != clock:
            above[clock] = clock = above[parent]
        return clock

    for row in rows:
        first, *others = _clocks(row)
        for clock in others:
            above[topmost(clock)] = topmost(first)
    found = defaultdict[_Clock, list[Row]](list)
    for row in rows:
        found[topmost(_clocks(row)[0])].append(row)
    return list(found.values())


_Pieces = dict[PurePosixPath, list[tuple[float, float]]]
"""Where pieces begin and end in a file, s since it began."""


def _pieces_on_other_clocks(rows: Sequence[Row]) -> _Pieces:
    """All pieces of the files that begin at different moments by different rows."""
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
    """Whether a gap reaches into a piece of one of its files."""
    end = part.start_s if part.end_s is None else part.end_s
    return any(
        start < end - offset - _ROUNDING_S and part.start_s - offset + _ROUNDING_S < stop
        for path, offset in _clocks(part)
        for start, stop in pieces.get(path, ())
    )


def _parts(row: Row, name: str, label: str, gap: tuple[float, float], usual: float) -> Iterator[Row]:
    """A gap beside a piece in equal parts."""
    begin, seconds = gap[0], gap[1] - gap[0]
    count = max(1, round(seconds / usual)) if seconds >= max(LEAST_GAP_S, usual / 4) else 0
    for k in range(count):
        start, stop = (round(begin + seconds * part / count, 6) for part in (k, k + 1))
        yield replace(row, id=f"{name}-{k}", label=label, start_s=start, end_s=stop)


def notable(rows: Sequence[Row], modalities: Sequence[str], settings: Settings) -> Iterator[str]:
    """What to know before training."""
    yield from _notable_subjects(rows)
    if settings.test_subjects is None:
        yield from _notable_test_side(rows)
    counts = Counter(row.label for row in rows)
    (most, many), (least, few) = counts.most_common()[0], counts.most_common()[-1]
    if many > 3 * few:
        yield f"'{most}' has {many} recordings, '{least}' {few}"
    for name in modalities:
        having = sum(name in row.files for row in rows)
        if having < len(rows):
            yield f"{name} exists for {having} of {len(rows)} recordings"
    if settings.mirror is None:
        yield "pictures are not mirrored: mirror = [] in dataset.toml says that no class changes by it"


def _notable_subjects(rows: Sequence[Row]) -> Iterator[str]:
    sides = defaultdict[str, set[str]](set)
    subjects = defaultdict[str, set[str]](set)
    for row in rows:
        subjects[row.label].add(row.subject)
        sides[row.subject].add(row.split or "train")
    known = in_order(rows)
    if len(known) == 1 and "" not in sides:
        yield f"one subject performs everything, {known[0]}: nobody else is tested"
    elif len(known) < 2:
        if not any(row.split for row in rows):
            yield "nobody knows who performs what: one person's clips may lie on both sides (column subject)"
    elif lonely := sorted(label for label, names in subjects.items() if len(names) == 1 and "" not in names):
        yield f"classes that one subject alone performs: {listed(lonely)}"
    yield from _notable_names(rows)
    if both := sorted(name for name, its in sides.items() if name and {"train", "test"} <= its):
        yield f"subjects on the training and on the test side: {listed(both)}"


def _notable_names(rows: Sequence[Row]) -> Iterator[str]:
    """Subjects that may be one person, and recordings of nobody beside those of subjects."""
    if spelled := other_spellings(row.subject for row in rows):
        pairs = [f"{name} and {first}" for name, first in spelled.items()]
        yield f"subjects that may be one person, written in two ways: {listed(pairs)}"
    unknown = [row.id for row in rows if not row.subject]
    if unknown and in_order(rows):
        yield f"recordings of which nobody knows who performs: {len(unknown)}, {printable(unknown[0])} for one"


def _notable_test_side(rows: Sequence[Row]) -> Iterator[str]:
    """What is tested where sides are named, the test side not among them."""
    named = {row.split for row in rows} - {""}
    if not named or "test" in named:
        return
    held_out = _tested(rows)
    taken = f"subjects {listed(held_out)}" if held_out else "the last quarter of each class's clips"
    yield f"no recording is of the test side: {taken} of the training side become it"
    validated = {row.subject for row in rows if row.split == "val"}
    if both := [name for name in held_out if name in validated]:
        yield f"subjects on the validation and on the test side: {listed(both)}"
