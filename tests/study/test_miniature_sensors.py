"""Rows of the SAKDN paper's tables start, on miniature trees in the data sets' official layouts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from kd_edge import recipes
from kd_edge.data import open_dataset
from kd_edge.rundir import read_summary
from kd_edge.study.classical import check_comparator
from kd_edge.study.plan import Planned, load_study, plan
from kd_edge.study.report import report, report_markdown
from kd_edge.study.runner import run_study
from kd_edge.train.recipe import Recipe
from kd_edge.train.rehearsal import Rehearsal, rehearse
from kd_edge.train.teachers.sensors import BLOCKS

FRAMES, SIGNAL = 6, 10


@pytest.fixture(autouse=True)
def _cache(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KD_EDGE_CACHE", str(cache_folder))
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def utd_tree(tmp_path_factory: pytest.TempPathFactory, write_video: Callable[..., Path]) -> Path:
    """UTD-MHAD in miniature: 27 actions by subjects 1 and 2, trials 1 and 3; six frames and ten of the sensors'."""
    root = tmp_path_factory.mktemp("utd") / "utd-mhad"
    for folder in ("RGB", "Inertial", "Skeleton", "Depth"):
        (root / folder).mkdir(parents=True)
    images = [np.full((36, 48, 3), 40 * n, np.uint8) for n in range(FRAMES)]
    video = write_video(root.parent / "video.avi", images)
    depth = root.parent / "depth.mat"
    savemat(depth, {"d_depth": np.full((240, 320, FRAMES), 2000, np.uint16)}, do_compression=True)
    for action, subject, trial in product(range(1, 28), (1, 2), (1, 3)):
        name = f"a{action}_s{subject}_t{trial}"
        shutil.copy(video, root / "RGB" / f"{name}_color.avi")
        shutil.copy(depth, root / "Depth" / f"{name}_depth.mat")
        signal = np.sin(np.arange(SIGNAL)[:, None] * action / 9 + np.arange(6)) * [1, 1, 1, 90, 90, 90]
        savemat(root / "Inertial" / f"{name}_inertial.mat", {"d_iner": signal})
        skeleton = np.random.default_rng(action).normal([[0], [0], [2.5]], 0.3, (20, 3, FRAMES))
        savemat(root / "Skeleton" / f"{name}_skeleton.mat", {"d_skel": skeleton})
    return root


def small(run: Planned, tree: Path, folder: Path, *more: str) -> Recipe:
    """A row's recipe with small images and signals and random weights; its networks and losses untouched."""
    assert isinstance(run.config, Recipe)
    values = run.config.model_dump(mode="json", exclude={"student": {"initial_weights"}})
    settings = ["segments=3", "threads=1", "cache_every=1"]
    settings += [f"student.{key}" for key in ("preprocess.resize_px=36", "preprocess.input_px=32", "batch_size=2")]
    if values["teacher"] is not None:
        settings += ["teacher.points=32", "teacher.batch_size=2"]
    if values["semantics"] is not None:
        settings += [f"semantics.vectors='{vectors_file(run.config, tree, folder)}'"]
    return recipes.validate(recipes.overridden(values, [*settings, *more]), Recipe, run.name)


def vectors_file(recipe: Recipe, tree: Path, folder: Path) -> Path:
    """As the authors' files: a row of 300 values for each class."""
    classes = len(open_dataset(recipe.data, tree).labels)
    path = folder / f"{classes}.npy"
    np.save(path, np.random.default_rng(0).standard_normal((classes, 300)).astype(np.float32))
    return path


def chosen(*tables: str, splits: Sequence[str] = ()) -> list[Planned]:
    """The recipes of tables, each once: rows that several tables have are the same run."""
    runs = [run for table in tables for run in plan(load_study(table), splits=splits)]
    return list({run.config.fingerprint(): run for run in runs if isinstance(run.config, Recipe)}.values())


def start(run: Planned, recipe: Recipe, tree: Path) -> Rehearsal:
    """A first step whose losses are those of the row, and are numbers."""
    result = rehearse(recipe, tree)
    assert set(result.losses) == {"ce", "total", *(loss.kind for loss in recipe.losses)}, run.name
    assert all(value == value and 0 <= value < 1e6 for value in result.losses.values()), run.name
    return result


def named(runs: Sequence[Planned], *names: str) -> list[Planned]:
    return [run for run in runs if run.row.name in names]


METHODS = ("tsn", "trn", "tsm", "logits", "fitnet", "st", "at", "rkd", "sp", "cc", "sakdn")
ABLATIONS = ("skdn", "kdn", "sadn", "akdn")
ROWS = [row if row == "sakdn" else pytest.param(row, marks=pytest.mark.slow) for row in (*METHODS, *ABLATIONS)]


@pytest.mark.parametrize("row", ROWS)
def test_every_method_and_ablation_on_utd_mhad_takes_a_step(row: str, utd_tree: Path, tmp_path: Path) -> None:
    """Tables III and VI; the same rows of II, IV, V and VII differ in their recordings only."""
    runs = chosen("sakdn_table3", "sakdn_table6")
    assert len(runs) == len(METHODS) + len(ABLATIONS), "Table VI's baseline and SAKDN are rows of Table III"
    run = plan(load_study("sakdn_table6" if row in ABLATIONS else "sakdn_table3"), rows=[row])[0]
    result = start(run, small(run, utd_tree, tmp_path), utd_tree)
    assert result.samples == (54, 0, 54)
    assert result.inputs["student"] == (2, 3, 3, 32, 32)


@pytest.mark.slow  # BNInception and ResNets of full size
def test_transfer_layers_and_other_students_take_a_step(utd_tree: Path, tmp_path: Path) -> None:
    """Rows of Table VIII with most layers between them, and a corner of Table IX."""
    runs = named(chosen("sakdn_table8"), "bninception_3a_3c_4b_4d_5a", "bninception_5b", "resnet18_first")
    runs += named(chosen("sakdn_table8"), "resnet50_last") + named(chosen("sakdn_table9_utd_mhad"), "a001_b01_g01")
    assert len(runs) == 5
    for run in runs:
        recipe = small(run, utd_tree, tmp_path, 'teacher.sensors=["gyroscope"]')
        result = start(run, recipe, utd_tree)
        gsdm = recipe.losses[1].model_dump()
        assert set(result.student_layers) >= set(gsdm["student_layers"]), run.name
        assert result.teacher_layers.keys() == {*(gsdm["teacher_layers"] or BLOCKS), "fc2"}, run.name


def test_the_classical_rows_of_table_three_find_their_recordings(utd_tree: Path) -> None:
    runs = plan(load_study("sakdn_table3"), rows=["crc", "crc2", "cnn_lstm"])
    for run in runs:
        assert not isinstance(run.config, Recipe)
        assert check_comparator(run.config, utd_tree) == (54, 54)
        assert (run.split, run.config.modality) == ("trials", "depth+accelerometer+gyroscope")


@pytest.mark.slow  # BNInception and ResNets of full size
def test_six_accelerometers_teach_on_berkeley_mhad(berkeley_tree: Path, tmp_path: Path) -> None:
    runs = named(chosen("sakdn_table2"), "tsm", "sakdn")
    assert len(runs) == 2
    for run in runs:
        result = start(run, small(run, berkeley_tree, tmp_path), berkeley_tree)
        assert result.samples == (44, 0, 22)
        if run.row.name != "tsm":
            assert result.inputs["teacher"] == (2, 6, 3, 32)


@pytest.mark.slow  # BNInception and ResNets of full size
def test_every_protocol_and_the_raw_signals_rows_on_mmact_take_a_step(mmact_tree: Path, tmp_path: Path) -> None:
    runs = named(chosen("sakdn_table4"), "smd") + named(
        chosen("sakdn_table4", splits=["cross_subject"]), "mmd", "mmad", "sakdn"
    )
    assert [run.split for run in runs] == [
        "cross_subject",
        "cross_view",
        "cross_scene",
        "cross_session",
        *["cross_subject"] * 3,
    ]
    for run in runs:
        result = start(run, small(run, mmact_tree, tmp_path), mmact_tree)
        sensors = 1 if run.row.name == "smd" else 4
        assert result.inputs == {"student": (2, 3, 3, 32, 32), "teacher": (2, sensors, 3, 32)}


@pytest.mark.slow
def test_a_row_trains_to_its_end_and_others_are_read_of_its_teachers(
    utd_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = load_study("sakdn_table6")
    sakdn = plan(study, rows=["sakdn"])[0]
    tiny = ["teacher.model.network=conv1d", "teacher.epochs=1", "teacher.batch_size=9", "student.epochs=1"]
    tiny += ["student.model.backbone=tiny", "student.model.partial_bn=false", "student.batch_size=9"]
    place = tmp_path / "train" / "recipes" / "mini.toml"
    place.parent.mkdir(parents=True)
    place.write_text(recipes.to_toml(small(sakdn, utd_tree, tmp_path, *tiny)))
    study, folder = study.model_copy(update={"base": "mini"}), tmp_path / "studies" / "table6"
    list(run_study(plan(study, rows=["sakdn"]), folder, data_root=utd_tree))
    teacher = read_summary(folder / "sakdn-trials-s0").stages["teacher"]
    assert teacher.sensors.keys() == {"accelerometer", "gyroscope"}
    lines = {line.name: line.cells["trials"] for line in report(study, folder)}
    for name, figures in (
        ("acc_sakdn", teacher.sensors["accelerometer"]),
        ("gyo_sakdn", teacher.sensors["gyroscope"]),
        ("multi_sakdn", teacher.test),
    ):
        assert lines[name].values == {0: pytest.approx(100 * figures.accuracy)}
        assert 0 < figures.sakdn_f <= 1 or figures.accuracy == 0
    assert lines["acc_sakdn"].published == 97.66
    assert (lines["acc_skdn"].values, lines["acc_skdn"].missing) == ({}, 1)
    text = report_markdown(study, report(study, folder))
    assert "| Teacher-Acc (SKDN) | - | 96.27 | not run | - |" in text
    assert "(teacher)" not in text
