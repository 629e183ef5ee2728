"""Why existing runs do not count for a row: the first setting that differs from the row's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from kd_edge import recipes
from kd_edge.errors import KdEdgeError
from kd_edge.rundir import RECIPE
from kd_edge.study.ledger import Entry
from kd_edge.study.plan import Planned

_DECIDES_NOTHING: dict[str, Any] = {"name": True, "workers": True, "data": {"root"}, "student": {"source_sha256"}}


def difference(planned: Planned, run: Path) -> str:
    """Describe how a run differs from the planned one, for example ``student.epochs is 20 there and 40 here``.

    Args:
        planned: The planned run, with the row's current settings.
        run: A run directory.

    Returns:
        The first setting that differs; if all are equal, that the recordings differ.
    """
    try:
        theirs = recipes.load("train", str(run / RECIPE), type(planned.config))
    except KdEdgeError:
        return "its settings are of another kind or release"
    values = [each.model_dump(mode="json", exclude=_DECIDES_NOTHING) for each in (theirs, planned.config)]
    return _first(values[0], values[1]) or "its recordings were others"


def superseded(missing: Sequence[Planned], finished: Sequence[Path], ledger: Sequence[Entry]) -> Iterator[str]:
    """Find runs that a table lacks but that exist with other settings.

    Args:
        missing: Runs that the table lacks.
        finished: Folders of the study's finished runs.
        ledger: Results of runs whose folders are not here.

    Yields:
        A planned run's name, with the place of the other run and the difference.
    """
    kept = {(line.row, line.split, line.seed) for line in ledger}
    for planned in missing:
        names = re.compile(rf"{re.escape(planned.name)}(-\d+)?")
        here = next((run for run in finished if names.fullmatch(run.name)), None)
        if here is not None:
            yield f"{planned.name}: in {here} {difference(planned, here)}"
        elif (planned.row.name, planned.split, planned.seed) in kept:
            yield f"{planned.name}: the ledger has it under other settings"


def _first(there: Any, here: Any, place: str = "") -> str:
    """The first difference between two JSON values; an empty string if they are equal."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        pairs = [(key, there.get(key), here.get(key)) for key in dict.fromkeys([*there, *here])]
    elif isinstance(there, list) and isinstance(here, list):
        pairs = [(str(k), *each) for k, each in enumerate(zip_longest(there, here))]
    else:
        return "" if there == here else f"{place} is {_shown(there)} there and {_shown(here)} here"
    differences = (_first(theirs, ours, f"{place}.{key}".lstrip(".")) for key, theirs, ours in pairs)
    return next((each for each in differences if each), "")


def _shown(value: Any) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
