"""What was trained on a kind of data set that nobody here knows: another release's, or an uninstalled package's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kd_edge.artifact import BUNDLED, load
from kd_edge.artifact.file import rewrite
from kd_edge.rundir import RECIPE, SUMMARY
from tests.cli.conftest import Kd, one_line
from tests.cli.test_damaged import finished, run, said  # noqa: F401 - fixtures

KIND = "team_videos"
KNOWN = "known here: synthetic, utd_mhad, ntu_rgbd, pku_mmd, berkeley_mhad, mmact, fir_action, files"


@pytest.fixture
def foreign(run: Path) -> Path:  # noqa: F811 - a fixture
    """A finished run of that kind."""
    recipe = (run / RECIPE).read_text()
    assert 'kind = "synthetic"' in recipe
    (run / RECIPE).write_text(recipe.replace('kind = "synthetic"', f'kind = "{KIND}"'))
    summary = json.loads((run / SUMMARY).read_text())
    assert summary["student_model"]["data"]["kind"] == "synthetic"
    summary["student_model"]["data"]["kind"] = KIND
    (run / SUMMARY).write_text(json.dumps(summary))
    return run


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """The bundled model, as if trained on that kind."""
    known = load(BUNDLED)
    manifest = known.manifest.model_copy(update={"dataset": {"kind": KIND, "root": "x"}})
    rewrite(known, manifest, tmp_path / "foreign.onnx")
    return tmp_path / "foreign.onnx"


@pytest.mark.parametrize(
    "arguments",
    [
        "evaluate run",
        "export run",
        "explain run --wrong 1",
        "train --resume run",
        "train run/recipe.toml",
        "train tiny.toml --set teacher.weights=run",
        "data check run/recipe.toml",
        "data examples run/recipe.toml --out a.png",
        "recipes layers run/recipe.toml",
    ],
)
def test_a_run_of_an_unknown_kind_is_told_in_one_line(kd: Kd, foreign: Path, arguments: str) -> None:
    code, text, error = kd(*arguments.split())
    assert (code, text) == (2, "")
    line = said(error)
    assert f"unknown '{KIND}'" in line
    assert KNOWN in line
    assert "kd_edge.datasets" in line
    assert "damaged" not in line
    assert "train again" not in line


@pytest.mark.parametrize(
    "arguments", ["study table run", "study confusion run --out c.png", "recipes show run/recipe.toml"]
)
def test_what_needs_no_recordings_works(kd: Kd, foreign: Path, arguments: str) -> None:
    code, _, error = kd(*arguments.split())
    assert code == 0, error


def test_an_artifact_of_an_unknown_kind_is_told_in_one_line(kd: Kd, artifact: Path) -> None:
    for verb in ("evaluate foreign.onnx", "evaluate foreign.onnx --streaming", "evaluate foreign.onnx --detection"):
        code, text, error = kd(*verb.split())
        assert (code, text) == (2, "")
        line = one_line(error)
        assert f"foreign.onnx was trained on data of a kind that is unknown here: unknown '{KIND}'" in line
        assert KNOWN in line
        assert "--recording" in line


@pytest.mark.slow
def test_an_artifact_of_an_unknown_kind_runs(kd: Kd, artifact: Path) -> None:
    code, _, error = kd(
        "run", "--camera", "synthetic:", "--duration", "1", "--model", "foreign.onnx", "--sink", "jsonl:out.jsonl"
    )
    assert code == 0, error
