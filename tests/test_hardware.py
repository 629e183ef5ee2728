"""The checks of a machine's devices: each in a process of its own, whose end, hang or chatter is a result."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from kd_edge import artifact
from kd_edge.cli import _completed
from kd_edge.cli import app as cli
from kd_edge.engines import ENGINES
from kd_edge.errors import ConfigError
from kd_edge.hardware import Checked, HardwareReport, checks, examine_hardware, report

ROOT = Path(__file__).parents[1]
FAILING = ("fails", "raises", "dies", "hangs")
CHILD = """
import os, signal, sys, time
from pathlib import Path
from kd_edge.errors import DeviceError
from kd_edge.hardware import checks, report

def passes(model):
    print("a library prints this")
    os.write(1, b"and this\\n")
    return {"a figure": 1.5, "a path": str(Path.home() / "secret"), "a colour": "\\x1b[31m"}

def skips(model):
    raise checks.Skip("no such device")

def fails(model):
    raise DeviceError("it is lost", "one", "plug it in")

def raises(model):
    raise RuntimeError("what a library says")

def dies(model):
    print("last words", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGSEGV)

def hangs(model):
    time.sleep(1000)

kinds = dict(passes=passes, skips=skips, fails=fails, raises=raises, dies=dies, hangs=hangs)
report.all_checks = lambda: {name: checks.Check(name, run) for name, run in kinds.items()}
report._child(sys.argv[1], Path(sys.argv[2]))
"""


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small checks in the place of the real ones."""
    names = ("passes", "skips", *FAILING)
    made = {name: checks.Check(f"that it {name}", lambda model: {}, 1.0 if name == "hangs" else 60.0) for name in names}
    monkeypatch.setattr(report, "all_checks", lambda: made)
    monkeypatch.setattr(report, "_command", lambda name, model: [sys.executable, "-c", CHILD, name, str(model)])


@pytest.mark.slow
def test_whatever_a_check_does_it_is_a_result(tried: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    told: list[Checked] = []
    found = examine_hardware(artifact.BUNDLED, tmp_path / "out.json", told=told.append)
    by_name = {check.name: check for check in found.checks}
    results = {name: check.result for name, check in by_name.items()}
    assert results == {"passes": "passed", "skips": "skipped"} | dict.fromkeys(FAILING, "failed")
    assert by_name["passes"].figures == {"a figure": 1.5, "a path": "~/secret", "a colour": "\\x1b[31m"}
    assert by_name["skips"].why == "no such device"
    assert by_name["fails"].why == "it is lost. Expected one. Fix: plug it in"
    assert by_name["raises"].why == "RuntimeError: what a library says"
    assert by_name["dies"].why == "its process ended with SIGSEGV: last words"
    assert by_name["hangs"].why == "it has not ended after 1 s"
    assert told == found.checks
    assert HardwareReport.model_validate_json((tmp_path / "out.json").read_text()) == found
    assert (found.count("passed"), found.count("failed"), found.count("skipped")) == (1, 4, 1)


@pytest.mark.slow
def test_what_was_found_stays_when_it_is_stopped(tried: None, tmp_path: Path) -> None:
    def stop(what: str) -> None:
        if what == "that it skips":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        examine_hardware(artifact.BUNDLED, tmp_path / "out.json", say=stop)
    kept = json.loads((tmp_path / "out.json").read_text())
    assert [check["name"] for check in kept["checks"]] == ["passes"]


def test_every_engine_has_a_check() -> None:
    assert {f"engine {name}" for name in ENGINES} <= checks.all_checks().keys()
    with pytest.raises(ConfigError, match=r"check 'engine tensorr' \(did you mean 'engine tensorrt'\?\)"):
        examine_hardware(artifact.BUNDLED, only=["engine tensorr"])


@pytest.mark.slow
def test_the_real_checks_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    found = examine_hardware(artifact.BUNDLED, only=["gpu", "engine onnxruntime", "engine cuda"])
    gpu, cpu, cuda = found.checks
    assert cpu.result == "passed"
    assert cpu.figures["largest relative difference, 3 at once"] == 0
    assert cpu.figures["a step, ms, median"] > 0
    if gpu.result == "skipped":
        assert "no CUDA driver" in gpu.why or "no GPU" in gpu.why
        assert cuda.result == "skipped"
    text = found.model_dump_json()
    for private in (os.environ.get("USER", ""), os.uname().nodename):
        assert len(private) < 4 or private not in text


@pytest.mark.parametrize(
    ("why", "note"),
    [
        ("libnvdla_compiler.so: cannot open shared object file", "R39"),
        ("Target GPU SM 87 is not supported by this TensorRT release", "not for Orin"),
        ("CUDA initialization failure with error: 35", "driver is older"),
    ],
)
def test_known_traps_are_named(why: str, note: str) -> None:
    told = report._traps({}, [Checked(name="engine tensorrt", what="", result="failed", why=why)])
    assert len(told) == 1
    assert note in told[0]
    assert report._traps({}, []) == []


@pytest.mark.parametrize(
    ("given", "completed"),
    [
        (["doctor", "--json"], ["doctor", "--json", "-"]),
        (["doctor", "--json", "--hardware"], ["doctor", "--json", "-", "--hardware"]),
        (["doctor", "--hardware", "--json", "a.json"], ["doctor", "--hardware", "--json", "a.json"]),
        (["doctor", "--json", "-"], ["doctor", "--json", "-"]),
        (["cameras", "--json"], ["cameras", "--json"]),
        (["train", "--resume"], ["train", "--resume", "latest"]),
        (["train", "--resume", "--seed", "1"], ["train", "--resume", "latest", "--seed", "1"]),
        (["train", "--resume", "runs/a"], ["train", "--resume", "runs/a"]),
    ],
)
def test_values_that_are_left_out(given: list[str], completed: list[str]) -> None:
    assert _completed(given) == completed


@pytest.mark.slow
def test_the_command_line(tried: None, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    run = CliRunner().invoke
    done = run(cli, ["doctor", "--hardware", "--only", "passes", "--json", str(tmp_path / "a.json")])
    assert done.exit_code == 0, done.output
    assert "1 passed, 0 failed, 0 skipped; written to" in " ".join(done.output.split())
    assert run(cli, ["doctor", "--hardware", "--only", "fails", "--json", "-"]).exit_code == 1
    assert json.loads(run(cli, ["doctor", "--hardware", "--only", "skips", "--json", "-"]).stdout)["format"] == 1
    for wrong in (["--only", "passes"], ["--json", "a.json"]):
        assert isinstance(run(cli, ["doctor", *wrong]).exception, ConfigError)
