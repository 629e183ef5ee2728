"""Rows from folders: ``[train|val|test/]CLASS/STEM_MODALITY.ext``, or images in ``STEM_MODALITY/``.

Above the class folders there may be modality folders (``ir/CLASS/...``) or folders of numbered people
(``subject_03/CLASS/...``).
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from kd_edge.data.readers import pages
from kd_edge.data.readers.files.media import ENDINGS as OF_MEDIA
from kd_edge.data.readers.files.media import STAMPS, deep_or_grey
from kd_edge.data.readers.files.media import TEXTS as SIGNALS
from kd_edge.data.readers.files.names import fields_from_names, is_subject
from kd_edge.data.readers.files.rows import NAMES, Folder, Row, Table, is_label
from kd_edge.data.readers.files.settings import FILE, MODALITY, is_modality
from kd_edge.data.readers.files.skeletons import ENDINGS as SKELETONS
from kd_edge.data.readers.images import IMAGES
from kd_edge.data.readers.pages import ENDINGS as PAGES
from kd_edge.errors import ConfigError, DataError, printable

ENDINGS, TEXTS = (*OF_MEDIA, *SKELETONS), (*SIGNALS, *SKELETONS)
"""Suffixes of all files that are read, and of those that are read only if their names contain a modality."""
MOST_FILES = 2_000_000
UNLABELLED = "unlabelled"
"""Name of the folder of unlabelled recordings."""
FIELDS = ("subject", "view", "trial", "modality", "label")
_SIDES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_NOT_RECORDINGS = (*NAMES, FILE, STAMPS, "labels.csv")
_FIELD = re.compile(r"\{(\w+)\}")
_UNNAMED = "rgb"
_TRIED = 10
_Key = tuple[str, str, str]
"""Side, class and name of a recording."""
_Groups = dict[_Key, dict[str, PurePosixPath]]
"""File of each modality of each recording."""


def find_rows(
    root: Path,
    pattern: str | None = None,
    known: Collection[str] = (),
    *,
    links: bool = False,
    label: str | None = None,
) -> Table:
    """Find every recording below a folder, grouping files by their names without the modality.

    Args:
        root: The folder; files directly in it and in a folder ``unlabelled`` have no class.
        pattern: Fields of a file name, for example ``subject{subject}_trial{trial}_{modality}``. None takes the text
            after the last underscore as the modality if it is a usual name of one, as in ``wave_03_ir`` or
            ``wave_03/ir``; otherwise the modality is ``rgb``. If no name contains a modality, grey pictures are ``ir``,
            or ``thermal`` if deeper than 8 bit. Other fields are recognised as in ``fields_from_names``.
        known: Names of modalities in addition to the usual ones.
        links: Whether symbolic links may lead out of the folder.
        label: Class of all recordings, empty if they have none; folder names then become part of the recordings' names.
            None reads the class from folder and file names.

    Raises:
        DataError: There are no recordings, or a link leads out of the folder.
        ConfigError: The pattern is invalid.
    """
    groups, fields, unrecognised, is_named = _grouped(root, pattern, known, links=links)
    if not groups:
        raise _no_recording(root, unrecognised, in_classes=label is None)
    if label is not None:
        renamed = {key: (key[0], label, "/".join(filter(None, key[1:]))) for key in groups}
        groups = {renamed[key]: files for key, files in groups.items()}
        fields = {renamed[key]: values for key, values in fields.items()}
    if pattern is None and label != "":  # otherwise names could add classes
        groups, fields = _by_names(groups, fields, root)
    if not is_named:
        unnamed = _unnamed(root, [files[_UNNAMED] for files in groups.values()])
        groups = {key: {unnamed: files[_UNNAMED]} for key, files in groups.items()}
    if invalid := [name for _, name, _ in groups if not is_label(name)]:
        raise DataError(f"{root} has a folder '{printable(invalid[0][:40])}'", "the name of a class", "rename it")
    rows = tuple(_row(key, groups[key], fields[key]) for key in sorted(groups, key=lambda k: (k[1], k[2], k[0])))
    modalities = tuple(sorted({name for row in rows for name in row.files}))
    remarks = []
    if unrecognised:
        count = f"{len(unrecognised)}, for example {printable(unrecognised[0])}"
        remarks.append(f"files with unrecognised names: {count}")
    if unlabelled := [row.id for row in rows if not row.label]:
        count = f"{len(unlabelled)}, for example {printable(unlabelled[0])}"
        remarks.append(f"recordings without a class, used only by dense stages: {count}")
    return Table(rows, modalities, tuple(remarks))


def _unnamed(root: Path, paths: Sequence[PurePosixPath]) -> str:
    """Modality of recordings whose names contain none, judged by the first one that can be read."""
    for path in paths[:_TRIED]:
        with suppress(DataError):
            return {"deep": "thermal", "grey": "ir", "": _UNNAMED}[deep_or_grey(root / path)]
    return _UNNAMED


def _levels(paths: Sequence[PurePosixPath], known: Collection[str]) -> str:
    """What the top folders are: ``label``, or ``modality`` or ``subject`` if they lie above the class folders."""
    places = [_place(path) for path in paths]
    tops = {label for _, label, _ in places}
    if not tops or "" in tops:
        return "label"
    if all(top in known or is_modality(top) for top in tops):
        return "modality"
    is_above = all(parts for _, _, parts in places) and len(tops) > 1
    return "subject" if is_above and all(map(is_subject, tops)) else "label"


def _by_names(
    groups: _Groups, fields: dict[_Key, dict[str, str]], root: Path
) -> tuple[_Groups, dict[_Key, dict[str, str]]]:
    """Add the class, subject, view and trial that file names contain to groups and fields."""
    keys = [key for key in groups if key[1]] or list(groups)  # next to class folders, other files stay unlabelled
    found = fields_from_names([key[1] for key in keys], [key[2] for key in keys], str(root))
    for key, values in zip(keys, found, strict=True):
        label = values.pop("label", "")
        new = (key[0], key[1] or label, key[2])
        groups[new], fields[new] = groups.pop(key), values | fields.pop(key)
    return groups, fields


def _grouped(
    root: Path, pattern: str | None, known: Collection[str], *, links: bool
) -> tuple[_Groups, dict[_Key, dict[str, str]], list[str], bool]:
    """Files and fields of each recording, files with unrecognised names, and whether any name contains a modality."""
    expression = None if pattern is None else _expression(pattern)
    groups: _Groups = defaultdict(dict)
    fields: dict[_Key, dict[str, str]] = {}
    unrecognised: list[str] = []
    is_named = False
    paths = list(recordings(root, links=links))
    levels = "label" if pattern is not None else _levels(paths, known)
    for path in paths:
        side, label, parts = _place(path)
        above: dict[str, str] = {}
        if levels != "label":  # the class is one folder further down
            above, label, parts = {levels: label}, (parts or ("",))[0], parts[1:]
        stem = path.name if not path.suffix or path.suffix.lower() not in ENDINGS else path.stem
        values = _parsed(stem, expression, known)
        is_text = "modality" not in above and "modality" not in (values or {}) and _has_suffix(path.name, TEXTS)
        if values is None or is_text or (_is_image(root / path) and not (root / path).is_dir()):
            unrecognised.append(str(path))
            continue
        values = above | values
        is_named = is_named or "modality" in values
        modality, rest = values.pop("modality", _UNNAMED), values.pop("rest", stem)
        folders = ([above["subject"]] if levels == "subject" else []) + list(parts)
        key = (side, values.get("label") or label, "/".join(filter(None, (*folders, rest))))
        if modality in groups[key]:
            raise DataError(
                f"{root / path} and {root / groups[key][modality]} are both the {modality} of '{printable(rest)}'",
                "one file per modality",
                "rename one of them",
            )
        groups[key][modality] = path
        fields[key] = values
    return groups, fields, unrecognised, is_named


def _row(key: _Key, files: dict[str, PurePosixPath], fields: dict[str, str]) -> Row:
    side, label, name = key
    row_id = printable("/".join(part for part in (side, label, name) if part))
    subject, view, trial = (printable(fields.get(field, "")) for field in ("subject", "view", "trial"))
    return Row(row_id, label, files, subject, view, trial, side)


def recordings(root: Path, *, links: bool) -> Iterator[PurePosixPath]:
    """Yield files of known kinds and folders of images, relative to the root; names that begin with a dot are skipped.

    Images next to videos, or next to at least as many folders, are not a sequence; they are yielded one by one so that
    callers can report them.
    """
    count = 0
    folder = Folder(root, links=links)
    for place, folders, names in os.walk(root, followlinks=links):
        here = Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        kept = sorted(name for name in names if not name.startswith("."))
        count += len(kept)
        if count > MOST_FILES:
            raise DataError(f"{root} contains more than {MOST_FILES:,} files", "recordings", "name a smaller folder")
        relative = PurePosixPath(here.relative_to(root).as_posix())
        for name in (*folders, *kept):
            _check_link(root, relative / name, folder)
        images = [name for name in kept if here != root and _is_image(here / name)]
        files = [name for name in kept if _has_suffix(name, ENDINGS) and name not in (*_NOT_RECORDINGS, *images)]
        if images and len(images) > len(folders) and all(_has_suffix(name, TEXTS) for name in files):
            folders.clear()  # a sequence of images contains no other recording
            yield relative
            continue
        yield from (relative / name for name in (*files, *images))


def _is_image(path: Path) -> bool:
    """Whether a file is an image by its name; a TIFF of several pages is a recording."""
    return _has_suffix(path.name, IMAGES) and not (_has_suffix(path.name, PAGES) and pages.several(path))


def _has_suffix(name: str, endings: Collection[str]) -> bool:
    return PurePosixPath(name).suffix.lower() in endings


def _check_link(root: Path, path: PurePosixPath, folder: Folder) -> None:
    if os.path.islink(root / path) and folder.leads_out(path):  # noqa: PTH114 - also for names with surrogates
        raise DataError(
            f"{printable(str(root / path))} is a link that leads out of the folder",
            "recordings in the folder",
            "copy the recordings into the folder, or set links = true in dataset.toml",
        )


def _place(path: PurePosixPath) -> tuple[str, str, tuple[str, ...]]:
    """Side, class, and the folders between class and file."""
    folders = list(path.parts[:-1])
    side = _SIDES.get(folders[0].lower(), "") if folders else ""
    if side:
        folders.pop(0)
    label = folders.pop(0) if folders else ""
    return side, "" if label.lower() == UNLABELLED else label, tuple(folders)


def _parsed(stem: str, expression: re.Pattern[str] | None, known: Collection[str]) -> dict[str, str] | None:
    """Fields of a name, and the ``rest`` of it without the modality; None if it does not match the pattern."""
    if expression is None:
        rest, _, last = stem.rpartition("_")
        return {"modality": last, "rest": rest} if last in known or is_modality(last) else {}
    match = expression.fullmatch(stem)
    if match is None or not re.fullmatch(MODALITY, match.groupdict().get("modality") or _UNNAMED):
        return None
    fields = {field: text for field, text in match.groupdict().items() if text}
    if "modality" in fields:
        start, end = match.span("modality")
        fields["rest"] = (stem[:start] + stem[end:]).strip("_- .")
    return fields


def _expression(pattern: str) -> re.Pattern[str]:
    """Compile a pattern with fields in braces; a field ends where the text that follows it begins."""
    fields = _FIELD.findall(pattern)
    wrong = [field for field in fields if field not in FIELDS] + [f for f in fields if fields.count(f) > 1]
    if wrong or not fields:
        raise ConfigError(
            f"pattern '{printable(pattern)}'",
            f"fields out of {', '.join('{' + f + '}' for f in FIELDS)}, each at most once",
            "for example pattern = 'subject{subject}_trial{trial}_{modality}'",
        )
    pieces = _FIELD.split(pattern)
    return re.compile("".join(f"(?P<{p}>[^/]+?)" if k % 2 else re.escape(p) for k, p in enumerate(pieces)))


def _no_recording(root: Path, unrecognised: Sequence[str], *, in_classes: bool) -> DataError:
    if unrecognised:
        found = f"no file below {root} matches the pattern, for example {printable(unrecognised[0])}"
        return DataError(found, "names that match the pattern", "correct pattern in dataset.toml")
    if not in_classes:
        kinds = f"files with one of {', '.join(ENDINGS)}, or folders of images"
        return DataError(f"{root} contains no recording", kinds, "record some, or name another folder")
    return DataError(
        f"{root} contains no recording",
        f"CLASS/NAME_MODALITY.ext with one of {', '.join(ENDINGS)}, or CLASS/NAME_MODALITY/ with images",
        "sort them into folders by class, or write a manifest.csv",
    )
