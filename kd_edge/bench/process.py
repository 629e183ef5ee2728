"""Start-up time and memory of a fresh process that runs a model."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import kd_edge
from kd_edge.bench.report import Process
from kd_edge.engines import EngineName, Provider
from kd_edge.errors import ArtifactError


def fresh_process(
    path: Path,
    size: tuple[int, int],
    *,
    engine: EngineName = "onnxruntime",
    threads: int = 1,
    provider: Provider | None = None,
    repeats: int = 3,
) -> Process:
    """Start a new Python process that loads the model with the runtime alone and pushes one frame; best of several.

    Raises:
        ArtifactError: The process failed; the error contains its last line.
    """
    options = {"model": str(path.resolve()), "engine": engine, "threads": threads, "provider": provider}
    best: list[tuple[float, float, bool]] = []
    for _ in range(repeats):
        started = time.perf_counter()
        command = [sys.executable, "-c", _CHILD, json.dumps(options), *map(str, size)]
        home = Path(kd_edge.__file__).parents[1]  # the package's parent folder: works without an install
        with subprocess.Popen(  # noqa: S603 - our own interpreter and script
            command, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            assert child.stderr is not None
            ready = child.stdout.readline()
            seconds = time.perf_counter() - started
            rest, faults = child.stdout.read(), child.stderr.read()
        if child.returncode or ready != "ready\n":
            last = (faults.strip().splitlines() or ["no message"])[-1]
            raise ArtifactError(f"a fresh process could not run {path}: {last}", "a running model", "kd-edge doctor")
        figures = json.loads(rest)
        best.append((seconds, figures["peak_rss_mb"], figures["torch"]))
    return Process(
        ready_seconds=min(b[0] for b in best),
        peak_rss_mb=min(b[1] for b in best),
        imports_torch=any(b[2] for b in best),
    )


# VmHWM is this process's own peak; ru_maxrss would start at the parent's.
_CHILD = """
import json, sys
from kd_edge.runtime import Recognizer
recognizer = Recognizer.load(**json.loads(sys.argv[1]))
print("ready", flush=True)
import numpy
m = recognizer.manifest
shape = tuple(map(int, sys.argv[2:4])) + ((3,) if m.preprocess.channels == 3 else ())
recognizer.push(numpy.zeros(shape, m.dtype), 0)
try:
    peak = next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM")) * 1024
except OSError:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"peak_rss_mb": peak / 1e6, "torch": "torch" in sys.modules}))
"""
