"""The command line in an empty folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kd_edge import cli
from kd_edge.engines import choice

Kd = Callable[..., tuple[int, str, str]]


TINY = {
    "workers": 0,
    "data.clips_per_class": 4,
    "data.subjects": 4,
    "data.height_px": 60,
    "data.width_px": 80,
    "student.epochs": 1,
    "teacher.epochs": 1,
    "student.model.backbone": "tiny",
    "teacher.model.backbone": "tiny",
    "student.preprocess.resize_px": 24,
    "student.preprocess.input_px": 24,
    "teacher.preprocess.resize_px": 24,
    "teacher.preprocess.input_px": 24,
}
TINY_SETTINGS = [part for key, value in TINY.items() for part in ("--set", f"{key}={value}")]


def one_line(error: str) -> str:
    """The single line a mistake must print."""
    lines = error.strip().splitlines()
    assert len(lines) == 1, error
    assert lines[0].startswith("error: ")
    assert "Expected " in lines[0]
    assert "Fix: " in lines[0]
    return lines[0]


def unload(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Let packages be imported anew in a test; what a parent package calls by their names is put back after it, too."""
    for name in [name for name in sys.modules if f"{name}.".startswith(tuple(f"{package}." for package in packages))]:
        parent, _, own = name.rpartition(".")
        if parent and hasattr(sys.modules.get(parent), own):
            monkeypatch.setattr(sys.modules[parent], own, getattr(sys.modules[parent], own))
        monkeypatch.delitem(sys.modules, name)


def onnxruntime_wins(*_: object) -> choice.Measured:
    """What measuring the engines gives: the same everywhere, and at once."""
    times = {"onnxruntime": choice.Timing(1.0, 1.25), "openvino": choice.Timing(2.0, 2.5)}
    return choice.Measured({name: f"{name} 1.0" for name in times}, times, {})


# ------------------------------------------------------------------------------------------- the whole way, small


@pytest.fixture
def kd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Kd:
    """Run ``kd-edge ARGUMENTS``; returns exit code, output and error output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KD_EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(choice, "measured", onnxruntime_wins)
    monkeypatch.delenv("KD_EDGE_DATA", raising=False)
    for console in (cli.out, cli.err):
        monkeypatch.setattr(console, "_width", 400)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kd-edge", *arguments])
        code: Any = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
