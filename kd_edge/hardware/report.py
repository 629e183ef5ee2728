"""Run the checks, each in its own process, and write the results to a report that is safe to share.

The report contains no user name, host name, home folder path, serial number or picture.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

import kd_edge
from kd_edge import __version__
from kd_edge.engines.cuda.driver import find_gpu, l4t
from kd_edge.errors import ConfigError, EngineError, KdEdgeError, did_you_mean, printable, reason
from kd_edge.files import replacing
from kd_edge.hardware.checks import Skip, all_checks
from kd_edge.machine import cpu_name

Result = Literal["passed", "failed", "skipped"]
PACKAGES = (
    *("numpy", "opencv-python", "opencv-python-headless", "onnxruntime", "onnxruntime-gpu", "openvino", "ncnn"),
    *("tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx-cu13", "cuda-python", "cuda-bindings", "pycuda"),
    *("torch", "torchvision", "pyrealsense2", "ros-rclpy"),
)
_TEXT = 2000


class Checked(BaseModel):
    """The result of one check.

    Attributes:
        name: Name of the check.
        what: Description of the check.
        result: The outcome; ``skipped`` if the device or its software is missing.
        why: Why the check failed or was skipped; empty if it passed.
        figures: Measured values.
        seconds: Duration of the check.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    what: str
    result: Result
    why: str = ""
    figures: dict[str, float | str] = {}
    seconds: float = 0.0


class HardwareReport(BaseModel):
    """The results of all checks on a machine.

    Attributes:
        format: Format version of the report.
        machine: Processor, system, GPU, versions.
        notes: Known problems that seem to affect this machine.
        checks: Results in the order of the checks.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    machine: dict[str, str]
    notes: list[str]
    checks: list[Checked]

    def count(self, result: Result) -> int:
        """Number of checks with this result."""
        return sum(check.result == result for check in self.checks)


def examine_hardware(
    model: Path,
    file: Path | None = None,
    *,
    only: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
    told: Callable[[Checked], None] | None = None,
) -> HardwareReport:
    """Run every check that this machine's devices support.

    Args:
        model: The artifact that engines run.
        file: Where to write the report; rewritten after every check, so that a crash of the machine loses little.
        only: Names of checks to run; empty for all.
        say: Called with the description of each check before it runs.
        told: Called with each result.

    Raises:
        ConfigError: A check is unknown, or the file cannot be written.
    """
    checks = all_checks()
    for name in only:
        if name not in checks:
            raise ConfigError(
                f"check '{name}'{did_you_mean(name, checks)}", f"one of {', '.join(checks)}", "correct it"
            )
    machine, done = _machine(), list[Checked]()
    for name in only or checks:
        if say is not None:
            say(checks[name].what)
        done.append(_checked(name, model))
        if told is not None:
            told(done[-1])
        report = HardwareReport(machine=machine, notes=_traps(machine, done), checks=list(done))
        if file is not None:
            with replacing(file, ConfigError, option="--json") as out:
                out.write(report.model_dump_json(indent=1).encode())
    return report


def _checked(name: str, model: Path) -> Checked:
    """Run one check in its own process."""
    check, started = all_checks()[name], time.monotonic()
    with tempfile.TemporaryFile() as log:
        with subprocess.Popen(  # noqa: S603 - our own interpreter and module
            _command(name, model),
            cwd=Path(kd_edge.__file__).parents[1],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
        ) as child:
            try:
                answer, _ = child.communicate(timeout=check.seconds)
            except subprocess.TimeoutExpired:
                answer = b""
                child.kill()
                child.wait()
                fault = f"it has not ended after {check.seconds:.0f} s"
            except BaseException:
                child.kill()
                raise
            else:
                fault = _ending(child.returncode)
        log.seek(max(0, log.seek(0, os.SEEK_END) - _TEXT))
        last = log.read().decode(errors="replace").strip().rpartition("\n")[2]
    facts = _answer(answer) or {"result": "failed", "why": f"{fault}{f': {last}' if last else ''}"}
    return Checked(name=name, what=check.what, seconds=time.monotonic() - started, **facts)


def _command(name: str, model: Path) -> list[str]:
    return [sys.executable, "-m", "kd_edge.hardware.report", name, str(model.resolve())]


def _answer(answer: bytes) -> dict[str, Any] | None:
    """Parse the last line of a child's output; None if it is not an answer."""
    try:
        facts: dict[str, Any] = json.loads(answer.decode(errors="replace").strip().rpartition("\n")[2])
    except ValueError:
        return None
    return facts if isinstance(facts, dict) and "result" in facts else None


def _ending(code: int) -> str:
    return f"its process ended with {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"


def _child(name: str, model: Path) -> None:
    """Run a check and print its answer as one line of JSON."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keep the output of libraries out of the answer
    facts: dict[str, object]
    try:
        figures = all_checks()[name].run(model)
        facts = {
            "result": "passed",
            "figures": {k: v if isinstance(v, float) else _clean(v) for k, v in figures.items()},
        }
    except Skip as skip:
        facts = {"result": "skipped", "why": _clean(str(skip))}
    except KdEdgeError as error:
        facts = {"result": "failed", "why": _clean(str(error))}
    except Exception as error:
        facts = {"result": "failed", "why": _clean(f"{type(error).__name__}: {reason(error)}")}
    out.write(json.dumps(facts) + "\n")
    out.flush()
    os._exit(0)  # skip the destructors of drivers


def _clean(text: object) -> str:
    """Remove the home folder and terminal control characters from a text."""
    home = os.environ.get("HOME", "")
    shown = str(text) if home in ("", "/") else str(text).replace(home, "~")
    return printable(shown)[:_TEXT]


def _machine() -> dict[str, str]:
    facts = {
        "kd-edge": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": f"{cpu_name()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB",
    }
    if release := l4t():
        facts["Jetson Linux"] = release
    try:
        facts["gpu"] = str(find_gpu())
    except EngineError as error:
        facts["gpu"] = error.found
    for name in PACKAGES:
        try:
            facts[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {name: _clean(fact) for name, fact in facts.items()}


def _traps(machine: dict[str, str], done: Sequence[Checked]) -> list[str]:
    """Recognise known problems by their symptoms."""
    reasons = " ".join(check.why for check in done)
    traps = []
    if "libnvdla_compiler.so" in reasons:
        traps.append(
            "libnvdla_compiler.so is missing: Jetson Linux R39 no longer has it, so a TensorRT that needs it (images "
            "whose tag ends in -igpu) cannot run there; take one for Arm servers from 10.16 on "
            "(launch/docker/jetpack7.Dockerfile). On R36: nvidia-l4t-dla-compiler on the host, and the NVIDIA runtime"
        )
    if "SM 87" in reasons or "SM87" in reasons:
        traps.append(
            "TensorRT says that compute capability 8.7 is not supported: its SBSA build is not for Orin before 10.16; "
            "use JetPack's"
        )
    if "Insufficient" in reasons or "error 35" in reasons or "error: 35" in reasons:
        traps.append("the driver is older than the CUDA of a library: update the driver, or install an older library")
    if "onnxruntime-gpu" in machine and any(check.name == "engine cuda" and check.result != "passed" for check in done):
        traps.append(
            "onnxruntime-gpu lists CUDA and does not run on it: its wheels are for one CUDA (1.27 and later: 13), and "
            "there is none for aarch64 on PyPI: Jetsons need NVIDIA's or a community build"
        )
    return traps


if __name__ == "__main__":
    _child(sys.argv[1], Path(sys.argv[2]))
