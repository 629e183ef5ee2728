"""Build a plan on the robot before the first start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from kd_edge import recipes
from kd_edge.artifact import Artifact
from kd_edge.engines.cuda.driver import Gpu, find_gpu
from kd_edge.engines.tensorrt.builder import BuildSettings
from kd_edge.engines.tensorrt.library import Kind, load_library, unsuited
from kd_edge.engines.tensorrt.plans import Plan, obtain
from kd_edge.errors import ArtifactError, ConfigError, EngineError
from kd_edge.files import CACHE_VARIABLE


def build_settings(changes: Sequence[str]) -> BuildSettings | None:
    """Return settings with changes; None without changes, which keeps those of an earlier build.

    Args:
        changes: ``key=value``.

    Raises:
        ConfigError: There is no such setting, or the value is invalid.
    """
    if not changes:
        return None
    return recipes.validate(recipes.overridden({}, changes), BuildSettings, "the plan's settings")


def gpu_for(kind: Kind, path: Path) -> Gpu:
    """Return the GPU for which a plan is built.

    Raises:
        EngineError: There is no GPU here; the error contains the command to run on the robot.
    """
    try:
        return find_gpu()
    except EngineError as error:
        raise EngineError(
            f"no plan can be built here: {error.found}",
            "the robot itself, or a machine with the same GPU, because a plan is for one kind of GPU",
            f"on the robot: kd-edge export {path.name} --{kind}",
        ) from error


def build_plan(artifact: Artifact, kind: Kind, settings: BuildSettings | None, say: Callable[[str], None]) -> Plan:
    """Build the plan of an artifact for this machine and store it, unless it is stored already.

    Raises:
        EngineError: There is no GPU here.
        ArtifactError: The artifact is not for GPUs, or the library refuses it.
        ConfigError: The plan cannot be stored.
        MissingExtraError: The library is not installed.
    """
    gpu = gpu_for(kind, artifact.path)
    if (why := unsuited(artifact)) is not None:
        raise ArtifactError(
            f"{artifact.path} cannot run on {kind}: {why}", "an artifact made for it", "export the run for it"
        )
    plan = obtain(artifact, load_library(kind), gpu, settings, say)
    if plan.path is None:
        raise ConfigError(plan.not_kept, "a writable cache folder", f"set {CACHE_VARIABLE} to one")
    return plan
