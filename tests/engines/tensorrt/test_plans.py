"""Plans are kept for what they were built from and for, checked before they are used, and built once."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from kd_edge.artifact import Artifact
from kd_edge.engines.cuda.driver import Gpu
from kd_edge.engines.tensorrt import building, plans
from kd_edge.engines.tensorrt.builder import BuildSettings, Built, PlanFigures
from kd_edge.engines.tensorrt.inspection import Shares
from kd_edge.engines.tensorrt.library import Library
from kd_edge.errors import ArtifactError, ConfigError, EngineError, MissingExtraError
from kd_edge.files import held

ORIN = Gpu("Orin", (8, 7), (13, 2), "39.2.1")
TENSORRT = Library("tensorrt", None, "10.16.2")
FIGURES = PlanFigures(
    seconds=1.5, plan_bytes=6, shares=Shares(told_by="engine", layers=3, float32=1, half=2, int8=0, other=0)
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KD_EDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "plans"


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was built; each build's plan is its number."""
    done: list[dict[str, Any]] = []

    def build(artifact, library, settings, **options: Any) -> Built:
        done.append({"settings": settings, **options})
        return Built(b"plan %d" % len(done), FIGURES, b"timed")

    monkeypatch.setattr(plans, "build", build)
    return done


def test_it_is_built_once_and_kept(step: Artifact, folder: Path, builds: list[dict[str, Any]]) -> None:
    said: list[str] = []
    first = plans.obtain(step, TENSORRT, ORIN, say=said.append)
    again = plans.obtain(step, TENSORRT, ORIN, say=said.append)
    assert (first.content, first.was_built, first.not_kept) == (b"plan 1", True, "")
    assert (again.content, again.was_built, again.path) == (b"plan 1", False, first.path)
    assert said == ["tensorrt 10.16.2 builds a plan for Orin (SM87, CUDA 13.2, L4T 39.2.1)"]
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".plan", ".timing"]
    assert folder.stat().st_mode & 0o777 == 0o700
    sidecar = json.loads(first.path.with_suffix(".json").read_text())
    assert sidecar["sha256"] == hashlib.sha256(b"plan 1").hexdigest()
    assert sidecar["key"] == {
        "artifact": step.manifest.sha256, "library": "tensorrt", "version": "10.16.2", "gpu": "Orin",
        "capability": "8.7", "driver": "13.2", "l4t": "39.2.1", "settings": BuildSettings().model_dump(),
    }  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"gpu": ORIN._replace(name="Thor")},
        {"gpu": ORIN._replace(capability=(8, 6))},
        {"gpu": ORIN._replace(driver=(12, 6))},
        {"gpu": ORIN._replace(l4t="36.4.3")},
        {"library": TENSORRT._replace(version="11.4.1")},
        {"library": Library("tensorrt-rtx", None, "10.16.2")},
        {"settings": BuildSettings(max_batch=1)},
        {"artifact": "other"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_anything_else_is_another_plan(
    step: Artifact, stateful: Artifact, builds: list[dict[str, Any]], changes: dict[str, Any]
) -> None:
    values = {"artifact": step, "library": TENSORRT, "gpu": ORIN, **changes}
    if values["artifact"] == "other":
        values["artifact"] = stateful
    plans.obtain(step, TENSORRT, ORIN)
    assert plans.obtain(**values).content == b"plan 2"
    assert plans.obtain(step, TENSORRT, ORIN, BuildSettings()).content == b"plan 1"


def test_what_was_measured_on_a_gpu_serves_the_next_build(
    step: Artifact, stateful: Artifact, builds: list[dict[str, Any]]
) -> None:
    plans.obtain(step, TENSORRT, ORIN)
    plans.obtain(stateful, TENSORRT, ORIN)
    plans.obtain(step, TENSORRT, ORIN._replace(name="Thor"))
    assert [done["timing_cache"] for done in builds] == [b"", b"timed", b""]


def test_settings_of_the_last_build_hold_where_none_are_given(step: Artifact, builds: list[dict[str, Any]]) -> None:
    settings = BuildSettings(workspace_mb=512, max_batch=2)
    plans.obtain(step, TENSORRT, ORIN, settings)
    plan = plans.obtain(step, TENSORRT, ORIN)
    assert (plan.content, plan.settings) == (b"plan 1", settings)
    assert plans.obtain(step, TENSORRT, ORIN._replace(name="Thor")).settings == BuildSettings()


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda path: _flip(path), "not as it was built"),
        (lambda path: path.write_bytes(b"longer than it was"), "damaged"),
        (lambda path: path.write_bytes(b""), "not as it was built"),
        (lambda path: path.unlink(), ""),
        (lambda path: path.with_suffix(".json").unlink(), ""),
        (lambda path: path.with_suffix(".json").write_text("{"), "damaged"),
        (lambda path: path.with_suffix(".json").write_text("[" * 50_000), "damaged"),
    ],
)
def test_a_plan_whose_bytes_changed_never_reaches_the_library(
    step: Artifact, builds: list[dict[str, Any]], harm, said: str
) -> None:
    path = plans.obtain(step, TENSORRT, ORIN).path
    harm(path)
    lines: list[str] = []
    plan = plans.obtain(step, TENSORRT, ORIN, say=lines.append)
    assert (plan.content, plan.was_built) == (b"plan 2", True)
    assert any(said in line and "built again" in line for line in lines) or not said
    assert plans.obtain(step, TENSORRT, ORIN).content == b"plan 2"


def test_a_plan_copied_from_another_machine_is_told_and_built_again(
    step: Artifact, folder: Path, builds: list[dict[str, Any]]
) -> None:
    theirs = plans.obtain(step, TENSORRT, ORIN._replace(name="Thor")).path
    mine = folder / f"{plans.PlanKey.of(step, TENSORRT, ORIN, BuildSettings()).digest}.plan"
    for suffix in (".plan", ".json"):
        theirs.with_suffix(suffix).rename(mine.with_suffix(suffix))
    lines: list[str] = []
    assert plans.obtain(step, TENSORRT, ORIN, BuildSettings(), say=lines.append).content == b"plan 2"
    assert lines[0].endswith("is of another machine or model: it is built again")


def test_a_folder_that_cannot_be_written_is_told_and_the_plan_used(
    step: Artifact, folder: Path, builds: list[dict[str, Any]]
) -> None:
    folder.parent.write_text("a file")
    lines: list[str] = []
    plan = plans.obtain(step, TENSORRT, ORIN, say=lines.append)
    assert (plan.content, plan.path) == (b"plan 1", None)
    assert "no writable cache folder" in plan.not_kept
    assert "builds a plan that is not stored" in lines[0]


def test_a_folder_that_others_can_write_is_not_used(step: Artifact, folder: Path, builds: list[dict[str, Any]]) -> None:
    plans.obtain(step, TENSORRT, ORIN)
    folder.chmod(0o777)
    plan = plans.obtain(step, TENSORRT, ORIN)
    assert (plan.content, plan.path) == (b"plan 2", None)
    assert "chmod 700" in plan.not_kept


def test_a_disk_that_is_full_leaves_nothing_half_written(
    step: Artifact, folder: Path, builds: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object):
        raise ConfigError("no space left", "space", "free some")

    monkeypatch.setattr(plans, "replacing", full)
    plan = plans.obtain(step, TENSORRT, ORIN)
    assert (plan.path, plan.not_kept) == (None, "no space left")
    assert list(folder.iterdir()) == []


def test_two_that_want_it_at_once_build_it_once(
    step: Artifact, builds: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    build, begun, go_on = plans.build, threading.Event(), threading.Event()

    def slow(*arguments, **options):
        begun.set()
        assert go_on.wait(60)
        return build(*arguments, **options)

    monkeypatch.setattr(plans, "build", slow)
    given, said = [], []
    threads = [threading.Thread(target=lambda: given.append(plans.obtain(step, TENSORRT, ORIN, say=said.append)))]
    threads[0].start()
    assert begun.wait(60)
    threads.append(threading.Thread(target=lambda: given.append(plans.obtain(step, TENSORRT, ORIN, say=said.append))))
    threads[1].start()
    while "another process builds this plan" not in said:
        assert threads[1].is_alive()
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert sorted(plan.was_built for plan in given) == [False, True]
    assert len(builds) == 1


def test_a_build_that_never_ends_is_not_waited_for_for_ever(
    step: Artifact, folder: Path, builds: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "WAIT_SECONDS", 0.05)
    plans.obtain(step, TENSORRT, ORIN._replace(name="Thor"))
    lock = folder / f"{plans.PlanKey.of(step, TENSORRT, ORIN, BuildSettings()).digest}.lock"
    waits_long = pytest.raises(EngineError, match="another process has been building this plan for more than")
    with held(lock), waits_long:
        plans.obtain(step, TENSORRT, ORIN)
    assert plans.obtain(step, TENSORRT, ORIN).was_built


def test_the_ones_used_last_are_kept(
    step: Artifact, folder: Path, builds: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "MOST_KEPT", 2)
    for number in range(4):
        path = plans.obtain(step, TENSORRT, ORIN._replace(name=f"GPU {number}")).path
        os.utime(path, (1000 + number, 1000 + number))
    kept = {json.loads(path.read_text())["key"]["gpu"] for path in folder.glob("*.json")}
    assert kept == {"GPU 2", "GPU 3"}
    assert len(list(folder.glob("*.plan"))) == 2


def test_ready_is_what_is_kept_whole(
    step: Artifact, builds: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "load_library", lambda kind: TENSORRT)
    assert not plans.is_ready(step, "tensorrt", ORIN)
    plan = plans.obtain(step, TENSORRT, ORIN)
    assert plans.is_ready(step, "tensorrt", ORIN)
    assert not plans.is_ready(step, "tensorrt", ORIN._replace(name="Thor"))
    plans.discard(plan)
    assert not plans.is_ready(step, "tensorrt", ORIN)

    def absent(kind: str) -> Library:
        raise MissingExtraError("module 'tensorrt' is not installed", "it", "pip")

    monkeypatch.setattr(plans, "load_library", absent)
    assert not plans.is_ready(step, "tensorrt", ORIN)


def test_ahead_of_the_first_start(step: Artifact, builds, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(building, "load_library", lambda kind: TENSORRT)
    with pytest.raises(EngineError, match=r"no plan can be built here: no CUDA driver .* on the robot: kd-edge export"):
        building.build_plan(step, "tensorrt", None, print)
    monkeypatch.setattr(building, "find_gpu", lambda: ORIN)
    assert building.build_plan(step, "tensorrt", None, print).content == b"plan 1"
    monkeypatch.setattr(building, "unsuited", lambda artifact: "kd-edge export --profile int8-tensorrt")
    with pytest.raises(ArtifactError, match="int8-tensorrt"):
        building.build_plan(step, "tensorrt", None, print)
    monkeypatch.setattr(building, "unsuited", lambda artifact: None)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KD_EDGE_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="no writable cache folder"):
        building.build_plan(step, "tensorrt", None, print)


def test_settings_are_checked() -> None:
    assert building.build_settings([]) is None
    assert building.build_settings(["workspace_mb=64", "max_batch=2"]) == BuildSettings(workspace_mb=64, max_batch=2)
    for wrong in ("workspace=3", "optimisation_level=9", "max_batch=0"):
        with pytest.raises(ConfigError):
            building.build_settings([wrong])
