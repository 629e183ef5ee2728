"""A vector for every class, from the words of its name: what semantic losses compare with.

A class's phrase is taken apart at everything that is neither letter nor digit ("sit-to_stand (slow)"), a possessive
's is dropped, and the vectors of its words are summed, as SAKDN does. A word is looked up in lower case, then as given.

Source: Liu et al., "Semantics-aware adaptive knowledge distillation for sensor-to-vision action recognition", IEEE TIP
2021. Its authors published sums of ``glove.840B.300d`` as .npy files, one row per class. The last phrase of each had
lost its last letter ("squat two arms stretch ou"), and "sit to stand" has the row of "stand to sit".
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from kd_edge.data.dataset import listed
from kd_edge.data.words.sources import (
    PACKAGE,
    SENTENCE,
    WordVectors,
    class_rows,
    has_rows,
    import_folder,
    locate,
    open_vectors,
)
from kd_edge.data.words.text_file import Progress
from kd_edge.errors import ConfigError, DataError, did_you_mean
from kd_edge.files import CACHE_VARIABLE, replacing
from kd_edge.types import Float32

log = logging.getLogger("kd_edge.data")


class SemanticsConfig(BaseModel):
    """Where the classes' vectors come from.

    Attributes:
        vectors: A file of one row per class (.npy, in the order of the classes); a text file of word vectors (GloVe or
            word2vec, also gzipped); the name of a file that ``kd-edge data glove`` imported; ``glove-6b-50d`` for the
            package of the extra [semantics]; ``sentence:FOLDER`` for a local sentence encoder. A path that is not
            absolute is looked for as it is, below the data folder, below ``KD_EDGE_DATA`` and in the import folder.
        phrases: Class name -> what to look up instead of it.
        combine: The words' vectors are summed or averaged; a sentence encoder needs neither.
        unknown: A word without a vector is left out with a warning, or an error.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    vectors: str = ""
    phrases: dict[str, str] = {}
    combine: Literal["sum", "mean"] = "sum"
    unknown: Literal["skip", "error"] = "skip"


class ClassVectors(NamedTuple):
    """One vector per class.

    Attributes:
        vectors: (K, D) float32; zeros for a class none of whose words is known.
        unknown: Class name -> its words without a vector, for the classes that have some.
        source: Name of the vectors; no path.
    """

    vectors: Float32
    unknown: dict[str, tuple[str, ...]]
    source: str


class ImportedVectors(NamedTuple):
    """What ``import_vectors`` wrote.

    Attributes:
        path: The text file.
        name: What ``vectors`` of a recipe calls it.
        size: Number D of values.
        known: Class name -> its words that the file has, in the order of the phrase.
        unknown: Class name -> its words that it lacks.
    """

    path: Path
    name: str
    size: int
    known: dict[str, tuple[str, ...]]
    unknown: dict[str, tuple[str, ...]]


def class_vectors(config: SemanticsConfig, labels: Sequence[str], data_root: Path | None = None) -> ClassVectors:
    """Vectors of the classes.

    Warns of unknown words, of classes without any known word and of classes that share one vector.

    Args:
        config: Source of the vectors, phrases of the classes, and how words are combined.
        labels: Class names, in the order of the rows.
        data_root: Folder with the recordings, where files are looked for too.

    Raises:
        ConfigError: No vectors named, or phrases for rows of whole classes.
        DataError: No such file, a damaged one, rows that are not the classes', or an unknown word that is an error.
        MissingExtraError: The package is not installed.
    """
    path = _row_file(config, data_root)
    if path is not None:
        found = ClassVectors(class_rows(path, len(labels)), {}, path.name)
    else:
        found = _from_words(config, labels, open_vectors(config.vectors, data_root))
    _warn_of_twins(found.vectors, labels)
    return found


def words(phrase: str) -> tuple[str, ...]:
    """The words of a phrase as they are written, repeated ones too: letters and digits, possessive 's dropped."""
    return tuple(re.findall(r"[^\W_]+", re.sub(r"['’]s\b", "", phrase)))


def import_name(config: SemanticsConfig, otherwise: str) -> str:
    """The name that a recipe calls imported vectors by; another one when it names a file, a package or an encoder."""
    bare = config.vectors not in ("", PACKAGE) and re.fullmatch(r"[\w-]+", config.vectors)
    return config.vectors if bare else otherwise


def import_vectors(
    source: str,
    name: str,
    labels: Sequence[str],
    config: SemanticsConfig,
    *,
    out: Path | None = None,
    data_root: Path | None = None,
    progress: Progress | None = None,
) -> ImportedVectors:
    """Copy the vectors of the classes' words into a small text file; words that it held before are read anew.

    Args:
        source: A text file of word vectors, or ``glove-6b-50d``.
        name: To write as ``NAME.txt`` in the import folder, unless ``out`` is given.
        labels: Class names.
        config: Settings with the phrases of the classes.
        out: File to write instead.
        data_root: Where ``source`` is looked for too.
        progress: Told how far the reading is.

    Raises:
        DataError: No such source, a damaged one, one without any of the words or without words that the file holds
            already, one of another size than they have, or the file cannot be written.
        ConfigError: A sentence encoder, which has no words.
        MissingExtraError: The package is not installed.
    """
    if source.startswith(SENTENCE):
        raise ConfigError(f"'{source}' has no words to import", "a text file or glove-6b-50d", "name it in the recipe")
    path = _import_file(name) if out is None else out
    if path.suffix in (".npy", ".gz"):
        raise ConfigError(f"'{path}' to write", "a text file, .txt", "change --out")
    opened = open_vectors(source, data_root, progress, fix="correct --from: the file must be on this machine")
    of_class = {label: words(_phrase(config, label)) for label in labels}
    wanted = {spelling for spoken in of_class.values() for word in spoken for spelling in _spellings(word)}
    held = _held(path)
    table = opened.vectors(wanted | held.keys())
    known, unknown = _sorted_out(of_class, table)
    if not any(known.values()):
        raise DataError(f"{opened.source} has none of the classes' words", "word vectors", "name another file")
    _check_kept(path, held, table, opened)
    with replacing(path, DataError, option="--out") as file:
        for word, vector in table.items():
            file.write(f"{word} {' '.join(f'{value:.9g}' for value in vector)}\n".encode())
    return ImportedVectors(path, name if out is None else str(out), opened.size, known, unknown)


def _import_file(name: str) -> Path:
    folder = import_folder()
    if folder is None:
        raise ConfigError(
            f"no folder for the vectors '{name}': no home is known of this user",
            "a folder that can be written",
            f"name a file with --out, or set {CACHE_VARIABLE}",
        )
    return folder / f"{name}.txt"


def _from_words(config: SemanticsConfig, labels: Sequence[str], source: WordVectors) -> ClassVectors:
    _warn_of_strangers(config, labels)
    phrases = {label: _phrase(config, label) for label in labels}
    if source.takes_phrases:
        encoded = source.vectors(list(phrases.values()))
        return ClassVectors(np.stack([encoded[phrases[label]] for label in labels]), {}, source.source)
    of_class = {label: words(phrase) for label, phrase in phrases.items()}
    wanted = {spelling for spoken in of_class.values() for word in spoken for spelling in _spellings(word)}
    table = source.vectors(wanted)
    known, unknown = _sorted_out(of_class, table)
    _report_unknown(config, known, unknown, source.source)
    # In one order: the same words give the same bits, whatever order a phrase has them in.
    rows = [_combined([table[word] for word in sorted(known[label])], source.size, config.combine) for label in labels]
    return ClassVectors(np.stack(rows), {label: lost for label, lost in unknown.items() if lost}, source.source)


def _phrase(config: SemanticsConfig, label: str) -> str:
    """A given phrase as it is; a class name without its hyphens, slashes and underscores."""
    given = config.phrases.get(label)
    return " ".join(words(label)) if given is None else given.strip()


def _spellings(word: str) -> tuple[str, str]:
    """In the order they are tried."""
    return word.lower(), word


def _sorted_out(
    of_class: Mapping[str, Sequence[str]], table: Mapping[str, Float32]
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """Per class the words that have a vector, in the spelling that has it, and those that have none."""
    known, unknown = {}, {}
    for label, spoken in of_class.items():
        found = [next((s for s in _spellings(word) if s in table), None) for word in spoken]
        known[label] = tuple(word for word in found if word is not None)
        unknown[label] = tuple(word for word, spelling in zip(spoken, found, strict=True) if spelling is None)
    return known, unknown


def _combined(vectors: Sequence[Float32], size: int, how: Literal["sum", "mean"]) -> Float32:
    total = np.zeros(size)
    for vector in vectors:
        total += vector
    combined: Float32 = (total / max(len(vectors), 1) if how == "mean" else total).astype(np.float32)
    return combined


def _report_unknown(
    config: SemanticsConfig, known: Mapping[str, Sequence[str]], unknown: Mapping[str, Sequence[str]], source: str
) -> None:
    lost = {label: missing for label, missing in unknown.items() if missing}
    silent = [label for label in known if not known[label]]
    if config.unknown == "error" and (lost or silent):
        faulty = [label for label in known if label in lost or label in silent]
        named = "; ".join(f"'{label}': {', '.join(lost.get(label, ('no word',)))}" for label in faulty)
        raise DataError(
            f"words of classes that {source} does not have ({named})",
            "a vector for every word",
            "give these classes other phrases in [semantics.phrases], or set semantics.unknown='skip'",
        )
    for label, missing in lost.items():
        _tell(f"{source} has no vector of {', '.join(map(repr, missing))} in class '{label}': left out")
    if silent:
        _tell(f"no word of class {', '.join(map(repr, silent))} is known: its vector is zero")


@functools.lru_cache(maxsize=256)
def _tell(remark: str) -> None:
    """Once: a study asks for the same vectors run after run."""
    log.warning("%s", remark)


def _warn_of_strangers(config: SemanticsConfig, labels: Sequence[str]) -> None:
    """A copy of a data set may lack classes, so a phrase of none is no error."""
    for label in config.phrases:
        if label not in labels:
            _tell(f"[semantics.phrases] has '{label}', which is no class here{did_you_mean(label, labels)}")


def _warn_of_twins(vectors: Float32, labels: Sequence[str]) -> None:
    alike: dict[bytes, list[str]] = {}
    for label, row in zip(labels, vectors, strict=True):
        if row.any():
            alike.setdefault(row.tobytes(), []).append(label)
    for twins in alike.values():
        if len(twins) > 1:
            _tell(f"classes {' and '.join(map(repr, twins))} have one vector: no semantic loss tells them apart")


def _row_file(config: SemanticsConfig, data_root: Path | None) -> Path | None:
    """The .npy of whole classes; None when the vectors are words'."""
    if not config.vectors:
        raise ConfigError(
            "no vectors of the class names", "a file or a name", "set semantics.vectors, see kd-edge data glove --help"
        )
    if config.vectors == PACKAGE or config.vectors.startswith(SENTENCE):
        return None
    path = locate(config.vectors, data_root)
    if not has_rows(path):
        return None
    if config.phrases:
        raise ConfigError(
            f"phrases beside {path.name}, whose rows are whole classes", "one of them", "remove [semantics.phrases]"
        )
    return path


def _held(path: Path) -> dict[str, int]:
    """The words of a file that an import is about to replace, with the number of values each has."""
    try:
        with path.open(encoding="utf-8") as lines:
            return {word: len(values.split()) for word, _, values in (line.partition(" ") for line in lines)}
    except (OSError, ValueError):
        return {}


def _check_kept(path: Path, held: Mapping[str, int], table: Mapping[str, Float32], source: WordVectors) -> None:
    """Other recipes read the words of an earlier import: none may be lost, nor become longer or shorter."""
    lost = sorted(held.keys() - table.keys())
    other = sorted(word for word, size in held.items() if size != source.size)
    if lost or other:
        what = f"{source.source} has not" if lost else f"{source.source} has not with so many values"
        sizes = "" if lost else f" ({held[other[0]]}, not {source.size})"
        raise DataError(
            f"{path} holds words that {what}: {listed(lost or other)}{sizes}",
            "a source with every word that was imported before, of the same size",
            f"name another --out, import from the first source, or remove {path.name}",
        )
