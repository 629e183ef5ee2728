"""Damaged files of a run, of weights and of vectors: whatever is wrong with one, a verb says it in one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from kd_edge import recipes
from kd_edge.rundir import METRICS, RECIPE, STATE, STUDENT, SUMMARY, TEACHER
from kd_edge.train.recipe import Recipe
from kd_edge.train.trainer import train
from tests.runs import tiny_values

from .conftest import Kd, one_line


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(2000) + b"\n")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_list(path: Path) -> None:
    """A file of its kind, and sound, that holds something else."""
    if path.suffix == ".pt":
        torch.save([1, 2], path)
    else:
        path.write_text("[1, 2]\n")


def a_table(path: Path) -> None:
    if path.suffix == ".pt":
        torch.save({"lr": 0.1}, path)
    else:
        path.write_text("{}\n")


def said(error: str) -> str:
    """The mistake, the last line; before it may stand what was prepared."""
    assert "Traceback" not in error
    return one_line(error.strip().splitlines()[-1])


DAMAGES: tuple[Callable[[Path], None], ...] = (emptied, cut, noise, folder, a_list, a_table)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and its frame cache, side by side."""
    place = tmp_path_factory.mktemp("damaged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KD_EDGE_CACHE", str(place / "cache"))
        values = tiny_values()
        for stage in ("student", "teacher"):
            values[stage] |= {"epochs": 1}
        list(train(Recipe.model_validate(values), place / "run", accelerator="cpu"))
    return place


@pytest.fixture
def run(finished: Path, kd: Kd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy in the working directory, with its recipe beside it as ``tiny.toml``."""
    monkeypatch.setenv("KD_EDGE_CACHE", str(finished / "cache"))
    shutil.copytree(finished / "run", tmp_path / "run")
    shutil.copy(tmp_path / "run" / RECIPE, tmp_path / "tiny.toml")
    return tmp_path / "run"


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    ("file", "arguments"),
    [
        (RECIPE, "train --resume run"),
        (SUMMARY, "study table run"),
        (SUMMARY, "train tiny.toml --set teacher.weights=run"),
        (STUDENT, "export run"),
        (TEACHER, "train tiny.toml --set teacher.weights=run"),
    ],
)
def test_a_damaged_file_of_a_finished_run(
    kd: Kd, run: Path, file: str, arguments: str, damage: Callable[[Path], None]
) -> None:
    damage(run / file)
    code, text, error = kd(*arguments.split())
    assert (code, text) == (2, "")
    assert str(Path(file).parent) in said(error)


@pytest.mark.parametrize(
    ("file", "arguments"),
    [
        (SUMMARY, "export run"),
        (SUMMARY, "evaluate run"),
        (SUMMARY, "explain run --wrong 1"),
        (SUMMARY, "study confusion run --out c.png"),
        (STUDENT, "explain run --wrong 1"),
        (STUDENT, "evaluate run"),
        (TEACHER, f"train tiny.toml --set teacher.weights=run/{TEACHER}"),
    ],
)
def test_every_verb_that_reads_a_damaged_file(kd: Kd, run: Path, file: str, arguments: str) -> None:
    cut(run / file)
    code, text, error = kd(*arguments.split())
    assert (code, text) == (2, "")
    assert str(Path(file).parent) in said(error)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("file", "fix"), [(STATE, "remove it to start this run again"), (TEACHER, "to start again")])
def test_a_damaged_file_of_an_interrupted_run(
    kd: Kd, run: Path, file: str, fix: str, damage: Callable[[Path], None]
) -> None:
    (run / SUMMARY).unlink()
    damage(run / file)
    code, text, error = kd("train", "--resume", "run")
    assert (code, text) == (2, "")
    assert file in said(error)
    assert fix in said(error)


@pytest.mark.parametrize("damage", [noise, folder, a_list, a_table])
def test_damaged_metrics(kd: Kd, run: Path, damage: Callable[[Path], None]) -> None:
    damage(run / METRICS)
    (run / SUMMARY).unlink()
    code, text, error = kd("train", "--resume", "run")
    assert (code, text) == (2, "")
    assert METRICS in said(error)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("key", ["teacher.weights", "teacher.initial_weights", "student.initial_weights"])
def test_damaged_weights(kd: Kd, run: Path, tmp_path: Path, key: str, damage: Callable[[Path], None]) -> None:
    torch.save({"w": torch.zeros(100)}, tmp_path / "w.pt")
    damage(tmp_path / "w.pt")
    code, text, error = kd("train", "tiny.toml", "--set", f"{key}=w.pt", "--out", "new")
    assert (code, text) == (2, "")
    assert "w.pt" in said(error)
    assert not (tmp_path / "new" / SUMMARY).exists()


def an_archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.zeros((10, 24)), b=np.zeros(3))


@pytest.mark.parametrize("damage", [emptied, cut, noise, folder, a_list, an_archive])
def test_damaged_class_vectors(kd: Kd, run: Path, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    np.save(tmp_path / "v.npy", np.random.default_rng(0).normal(size=(10, 24)))
    damage(tmp_path / "v.npy")
    taught = recipes.read("train", "tiny.toml") | {
        "teacher": {"kind": "sensors", "sensors": ["gyroscope"], "points": 32, "model": {"network": "conv1d"}},
        "semantics": {"vectors": "v.npy"},
        "losses": [{"kind": "soft_target"}],
    }
    (tmp_path / "taught.toml").write_text(recipes.to_toml(recipes.validate(taught, Recipe, "recipe")))
    code, text, error = kd("train", "taught.toml")
    assert (code, text) == (2, "")
    assert "v.npy" in said(error)
