"""Data sets of other packages: entry points of the group ``kd_edge.datasets``, loaded on demand."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from kd_edge.data.dataset import Dataset, listed
from kd_edge.errors import ConfigError, DataError, KdEdgeError, printable, reason

GROUP = "kd_edge.datasets"
"""Entry point group in which a package lists its kinds, for example ``mine = "package.module:MineData"``."""


class OwnData(BaseModel, ABC):
    """Base class for the settings of another package's data set, given below ``[data]`` in a recipe.

    A subclass sets the default of ``kind`` to its name, may add fields, and implements ``open``. See
    ``train/examples/own_dataset`` for an example.

    Attributes:
        kind: Name of the kind; the same as that of the entry point.
        root: The folder with the recordings; None for ``--data`` or ``KD_EDGE_DATA``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    reads_folder: ClassVar[bool] = True
    """False for data that is generated or comes from elsewhere; a given folder is then refused."""
    kind: str
    root: Path | None = None

    @abstractmethod
    def open(self, folder: Path) -> Dataset:
        """Open the data set; nothing is decoded yet.

        Args:
            folder: The folder of ``--data``, otherwise ``root``, otherwise ``KD_EDGE_DATA``, or its subfolder named
                like the kind; the working directory if ``reads_folder`` is False.

        Raises:
            DataError: The folder is not one of the data set.
        """
        ...


def installed_kinds() -> dict[str, list[str]]:
    """Return the kinds of installed packages with the packages that provide each; nothing is loaded."""
    found: dict[str, list[str]] = {}
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        found.setdefault(printable(entry.name), []).append(_package(entry))
    return found


def load_kind(kind: str) -> type[OwnData] | None:
    """Import and return the settings model of an installed kind; None if no package provides it.

    Raises:
        ConfigError: Two packages provide the kind, its module cannot be imported, or it is not a subclass of
            ``OwnData``; the message names the package.
    """
    entries = list(metadata.entry_points(group=GROUP, name=kind))
    if len({entry.value for entry in entries}) > 1:
        raise ConfigError(
            f"the data kind '{printable(kind)}' is provided by {' and by '.join(sorted(map(_described, entries)))}",
            "one package that provides it",
            "uninstall the other one",
        )
    if not entries:
        return None
    entry = entries[0]
    try:
        found = entry.load()
    except KdEdgeError as error:
        raise _broken(kind, entry, str(error)) from error
    except (Exception, SystemExit) as error:  # importing a third-party package may raise anything
        raise _broken(kind, entry, f"{type(error).__name__}: {reason(error)}") from error
    if not (isinstance(found, type) and issubclass(found, OwnData)) or inspect.isabstract(found):
        raise _broken(kind, entry, "it is not a subclass of kd_edge.data.OwnData with a method open")
    default = found.model_fields["kind"].default
    if default != kind:
        raise _broken(kind, entry, f"the default of its field kind is {printable(repr(default)[:80])}")
    return found


def check_no_clash(kind: str) -> None:
    """Refuse a package that provides a built-in kind, because the name would be ambiguous.

    Raises:
        ConfigError: A package provides the kind; the message names it.
    """
    if entries := list(metadata.entry_points(group=GROUP, name=kind)):
        raise ConfigError(
            f"{_described(entries[0])} provides a data kind '{kind}', which is built into kd-edge",
            f"another name in the entry points {GROUP}",
            "rename it there, or uninstall the package",
        )


def open_own(config: OwnData, folder: Path) -> Dataset:
    """Open a data set of an installed package, and check that it implements ``Dataset``.

    Raises:
        ConfigError: It lacks members of ``Dataset``.
        DataError: Two samples share an id, or a sample has an invalid label.
    """
    dataset = config.open(folder)
    if missing := [name for name in vars(Dataset) if not name.startswith("_") and not hasattr(dataset, name)]:
        raise ConfigError(
            f"the data set of kind '{config.kind}', a {type(dataset).__name__}, lacks {listed(missing)}",
            "all members of kd_edge.data.Dataset",
            "add them; train/examples/own_dataset is a complete example",
        )
    _check_samples(dataset, config.kind)
    return dataset


def _check_samples(dataset: Dataset, kind: str) -> None:
    counts = Counter(sample.id for sample in dataset.samples)
    if duplicates := [name for name, count in counts.items() if count > 1]:
        raise DataError(
            f"two samples of kind '{kind}' have the id '{printable(duplicates[0])}'", "unique ids", "correct them"
        )
    if invalid := [sample for sample in dataset.samples if not 0 <= sample.label < len(dataset.labels)]:
        raise DataError(
            f"sample '{printable(invalid[0].id)}' of kind '{kind}' has the label {invalid[0].label}",
            f"an index into its {len(dataset.labels)} labels, from 0",
            "correct it",
        )


def _broken(kind: str, entry: metadata.EntryPoint, why: str) -> ConfigError:
    return ConfigError(
        f"{_described(entry)} provides the data kind '{printable(kind)}' as {printable(entry.value)}, which cannot be "
        f"used: {why}",
        "a subclass of kd_edge.data.OwnData",
        "correct that package, or uninstall it",
    )


def _described(entry: metadata.EntryPoint) -> str:
    return f"the package {_package(entry)}"


def _package(entry: metadata.EntryPoint) -> str:
    """Name and version of the distribution, or the module if its metadata is incomplete."""
    try:
        assert entry.dist is not None
        return printable(f"{entry.dist.metadata['Name']} {entry.dist.version}")
    except (AssertionError, KeyError, TypeError):
        return printable(f"of module {entry.module}")
