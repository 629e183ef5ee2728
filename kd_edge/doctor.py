"""What is installed, what clashes, which engines and cameras are usable, and what to do about it."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kd_edge import __version__, artifact
from kd_edge.data.cache.frames import cache_root
from kd_edge.engines.onnxruntime import load_onnxruntime
from kd_edge.errors import EXTRA_OF, KdEdgeError, MissingExtraError
from kd_edge.runtime.cameras.listing import list_cameras

Level = Literal["ok", "note", "problem"]

CLASHES = (
    (("onnxruntime", "onnxruntime-gpu"), "they share one import name: pip uninstall both, then install one extra"),
    (("opencv-python", "opencv-python-headless"), "they share one import name: pip uninstall both, install one"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        level: ``ok``, ``note`` (something optional is absent) or ``problem`` (something is wrong).
        topic: What was looked at.
        found: What was found.
        fix: What to do; an empty string when nothing.
    """

    level: Level
    topic: str
    found: str
    fix: str = ""


def examine() -> list[Finding]:
    """Look at this machine; nothing is changed and nothing is sent."""
    # Engines before extras: ONNX Runtime must first be imported by the loader that turns its telemetry off.
    checks = (_python, _engines, _extras, _clashes, _torch_pair, _models, _cameras, _folders)
    return [finding for check in checks for finding in check()]


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    text = f"kd-edge {__version__}, Python {version}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    supported = (3, 10) <= sys.version_info[:2] <= (3, 13)
    yield Finding(
        "ok" if supported else "note", "machine", text, "" if supported else "tested with Python 3.10 to 3.13"
    )


def _extras() -> Iterator[Finding]:
    distributions = importlib.metadata.packages_distributions()
    for extra in dict.fromkeys(EXTRA_OF.values()):
        modules = [module for module, its in EXTRA_OF.items() if its == extra]
        found = {m: _installed(m, distributions.get(m, [])) for m in modules}
        present = ", ".join(text for text in found.values() if text)
        absent = ", ".join(module for module, text in found.items() if not text)
        if not absent:
            yield Finding("ok", f"extra [{extra}]", present)
        else:
            text = f"without {absent}" + (f" (has {present})" if present else "")
            yield Finding("note", f"extra [{extra}]", text, f"pip install 'kd-edge[{extra}]' if it is needed here")


def _installed(module: str, distributions: list[str]) -> str:
    """Name and version of what brings a module; also one without a distribution, such as JetPack's OpenCV."""
    if distributions:
        return " ".join(f"{name} {importlib.metadata.version(name)}" for name in dict.fromkeys(distributions))
    try:
        return f"{module} {getattr(importlib.import_module(module), '__version__', '')}".strip()
    except ImportError:
        return ""


def _clashes() -> Iterator[Finding]:
    for names, fix in CLASHES:
        if all(_version(name) for name in names):
            yield Finding("problem", "clash", " and ".join(names) + " are both installed", fix)


def _torch_pair() -> Iterator[Finding]:
    torch, vision = _version("torch"), _version("torchvision")
    if torch is None or vision is None:
        return
    pair = f"torch {torch} with torchvision {vision}"
    minor_torch, minor_vision = (int(v.split(".")[1]) for v in (torch, vision))
    if minor_vision != minor_torch + 15:  # torchvision 0.N+15 is built for torch 2.N
        fix = f"pip install torch=={torch.split('+')[0]} torchvision (together, so that pip finds the matching one)"
        yield Finding("problem", "torch", f"{pair} are not a matched pair", fix)


def _engines() -> Iterator[Finding]:
    try:
        ort = load_onnxruntime()
    except MissingExtraError as error:
        yield Finding("problem", "engine", error.found, error.fix)
        return
    providers = [p.removesuffix("ExecutionProvider") for p in ort.get_available_providers()]
    yield Finding("ok", "engine", f"ONNX Runtime {ort.__version__} lists {', '.join(providers)}")
    if "CUDA" in providers and shutil.which("nvidia-smi") is None:
        yield Finding(
            "note",
            "engine",
            "CUDA is listed but no NVIDIA driver was found: it would fall back to the CPU",
            "install the driver, or use kd-edge[cpu]",
        )


def _models() -> Iterator[Finding]:
    try:
        found = artifact.load(artifact.BUNDLED).manifest
        size = artifact.BUNDLED.stat().st_size / 1e6
        text = f"{found.name}: {len(found.labels)} actions from {found.band}, {size:.1f} MB"
        yield Finding("ok", "bundled model", text)
    except KdEdgeError as error:
        yield Finding("problem", "bundled model", error.found, error.fix)


def _cameras() -> Iterator[Finding]:
    found = list_cameras()
    configured = ", ".join(camera.name for camera in found.configured)
    if found.attached:
        yield Finding("ok", "cameras", f"{', '.join(c.device for c in found.attached)}; configured: {configured}")
    else:
        yield Finding(
            "note", "cameras", f"no video device; configured: {configured}", "try kd-edge run --camera synthetic:"
        )


def _folders() -> Iterator[Finding]:
    cache = cache_root()
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(existing).free / 1e9
    if not os.access(existing, os.W_OK):
        yield Finding("problem", "frame cache", f"{cache} cannot be written", "set KD_EDGE_CACHE to a writable folder")
    else:
        level: Level = "ok" if free > 2 else "note"
        yield Finding(level, "frame cache", f"{cache}, {free:.0f} GB free", "" if free > 2 else "free some space")
    data = os.environ.get("KD_EDGE_DATA")
    if data is None:
        yield Finding("note", "recordings", "KD_EDGE_DATA is not set", "set it, or pass --data to train and evaluate")
    elif not Path(data).is_dir():
        yield Finding("problem", "recordings", f"KD_EDGE_DATA={data} is no folder", "point it to the data sets")
    else:
        yield Finding("ok", "recordings", data)
