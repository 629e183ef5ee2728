"""Prepares a folder of own recordings for training: manifest, ``dataset.toml`` and recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from kd_edge import recipes
from kd_edge.data.readers.files import Files
from kd_edge.data.readers.files.imports import foreign, import_rows
from kd_edge.data.readers.files.rows import NAMES, Row, Table, manifest_of, read_manifest
from kd_edge.data.readers.files.settings import FILE, read_settings
from kd_edge.data.readers.files.writing import write_manifest
from kd_edge.data.survey import Survey, survey, unlisted, unlisted_said
from kd_edge.errors import ConfigError, DataError, KdEdgeError, printable
from kd_edge.files import check_writable, replacing
from kd_edge.reading import is_file
from kd_edge.train.recipe.proposal import NAME, Proposal, propose
from kd_edge.train.recipe.recipe import Recipe

BACKGROUND = "none"
"""Name of the background class, between the labelled pieces."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder, its contents and the proposal for it.

    Attributes:
        dataset: Its recordings, with the proposed settings.
        found: The survey of the recordings.
        proposal: The proposed recipe.
        makes_background: Whether ``dataset.toml`` is proposed: the gaps of long recordings become a class.
    """

    dataset: Files
    found: Survey
    proposal: Proposal
    makes_background: bool = False


def look_at(
    root: Path,
    *,
    student: str | None = None,
    pattern: str | None = None,
    as_it_is: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Folder:
    """Examine a folder and propose how to train on it; writes nothing.

    Args:
        root: The folder.
        student: Modality of the student; None chooses one.
        pattern: Pattern of the file names; replaces the one in ``dataset.toml``.
        as_it_is: Use the folder as training would use it without files written by ``write``: lists of other tools are
            refused, and gaps of long recordings become a class only if ``dataset.toml`` says so.
        progress: Called with (files surveyed, total files).

    Raises:
        DataError: The folder has nothing to train on, or its manifest is faulty.
        ConfigError: ``dataset.toml``, the pattern or the student's modality is wrong.
    """
    if not root.is_dir():
        raise DataError(f"no folder {root}", "a folder of recordings", "correct the path")
    settings = read_settings(root)
    if pattern is not None:
        if listed := manifest_of(root) or foreign(root):
            raise ConfigError(
                f"--pattern with {listed}, which already lists the files", "a folder without a list", "remove --pattern"
            )
        settings = settings.model_copy(update={"pattern": pattern})
    source, table = _described(root, imports=not as_it_is)
    dataset = Files(root, settings=settings, table=table)
    gaps = not as_it_is and not is_file(root / FILE) and BACKGROUND not in dataset.labels and bool(dataset.between())
    if gaps:
        dataset = Files(root, settings=settings.model_copy(update={"background": BACKGROUND}), table=dataset.table)
    found = survey(dataset, source, progress)
    return Folder(dataset, found, propose(dataset, found, student), gaps)


def check_free(root: Path, *, force: bool) -> None:
    """Check that ``write`` will be able to write, before thousands of files are examined.

    Raises:
        ConfigError: There is a recipe already, and it is not to be replaced.
        DataError: The folder cannot be written.
    """
    recipe = root / NAME
    if recipe.exists() and not force:
        raise ConfigError(
            f"{recipe} exists already", "a folder without a recipe", "--force overwrites it, --dry-run only reports"
        )
    if root.is_dir():
        check_writable(recipe, DataError, option="folder, or train directly: kd-edge train --data DIR needs no recipe")


def write(folder: Folder, *, without_damaged: bool = False) -> tuple[Path, ...]:
    """Write the proposal, completely or not at all. An existing manifest or ``dataset.toml`` is kept.

    Args:
        folder: What ``look_at`` said.
        without_damaged: Leave files that cannot be read out of the manifest.

    Returns:
        The files that were written.

    Raises:
        DataError: They cannot be written.
        ConfigError: ``without_damaged`` with a manifest, which stays as it is.
    """
    root = folder.dataset.root
    writers: dict[Path, Callable[[], None]] = {}
    if folder.makes_background:
        text = f'background = "{BACKGROUND}"    # class of what lies between the labelled pieces\n'
        writers[root / FILE] = partial(_write_text, root / FILE, text)
    if manifest_of(root) is None:
        rows = _without(folder) if without_damaged else list(folder.dataset.table.rows)
        writers[root / NAMES[0]] = partial(write_manifest, rows, root / NAMES[0])
    elif without_damaged and folder.found.damaged:
        raise ConfigError(
            f"{manifest_of(root)} names damaged files",
            "no existing manifest with --without-damaged, which does not change it",
            "remove the damaged files from the manifest by hand, and --without-damaged",
        )
    writers[root / NAME] = partial(_write_text, root / NAME, folder.proposal.text)  # the only one that may exist
    done: list[Path] = []
    try:
        for path, writer in writers.items():
            writer()
            done.append(path)
    except BaseException:
        for path in done:
            with suppress(OSError):
                path.unlink()
        raise
    return tuple(done)


def recipe_of(
    root: Path, overrides: Sequence[str] = (), progress: Callable[[int, int], None] | None = None
) -> tuple[Recipe, str]:
    """The recipe of a folder, its own or a proposed one, and a line stating which.

    Raises:
        ConfigError: The recipe has faults.
        DataError: No recordings there that could be trained on.
    """
    own = root / NAME
    if is_file(own):
        return recipes.load("train", str(own), Recipe, overrides), f"recipe: {own}"
    folder = look_at(root, as_it_is=True, progress=progress)
    proposal = folder.proposal
    recipe = recipes.from_text(proposal.text, Recipe, "proposed recipe", overrides) if overrides else proposal.recipe
    gaps = ", and makes a class of the gaps" if folder.found.gaps and folder.found.background is None else ""
    return recipe, f"no recipe in {root}: proposed one ({proposal.reasons[0]}); kd-edge data init {root} keeps it{gaps}"


def left_out(root: Path) -> str | None:
    """A line about recordings missing from a folder's manifest; None if there are none, or the manifest has faults."""
    with suppress(KdEdgeError):  # who opens the folder is told of its faults
        settings = read_settings(root)
        if manifest := manifest_of(root):
            table = read_manifest(manifest, tuple(settings.modality), links=settings.links)
            if names := unlisted(root, table, links=settings.links):
                return unlisted_said(manifest.name, names)
    return None


def _described(root: Path, *, imports: bool) -> tuple[str, Table | None]:
    """The description of a folder's recordings, and its table if it is a list of another tool."""
    if manifest := manifest_of(root):
        return manifest.name, None
    if not imports or not (described := foreign(root)):
        return "folders and names", None
    imported = import_rows([root])
    modalities = dict.fromkeys(name for row in imported.rows for name in row.files)
    return described, Table(imported.rows, tuple(modalities), imported.remarks)


def _without(folder: Folder) -> list[Row]:
    """Rows with readable files."""
    damaged = folder.found.damaged
    kept = (
        replace(row, files={name: path for name, path in row.files.items() if printable(str(path)) not in damaged})
        for row in folder.dataset.table.rows
    )
    return [row for row in kept if row.files]


def _write_text(path: Path, text: str) -> None:
    with replacing(path, DataError) as file:
        file.write(text.encode())
