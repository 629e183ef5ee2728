"""Dry runs, layers and studies on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import TINY_SETTINGS, Kd, one_line


@pytest.mark.slow
def test_a_dry_run_writes_nothing(kd: Kd, tmp_path: Path) -> None:
    code, out, _ = kd("train", "quickstart", *TINY_SETTINGS, "--dry-run")
    assert code == 0
    assert "mgcam" in out
    assert "backbone.layer4" in out
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    code, out, _ = kd("train", "quickstart", *TINY_SETTINGS, "--dry-run", "--json")
    assert set(json.loads(out)["losses"]) == {"ce", "dkd", "mgcam", "total"}


@pytest.mark.slow
def test_layers_of_a_network_are_listed_with_what_looks_at_them(kd: Kd) -> None:
    code, out, _ = kd("recipes", "layers", "utd_mhad_pose_to_depth", "--teacher")
    assert code == 0
    line = next(line for line in out.splitlines() if "backbone.layer3 " in line)
    assert "(8, 1024, 4, 4)" in line
    assert "mgcam" in line
    _, out, _ = kd("recipes", "layers", "utd_mhad_pose_to_depth", "--json")
    found = json.loads(out)
    assert found["losses"]["mgcam"] == [f"backbone.layer{n}" for n in (1, 2, 3, 4)]
    assert {"path": "backbone.layer1.0.conv1", "kind": "Conv2d", "shape": [8, 64, 16, 16]} in found["layers"]
    fewer = 'stages=[{kind="labels", segments=4}, {kind="head"}]'
    for who in ((), ("--teacher",)):
        _, out, _ = kd("recipes", "layers", "utd_mhad_pose_to_depth", "--json", "--set", fewer, *who)
        found = json.loads(out)
        shapes = {layer["shape"][0] for layer in found["layers"] if layer["path"].startswith("backbone.")}
        assert (found["clip_shape"][0], shapes) == (4, {4}), "as the losses see it"
    code, _, error = kd("recipes", "layers", "utd_mhad_depth_alone", "--teacher")
    assert code == 2
    assert "has no teacher" in one_line(error)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "classes", "head"),
    [
        (
            "utd_mhad_pose_to_depth",
            "27 classes of utd_mhad: swipe left, ",
            "student of utd_mhad_pose_to_depth: depth, a clip is (8, ",
        ),
        ("ntu_rgb_to_ir", "10 classes of ntu_rgbd: drink water, ", "ir, a clip is"),
        pytest.param(
            "ntu_rgb_to_ir --set data.actions=all", "60 classes of ntu_rgbd", "ir, a clip is", marks=pytest.mark.slow
        ),
        pytest.param("pku_rgb_to_ir", "51 classes of pku_mmd", "ir, a clip is", marks=pytest.mark.slow),
        pytest.param("sakdn_berkeley_mhad", "11 classes of berkeley_mhad", "rgb, a clip is", marks=pytest.mark.slow),
        pytest.param("sakdn_mmact", "37 classes of mmact", "rgb, a clip is", marks=pytest.mark.slow),
        ("sakdn_mmact --set data.desk=false", "35 classes of mmact", "rgb, a clip is"),
        ("quickstart", "10 classes of synthetic: drink, eat, ", "nir, a clip is"),
        ("quickstart --teacher", "10 classes of synthetic: drink, eat, ", "teacher of quickstart: rgb, a clip is"),
    ],
)
def test_the_last_layer_has_the_classes_of_the_recipes_data(kd: Kd, recipe: str, classes: str, head: str) -> None:
    code, out, _ = kd("recipes", "layers", *recipe.split())
    assert code == 0
    assert head in out
    assert classes in out
    _, out, _ = kd("recipes", "layers", *recipe.split(), "--json")
    found = json.loads(out)
    assert len(found["classes"]) == int(classes.split()[0])
    heads = [layer["shape"][-1] for layer in found["layers"] if layer["path"].startswith("head") and layer["shape"]]
    assert len(found["classes"]) in heads
    assert 2 not in heads


def test_classes_that_only_recordings_tell_are_read_from_them(kd: Kd, tmp_path: Path) -> None:
    for label in ("walk", "fall", "jump"):
        (tmp_path / "own" / label).mkdir(parents=True)
        np.save(tmp_path / "own" / label / "1_nir.npy", np.zeros((4, 8, 8), np.uint8))
    own = ("recipes", "layers", "quickstart", "--set", 'data={kind="files"}', "--set", "split=default")
    code, out, _ = kd(*own)
    assert code == 0
    assert "classes unknown without the recordings: 2 assumed; add --data DIR" in out
    code, out, _ = kd(*own, "--data", "own")
    assert code == 0
    assert "3 classes of files: fall, jump, walk" in out
    code, _, error = kd(*own, "--data", "gone")
    assert code == 2
    assert "no folder gone" in one_line(error)


@pytest.mark.slow
def test_a_study_from_its_list_to_its_table(kd: Kd, tmp_path: Path) -> None:
    _, out, _ = kd("study", "list")
    assert "mgcam_table1" in out
    assert "8 rows, 16 runs" in next(line for line in out.splitlines() if line.startswith("mgcam_table2"))
    _, out, _ = kd("study", "show", "mgcam_table1")
    assert "80.86" in out
    code, out, _ = kd("study", "show", "mgcam_table1", "--row", "at")
    (tmp_path / "at.toml").write_text(out)
    assert code == 0
    code, _, error = kd("train", "at.toml", "--dry-run")
    assert code == 2
    assert "no folder given for the recordings" in one_line(error)

    studies = tmp_path / "train" / "studies"
    studies.mkdir(parents=True)
    rows = '[[rows]]\nname = "sp"\ntitle = "SP"\npublished = { subjects = 76.0 }\nset.losses = [{ kind = "sp" }]\n'
    (studies / "mine.toml").write_text(f'title = "mine"\nbase = "quickstart"\nsplits = ["subjects"]\n{rows}')
    code, out, _ = kd("study", "run", "mine", *TINY_SETTINGS, "--dry-run")
    assert code == 0
    assert "sp-subjects-s0: ce" in out
    assert not (tmp_path / "runs").exists()
    code, out, _ = kd("study", "run", "mine", *TINY_SETTINGS)
    assert code == 0
    assert (tmp_path / "runs" / "studies" / "mine" / "sp-subjects-s0" / "summary.json").is_file()
    code, out, _ = kd("study", "run", "mine", *TINY_SETTINGS)
    assert "already finished" in out
    (tmp_path / "page.md").write_text("<!-- mine -->\n<!-- /mine -->\n")
    code, out, _ = kd("study", "report", "mine", *TINY_SETTINGS, "--into", "page.md")
    assert code == 0
    assert "| SP | 1 | 76.0 |" in (tmp_path / "page.md").read_text()


def test_a_table_of_nothing_replaces_no_figures(kd: Kd, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- utd_mhad_methods -->\n| AT | 38.8 |\n<!-- /utd_mhad_methods -->\n")
    code, _, error = kd("study", "report", "utd_mhad_methods", "--into", "page.md")
    assert code == 2
    assert (
        "no finished run of utd_mhad_methods in runs/studies/utd_mhad_methods, and no figures of it in "
        "docs/results/utd_mhad_methods.jsonl. Expected figures for page.md. Fix: run it first"
    ) in one_line(error)
    assert "38.8" in page.read_text()
    code, out, error = kd("study", "report", "utd_mhad_methods")  # without a page the rows are told
    assert (code, "| AT | - | not run |" in out) == (0, True)
    assert "note: nothing has run: no finished run" in error


def test_an_interrupted_study_and_run_say_how_they_go_on(
    kd: Kd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> Iterator[object]:
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / "recipe.toml").touch()
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr("kd_edge.study.runner.train", interrupted)
    code, out, error = kd("study", "run", "generated_dense", "--rows", "alone", "--seeds", "0")
    assert (code, "the table" in out) == (130, False)
    assert "interrupted; repeat the command to resume" in error
    monkeypatch.setattr("kd_edge.train.trainer.train", interrupted)
    code, out, error = kd("train", "quickstart", "--out", "run", "--json")
    assert (code, out) == (130, "")
    assert "interrupted; resume with: kd-edge train --resume run" in error
    code, _, error = kd("train", "quickstart", "--out", "other")  # before it has begun: nothing to go on with
    assert (code, "interrupted" in error) == (130, False)


def test_a_row_that_is_shown_tells_its_own_seeds(kd: Kd) -> None:
    _, out, _ = kd("study", "show", "utd_mhad_dense")
    seeds = {row.split()[0]: row for row in out.replace("│", " ").splitlines() if row.strip()}
    assert seeds["joints"].split()[-6:-1] == ["0,", "1,", "2,", "3,", "4"]
    assert seeds["signals"].split()[-4:-1] == ["0,", "1,", "2"]
    assert seeds["crc"].split()[-3:-1] == ["crc", "0"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["study", "run", "mgcam_tabel1"], ["unknown study", "did you mean 'mgcam_table1'"]),
        (["study", "run", "mgcam_table1", "--rows", "att"], ["no row 'att'", "did you mean 'at'"]),
        (["study", "run", "mgcam_table1", "--seeds", "a"], ["--seeds a", "0,1,2"]),
        (["study", "report", "mgcam_table1", "--into", "none.md"], ["no finished run", "study run mgcam_table1"]),
        (["train", "--resume", "x", "--dry-run"], ["--resume with"]),
    ],
)
def test_a_mistake_in_a_study_is_one_line(kd: Kd, arguments: list[str], parts: list[str]) -> None:
    code, _, error = kd(*arguments)
    assert code == 2
    for part in parts:
        assert part in one_line(error)


@pytest.mark.slow
def test_rows_that_are_only_read_say_so(kd: Kd) -> None:
    _, out, _ = kd("study", "list")
    assert "14 rows (3 only read), 11 runs" in next(line for line in out.splitlines() if "sakdn_table2" in line)
    _, out, _ = kd("study", "show", "sakdn_table6")
    assert "read of akdn: teacher/gyroscope" in out
    _, out, _ = kd("study", "show", "sakdn_table3")
    assert "not run: needs RGB beside the sensors at test time" in out
    code, _, error = kd("study", "show", "sakdn_table3", "--row", "mflf")
    assert code == 2
    assert "row 'mflf' cannot be run, it needs RGB beside the sensors" in one_line(error)
    _, out, _ = kd("study", "report", "sakdn_table2", "--json")
    line = next(line for line in json.loads(out) if line["name"] == "mkl")
    assert line["needs"].startswith("accelerometers and depth")
    assert line["cells"]["subjects"]["published"] == 97.81
