"""Runs of a row that do not count, and why: the first of their settings that is another one now."""

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
    """What keeps a run from being the planned one, for example ``student.epochs is 20 there and 40 here``.

    Args:
        planned: The run of the row as it is now.
        run: A run directory.

    Returns:
        The first setting that differs; of equal ones that the recordings do.
    """
    try:
        theirs = recipes.load("train", str(run / RECIPE), type(planned.config))
    except KdEdgeError:
        return "its settings are of another kind or release"
    values = [each.model_dump(mode="json", exclude=_DECIDES_NOTHING) for each in (theirs, planned.config)]
    return _first(values[0], values[1]) or "its recordings were others"


def superseded(missing: Sequence[Planned], finished: Sequence[Path], ledger: Sequence[Entry]) -> Iterator[str]:
    """Which of the runs that a table lacks were made under other settings.

    Args:
        missing: What the table lacks.
        finished: Folders of the study's finished runs.
        ledger: What runs came to whose folders are not here.

    Yields:
        A planned run's name, with where it was made otherwise, and how.
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
    """The first place in which two JSON values differ; nothing where they do not."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        pairs = [(key, there.get(key), here.get(key)) for key in dict.fromkeys([*there, *here])]
    elif isinstance(there, list) and isinstance(here, list):
        pairs = [(str(k), *each) for k, each in enumerate(zip_longest(there, here))]
    else:
        return "" if there == here else f"{place} is {_shown(there)} there and {_shown(here)} here"
    told = (_first(theirs, ours, f"{place}.{key}".lstrip(".")) for key, theirs, ours in pairs)
    return next((each for each in told if each), "")


def _shown(value: Any) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
