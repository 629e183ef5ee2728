"""Data sets that other packages bring: entry points of the group ``kd_edge.datasets``, loaded when asked for."""

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
"""Where a package names its kinds: ``mine = "package.module:MineData"`` below it."""


class OwnData(BaseModel, ABC):
    """Settings of a data set that another package brings: what stands below ``[data]`` with its kind.

    A subclass gives ``kind`` its name as the default, adds fields of its own, and says how the data set is opened.
    ``train/examples/own_dataset`` is one.

    Attributes:
        kind: The name; the entry point has the same.
        root: The folder with the recordings; None takes ``--data`` or ``KD_EDGE_DATA``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    reads_folder: ClassVar[bool] = True
    """False of what is generated or comes from elsewhere: a folder that is given is then refused."""
    kind: str
    root: Path | None = None

    @abstractmethod
    def open(self, folder: Path) -> Dataset:
        """Open it; nothing is decoded yet.

        Args:
            folder: That of ``--data``, else ``root``, else ``KD_EDGE_DATA``, or its subfolder called like the kind;
                the working directory where ``reads_folder`` is False.

        Raises:
            DataError: Not the data set's folder.
        """
        ...


def installed_kinds() -> dict[str, list[str]]:
    """Kinds by their names, with the packages that bring them; nothing of theirs is loaded."""
    found: dict[str, list[str]] = {}
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        found.setdefault(printable(entry.name), []).append(_package(entry))
    return found


def load_kind(kind: str) -> type[OwnData] | None:
    """The settings model of a kind that a package brings; its module is imported. None where no package does.

    Raises:
        ConfigError: Two packages bring it, its module cannot be imported, or it is no kind; the package is named.
    """
    entries = list(metadata.entry_points(group=GROUP, name=kind))
    if len({entry.value for entry in entries}) > 1:
        raise ConfigError(
            f"the data kind '{printable(kind)}' is brought by {' and by '.join(sorted(map(_told, entries)))}",
            "one package that does",
            "uninstall the other one",
        )
    if not entries:
        return None
    entry = entries[0]
    try:
        found = entry.load()
    except KdEdgeError as error:
        raise _broken(kind, entry, str(error)) from error
    except (Exception, SystemExit) as error:  # whatever a package of others does while it is imported
        raise _broken(kind, entry, f"{type(error).__name__}: {reason(error)}") from error
    if not (isinstance(found, type) and issubclass(found, OwnData)) or inspect.isabstract(found):
        raise _broken(kind, entry, "it is no class made of kd_edge.data.OwnData with a method open")
    own = found.model_fields["kind"].default
    if own != kind:
        raise _broken(kind, entry, f"its field kind says {printable(repr(own)[:80])}")
    return found


def check_no_clash(kind: str) -> None:
    """Refuse a package that brings a kind of kd-edge's own: nobody could say which of the two was meant.

    Raises:
        ConfigError: One does; it is named.
    """
    if entries := list(metadata.entry_points(group=GROUP, name=kind)):
        raise ConfigError(
            f"{_told(entries[0])} brings a data kind '{kind}', which kd-edge has itself",
            f"a name of its own in the entry points {GROUP}",
            "rename it there, or uninstall the package",
        )


def open_own(config: OwnData, folder: Path) -> Dataset:
    """Open a data set that a package brings, and make sure that it is one.

    Raises:
        ConfigError: It lacks what a ``Dataset`` has.
        DataError: Two of its samples share an id, or a sample's label is none of its classes.
    """
    dataset = config.open(folder)
    if lacking := [name for name in vars(Dataset) if not name.startswith("_") and not hasattr(dataset, name)]:
        raise ConfigError(
            f"the data set of kind '{config.kind}', a {type(dataset).__name__}, lacks {listed(lacking)}",
            "everything that kd_edge.data.Dataset has",
            "add it; train/examples/own_dataset is a whole one",
        )
    _check_samples(dataset, config.kind)
    return dataset


def _check_samples(dataset: Dataset, kind: str) -> None:
    counts = Counter(sample.id for sample in dataset.samples)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise DataError(
            f"two samples of kind '{kind}' have the id '{printable(twice[0])}'", "ids that are unique", "correct them"
        )
    if wrong := [sample for sample in dataset.samples if not 0 <= sample.label < len(dataset.labels)]:
        raise DataError(
            f"sample '{printable(wrong[0].id)}' of kind '{kind}' has the label {wrong[0].label}",
            f"a position in its {len(dataset.labels)} labels, from 0",
            "correct it",
        )


def _broken(kind: str, entry: metadata.EntryPoint, why: str) -> ConfigError:
    return ConfigError(
        f"{_told(entry)} brings the data kind '{printable(kind)}' as {printable(entry.value)}, which cannot be used: "
        f"{why}",
        "a subclass of kd_edge.data.OwnData",
        "correct that package, or uninstall it",
    )


def _told(entry: metadata.EntryPoint) -> str:
    return f"the package {_package(entry)}"


def _package(entry: metadata.EntryPoint) -> str:
    """Name and version of the distribution; of half-removed ones only the module is known."""
    try:
        assert entry.dist is not None
        return printable(f"{entry.dist.metadata['Name']} {entry.dist.version}")
    except (AssertionError, KeyError, TypeError):
        return printable(f"of module {entry.module}")
