"""The verb sign, export --sign and export --tensorrt on the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from kd_edge import artifact
from kd_edge.cli import app
from kd_edge.errors import ArtifactError, ConfigError, EngineError, KdEdgeError


def kd_edge(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("cryptography", reason="no cryptography")
    monkeypatch.chdir(tmp_path)
    assert kd_edge("sign", "--new-key", "robot.key").exit_code == 0
    return Path(shutil.copy(artifact.BUNDLED, tmp_path / "student.onnx"))


def test_from_a_new_key_to_a_trusted_run(model: Path) -> None:
    done = kd_edge("sign", model, "--key", "robot.key")
    assert "student.onnx signed with the key" in " ".join(done.output.split())
    camera = "synthetic:?realtime=false&frames=3"
    assert kd_edge("run", "--camera", camera, "--model", model, "--trust", "robot.pub").exit_code == 0
    refused = kd_edge("run", "--camera", camera, "--model", artifact.BUNDLED, "--trust", "robot.pub")
    assert isinstance(refused.exception, ArtifactError)
    assert "is not signed" in str(refused.exception)
    Path("dark.toml").write_text(f'uri = "{camera}"\ntrust = "robot.pub"\n')
    assert kd_edge("run", "--camera", "dark.toml", "--model", model).exit_code == 0
    shutil.copy(artifact.BUNDLED, model)
    assert isinstance(kd_edge("run", "--camera", "dark.toml", "--model", model).exception, ArtifactError)


def test_beside_the_file_it_is_left_as_it_is(model: Path) -> None:
    before = model.read_bytes()
    assert kd_edge("sign", model, "--key", "robot.key", "--bundle", "student.onnx.sig").exit_code == 0
    assert model.read_bytes() == before
    assert json.loads(Path("student.onnx.sig").read_text())["mediaType"].endswith("v0.3+json")
    assert artifact.load(model, trust="robot.pub").signed_by


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "no file"),
        (("student.onnx",), "no key"),
        (("--key", "robot.key"), "no file"),
        (("student.onnx", "--new-key", "b.key"), "--new-key with a file"),
        (("--new-key", "robot.key"), "exists already"),
        (("--new-key", "--help"), "--new-key --help. Expected the name of a key"),
        (("student.onnx", "--key", "robot.pub"), "is a public key"),
        (("absent.onnx", "--key", "robot.key"), "no file"),
    ],
)
def test_what_makes_no_sense_is_one_line(model: Path, arguments: tuple[str, ...], why: str) -> None:
    error = kd_edge("sign", *arguments).exception
    assert isinstance(error, KdEdgeError)
    assert why in str(error)
    assert artifact.load(model).signed_by == ""


def test_a_key_that_is_none_is_told_before_the_export(model: Path) -> None:
    Path("runs").mkdir()
    error = kd_edge("export", "runs", "--sign", "robot.pub").exception
    assert isinstance(error, ConfigError)
    assert "is a public key" in str(error)


@pytest.mark.slow
def test_without_a_gpu_a_plan_says_what_to_do_on_the_robot(model: Path) -> None:
    error = kd_edge("export", model, "--tensorrt").exception
    assert isinstance(error, EngineError)
    assert str(error).endswith("Fix: on the robot: kd-edge export student.onnx --tensorrt")
    for wrong in (("--fp16",), ("--report", "r"), ("--tensorrt-rtx",), ("--sign", "robot.key"), ("--set", "nothing=1")):
        assert isinstance(kd_edge("export", model, "--tensorrt", *wrong).exception, ConfigError), wrong
