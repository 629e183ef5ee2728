"""Rows from folders: ``[train|val|test/]CLASS/STEM_MODALITY.ext``, images in ``STEM_MODALITY/``.

Folders of modalities (``ir/CLASS/...``) or of numbered people (``subject_03/CLASS/...``) may lie above the classes.
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
from kd_edge.data.readers.files.names import is_subject, told_by_names
from kd_edge.data.readers.files.rows import NAMES, Folder, Row, Table, is_label
from kd_edge.data.readers.files.settings import FILE, MODALITY, is_modality
from kd_edge.data.readers.files.skeletons import ENDINGS as SKELETONS
from kd_edge.data.readers.images import IMAGES
from kd_edge.data.readers.pages import ENDINGS as PAGES
from kd_edge.errors import ConfigError, DataError, printable

ENDINGS, TEXTS = (*OF_MEDIA, *SKELETONS), (*SIGNALS, *SKELETONS)
"""Of files that are read, and of those among them that are read only where their names say what they are."""
MOST_FILES = 2_000_000
UNLABELLED = "unlabelled"
"""Folder of recordings that nobody has labelled."""
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
    """Every recording below a folder, grouped by what is left of its name without the modality.

    Args:
        root: The folder; files in it directly have no class, nor have those in a folder ``unlabelled``.
        pattern: What a name tells, as ``subject{subject}_trial{trial}_{modality}``; None takes what follows the last
            underscore for the modality where it is the usual name of one, as in ``wave_03_ir`` or ``wave_03/ir``, else
            it is ``rgb``, or where no name tells and pictures are grey ``ir``, of more than 8 bit ``thermal``; and of
            the rest what is plain, see ``told_by_names``.
        known: Names of modalities beside the usual ones.
        links: Whether symbolic links may lead out of the folder.
        label: Class of all recordings, empty where they have none; folders are then part of their names. None: as
            folders and names tell.

    Raises:
        DataError: Nothing there, or a link that leads out of the folder.
        ConfigError: The pattern makes no sense.
    """
    groups, facts, strange, is_named = _grouped(root, pattern, known, links=links)
    if not groups:
        raise _nothing(root, strange, in_classes=label is None)
    if label is not None:
        renamed = {key: (key[0], label, "/".join(filter(None, key[1:]))) for key in groups}
        groups = {renamed[key]: files for key, files in groups.items()}
        facts = {renamed[key]: told for key, told in facts.items()}
    if pattern is None and label != "":  # names would tell classes, too
        groups, facts = _by_names(groups, facts, root)
    if not is_named:
        unnamed = _unnamed(root, [files[_UNNAMED] for files in groups.values()])
        groups = {key: {unnamed: files[_UNNAMED]} for key, files in groups.items()}
    if wrong := [name for _, name, _ in groups if not is_label(name)]:
        raise DataError(f"{root} has a folder '{printable(wrong[0][:40])}'", "the name of a class", "rename it")
    rows = tuple(_row(key, groups[key], facts[key]) for key in sorted(groups, key=lambda k: (k[1], k[2], k[0])))
    modalities = tuple(sorted({name for row in rows for name in row.files}))
    remarks = []
    if strange:
        remarks.append(f"files whose names do not tell what they are: {len(strange)}, {printable(strange[0])} for one")
    if lost := [row.id for row in rows if not row.label]:
        count = f"{len(lost)}, {printable(lost[0])} for one"
        remarks.append(f"recordings without a class, for dense stages alone: {count}")
    return Table(rows, modalities, tuple(remarks))


def _unnamed(root: Path, paths: Sequence[PurePosixPath]) -> str:
    """What recordings are whose names do not say: by the first of them that can be read."""
    for path in paths[:_TRIED]:
        with suppress(DataError):
            return {"deep": "thermal", "grey": "ir", "": _UNNAMED}[deep_or_grey(root / path)]
    return _UNNAMED


def _levels(paths: Sequence[PurePosixPath], known: Collection[str]) -> str:
    """What the folders at the top are: of a ``label`` each, or of a ``modality`` or a ``subject`` above the classes."""
    places = [_place(path) for path in paths]
    tops = {label for _, label, _ in places}
    if not tops or "" in tops:
        return "label"
    if all(top in known or is_modality(top) for top in tops):
        return "modality"
    is_above = all(parts for _, _, parts in places) and len(tops) > 1
    return "subject" if is_above and all(map(is_subject, tops)) else "label"


def _by_names(
    groups: _Groups, facts: dict[_Key, dict[str, str]], root: Path
) -> tuple[_Groups, dict[_Key, dict[str, str]]]:
    """Groups and facts, completed by what file names say of class, subject, view and trial."""
    keys = [key for key in groups if key[1]] or list(groups)  # what lies in no class's folder has none, if others do
    told = told_by_names([key[1] for key in keys], [key[2] for key in keys], str(root))
    for key, its in zip(keys, told, strict=True):
        label = its.pop("label", "")
        new = (key[0], key[1] or label, key[2])
        groups[new], facts[new] = groups.pop(key), its | facts.pop(key)
    return groups, facts


def _grouped(
    root: Path, pattern: str | None, known: Collection[str], *, links: bool
) -> tuple[_Groups, dict[_Key, dict[str, str]], list[str], bool]:
    """Files of each recording, what its path tells, files that tell nothing, and whether any tells its modality."""
    expression = None if pattern is None else _expression(pattern)
    groups: _Groups = defaultdict(dict)
    facts: dict[_Key, dict[str, str]] = {}
    strange: list[str] = []
    is_named = False
    paths = list(recordings(root, links=links))
    levels = "label" if pattern is not None else _levels(paths, known)
    for path in paths:
        side, label, parts = _place(path)
        above: dict[str, str] = {}
        if levels != "label":  # the class is one folder further down
            above, label, parts = {levels: label}, (parts or ("",))[0], parts[1:]
        stem = path.name if not path.suffix or path.suffix.lower() not in ENDINGS else path.stem
        told = _told(stem, expression, known)
        is_text = "modality" not in above and "modality" not in (told or {}) and _is_of(path.name, TEXTS)
        if told is None or is_text or (_is_image(root / path) and not (root / path).is_dir()):
            strange.append(str(path))
            continue
        told = above | told
        is_named = is_named or "modality" in told
        modality, rest = told.pop("modality", _UNNAMED), told.pop("rest", stem)
        folders = ([above["subject"]] if levels == "subject" else []) + list(parts)
        key = (side, told.get("label") or label, "/".join(filter(None, (*folders, rest))))
        if modality in groups[key]:
            raise DataError(
                f"{root / path} and {root / groups[key][modality]} are both the {modality} of '{printable(rest)}'",
                "one file a modality",
                "rename one of them",
            )
        groups[key][modality] = path
        facts[key] = told
    return groups, facts, strange, is_named


def _row(key: _Key, files: dict[str, PurePosixPath], told: dict[str, str]) -> Row:
    side, label, name = key
    where = printable("/".join(part for part in (side, label, name) if part))
    subject, view, trial = (printable(told.get(field, "")) for field in ("subject", "view", "trial"))
    return Row(where, label, files, subject, view, trial, side)


def recordings(root: Path, *, links: bool) -> Iterator[PurePosixPath]:
    """Files of known kinds, and folders that hold images, relative to the root; what begins with a dot is neither.

    Images beside videos, or beside more folders than there are of them, are no sequence, and come one by one: somebody
    may want to know of them.
    """
    count = 0
    folder = Folder(root, links=links)
    for place, folders, names in os.walk(root, followlinks=links):
        here = Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        kept = sorted(name for name in names if not name.startswith("."))
        count += len(kept)
        if count > MOST_FILES:
            raise DataError(f"{root} holds more than {MOST_FILES:,} files", "recordings", "name a smaller folder")
        relative = PurePosixPath(here.relative_to(root).as_posix())
        for name in (*folders, *kept):
            _check_link(root, relative / name, folder)
        images = [name for name in kept if here != root and _is_image(here / name)]
        files = [name for name in kept if _is_of(name, ENDINGS) and name not in (*_NOT_RECORDINGS, *images)]
        if images and len(images) > len(folders) and all(_is_of(name, TEXTS) for name in files):
            folders.clear()  # a sequence of images holds no other recording
            yield relative
            continue
        yield from (relative / name for name in (*files, *images))


def _is_image(path: Path) -> bool:
    """Whether a file is called an image; a TIFF of several pages is a recording."""
    return _is_of(path.name, IMAGES) and not (_is_of(path.name, PAGES) and pages.several(path))


def _is_of(name: str, endings: Collection[str]) -> bool:
    return PurePosixPath(name).suffix.lower() in endings


def _check_link(root: Path, path: PurePosixPath, folder: Folder) -> None:
    if os.path.islink(root / path) and folder.leads_out(path):  # noqa: PTH114 - a name of surrogates, too
        raise DataError(
            f"{printable(str(root / path))} is a link that leads out of the folder",
            "recordings in the folder",
            "links = true in dataset.toml allows it; else copy them there",
        )


def _place(path: PurePosixPath) -> tuple[str, str, tuple[str, ...]]:
    """Side, class and what folders lie between class and file."""
    folders = list(path.parts[:-1])
    side = _SIDES.get(folders[0].lower(), "") if folders else ""
    if side:
        folders.pop(0)
    label = folders.pop(0) if folders else ""
    return side, "" if label.lower() == UNLABELLED else label, tuple(folders)


def _told(stem: str, expression: re.Pattern[str] | None, known: Collection[str]) -> dict[str, str] | None:
    """What a name tells, and what is left of it without the modality; None where it tells nothing."""
    if expression is None:
        rest, _, last = stem.rpartition("_")
        return {"modality": last, "rest": rest} if last in known or is_modality(last) else {}
    match = expression.fullmatch(stem)
    if match is None or not re.fullmatch(MODALITY, match.groupdict().get("modality") or _UNNAMED):
        return None
    told = {field: text for field, text in match.groupdict().items() if text}
    if "modality" in told:
        start, end = match.span("modality")
        told["rest"] = (stem[:start] + stem[end:]).strip("_- .")
    return told


def _expression(pattern: str) -> re.Pattern[str]:
    """A pattern with fields in braces as a regular expression; a field ends where what follows it begins."""
    fields = _FIELD.findall(pattern)
    wrong = [field for field in fields if field not in FIELDS] + [f for f in fields if fields.count(f) > 1]
    if wrong or not fields:
        raise ConfigError(
            f"pattern '{printable(pattern)}'",
            f"names of {', '.join('{' + f + '}' for f in FIELDS)} in it, each once",
            "for example pattern = 'subject{subject}_trial{trial}_{modality}'",
        )
    pieces = _FIELD.split(pattern)
    return re.compile("".join(f"(?P<{p}>[^/]+?)" if k % 2 else re.escape(p) for k, p in enumerate(pieces)))


def _nothing(root: Path, strange: Sequence[str], *, in_classes: bool) -> DataError:
    if strange:
        found = f"no file below {root} fits the pattern, {printable(strange[0])} for one"
        return DataError(found, "names as the pattern says", "correct pattern in dataset.toml")
    if not in_classes:
        kinds = f"files with one of {', '.join(ENDINGS)}, or folders of images"
        return DataError(f"{root} holds no recording", kinds, "record some, or name another folder")
    return DataError(
        f"{root} holds no recording",
        f"CLASS/NAME_MODALITY.ext with one of {', '.join(ENDINGS)}, or CLASS/NAME_MODALITY/ with images",
        "sort them into folders by class, or write a manifest.csv",
    )
