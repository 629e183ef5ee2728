"""Every row of the dense study trains to its end, on a miniature tree in UTD-MHAD's layout."""

from __future__ import annotations

import shutil
from itertools import product
from pathlib import Path

import pytest
import torch

from kd_edge import recipes
from kd_edge.rundir import read_summary
from kd_edge.study.plan import Planned, load_study, plan
from kd_edge.study.runner import run_study
from kd_edge.train.recipe import Recipe
from tests.data.conftest import write_sample

STUDY = load_study("utd_mhad_dense")
TARGETS = {
    "random": 120,
    "alone": None,
    "joints": 120,
    "signals": 6,
    "alone_holes": None,
    "alone_long_holes": None,
    "joints_holes": 120,
    "both": 126,
    "both_even": 126,
    "joints_only": 120,
    "joints_crossfit": 120,
    "features_only": 120,
    "pca": 7,
    "future": 7,
    "noise": 120,
    "joints_class": 120,
    "joints_time": 120,
    "alone_long": None,
}


@pytest.fixture(autouse=True)
def _cache(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KD_EDGE_CACHE", str(cache_folder))
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def utd_moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """UTD-MHAD in miniature: 27 actions by subjects 1 to 3, one trial; eight frames each."""
    root = tmp_path_factory.mktemp("moving") / "utd-mhad"
    for action, subject in product(range(1, 28), (1, 2, 3)):
        write_sample(root, action, subject, 1, frames=8)
    return root


def small(run: Planned) -> Planned:
    """A row with a small network, small pictures and an epoch a stage; its targets are the row's."""
    assert isinstance(run.config, Recipe)
    values = run.config.model_dump(mode="json")
    for stage in values["stages"]:
        stage |= {"epochs": 1, "batch_size": 9} if stage["kind"] != "labels" else {"segments": 4}
        stage |= {"passes": 1} if stage["kind"] == "head" else {}
        stage |= {"frames": 2} if stage["kind"] == "dense" else {}
        for target in stage.get("targets", []):
            target |= {"components": 7, "side_px": 8} if target["kind"] == "pixels" else {}
    values["student"] |= {"epochs": 1, "batch_size": 9}
    values["student"]["model"] |= {"backbone": "tiny", "hidden": 8}
    values["student"]["preprocess"] |= {"resize_px": 36, "input_px": 32}
    return Planned(run.name, run.row, run.split, run.seed, recipes.validate(values | {"segments": 4}, Recipe, run.name))


CLASSICAL = [row.name for row in STUDY.rows if row.comparator is not None]
ROWS = [row if row == "both" else pytest.param(row, marks=pytest.mark.slow) for row in TARGETS]


@pytest.mark.parametrize("row", ROWS)
def test_every_row_trains_to_its_end(row: str, utd_moving: Path, tmp_path: Path) -> None:
    run = small(plan(STUDY, rows=[row])[0])
    list(run_study([run], tmp_path / "studies" / "dense", data_root=utd_moving))
    student = read_summary(tmp_path / "studies" / "dense" / run.name).stages["student"]
    assert student.test is not None
    assert (None if student.dense is None else student.dense.targets) == TARGETS[row]


@pytest.mark.slow
def test_a_skeleton_of_another_length_than_its_clip_is_left_out_and_counted(utd_moving: Path, tmp_path: Path) -> None:
    """Two of thirty frames: the clip trains nothing of the joints, and everything else is as it was."""
    root = Path(shutil.copytree(utd_moving, tmp_path / "utd-mhad"))
    for name in ("a1_s1_t1", "a2_s1_t1"):
        write_sample(root, int(name[1]), 1, 1, frames=30)
        write_sample(tmp_path / "short", int(name[1]), 1, 1, frames=2)
        shutil.copy(tmp_path / "short" / "Skeleton" / f"{name}_skeleton.mat", root / "Skeleton")
    run = small(plan(STUDY, rows=["joints_class"])[0])
    list(run_study([run], tmp_path / "studies" / "dense", data_root=root))
    summary = read_summary(tmp_path / "studies" / "dense" / run.name)
    dense = summary.stages["student"].dense
    assert dense is not None
    assert dense.lacking == {"skeleton": 2 + 2}  # the two others of their classes have nobody left to exchange with
    assert (summary.protocol.train_samples, summary.protocol.test_samples) == (54, 27)


def test_rows_are_told_apart() -> None:
    prints = [run.config.fingerprint() for run in plan(STUDY, seeds=[0])]
    assert len(set(prints)) == len(STUDY.rows) == len(TARGETS) + len(CLASSICAL)
