"""What --json prints of the values that verbs have."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from kd_edge.cli.console import counted, print_json, show_log
from kd_edge.rundir import Scores, Summary
from kd_edge.types import LabelState


class Settings(BaseModel):
    px: tuple[int, int] = (3, 4)
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Report:
    settings: Settings
    values: Any


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Path("runs/one"), "runs/one"),
        ((1, 2.5, None, True), [1, 2.5, None, True]),
        ({"a", "b"}, ["a", "b"]),
        ({3: "x", "y": {}}, {"3": "x", "y": {}}),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array([0.5], np.float32), [0.5]),
        (LabelState.OK, "ok"),
        (Summary(complete=True, stages={"student": {"test": Scores(accuracy=0.5)}}),
         {"complete": True, "stages": {"student": {"test": {"accuracy": 0.5}}}}),
    ],
)  # fmt: skip
def test_values_are_plain_json(value: Any, plain: Any, capsys: pytest.CaptureFixture[str]) -> None:
    print_json(Report(Settings(), [value]))
    written = json.loads(capsys.readouterr().out)
    if isinstance(value, set):
        written["values"][0].sort()
    assert written == {"settings": {"px": [3, 4], "folder": None}, "values": [plain]}


def test_what_is_logged_is_a_line_each_whatever_it_holds(capsys):
    show_log()
    show_log()  # once is enough
    log = logging.getLogger("kd_edge.somewhere")
    try:
        log.warning("camera %s: [red]lost[/red]", "ir0\x1b[2J\nerror: forged")
        log.info("not shown")
    finally:
        for handler in logging.getLogger("kd_edge").handlers[:]:
            logging.getLogger("kd_edge").removeHandler(handler)
    assert capsys.readouterr().err == "camera ir0\\x1b[2J\\nerror: forged: [red]lost[/red]\n"


def test_one_thing_is_told_in_the_singular() -> None:
    told = [counted(*of) for of in ((1, "clip"), (2, "clip"), (0, "step"), (1, "class"), (3, "class"))]
    assert told == ["1 clip", "2 clips", "0 steps", "1 class", "3 classes"]
