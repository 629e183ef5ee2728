"""Build a plan ahead of the first start, where the robot is."""

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
    """Settings with some of them changed; None where none is: then those of an earlier build hold.

    Args:
        changes: ``key=value``.

    Raises:
        ConfigError: There is no such setting, or it has no such value.
    """
    if not changes:
        return None
    return recipes.validate(recipes.overridden({}, changes), BuildSettings, "the plan's settings")


def gpu_for(kind: Kind, path: Path) -> Gpu:
    """The GPU that a plan is built for.

    Raises:
        EngineError: There is none here; the command for the robot is in the error.
    """
    try:
        return find_gpu()
    except EngineError as error:
        raise EngineError(
            f"no plan can be built here: {error.found}",
            "the robot itself, or a machine just like it: a plan is for one kind of GPU",
            f"on the robot: kd-edge export {path.name} --{kind}",
        ) from error


def build_plan(artifact: Artifact, kind: Kind, settings: BuildSettings | None, say: Callable[[str], None]) -> Plan:
    """Build the plan of an artifact for this machine and keep it; one that is kept already is left as it is.

    Raises:
        EngineError: There is no GPU here.
        ArtifactError: The artifact is not for GPUs, or the library refuses it.
        ConfigError: The plan cannot be kept.
        MissingExtraError: The library is not installed.
    """
    gpu = gpu_for(kind, artifact.path)
    if (why := unsuited(artifact)) is not None:
        raise ArtifactError(
            f"{artifact.path} cannot run on {kind}: {why}", "an artifact made for it", "export the run for it"
        )
    plan = obtain(artifact, load_library(kind), gpu, settings, say)
    if plan.path is None:
        raise ConfigError(plan.not_kept, "a cache folder that can be written", f"set {CACHE_VARIABLE} to one")
    return plan
