"""What is made once in a session and read by many tests, whichever worker needs it first; what none of them needs."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

Once = Callable[[str, Callable[[Path], object]], Path]
Trained = Callable[[dict[str, Any]], Path]


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """One folder for all workers of a session; what pytest-xdist gives each worker is a folder inside the session's."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if hasattr(request.config, "workerinput") else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def once(shared_folder: Path) -> Once:
    """``once(name, make) -> folder``, which ``make(folder)`` fills the first time; to be read, not written."""
    return lambda name, make: made_once(shared_folder, name, make)


def made_once(root: Path, name: str, make: Callable[[Path], object]) -> Path:
    """A folder under ``root`` that the first caller of all processes makes and nobody changes."""
    folder, listing = root / name, root / f"{name}.files"
    with FileLock(root / f"{name}.lock"):
        if not listing.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a try that failed
            make(folder)
            listing.write_text(_listing(folder))
    assert listing.read_text() == _listing(folder), f"a test has written into {name}, which others read"
    return folder


def _listing(folder: Path) -> str:
    """Every file with the moment of its last change."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return "\n".join(f"{file.stat().st_mtime_ns} {file.relative_to(folder)}" for file in files)


@pytest.fixture(scope="session")
def causal_reference(once: Once) -> Path:
    """The artifact of an untrained student that carries states: a causal TSM on motion stacks of 32 pixels."""

    def make(folder: Path) -> None:
        from kd_edge.export import make_reference_artifact

        folder.mkdir()
        make_reference_artifact("resnet10_thin", 32, folder / "causal.onnx", motion=True, temporal="tsm_causal")

    return once("causal-reference", make) / "causal.onnx"


@pytest.fixture(scope="session")
def cache_folder(shared_folder: Path) -> Path:
    """One frame cache for all tests that train."""
    return shared_folder / "cache"


@pytest.fixture(scope="session")
def trained(once: Once, cache_folder: Path) -> Trained:
    """``trained(values) -> folder``: the complete run of a recipe, but for plots; to be read, not written."""

    def get(values: dict[str, Any]) -> Path:
        def make(folder: Path) -> None:
            import torch

            from kd_edge.train.recipe import Recipe
            from kd_edge.train.results import plots
            from tests.runs import run_all

            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("KD_EDGE_CACHE", str(cache_folder))
                patch.setattr(plots, "plot_run", lambda *_: None)
                torch.set_num_threads(1)
                run_all(Recipe.model_validate(values), folder)

        settings = json.dumps(values, sort_keys=True, default=str)
        return once(f"{values['name']}-{hashlib.sha256(settings.encode()).hexdigest()[:12]}", make)

    return get


# --------------------------------------------------------------------------- what costs much and few tests look at


@pytest.fixture(scope="session", autouse=True)
def frugal() -> Iterator[Callable[..., None]]:
    """Leave out what most of a small training and a small export would be spent on; yields what draws.

    No curves and matrices are drawn of a training, unless a test asks for ``drawn``. torch's table of operators, which
    it makes anew for each export, is made once, and so is the graph of a student that is exported again. Where there is
    no torch, as in a robot's environment, there is nothing to leave out.
    """
    if importlib.util.find_spec("torch") is None:
        yield lambda *_: None
        return
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    from kd_edge.export import exporter
    from kd_edge.train.results import plots

    draw, table = plots.plot_run, functools.cache(ONNXRegistry.from_torchlib)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "plot_run", lambda *_: None)
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(table))
        patch.setattr(exporter, "build_graph", _remembering(exporter.build_graph))
        yield draw


def _remembering(build: Callable[..., Any]) -> Callable[..., Any]:
    """``build_graph``, which need not ask torch again for a student of the same settings and weights."""
    graphs: dict[tuple[object, ...], bytes] = {}

    def build_graph(model: Any, spec: Any, profile: Any) -> Any:
        import onnx

        weights = hashlib.sha256()
        for name, tensor in model.state_dict().items():
            weights.update(name.encode() + tensor.numpy().tobytes())
        key = (spec.model_dump_json(), weights.digest(), profile.graph, profile.opset)
        if key not in graphs:
            graphs[key] = build(model, spec, profile).SerializeToString()
        return onnx.ModelProto.FromString(graphs[key])

    return build_graph


@pytest.fixture
def drawn(frugal: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is trained in this test has its curves and matrices drawn."""
    from kd_edge.train.results import plots

    monkeypatch.setattr(plots, "plot_run", frugal)
