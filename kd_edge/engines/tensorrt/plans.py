"""Plans are built once for a model on a machine and kept in the cache folder; nothing of them is ever shipped.

Beside each plan a sidecar tells what it was built from and for, and its hash: bytes that are not those of the sidecar
never reach the library. Plans hold code for the GPU, so the folder is its owner's alone. Two processes that want the
same plan build it once; one that is killed leaves nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from kd_edge.artifact import Artifact
from kd_edge.engines.cuda.driver import Gpu
from kd_edge.engines.tensorrt.builder import BuildSettings, Built, PlanFigures, build
from kd_edge.engines.tensorrt.library import Kind, Library, load_library
from kd_edge.errors import ConfigError, EngineError, MissingExtraError
from kd_edge.files import cache_root, held, replacing
from kd_edge.reading import read_bytes

FOLDER = "plans"
WAIT_SECONDS = 3600.0
"""How long another process that builds the same plan is waited for: as long as a build may take."""
MOST_KEPT = 16
PLAN_BYTES = 2**31
"""No plan of ours is nearly as large; a sidecar that says so is damaged."""
_SIDECAR_BYTES = 100_000
_TIMING_BYTES = 256_000_000
_CLOSED = ConfigDict(frozen=True, extra="forbid", strict=True)


class PlanKey(BaseModel):
    """What a plan depends on: another value of any of these is another plan.

    Attributes:
        artifact: Hash of the artifact's bytes before its manifest.
        settings: What it was built for.
        library: What built it.
        version: Of the library.
        gpu: The GPU's name.
        capability: Its compute capability.
        driver: The newest CUDA that the driver serves.
        l4t: Release of Jetson Linux, if it is one.
    """

    model_config = _CLOSED

    artifact: str = Field(pattern="^[0-9a-f]{64}$")
    settings: BuildSettings
    library: Kind
    version: str = Field(max_length=100)
    gpu: str = Field(max_length=256)
    capability: str = Field(max_length=20)
    driver: str = Field(max_length=20)
    l4t: str = Field(max_length=40)

    @classmethod
    def of(cls, artifact: Artifact, library: Library, gpu: Gpu, settings: BuildSettings) -> PlanKey:
        """The key of an artifact's plan on a GPU."""
        return cls(
            artifact=artifact.manifest.sha256,
            settings=settings,
            library=library.kind,
            version=library.version[:100],
            gpu=gpu.name,
            capability="{}.{}".format(*gpu.capability),
            driver="{}.{}".format(*gpu.driver),
            l4t=gpu.l4t,
        )

    @property
    def digest(self) -> str:
        """A name for files."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:32]


class _Sidecar(BaseModel):
    """What stands beside a plan."""

    model_config = _CLOSED
    format: Literal[1] = 1
    key: PlanKey
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    figures: PlanFigures


class Plan(NamedTuple):
    """A plan for this machine.

    Attributes:
        content: Its bytes.
        settings: What it was built for.
        figures: What is known of it.
        path: Where it is kept; None where it cannot be.
        not_kept: Why it is not kept; empty when it is.
        was_built: Whether it was built just now.
    """

    content: bytes
    settings: BuildSettings
    figures: PlanFigures
    path: Path | None
    not_kept: str
    was_built: bool


def obtain(
    artifact: Artifact,
    library: Library,
    gpu: Gpu,
    settings: BuildSettings | None = None,
    say: Callable[[str], None] | None = None,
) -> Plan:
    """The plan of an artifact for this machine's GPU: the one that is kept, or one that is built now.

    Args:
        artifact: Verified by ``artifact.load``.
        library: What builds and runs it.
        gpu: What it is for.
        settings: What it is for; None takes those that a plan for this model and GPU was last built with, if any.
        say: Takes a line about what goes on.

    Raises:
        ArtifactError: The library refuses the graph.
        EngineError: Another process has not ended its build in ``WAIT_SECONDS``.
    """
    key = PlanKey.of(artifact, library, gpu, settings or _settings(artifact, library, gpu))
    say = say or (lambda line: None)
    with ExitStack() as opened:
        try:
            folder = _folder()
            if (kept := _kept(folder, key, lambda line: None)) is not None:
                return kept
            waiting = partial(say, "another process builds this plan")
            is_ours = opened.enter_context(held(folder / f"{key.digest}.lock", waiting, seconds=WAIT_SECONDS))
        except (OSError, ConfigError) as error:
            why = error.found if isinstance(error, ConfigError) else f"{error.strerror or error}"
            return _unkept(artifact, library, key, f"no cache folder that can be written ({why})", say)
        if not is_ours:
            raise EngineError(
                f"another process builds this plan, for more than {WAIT_SECONDS / 60:.0f} minutes",
                "a build that ends",
                "end that process, or --engine onnxruntime",
            )
        if (kept := _kept(folder, key, say)) is not None:  # it was that process's
            return kept
        say(f"{library.name} builds a plan for {gpu}")
        return _keep(folder, key, build(artifact, library, key.settings, timing_cache=_timing(folder, key)))


def is_ready(artifact: Artifact, kind: Kind, gpu: Gpu, settings: BuildSettings | None = None) -> bool:
    """Whether the plan is kept, whole and for this machine; the library is imported, nothing is built."""
    try:
        library = load_library(kind)
        key = PlanKey.of(artifact, library, gpu, settings or _settings(artifact, library, gpu))
        return _kept(_folder(make=False), key, lambda line: None) is not None
    except (MissingExtraError, ConfigError, OSError):
        return False


def discard(plan: Plan) -> None:
    """Remove a plan that the library refuses, so that the next one is built anew."""
    if plan.path is not None:
        _remove(plan.path)


def _settings(artifact: Artifact, library: Library, gpu: Gpu) -> BuildSettings:
    """Those of the plan that was used last."""
    standard = PlanKey.of(artifact, library, gpu, BuildSettings())
    with contextlib.suppress(OSError, ConfigError):
        for path in sorted(_folder(make=False).glob("*.plan"), key=_used, reverse=True)[:MOST_KEPT]:
            with contextlib.suppress(OSError, ValueError):
                key = _sidecar(path).key
                if key.model_copy(update={"settings": standard.settings}) == standard:
                    return key.settings
    return standard.settings


def _sidecar(path: Path) -> _Sidecar:
    return _Sidecar.model_validate_json(read_bytes(path.with_suffix(".json"), _SIDECAR_BYTES), strict=True)


def _folder(*, make: bool = True) -> Path:
    """The folder of plans, its owner's alone; OSError where another user could put code there."""
    folder = cache_root() / FOLDER
    if make:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = folder.stat()
    if facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
        raise PermissionError(f"other users can write {folder}: chmod 700 it, or remove it")
    return folder


def _kept(folder: Path, key: PlanKey, say: Callable[[str], None]) -> Plan | None:
    """The plan with this key; None where there is none, or what is there is not what its sidecar says."""
    path = folder / f"{key.digest}.plan"
    try:
        sidecar = _sidecar(path)
        content = read_bytes(path, min(sidecar.figures.plan_bytes, PLAN_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        say(f"the plan {path.name} is damaged: it is built again")
        return None
    if sidecar.key != key:
        say(f"the plan {path.name} is of another machine or model: it is built again")
        return None
    if hashlib.sha256(content).hexdigest() != sidecar.sha256:
        say(f"the plan {path.name} is not as it was built: it is built again")
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # the ones used last are kept
    return Plan(content, key.settings, sidecar.figures, path, "", was_built=False)


def _keep(folder: Path, key: PlanKey, built: Built) -> Plan:
    """Put a plan into the folder, its sidecar last: without one it is none. The oldest ones go."""
    path, content = folder / f"{key.digest}.plan", built.content
    sidecar = _Sidecar(key=key, sha256=hashlib.sha256(content).hexdigest(), figures=built.figures)
    path.with_suffix(".json").unlink(missing_ok=True)
    try:
        for target, data in (
            (path, content),
            (_timing_path(folder, key), built.timing_cache),
            (path.with_suffix(".json"), sidecar.model_dump_json(indent=1).encode()),
        ):
            if data:
                with replacing(target, ConfigError, option="KD_EDGE_CACHE") as file:
                    file.write(data)
    except ConfigError as error:
        _remove(path)
        return Plan(content, key.settings, built.figures, None, error.found, was_built=True)
    for old in sorted(folder.glob("*.plan"), key=_used, reverse=True)[MOST_KEPT:]:
        _remove(old)
    return Plan(content, key.settings, built.figures, path, "", was_built=True)


def _unkept(artifact: Artifact, library: Library, key: PlanKey, why: str, say: Callable[[str], None]) -> Plan:
    """A plan that is built for this process alone."""
    say(f"{library.name} builds a plan that is not kept: {why}")
    built = build(artifact, library, key.settings)
    return Plan(built.content, key.settings, built.figures, None, why, was_built=True)


def _timing(folder: Path, key: PlanKey) -> bytes:
    try:
        return read_bytes(_timing_path(folder, key), _TIMING_BYTES)
    except OSError:
        return b""


def _timing_path(folder: Path, key: PlanKey) -> Path:
    """What the library has measured on this GPU, whatever the model."""
    about = "\n".join((key.library, key.version, key.gpu, key.capability, key.driver, key.l4t))
    return folder / f"{hashlib.sha256(about.encode()).hexdigest()[:32]}.timing"


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _remove(path: Path) -> None:
    for each in (path.with_suffix(".json"), path):
        with contextlib.suppress(OSError):
            each.unlink(missing_ok=True)
