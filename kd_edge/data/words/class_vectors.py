"""Vectors of the classes, derived from the words of their names, for semantic losses.

A class's phrase is split at everything that is neither letter nor digit ("sit-to_stand (slow)"), a possessive 's is
dropped, and the vectors of its words are summed, as in SAKDN. A word is looked up in lower case, then as given.

Source: Liu et al., "Semantics-aware adaptive knowledge distillation for sensor-to-vision action recognition", IEEE TIP
2021. Its authors published sums of ``glove.840B.300d`` as .npy files, one row per class. In each of them the last
phrase lacks its last letter ("squat two arms stretch ou"), and "sit to stand" has the row of "stand to sit".
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
    """Source of the classes' vectors.

    Attributes:
        vectors: A file of one row per class (.npy, in the order of the classes); a text file of word vectors (GloVe or
            word2vec, also gzipped); the name of a file that ``kd-edge data glove`` imported; ``glove-6b-50d`` for the
            package of the extra [semantics]; ``sentence:FOLDER`` for a local sentence encoder. A relative path is
            resolved against the current folder, the data folder, ``KD_EDGE_DATA`` and the import folder, in this order.
        phrases: Class name -> phrase to look up instead of it.
        combine: Whether the vectors of words are summed or averaged; a sentence encoder needs neither.
        unknown: Whether a word without a vector is skipped with a warning, or is an error.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    vectors: str = ""
    phrases: dict[str, str] = {}
    combine: Literal["sum", "mean"] = "sum"
    unknown: Literal["skip", "error"] = "skip"


class ClassVectors(NamedTuple):
    """One vector per class.

    Attributes:
        vectors: (K, D) float32; zeros for a class without any known word.
        unknown: Class name -> its words without a vector, for classes that have some.
        source: Name of the vectors, without a path.
    """

    vectors: Float32
    unknown: dict[str, tuple[str, ...]]
    source: str


class ImportedVectors(NamedTuple):
    """Result of ``import_vectors``.

    Attributes:
        path: The text file.
        name: Value for ``vectors`` in a recipe.
        size: Number D of values per vector.
        known: Class name -> its words in the file, in the order of the phrase.
        unknown: Class name -> its words missing from the file.
    """

    path: Path
    name: str
    size: int
    known: dict[str, tuple[str, ...]]
    unknown: dict[str, tuple[str, ...]]


def class_vectors(config: SemanticsConfig, labels: Sequence[str], data_root: Path | None = None) -> ClassVectors:
    """Return the vectors of the classes.

    Warns of unknown words, of classes without any known word and of classes with equal vectors.

    Args:
        config: Source of the vectors, phrases of the classes, and how words are combined.
        labels: Class names, in the order of the rows.
        data_root: Folder with the recordings, which is also searched for files.

    Raises:
        ConfigError: No vectors are configured, or there are phrases although the file has rows of whole classes.
        DataError: The file is missing or damaged, its rows do not match the classes, or a word is unknown and
            ``unknown`` is ``error``.
        MissingExtraError: The package is not installed.
    """
    path = _row_file(config, data_root)
    if path is not None:
        found = ClassVectors(class_rows(path, len(labels)), {}, path.name)
    else:
        found = _from_words(config, labels, open_vectors(config.vectors, data_root))
    _warn_of_equal_vectors(found.vectors, labels)
    return found


def words(phrase: str) -> tuple[str, ...]:
    """Return the words (letters and digits) of a phrase as written, including repetitions, without possessive 's."""
    return tuple(re.findall(r"[^\W_]+", re.sub(r"['’]s\b", "", phrase)))


def import_name(config: SemanticsConfig, otherwise: str) -> str:
    """Return the name of imported vectors in a recipe, or ``otherwise`` if it names a file, a package or an encoder."""
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
    """Copy the vectors of the classes' words into a small text file, together with the words it already contains.

    Args:
        source: A text file of word vectors, or ``glove-6b-50d``.
        name: Name of the file ``NAME.txt`` in the import folder, unless ``out`` is given.
        labels: Class names.
        config: Settings with the phrases of the classes.
        out: File to write instead.
        data_root: Folder that is also searched for ``source``.
        progress: Called with the progress of reading.

    Raises:
        DataError: The source is missing or damaged, lacks all of the words or some that the file already contains, has
            vectors of another size than these, or the file cannot be written.
        ConfigError: The source is a sentence encoder, which has no words.
        MissingExtraError: The package is not installed.
    """
    if source.startswith(SENTENCE):
        raise ConfigError(f"'{source}' has no words to import", "a text file or glove-6b-50d", "name it in the recipe")
    path = _import_file(name) if out is None else out
    if path.suffix in (".npy", ".gz"):
        raise ConfigError(f"'{path}' to write", "a text file, .txt", "change --out")
    opened = open_vectors(source, data_root, progress, fix="correct --from: the file must be on this machine")
    of_class = {label: words(_phrase(config, label)) for label in labels}
    wanted = {spelling for phrase in of_class.values() for word in phrase for spelling in _spellings(word)}
    existing = _existing(path)
    table = opened.vectors(wanted | existing.keys())
    known, unknown = _by_availability(of_class, table)
    if not any(known.values()):
        raise DataError(f"{opened.source} has none of the classes' words", "word vectors", "name another file")
    _check_kept(path, existing, table, opened)
    with replacing(path, DataError, option="--out") as file:
        for word, vector in table.items():
            file.write(f"{word} {' '.join(f'{value:.9g}' for value in vector)}\n".encode())
    return ImportedVectors(path, name if out is None else str(out), opened.size, known, unknown)


def _import_file(name: str) -> Path:
    folder = import_folder()
    if folder is None:
        raise ConfigError(
            f"no folder for the vectors '{name}': this user has no known home",
            "a writable folder",
            f"name a file with --out, or set {CACHE_VARIABLE}",
        )
    return folder / f"{name}.txt"


def _from_words(config: SemanticsConfig, labels: Sequence[str], source: WordVectors) -> ClassVectors:
    _warn_of_foreign_phrases(config, labels)
    phrases = {label: _phrase(config, label) for label in labels}
    if source.takes_phrases:
        encoded = source.vectors(list(phrases.values()))
        return ClassVectors(np.stack([encoded[phrases[label]] for label in labels]), {}, source.source)
    of_class = {label: words(phrase) for label, phrase in phrases.items()}
    wanted = {spelling for phrase in of_class.values() for word in phrase for spelling in _spellings(word)}
    table = source.vectors(wanted)
    known, unknown = _by_availability(of_class, table)
    _report_unknown(config, known, unknown, source.source)
    # Sorted, so that the same words give the same bits in whatever order.
    rows = [_combined([table[word] for word in sorted(known[label])], source.size, config.combine) for label in labels]
    incomplete = {label: missing for label, missing in unknown.items() if missing}
    return ClassVectors(np.stack(rows), incomplete, source.source)


def _phrase(config: SemanticsConfig, label: str) -> str:
    """The configured phrase as given, otherwise the class name without hyphens, slashes and underscores."""
    given = config.phrases.get(label)
    return " ".join(words(label)) if given is None else given.strip()


def _spellings(word: str) -> tuple[str, str]:
    """Spellings of a word, in the order they are tried."""
    return word.lower(), word


def _by_availability(
    of_class: Mapping[str, Sequence[str]], table: Mapping[str, Float32]
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """Per class the words with a vector, in the spelling that has it, and those without one."""
    known, unknown = {}, {}
    for label, phrase in of_class.items():
        found = [next((s for s in _spellings(word) if s in table), None) for word in phrase]
        known[label] = tuple(word for word in found if word is not None)
        unknown[label] = tuple(word for word, spelling in zip(phrase, found, strict=True) if spelling is None)
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
    incomplete = {label: missing for label, missing in unknown.items() if missing}
    without_word = [label for label in known if not known[label]]
    if config.unknown == "error" and (incomplete or without_word):
        faulty = [label for label in known if label in incomplete or label in without_word]
        named = "; ".join(f"'{label}': {', '.join(incomplete.get(label, ('no word',)))}" for label in faulty)
        raise DataError(
            f"words of classes that {source} does not have ({named})",
            "a vector for every word",
            "give these classes other phrases in [semantics.phrases], or set semantics.unknown='skip'",
        )
    for label, missing in incomplete.items():
        _warn_once(f"{source} has no vector of {', '.join(map(repr, missing))} in class '{label}': left out")
    if without_word:
        _warn_once(f"no word of class {', '.join(map(repr, without_word))} is known: its vector is zero")


@functools.lru_cache(maxsize=256)
def _warn_once(message: str) -> None:
    """Log a warning only once, because a study requests the same vectors in every run."""
    log.warning("%s", message)


def _warn_of_foreign_phrases(config: SemanticsConfig, labels: Sequence[str]) -> None:
    """Warn of phrases of unknown classes; no error, because a copy of a data set may lack classes."""
    for label in config.phrases:
        if label not in labels:
            _warn_once(f"[semantics.phrases] has '{label}', which is not a class here{did_you_mean(label, labels)}")


def _warn_of_equal_vectors(vectors: Float32, labels: Sequence[str]) -> None:
    labels_of: dict[bytes, list[str]] = {}
    for label, row in zip(labels, vectors, strict=True):
        if row.any():
            labels_of.setdefault(row.tobytes(), []).append(label)
    for equal in labels_of.values():
        if len(equal) > 1:
            names = " and ".join(map(repr, equal))
            _warn_once(f"classes {names} have the same vector: no semantic loss can distinguish them")


def _row_file(config: SemanticsConfig, data_root: Path | None) -> Path | None:
    """The .npy with one row per class; None if the vectors are of words."""
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
            f"phrases together with {path.name}, whose rows are whole classes",
            "one of them",
            "remove [semantics.phrases]",
        )
    return path


def _existing(path: Path) -> dict[str, int]:
    """Words of the file that an import will replace, with the number of values of each."""
    try:
        with path.open(encoding="utf-8") as lines:
            return {word: len(values.split()) for word, _, values in (line.partition(" ") for line in lines)}
    except (OSError, ValueError):
        return {}


def _check_kept(path: Path, existing: Mapping[str, int], table: Mapping[str, Float32], source: WordVectors) -> None:
    """Check that no word of an earlier import is lost or changes its size, because other recipes read them."""
    missing = sorted(existing.keys() - table.keys())
    resized = sorted(word for word, size in existing.items() if size != source.size)
    if missing or resized:
        problem = f"{source.source} lacks" if missing else f"have another size in {source.source}"
        sizes = "" if missing else f" ({existing[resized[0]]}, not {source.size})"
        raise DataError(
            f"{path} contains words that {problem}: {listed(missing or resized)}{sizes}",
            "a source with every word that was imported before, of the same size",
            f"name another --out, import from the first source, or remove {path.name}",
        )
