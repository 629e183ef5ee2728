"""The ledger: the results of a study's finished runs, one line per run, kept after the run's folder is gone.

A line contains results only: no weights, clips or file names. A ledger is small enough to commit, so that a table can
be rewritten anywhere, and two machines can add to one ledger and merge their lines as text.

    docs/results/<study>.jsonl
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError
from pydantic_core import to_jsonable_python

from kd_edge import __version__
from kd_edge.artifact import Precision
from kd_edge.errors import DataError
from kd_edge.files import held, replacing
from kd_edge.reading import read_bytes
from kd_edge.rundir import Record, StageReport, Summary, first_fault
from kd_edge.study.plan import Planned

FORMAT = 1
FOLDER = Path("docs") / "results"
LONGEST_WAIT_SECONDS = 60.0
MOST_BYTES = 100_000_000
"""Maximum size of a ledger: some ten thousand runs."""


class _Origin(Record):
    """The fields of a line that are read first.

    Attributes:
        format: Format version of the line.
        release: Release of kd-edge that wrote it.
    """

    format: int = FORMAT
    release: str = ""


class LedgerLine(_Origin):
    """One line of a ledger."""

    @property
    @abstractmethod
    def key(self) -> tuple[str | int, ...]:
        """Identity of the line: lines with equal keys count once."""

    @property
    @abstractmethod
    def figures(self) -> object:
        """Values that must agree between two lines with the same key."""

    @property
    @abstractmethod
    def described(self) -> str:
        """Name of the line in messages."""


class Entry(LedgerLine):
    """One finished run.

    Attributes:
        row: Row of the study.
        split: Protocol.
        seed: Seed.
        summary: Results of the run, with the recipe's fingerprint but without the recipe and what rebuilds the run.
    """

    row: str
    split: str
    seed: int = Field(ge=0)
    summary: Summary

    @property
    def key(self) -> tuple[str, str, int, str, str]:
        """Row, split, seed, settings and recordings."""
        return *self.run, self.summary.data_fingerprint

    @property
    def run(self) -> tuple[str, str, int, str]:
        """The planned run it belongs to, regardless of its recordings."""
        return self.row, self.split, self.seed, self.summary.recipe_fingerprint

    @property
    def figures(self) -> object:
        """All results of the stages except their durations."""
        return _timeless(to_jsonable_python(self.summary.stages))

    @property
    def described(self) -> str:
        """Row, split and seed."""
        return f"{self.row}, {self.split}, seed {self.seed}"


class ModelLine(LedgerLine):
    """The results of one model, under the name of a row.

    Attributes:
        row: Name of the model in the table.
        recipe_fingerprint: SHA-256 (hex) of the settings it was trained with, seed included.
        precision: Precision of the graph.
        dataset: Name of the data set.
        split: Name of the data set's protocol.
        content: SHA-256 (hex) of the model; empty in lines of a release that did not record it.
        data_fingerprint: SHA-256 (hex) of the recordings it was trained on; empty likewise.
        measured: Time of the measurement, ISO 8601 in UTC; empty likewise.
    """

    row: str
    recipe_fingerprint: str
    precision: Precision
    dataset: str
    split: str
    content: str = ""
    data_fingerprint: str = ""
    measured: str = ""

    @property
    def model(self) -> tuple[str, ...]:
        """Identity of the model and its test clips."""
        settings = self.row, self.recipe_fingerprint, self.precision, self.dataset, self.split
        return *settings, self.content, self.data_fingerprint

    @property
    @abstractmethod
    def place(self) -> tuple[str, ...]:
        """Place in a table: of two models in the same place, the newer one counts."""


L = TypeVar("L", bound=LedgerLine)
M = TypeVar("M", bound=ModelLine)


def ledger_of(study: str, folder: Path | None = None) -> Path:
    """Path of a study's ledger."""
    return (FOLDER if folder is None else folder) / f"{Path(study).stem}.jsonl"


def entry(planned: Planned, summary: Summary) -> Entry:
    """Create a run's line, with the results that tables and intervals need."""
    kept = {"complete", "finished", "protocol", "seed", "clip_seconds", "versions", "data_fingerprint", "device"}
    kept |= {"data_fingerprints", "recipe_fingerprint", "threads", "temperature", "unknown_threshold"}
    fields = {name: getattr(summary, name) for name in kept & summary.model_fields_set}
    if "protocol" in fields:  # skipped clips are listed by id
        fields["protocol"] = summary.protocol.model_copy(update={"skipped": {}})
    stages = {name: _figures(report) for name, report in summary.stages.items()}
    slim = Summary(**fields, stages=stages)
    return Entry(
        format=FORMAT, release=__version__, row=planned.row.name, split=planned.split, seed=planned.seed, summary=slim
    )


def read_ledger(path: Path) -> list[Entry]:
    """Read all runs of a study's ledger; see ``read_lines``."""
    return read_lines(path, Entry)


def read_lines(path: Path, kind: type[L]) -> list[L]:
    """Read all lines of a ledger; an empty list if there is no file.

    Equal lines are merged, even if their durations differ: two machines may have added the same run.

    Args:
        path: The ledger.
        kind: Type of its lines.

    Raises:
        DataError: A line is damaged or of another format, or two lines have different results for one run.
    """
    try:
        text = read_bytes(path, MOST_BYTES)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror or error})", "a ledger of runs", "check the file"
        ) from error
    found: dict[tuple[str | int, ...], tuple[int, L]] = {}
    for number, line in enumerate(text.split(b"\n"), 1):
        if not line.strip():
            continue
        read = _read(path, number, line, kind)
        before = found.setdefault(read.key, (number, read))
        if before[1].figures != read.figures:
            raise DataError(
                f"lines {before[0]} and {number} of {path} have different figures for one run ({read.described})",
                "one line per run",
                "keep the line of the run that should count, and remove the other",
            )
    return [read for _, read in found.values()]


def current(lines: Sequence[M], asked: Collection[tuple[str, str]] = (), beside: Collection[str] = ()) -> list[M]:
    """Select the lines of a table: those of the requested models, and the latest line in every other place.

    Args:
        lines: Lines of a ledger.
        asked: (row, content) of the requested models; empty for all.
        beside: Further rows of the table.

    Returns:
        The selected lines, in their order.
    """
    newest: dict[tuple[str, ...], tuple[bool, str, tuple[str, ...]]] = {}
    for line in lines:
        found = (line.row, line.content) in asked, line.measured, line.model
        newest[line.place] = max(newest.get(line.place, found), found)

    def counts(line: M) -> bool:
        is_asked, _, model = newest[line.place]
        if is_asked:
            return (line.row, line.content) in asked
        return line.model == model and (not asked or line.row in beside)

    return [line for line in lines if counts(line)]


def add(path: Path, entries: Iterable[LedgerLine], kind: type[LedgerLine] = Entry) -> int:
    """Add runs that a ledger does not have yet; the file is written atomically.

    Args:
        path: The ledger.
        entries: Lines to add.
        kind: Type of its lines.

    Returns:
        The number of added lines.

    Raises:
        DataError: The ledger is damaged, has other results for a run, or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with held(path.with_name(f".lock-{path.name}"), lambda: None, seconds=LONGEST_WAIT_SECONDS) as is_held:
            if not is_held:
                raise DataError(f"{path} is held by another process", "one that adds its runs and goes", "try again")
            known = read_lines(path, kind)
            keys = {read.key: read for read in known}
            new = []
            for line in entries:
                before = keys.setdefault(line.key, line)
                if before is line:
                    new.append(line)
                elif before.figures != line.figures:
                    raise DataError(
                        f"{path} has other figures for {line.described} under the same settings",
                        "one result for a run",
                        "remove its line if the new run is to count, or the run's folder if the old one is",
                    )
            if new:
                with replacing(path, DataError) as file:
                    file.write(b"".join(_line(read) for read in sorted([*known, *new], key=lambda e: e.key)))
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror or error})", "a writable folder", "check the folder"
        ) from error
    return len(new)


def recorded(planned: Planned, entries: Sequence[Entry]) -> Summary | None:
    """Look up a planned run in a ledger: the latest one with its settings, or None."""
    run = (planned.row.name, planned.split, planned.seed, planned.config.fingerprint())
    found = [read.summary for read in entries if read.run == run]
    return max(found, key=lambda summary: summary.finished, default=None)


def _timeless(values: Any) -> Any:
    """A JSON value without its ``seconds`` entries."""
    if isinstance(values, dict):
        return {key: _timeless(value) for key, value in values.items() if key != "seconds"}
    return [_timeless(value) for value in values] if isinstance(values, list) else values


def _figures(report: StageReport) -> StageReport:
    """A stage's report without its confusion matrix, which is as large as all the rest."""
    slim = {
        name: getattr(report, name).model_copy(update={"confusion": []})
        for name in ("validation", "test")
        if getattr(report, name) is not None
    }
    return report.model_copy(update=slim)


def _read(path: Path, number: int, line: bytes, kind: type[L]) -> L:
    release = __version__
    try:
        origin = _Origin.model_validate_json(line)
        release = origin.release
        read = kind.model_validate_json(line) if origin.format == FORMAT else None
    except ValidationError as error:
        other = "" if release in ("", __version__) else f"; kd-edge {release[:40]} wrote it, this is {__version__}"
        raise DataError(
            f"line {number} of {path} is damaged ({first_fault(error)}{other})",
            "one JSON object a run, as kd-edge study writes them",
            "restore the line, or remove it and add its run again: kd-edge study ledger",
        ) from error
    if read is None:
        raise DataError(
            f"line {number} of {path} has format {origin.format} (kd-edge {origin.release[:40]})",
            f"format {FORMAT}",
            "read it with that release of kd-edge, or remove the line and add its run again",
        )
    return read


def _line(read: LedgerLine) -> bytes:
    return f"{json.dumps(to_jsonable_python(read), allow_nan=False)}\n".encode()
