"""The examples that ``--help``, recipes and studies show can be typed as they stand."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from kd_edge import recipes
from kd_edge.study.plan import load_study
from tests.cli.conftest import Kd
from tests.cli.examples import ROOT, parsed

KINDS = ("files", "utd_mhad", "ntu_rgbd", "pku_mmd", "berkeley_mhad", "mmact", "fir_action", "synthetic")
SHIPPED = Path(__file__).parents[2] / "train"


def epilogs(command: object = ROOT) -> Iterator[str]:
    if getattr(command, "epilog", None):
        yield command.epilog  # type: ignore[attr-defined]
    for below in getattr(command, "commands", {}).values():
        yield from epilogs(below)


def first_comments() -> Iterator[str]:
    """The part of a line before what is said of it."""
    for path in sorted([*SHIPPED.glob("recipes/*.toml"), *SHIPPED.glob("studies/*.toml")]):
        for line in path.read_text().splitlines():
            found = re.match(r"#\s+(kd-edge .*?)(\s{2,}.*)?$", line)
            if found:
                yield found[1]


def examples() -> list[str]:
    shown = [part.strip() for text in epilogs() for part in re.sub(r"^Examples?:", "", text).split("  |  ")]
    return [*shown, *first_comments()]


def test_there_are_some() -> None:
    assert len(list(epilogs())) >= 15
    assert len(list(first_comments())) >= 10
    assert all(example.startswith("kd-edge ") for example in examples())


@pytest.mark.parametrize("example", examples())
def test_an_example_names_what_there_is(example: str) -> None:
    """Unknown options, missing ones and values of a wrong type end the parsing."""
    command, values = parsed(shlex.split(example)[1:])
    for parameter in command.params:
        kind, value = str(parameter.metavar), values.get(str(parameter.name))
        if value is None:
            continue
        if "RECIPE" in kind:
            assert value in [*recipes.names("train"), *(KINDS if "KIND" in kind else ())]
        if kind == "STUDY":
            rows = {row.name for row in load_study(value).rows}
            asked = ",".join(filter(None, (values.get("rows"), values.get("row"))))
            assert rows >= set(asked.split(",") if asked else ())


@pytest.mark.slow
def test_published_weights_are_drawn_without_a_run(kd: Kd, tmp_path: Path) -> None:
    drawn = next(example for example in examples() if "--published" in example)
    code, text, error = kd(*shlex.split(drawn)[1:])
    assert (code, error) == (0, "")
    assert text.strip() == "12 points in weights.png"
    assert (tmp_path / "weights.png").is_file()


def test_help_shows_tables_in_brackets(kd: Kd) -> None:
    code, text, _ = kd("data", "glove", "--help")
    assert code == 0
    assert "[semantics]" in text
    code, text, _ = kd("study", "sensitivity", "--help")
    assert "Drawn as colour." in text


def test_a_misspelt_modality_of_a_kind_is_corrected_on_the_command_line(kd: Kd) -> None:
    code, _, error = kd("data", "check", "synthetic", "--modality", "nri")
    assert code == 2
    assert "no modality 'nri' (did you mean 'nir'?)" in error
    assert error.strip().endswith("Fix: correct --modality")
