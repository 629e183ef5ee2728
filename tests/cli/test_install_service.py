"""The verb install-service; what it does to a machine is tested in tests/service."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from kd_edge.cli import app
from kd_edge.errors import ConfigError
from kd_edge.service import Installation

IN_OPT = Installation(("/opt/kd/bin/kd-edge",), "/opt/kd/bin/python", "/opt/kd", ("/opt/kd", "/usr"))


def kd_edge(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["install-service", *map(str, arguments)])


@pytest.fixture(autouse=True)
def installed_in_opt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(Installation, "running", classmethod(lambda cls: IN_OPT))


def test_a_dry_run_prints_the_unit_and_every_command() -> None:
    done = kd_edge("--camera", "ir0", "--dry-run")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "# /etc/systemd/system/kd-edge-ir0.service"
    assert "Type=notify" in lines
    assert lines[-6:] == [
        "would be written: /etc/systemd/system/kd-edge-ir0.service",
        "would run: systemctl daemon-reload",
        "would run: systemctl enable kd-edge-ir0.service",
        "would run: systemctl restart kd-edge-ir0.service",
        "note its model is the newest *.onnx in its folder, else the bundled one",
        "labels: journalctl -u kd-edge-ir0 -f",
    ]


def test_as_json() -> None:
    done = kd_edge("--camera", "ir0", "--user", "--dry-run", "--json")
    told = json.loads(done.stdout)
    assert (told["done"], told["name"]) == ("nothing", "kd-edge-ir0")
    assert told["commands"] == [
        "systemctl --user daemon-reload",
        "systemctl --user enable kd-edge-ir0.service",
        "systemctl --user restart kd-edge-ir0.service",
    ]
    assert told["text"].startswith("# Made by kd-edge install-service")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--uninstall",), "no --name"),
        (("--uninstall", "--name", "kd-edge-a", "--camera", "ir0"), "--uninstall with options of an installation"),
        (("--uninstall", "--name", "kd-edge-absent"), "no unit /etc/systemd/system/kd-edge-absent.service"),
        (("--camera", "ir0", "--with-model"), "--with-model without --uninstall"),
        ((), "no camera"),
        (("--camera", "ir9"), "unknown camera 'ir9'"),
        (("--ros", "--dry-run"), "no camera and no topic"),
    ],
)
def test_what_does_not_go_together(arguments: tuple[str, ...], why: str) -> None:
    done = kd_edge(*arguments)
    assert isinstance(done.exception, ConfigError)
    assert done.exception.found.startswith(why)
