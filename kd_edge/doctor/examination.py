"""Examine this machine, part by part."""

from __future__ import annotations

import json
import os
import platform
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from kd_edge import __version__, artifact
from kd_edge.crop import view_of_focal
from kd_edge.data.config import DATA_VARIABLE
from kd_edge.doctor import jetson, ros
from kd_edge.doctor.finding import Finding, Level
from kd_edge.doctor.machine import Machine
from kd_edge.engines import ENGINES
from kd_edge.engines.onnxruntime import TELEMETRY_SWITCH, load_onnxruntime
from kd_edge.errors import BrokenPackageError, KdEdgeError, MissingExtraError, printable
from kd_edge.files import CACHE_VARIABLE, cache_root, expanded
from kd_edge.packages import DISTRIBUTIONS, EXTRA_OF, REQUIRED, clash, installed
from kd_edge.reading import is_folder
from kd_edge.runtime.cameras.listing import list_cameras

IMPORT_SECONDS = 120.0
"""Time limit of one import: torch from a cold SD card takes half a minute."""


def examine() -> list[Finding]:
    """Examine this machine; changes nothing and sends nothing.

    Every package is imported, in another process: an import that crashes or hangs is a finding, not the end.
    """
    imports = import_each(dict.fromkeys([*REQUIRED, *EXTRA_OF, *(kind.library for kind in ENGINES.values())]))
    packages = [*_required(imports), *_extras(imports), *_engines(imports)]
    checks = (_clashes, _torch_pair, _models, _cameras, _cache, _recordings)
    machine = Machine.here()
    robot = [*jetson.findings(machine), *ros.findings(machine)]
    return [*_python(), *packages, *(finding for check in checks for finding in check()), *robot]


def import_each(modules: Iterable[str], seconds: float = IMPORT_SECONDS) -> dict[str, str | MissingExtraError]:
    """Import modules one by one in another process; after a failure, the rest are imported in a new process.

    Args:
        modules: Names out of ``REQUIRED`` and ``EXTRA_OF``.
        seconds: How long each may take.

    Returns:
        Each module's own version (an empty string when it has none), or why it cannot be imported.
    """
    answers: dict[str, str | MissingExtraError] = {}
    left = tuple(modules)
    while left:
        answers.update(zip(left, _answers(left, seconds), strict=False))
        left = tuple(module for module in left if module not in answers)
    return answers


def _answers(modules: Sequence[str], seconds: float) -> Iterator[str | MissingExtraError]:
    """Results of one process for each module, up to the first failed import."""
    command = [sys.executable, "-c", _CHILD, json.dumps(sys.path), *modules]
    environment = {TELEMETRY_SWITCH: "1", **os.environ}
    with subprocess.Popen(  # noqa: S603 - our own interpreter and script
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0, env=environment
    ) as child:
        assert child.stdout is not None
        try:
            for module in modules:
                ready, _, _ = select.select([child.stdout], [], [], seconds)
                line = child.stdout.readline() if ready else b""
                if not line:
                    yield _unanswered(module, seconds if not ready else None, child)
                    return
                answer = json.loads(line)
                if isinstance(answer, str):
                    yield answer
                else:
                    kind, *parts = answer
                    yield (BrokenPackageError if kind == "BrokenPackageError" else MissingExtraError)(*parts)
                    return
        finally:
            child.kill()


def _unanswered(module: str, waited: float | None, child: subprocess.Popen[bytes]) -> BrokenPackageError:
    """The error for a module whose import ended or stalled its process."""
    names = " ".join(installed(module)) or f"what brought '{module}'"
    again = f"pip install --force-reinstall --no-deps {names}"
    if waited is not None:
        return BrokenPackageError(
            f"the import of '{module}' has not ended after {waited:g} s",
            "an import of seconds",
            f"python -X faulthandler -c 'import {module}' and Ctrl-C show where it stands; {again}",
        )
    code = child.wait()
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    if code == -signal.SIGILL:
        again = f"{names} is made for a newer processor: pip install an older version or build it here"
    return BrokenPackageError(f"the import of '{module}' ends Python ({how})", "a package fit for this machine", again)


# Modules may print while they are imported, so the answers go out through a channel of their own.
_CHILD = """
import json, os, sys
path, *modules = sys.argv[1:]
sys.path[:] = json.loads(path)
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
from kd_edge.errors import KdEdgeError
from kd_edge.packages import EXTRA_OF, import_extra
sys.modules["openvino.tools.ovc"] = None  # would send telemetry about the import
for module in modules:
    try:
        answer = str(getattr(import_extra(module, EXTRA_OF.get(module, "")), "__version__", ""))
    except KdEdgeError as error:
        answer = [type(error).__name__, error.found, error.expected, error.fix]
    print(json.dumps(answer), file=answers, flush=True)
"""


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    text = f"kd-edge {__version__}, Python {version}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    if (3, 10) <= sys.version_info[:2] <= (3, 13):
        yield Finding("ok", "machine", text)
    else:
        yield Finding("note", "machine", text, "Python 3.10 to 3.13", "other versions are untested: use one of these")


def _required(imports: Mapping[str, str | MissingExtraError]) -> Iterator[Finding]:
    answers = {module: imports[module] for module in REQUIRED}
    broken = [answer for answer in answers.values() if not isinstance(answer, str)]
    if not broken:
        yield Finding(
            "ok", "kd-edge itself", ", ".join(_named(module, str(answer)) for module, answer in answers.items())
        )
    yield from (Finding.of("problem", "kd-edge itself", error) for error in broken)


def _extras(imports: Mapping[str, str | MissingExtraError]) -> Iterator[Finding]:
    for extra in dict.fromkeys(EXTRA_OF.values()):
        topic = f"extra [{extra}]"
        its = {module: answer for module, answer in imports.items() if EXTRA_OF.get(module) == extra}
        present = ", ".join(_named(module, answer) for module, answer in its.items() if isinstance(answer, str))
        broken = [answer for answer in its.values() if isinstance(answer, BrokenPackageError)]
        absent = [module for module, answer in its.items() if not isinstance(answer, (str, BrokenPackageError))]
        if absent:
            text = f"without {', '.join(absent)}" + (f" (has {present})" if present else "")
            level: Level = "problem" if extra == "cpu" else "note"  # nothing runs or trains without OpenCV
            install = f"pip install 'kd-edge[{extra}]'" + ("" if extra == "cpu" else " if it is needed here")
            yield Finding(level, topic, text, "all of it" if extra == "cpu" else "", install)
        elif present:
            yield Finding("ok", topic, present)
        yield from (Finding.of("problem", topic, error) for error in broken)


def _named(module: str, version: str) -> str:
    """Name and version of a module's package, including one not installed by pip, such as JetPack's OpenCV."""
    found = installed(module) or {module: version}
    return " ".join(f"{name} {number}".strip() for name, number in found.items())


def _engines(imports: Mapping[str, str | MissingExtraError]) -> Iterator[Finding]:
    # GPU engines are checked if they are installed or if there is a GPU; "cuda" is a provider of onnxruntime.
    looked_at = {
        name: kind
        for name, kind in ENGINES.items()
        if name != "cuda" and ("cpu" in kind.accepts or kind.is_installed() or kind.obstacle() is None)
    }
    answers = {name: imports[kind.library] for name, kind in looked_at.items()}
    if not any(isinstance(answer, str) for answer in answers.values()):
        fix = next(answer.fix for answer in answers.values() if not isinstance(answer, str))
        yield Finding("problem", "engine", "no engine can run a model", "ONNX Runtime", fix)
        return
    for name, answer in answers.items():
        if name == "onnxruntime" and isinstance(answer, str):
            yield from _onnxruntime()
        elif isinstance(answer, str):
            yield _installed_engine(name, f"{name} {answer.partition('-')[0]}".strip())
        elif isinstance(answer, BrokenPackageError):
            yield jetson.explained(answer, Machine.here()) or Finding.of("problem", "engine", answer)
        else:
            extra = EXTRA_OF[ENGINES[name].library]
            install = f"pip install 'kd-edge[{extra}]' if it is needed here"
            yield Finding("note", "engine", f"{name} is not installed", "", install)


def _installed_engine(name: str, what: str) -> Finding:
    obstacle = ENGINES[name].obstacle()
    if obstacle is None:
        return Finding("ok", "engine", what)
    advice = "install the GPU's driver, or leave it: other engines serve meanwhile"
    return Finding("note", "engine", f"{what} cannot run here: {obstacle}", "an NVIDIA GPU with its driver", advice)


def _onnxruntime() -> Iterator[Finding]:
    try:
        ort = load_onnxruntime()  # safe here, as the import has worked in another process
    except MissingExtraError as error:
        if clash("onnxruntime") is None:  # a clash is reported separately
            yield Finding.of("problem", "engine", error)
        return
    providers = [p.removesuffix("ExecutionProvider") for p in ort.get_available_providers()]
    yield Finding("ok", "engine", f"onnxruntime {ort.__version__} lists {', '.join(providers)}")
    if "CUDA" in providers and shutil.which("nvidia-smi") is None:
        yield Finding(
            "note",
            "engine",
            "CUDA is listed but no NVIDIA driver was found: it would fall back to the CPU",
            "an NVIDIA driver",
            "install the driver, or use kd-edge[cpu]",
        )


def _clashes() -> Iterator[Finding]:
    yield from (Finding.of("problem", "clash", error) for error in map(clash, DISTRIBUTIONS) if error is not None)


def _torch_pair() -> Iterator[Finding]:
    torch, vision = installed("torch").get("torch"), installed("torchvision").get("torchvision")
    if torch is None or vision is None:
        return
    try:
        minor_torch, minor_vision = (int(v.split(".")[1]) for v in (torch, vision))
    except (IndexError, ValueError):  # not a release version
        return
    if minor_vision != minor_torch + 15:
        yield Finding(
            "problem",
            "torch",
            f"torch {torch} with torchvision {vision} are not a matched pair",
            f"torchvision 0.{minor_torch + 15}, which is built for torch 2.{minor_torch}",
            f"pip install torch=={torch.split('+')[0]} torchvision (together, so that pip finds the matching one)",
        )


def _models() -> Iterator[Finding]:
    """The bundled student, and the model that ``kd-edge run`` would use here."""
    yield from _model("bundled model", artifact.BUNDLED)
    try:
        newest = artifact.default_model()
    except KdEdgeError as error:
        yield Finding.of("problem", "model here", error)
        return
    if newest != artifact.BUNDLED:
        yield from _model("model here", newest)


def _model(topic: str, path: Path) -> Iterator[Finding]:
    try:
        found = artifact.load(path).manifest
    except KdEdgeError as error:
        yield Finding.of("problem", topic, error)
        return
    where = "" if path == artifact.BUNDLED else f"{printable(str(path))}, "
    size = path.stat().st_size / 1e6
    text = f"{where}{found.name}: {len(found.labels)} actions from {found.band}, {found.precision}, {size:.1f} MB"
    yield Finding("ok", topic, text)
    if (focal := found.preprocess.focal) is not None:
        view = f"{view_of_focal(focal):.1f} degrees wide"
        text = f"its crop is in metres: a camera that reports no field of view is assumed to be {view}"
        yield Finding("note", topic, text, "", "set hfov_deg in the camera file")
    if not found.calibrated_on:
        advice = "hold subjects out (validation_subjects in the recipe), train and export again"
        yield Finding("note", topic, artifact.UNCALIBRATED, "", advice)


def _cameras() -> Iterator[Finding]:
    found = list_cameras()
    configured = ", ".join(camera.name for camera in found.configured)
    if found.attached:
        yield Finding("ok", "cameras", f"{', '.join(c.device for c in found.attached)}; configured: {configured}")
    else:
        yield Finding(
            "note", "cameras", f"no video device; configured: {configured}", "", "try kd-edge run --camera synthetic:"
        )


def _cache() -> Iterator[Finding]:
    """Check the frame cache, which only training and scoring need, not a robot."""
    try:
        cache = cache_root()
    except KdEdgeError as error:
        yield Finding.of("note", "frame cache", error)
        return
    existing = next(folder for folder in (cache, *cache.parents) if is_folder(folder))
    free = shutil.disk_usage(existing).free / 1e9
    if not os.access(existing, os.W_OK):
        advice = f"to train or evaluate here, set {CACHE_VARIABLE} to one"
        yield Finding("note", "frame cache", f"{cache} cannot be written", "a writable folder", advice)
    elif free > 2:
        yield Finding("ok", "frame cache", f"{cache}, {free:.0f} GB free")
    else:
        yield Finding("note", "frame cache", f"{cache}, {free:.0f} GB free", "2 GB or more", "free some space")


def _recordings() -> Iterator[Finding]:
    data = os.environ.get(DATA_VARIABLE)
    if not data:
        advice = f"set {DATA_VARIABLE}, or pass --data to train and evaluate"
        yield Finding("note", "recordings", f"{DATA_VARIABLE} is not set", "", advice)
        return
    try:
        there = is_folder(expanded(data))
    except KdEdgeError as error:
        yield Finding.of("problem", "recordings", error)
        return
    if there:
        yield Finding("ok", "recordings", data)
    else:
        found = f"{DATA_VARIABLE}={data} is not a folder"
        yield Finding("problem", "recordings", found, "the folder of the data sets", f"correct {DATA_VARIABLE}")
