"""The checks, one process each, and what came of them as a file that can be sent to strangers.

It holds no user, no host, no path of the home folder, no serial number and no picture.
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
    """What came of one check.

    Attributes:
        name: Its name.
        what: What it looks at.
        result: ``skipped`` where the device or what runs it is not there.
        why: Why it failed or was skipped; empty when it passed.
        figures: What it measured.
        seconds: How long it took.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    what: str
    result: Result
    why: str = ""
    figures: dict[str, float | str] = {}
    seconds: float = 0.0


class HardwareReport(BaseModel):
    """All of it.

    Attributes:
        format: Of this report.
        machine: Processor, system, GPU, versions.
        notes: Known traps that this machine looks like.
        checks: One after the other.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    machine: dict[str, str]
    notes: list[str]
    checks: list[Checked]

    def count(self, result: Result) -> int:
        """How many checks came to this."""
        return sum(check.result == result for check in self.checks)


def examine_hardware(
    model: Path,
    file: Path | None = None,
    *,
    only: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
    told: Callable[[Checked], None] | None = None,
) -> HardwareReport:
    """Run every check that this machine's devices allow.

    Args:
        model: The artifact that engines run.
        file: Where the report is written, after every check anew: a machine that stops keeps what was found.
        only: Names of checks; all when empty.
        say: Told what is checked now.
        told: Given each result.

    Raises:
        ConfigError: There is no such check, or the file cannot be written.
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
    """Run one check in a process of its own."""
    check, started = all_checks()[name], time.monotonic()
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen(  # noqa: S603 - our own interpreter and module
            _command(name, model),
            cwd=Path(kd_edge.__file__).parents[1],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
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
        said.seek(max(0, said.seek(0, os.SEEK_END) - _TEXT))
        last = said.read().decode(errors="replace").strip().rpartition("\n")[2]
    facts = _answer(answer) or {"result": "failed", "why": f"{fault}{f': {last}' if last else ''}"}
    return Checked(name=name, what=check.what, seconds=time.monotonic() - started, **facts)


def _command(name: str, model: Path) -> list[str]:
    return [sys.executable, "-m", "kd_edge.hardware.report", name, str(model.resolve())]


def _answer(answer: bytes) -> dict[str, Any] | None:
    """The last line of a child, where it is an answer."""
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
    os.dup2(2, 1)  # what libraries print is no answer
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
    os._exit(0)  # a driver's destructors have nothing more to say


def _clean(text: object) -> str:
    """A text without the home folder and without what steers a terminal."""
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
    """Known troubles by their signs."""
    told = " ".join(check.why for check in done)
    traps = []
    if "libnvdla_compiler.so" in told:
        traps.append(
            "libnvdla_compiler.so is missing: Jetson Linux R39 no longer has it, so a TensorRT that needs it (images "
            "whose tag ends in -igpu) cannot run there; take one for Arm servers from 10.16 on "
            "(launch/docker/jetpack7.Dockerfile). On R36: nvidia-l4t-dla-compiler on the host, and the NVIDIA runtime"
        )
    if "SM 87" in told or "SM87" in told:
        traps.append(
            "TensorRT says that compute capability 8.7 is not supported: its SBSA build is not for Orin before 10.16; "
            "use JetPack's"
        )
    if "Insufficient" in told or "error 35" in told or "error: 35" in told:
        traps.append("the driver is older than the CUDA of a library: update the driver, or install an older library")
    if "onnxruntime-gpu" in machine and any(check.name == "engine cuda" and check.result != "passed" for check in done):
        traps.append(
            "onnxruntime-gpu lists CUDA and does not run on it: its wheels are for one CUDA (1.27 and later: 13), and "
            "there is none for aarch64 on PyPI: Jetsons need NVIDIA's or a community build"
        )
    return traps


if __name__ == "__main__":
    _child(sys.argv[1], Path(sys.argv[2]))
