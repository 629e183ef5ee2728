"""Which recordings a run is of, and which test clips a sensor has seen."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kd_edge.data import Sample, open_dataset
from kd_edge.data.words.class_vectors import ClassVectors
from kd_edge.train.inputs.gathering import data_fingerprints
from kd_edge.train.inputs.material import Material
from kd_edge.train.recipe import Recipe
from kd_edge.train.results.summary import _seen_in_training
from tests.runs import tiny_values


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Two files of vectors for the ten generated classes."""
    rng = np.random.default_rng(0)
    for name in ("a.npy", "b.npy"):
        np.save(tmp_path / name, rng.normal(size=(10, 4)))
    return [str(tmp_path / name) for name in ("a.npy", "b.npy")]


def recipe(vectors: str | None = None, **changes: Any) -> Recipe:
    values = tiny_values() | changes
    return Recipe.model_validate(values if vectors is None else values | {"semantics": {"vectors": vectors}})


def test_class_vectors_are_the_teachers(files: list[str]) -> None:
    plain, first, second = data_fingerprints(recipe()), *(data_fingerprints(recipe(file)) for file in files)
    assert plain["student"] == first["student"] == second["student"]
    assert len({plain["teacher"], first["teacher"], second["teacher"]}) == 3


def test_without_a_teacher_nothing_looks_at_class_vectors(files: list[str]) -> None:
    alone = {"teacher": None, "losses": []}
    assert data_fingerprints(recipe(files[0], **alone)) == data_fingerprints(recipe(**alone))


def test_a_run_has_the_fingerprints_that_were_foretold(files: list[str]) -> None:
    config = recipe(files[0])
    plain, expected = data_fingerprints(recipe()), data_fingerprints(config)
    caches: Any = {name: SimpleNamespace(fingerprint=value) for name, value in plain.items()}
    vectors = ClassVectors(np.load(files[0]).astype(np.float32), {}, "a.npy")
    material = Material(config, open_dataset(config.data), (), (), (), caches, {}, 1.0, vectors)
    assert material.fingerprints == expected


def test_signals_of_a_performance_that_another_camera_filmed_for_training() -> None:
    train = [Sample("1", "s1", "cam1", "t1", 0), Sample("2", "s1", "cam2", "t1", 0), Sample("3", "s2", "cam1", "t1", 1)]
    seen = [Sample("4", "s1", "cam4", "t1", 0), Sample("5", "s2", "cam4", "t1", 1)]
    unseen = [
        Sample("6", "s2", "cam4", "t1", 0),
        Sample("7", "s1", "cam4", "t2", 0),
        Sample("8", "s3", "cam4", "t1", 0),
    ]
    assert _seen_in_training(train, [*seen, *unseen]) == 2
    assert _seen_in_training(train, unseen) == 0
