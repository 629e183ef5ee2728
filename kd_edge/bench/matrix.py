"""Compare every precision on every engine of this machine in one table: size, accuracy, speed, memory."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from kd_edge import recipes
from kd_edge.artifact import Artifact, Parity
from kd_edge.bench.process import fresh_process
from kd_edge.bench.report import Latency, Process, Seconds, latency
from kd_edge.engines import ENGINES, Binding, Engine, engine_name, open_engine
from kd_edge.errors import ExportError, KdEdgeError, printable
from kd_edge.export.exporter import export
from kd_edge.export.profile import ExportProfile
from kd_edge.files import replacing
from kd_edge.machine import cpu_name

PROFILES = ("fp32", "fp16", "int8", "int8-tensorrt")
"""Default profiles of the table."""
FRAME = (480, 640)


class MatrixRow(BaseModel):
    """One precision on one engine.

    Attributes:
        profile: Name of the export profile.
        engine: The engine, with its version where it ran.
        missing: Why there are no figures; empty where there are.
        file_bytes: Size of the artifact, with what it carries for this engine and without what it carries for others.
        accuracy: Share of right clips.
        flips: Clips whose class is not the trained model's.
        max_abs_error: Largest difference of a logit from the trained model's.
        step: Of one frame's step, in turn with the other engines.
        process: A fresh process that loads the model; None of a clip graph, which no recogniser runs.
    """

    model_config = ConfigDict(frozen=True)
    profile: str
    engine: str
    missing: str = ""
    file_bytes: int | None = None
    accuracy: float | None = None
    flips: int | None = None
    max_abs_error: float | None = None
    step: Latency | None = None
    process: Process | None = None


class Matrix(BaseModel):
    """All rows of one student.

    Attributes:
        model: The run.
        side: Whose clips were answered.
        clips: How many.
        accuracy: The trained model's on them.
        cpu: Name of the processor.
        threads: Of the engines.
    """

    model_config = ConfigDict(frozen=True)
    model: str
    side: str
    clips: int
    accuracy: float
    cpu: str
    threads: int
    rows: tuple[MatrixRow, ...]


def measured(
    run: Path,
    *,
    data_root: Path | None = None,
    profiles: Sequence[str] = PROFILES,
    threads: int = 1,
    frames: int = 200,
    repeats: int = 3,
    say: Callable[[str], None] = lambda _: None,
) -> Matrix:
    """Export a run's student in every precision and measure it on every engine.

    Args:
        run: A finished run directory.
        data_root: Where its recordings are.
        profiles: Names of export profiles.
        threads: Of the engines, while they are timed.
        frames: Timed steps of each.
        repeats: Fresh processes of each.
        say: Told what is being done.

    Raises:
        KdEdgeError: No such run, or its recordings are not there.
    """
    rows: list[MatrixRow] = []
    parity: Parity | None = None
    with tempfile.TemporaryDirectory() as folder:
        for name in profiles:
            profile = recipes.load("export", name, ExportProfile, ["health=false"])
            try:
                made, refused = _exported(run, profile, Path(folder) / "student.onnx", data_root, say)
            except KdEdgeError as error:
                if name == profiles[0]:  # nothing of this run can be exported at all
                    raise
                rows += [MatrixRow(profile=name, engine="-", missing=error.found)]
                continue
            parity = made.manifest.parity
            say(f"timing {name}")
            rows += _rows(name, made, refused, threads, frames, repeats)
    assert parity is not None
    return Matrix(
        model=str(run),
        side=parity.side,
        clips=parity.clips,
        accuracy=parity.stages[0].accuracy,
        cpu=cpu_name(),
        threads=threads,
        rows=tuple(rows),
    )


def _exported(
    run: Path, profile: ExportProfile, out: Path, data_root: Path | None, say: Callable[[str], None]
) -> tuple[Artifact, dict[str, str]]:
    """Export for every installed engine that accepts the model; returns the artifact and why the others refused it."""
    engines = [name for name in ("openvino", "ncnn") if ENGINES[name].is_installed()]
    if profile.precision.startswith("int8") or profile.graph != "step":
        engines = [name for name in engines if name != "ncnn"]
    refused: dict[str, str] = {}
    while True:
        changes: dict[str, object] = {"engine": "openvino"} if "openvino" in engines else {}
        if "ncnn" in engines:
            changes["carry"] = ("ncnn",)
        try:
            made = export(run, profile.model_copy(update=changes), out, data_root=data_root, say=say)
        except KdEdgeError as error:
            culprit = next((name for name in engines if name in error.found), None)
            if culprit is None:  # no engine's fault
                raise
            refused[culprit] = error.found
            engines.remove(culprit)
        else:
            return made.artifact, refused


def _rows(
    profile: str, made: Artifact, refused: Mapping[str, str], threads: int, frames: int, repeats: int
) -> list[MatrixRow]:
    """Measure one artifact on every engine."""
    here = [name for name, kind in ENGINES.items() if "cpu" in kind.accepts or _runs_here(kind)]
    reasons = {name: refused.get(name) or _absent(name, made) for name in here}
    steps = _in_turn(made, [name for name, why in reasons.items() if not why], threads, frames)
    return [
        MatrixRow(profile=profile, engine=name, missing=why)
        if why
        else _row(profile, name, made, steps[name], threads, repeats)
        for name, why in reasons.items()
    ]


def _runs_here(kind: type[Engine]) -> bool:
    """Whether a GPU engine is installed and has a GPU."""
    return kind.is_installed() and kind.obstacle() is None


def _absent(name: str, made: Artifact) -> str:
    """Why an engine has no results; empty if it has."""
    if name == "ncnn" and made.manifest.precision.startswith("int8"):
        return "not offered: ncnn's integers are slow"
    if not ENGINES[name].is_installed():
        return "not installed"
    return ENGINES[name].unsuited(made) or ""


def _row(profile: str, name: str, made: Artifact, step: tuple[str, Latency], threads: int, repeats: int) -> MatrixRow:
    parity = made.manifest.parity
    assert parity is not None
    stages = {stage.engine: stage for stage in parity.stages}  # of ONNX Runtime the last one, which ships
    stage = stages[step[0]]
    return MatrixRow(
        profile=profile,
        engine=step[0],
        file_bytes=_bytes(made, name),
        accuracy=stage.accuracy,
        flips=stage.flips,
        max_abs_error=stage.max_abs_error,
        step=step[1],
        process=fresh_process(made.path, FRAME, engine=engine_name(name), threads=threads, repeats=repeats)
        if made.manifest.graph == "step"  # a clip graph runs in no recogniser
        else None,
    )


def _bytes(made: Artifact, engine: str) -> int:
    """Size of a file that holds what this engine needs."""
    others = 0 if engine == "ncnn" else sum(span.length for span in made.attachments.values())
    return made.path.stat().st_size - others


def _in_turn(made: Artifact, names: Sequence[str], threads: int, frames: int) -> dict[str, tuple[str, Latency]]:
    """Name and step time of each engine, measured alternately so that load affects all of them."""
    with ExitStack() as opened:
        engines = {
            name: opened.enter_context(open_engine(made, engine=engine_name(name), threads=threads)) for name in names
        }
        bindings = {name: _warm(engine.bind(1)) for name, engine in engines.items()}
        times: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(frames):
            for name, binding in bindings.items():
                started = time.perf_counter()
                binding.run()
                times[name].append(time.perf_counter() - started)
        return {name: (engine.name, latency(_array(times[name]))) for name, engine in engines.items()}


def _warm(binding: Binding) -> Binding:
    rng = np.random.default_rng(0)
    for array in binding.inputs.values():
        array[:] = rng.normal(size=array.shape)
    for _ in range(3):
        binding.run()
    return binding


def _array(seconds: Sequence[float]) -> Seconds:
    return np.array(seconds)


def write_matrix(matrix: Matrix, folder: Path) -> None:
    """Write ``matrix.md`` and ``matrix.json`` into an existing folder.

    Raises:
        ExportError: It cannot be written.
    """
    texts = {"matrix.md": markdown(matrix), "matrix.json": matrix.model_dump_json(indent=2) + "\n"}
    for name, text in texts.items():
        with replacing(folder / name, ExportError, option="--report") as file:
            file.write(text.encode())


COLUMNS = (
    "precision",
    "engine",
    "MB",
    "accuracy",
    "flips",
    "largest error",
    "step p50, ms",
    "p95",
    "p99",
    "ready, s",
    "peak RSS, MB",
)


def cells(matrix: Matrix) -> list[tuple[str, ...]]:
    """Format the table's rows, in the order of ``COLUMNS``."""
    return [_cells(row) for row in matrix.rows]


def _cells(row: MatrixRow) -> tuple[str, ...]:
    if row.missing or row.step is None:
        return (row.profile, row.engine, printable(row.missing), *[""] * (len(COLUMNS) - 3))
    return (
        row.profile,
        row.engine,
        f"{(row.file_bytes or 0) / 1e6:.1f}",
        f"{row.accuracy:.1%}",
        str(row.flips),
        f"{row.max_abs_error:.1e}",
        f"{row.step.p50:.2f}",
        f"{row.step.p95:.2f}",
        f"{row.step.p99:.2f}",
        "" if row.process is None else f"{row.process.ready_seconds:.2f}",
        "" if row.process is None else f"{row.process.peak_rss_mb:.0f}",
    )


def conclusion(matrix: Matrix) -> str:
    """A sentence that names the fastest row here."""
    ran = [(row.step.p50, row) for row in matrix.rows if row.step is not None]
    least, best = min(ran, key=lambda pair: pair[0])
    return (
        f"Fastest here: {best.profile} on {best.engine}, {least:.2f} ms, {best.accuracy:.1%} right. int8-tensorrt is "
        "for TensorRT: CPUs emulate its half precision."
    )


def markdown(matrix: Matrix) -> str:
    """Format the table in Markdown, with its context."""
    lines = [
        f"{printable(matrix.model)}: {matrix.clips} {matrix.side}, of which the trained model has "
        f"{matrix.accuracy:.1%}; {matrix.cpu}, {matrix.threads} thread(s), engines in turn. {conclusion(matrix)}",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in cells(matrix)),
    ]
    return "\n".join(lines) + "\n"
