"""Cache of plans: each is built once per model and machine, stored in the cache folder, and never shipped.

A sidecar next to each plan has its key and its hash; content with another hash never reaches the library. Plans contain
GPU code, so only the owner may write to the folder. Two processes that need the same plan build it once; a killed build
leaves nothing.
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
"""How long to wait for another process that builds the same plan; a build may take that long."""
MOST_KEPT = 16
PLAN_BYTES = 2**31
"""Upper bound on the size of a plan, far above real ones; a sidecar with a larger size is damaged."""
_SIDECAR_BYTES = 100_000
_TIMING_BYTES = 256_000_000
_CLOSED = ConfigDict(frozen=True, extra="forbid", strict=True)


class PlanKey(BaseModel):
    """Everything that a plan depends on; plans with different keys are different.

    Attributes:
        artifact: Hash of the artifact's bytes before its manifest.
        settings: Settings of the build.
        library: Library of the build.
        version: Version of the library.
        gpu: Name of the GPU.
        capability: Its compute capability.
        driver: Newest CUDA version supported by the driver.
        l4t: Release of Jetson Linux; empty on other machines.
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
        """Return the key of an artifact's plan on a GPU."""
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
        """Return a name for files."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:32]


class _Sidecar(BaseModel):
    """The sidecar of a plan."""

    model_config = _CLOSED
    format: Literal[1] = 1
    key: PlanKey
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    figures: PlanFigures


class Plan(NamedTuple):
    """A plan for this machine.

    Attributes:
        content: The serialised plan.
        settings: Settings of the build.
        figures: Its figures.
        path: Path of the stored plan; None if it could not be stored.
        not_kept: Why it is not stored; empty if it is.
        was_built: Whether it was built by this call.
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
    """Return the stored plan of an artifact for this machine's GPU, or build and store it.

    Args:
        artifact: An artifact verified by ``artifact.load``.
        library: The library that builds and runs it.
        gpu: The target GPU.
        settings: Settings of the build; None uses those of the last build for this model and GPU, if any.
        say: Called with a line about the progress.

    Raises:
        ArtifactError: The library refuses the graph.
        EngineError: Another process did not finish its build within ``WAIT_SECONDS``.
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
            return _unkept(artifact, library, key, f"no writable cache folder ({why})", say)
        if not is_ours:
            raise EngineError(
                f"another process has been building this plan for more than {WAIT_SECONDS / 60:.0f} minutes",
                "a build that ends",
                "end that process, or use --engine onnxruntime",
            )
        if (kept := _kept(folder, key, say)) is not None:  # the other process has built it
            return kept
        say(f"{library.name} builds a plan for {gpu}")
        return _keep(folder, key, build(artifact, library, key.settings, timing_cache=_timing(folder, key)))


def is_ready(artifact: Artifact, kind: Kind, gpu: Gpu, settings: BuildSettings | None = None) -> bool:
    """Whether a valid plan for this machine is stored; imports the library but builds nothing."""
    try:
        library = load_library(kind)
        key = PlanKey.of(artifact, library, gpu, settings or _settings(artifact, library, gpu))
        return _kept(_folder(make=False), key, lambda line: None) is not None
    except (MissingExtraError, ConfigError, OSError):
        return False


def discard(plan: Plan) -> None:
    """Remove a plan that the library refuses, so that it is built again."""
    if plan.path is not None:
        _remove(plan.path)


def _settings(artifact: Artifact, library: Library, gpu: Gpu) -> BuildSettings:
    """The settings of the plan that was used last."""
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
    """The folder of plans; raises OSError if another user could write to it."""
    folder = cache_root() / FOLDER
    if make:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = folder.stat()
    if facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
        raise PermissionError(f"other users can write {folder}: chmod 700 it, or remove it")
    return folder


def _kept(folder: Path, key: PlanKey, say: Callable[[str], None]) -> Plan | None:
    """The stored plan with this key; None if there is none or it does not match its sidecar."""
    path = folder / f"{key.digest}.plan"
    try:
        sidecar = _sidecar(path)
        content = read_bytes(path, min(sidecar.figures.plan_bytes, PLAN_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        say(f"the plan {path.name} is damaged and is built again")
        return None
    if sidecar.key != key:
        say(f"the plan {path.name} is of another machine or model: it is built again")
        return None
    if hashlib.sha256(content).hexdigest() != sidecar.sha256:
        say(f"the plan {path.name} is not as it was built: it is built again")
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # the most recently used plans are kept
    return Plan(content, key.settings, sidecar.figures, path, "", was_built=False)


def _keep(folder: Path, key: PlanKey, built: Built) -> Plan:
    """Store a plan, its sidecar last because a plan without one is ignored, and remove the oldest plans."""
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
    """Build a plan for this process only."""
    say(f"{library.name} builds a plan that is not stored: {why}")
    built = build(artifact, library, key.settings)
    return Plan(built.content, key.settings, built.figures, None, why, was_built=True)


def _timing(folder: Path, key: PlanKey) -> bytes:
    try:
        return read_bytes(_timing_path(folder, key), _TIMING_BYTES)
    except OSError:
        return b""


def _timing_path(folder: Path, key: PlanKey) -> Path:
    """Path of the library's measurements on this GPU, shared by all models."""
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
