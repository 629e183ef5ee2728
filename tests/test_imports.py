"""Every module can be imported first, and the floors that the contracts keep free of torch load none of it."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
TRAINING = ("torch", "torchvision", "lightning_fabric", "safetensors", "onnx", "onnxscript")
"""What a robot does not install."""

IMPORT = """
import importlib, json, pkgutil, sys

def every_module(name):
    module = importlib.import_module(name)
    below = pkgutil.walk_packages(getattr(module, "__path__", []), name + ".")
    return [name, *(importlib.import_module(each.name).__name__ for each in below)]

floors, unwanted = json.loads(sys.argv[1])
imported = []
for floor in floors:
    for name in [name for name in sys.modules if name.split(".")[0] == "kd_edge"]:
        del sys.modules[name]  # no floor is helped by what another one imported before
    imported += every_module(floor)
print(json.dumps([imported, [name for name in unwanted if name in sys.modules]]))
"""

HELP = """
import json, sys
import typer.main
from typer.testing import CliRunner
from kd_edge.cli import app

def verbs(command, path=()):
    below = getattr(command, "commands", {})
    return [path, *(verb for name, each in below.items() for verb in verbs(each, (*path, name)))]

(unwanted,) = json.loads(sys.argv[1])
said = {}
for path in verbs(typer.main.get_command(app)):
    result = CliRunner().invoke(app, [*path, "--help"], prog_name="kd-edge", env={"COLUMNS": "200"})
    said[" ".join(path)] = [result.exit_code, result.stdout, repr(result.exception)]
print(json.dumps([said, [name for name in unwanted if name in sys.modules]]))
"""


def contract(name: str) -> dict[str, Any]:
    """An import-linter contract of pyproject.toml."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return next(each for each in settings["tool"]["importlinter"]["contracts"] if each["name"] == name)


@functools.cache
def run_bare(code: str, *arguments: tuple[Any, ...]) -> Any:
    """What a fresh interpreter prints as JSON."""
    command = [sys.executable, "-c", code, json.dumps(arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def floors() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Packages and modules that load nothing of training, and those that may."""
    every = [name for layer in contract("the house has floors")["layers"] for name in layer.split(" | ")]
    bare = {*contract("a robot runs without torch")["source_modules"], "kd_edge.files", "kd_edge.detection"}
    assert bare <= set(every)
    bare.add("kd_edge.cli")  # its verbs import what they need when they are called
    return tuple(sorted(bare)), tuple(name for name in every if name not in bare)


def test_contributing_tells_the_floors_as_they_are() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("| floor |")[2].partition("\n\n")[0]
    told = [re.findall(r"`(\w+)`", line.rsplit("|", 2)[1]) for line in text.splitlines()[2:]]
    layers = [layer.split(" | ") for layer in contract("the house has floors")["layers"]]
    assert told == [sorted(name.removeprefix("kd_edge.") for name in layer) for layer in layers]
    there = {file.stem for file in (ROOT / "kd_edge").glob("*.py")}
    there |= {file.parent.name for file in (ROOT / "kd_edge").glob("*/__init__.py")}
    assert {name for row in told for name in row} == there - {"__init__", "__main__"}


def test_a_robots_floors_and_the_command_line_load_nothing_of_training() -> None:
    imported, unwanted = run_bare(IMPORT, floors()[0], TRAINING)
    assert unwanted == []
    assert {"kd_edge.runtime.recognizer", "kd_edge.data.readers.utd_mhad", "kd_edge.cli.train"} <= set(imported)


@pytest.mark.slow
def test_every_module_can_be_imported() -> None:
    above = run_bare(IMPORT, floors()[1], ())[0]
    below = run_bare(IMPORT, floors()[0], TRAINING)[0]
    files = (file.relative_to(ROOT).with_suffix("") for file in (ROOT / "kd_edge").rglob("*.py"))
    modules = {".".join(file.parts).removesuffix(".__init__") for file in files}
    assert {"kd_edge", "kd_edge.__main__", *above, *below} == modules  # the latter runs the program


@pytest.mark.slow
def test_help_of_every_verb_loads_nothing_of_training() -> None:
    said, unwanted = run_bare(HELP, TRAINING)
    assert unwanted == []
    assert {"", "data", "data check", "recipes layers", "study run", "train", "run"} <= said.keys()
    for verb, (code, text, error) in said.items():
        assert code == 0, (verb, error)
        assert f"Usage: {f'kd-edge {verb}'.strip()} [OPTIONS]" in text
