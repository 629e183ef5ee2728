"""The command line as its user meets it: output, exit codes, and one clear line for every mistake."""

from __future__ import annotations

import builtins
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kd_edge import artifact, cli, recipes
from kd_edge.evaluate.robustness import corrupted_test
from kd_edge.train.recipe import Recipe
from tests.cli.conftest import TINY_SETTINGS, Kd, one_line, unload
from tests.runs import tiny_values


@pytest.mark.usefixtures("drawn")
def test_train_export_evaluate_run(kd: Kd, tmp_path: Path) -> None:
    code, text, _ = kd("train", "quickstart", *TINY_SETTINGS, "--json", "--out", "runs/tiny")
    assert code == 0
    summary = json.loads(text)
    assert set(summary["stages"]) == {"teacher", "student"}
    assert (tmp_path / "runs/tiny/plots/curves.png").stat().st_size > 10_000
    code, text, _ = kd("export", "--fp16", "--json")  # the newest run
    assert code == 0
    assert json.loads(text)["parity"]["argmax_agreement"] == 1.0
    code, text, _ = kd("evaluate", "student.onnx", "--streaming", "--json")
    assert code == 0
    figures = json.loads(text)
    assert figures["clip"]["clips"] == figures["streaming"]["every"]["clips"] == summary["protocol"]["test_samples"]
    assert figures["clip"]["accuracy"] == pytest.approx(summary["stages"]["student"]["test"]["accuracy"], abs=0.101)
    camera = "synthetic:?realtime=false&frames=150"
    code, text, error = kd("run", "--camera", camera, "--duration", "3600", "--sink", "jsonl:labels.jsonl")
    assert code == 0
    assert "model student.onnx" in error
    rows = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    states = {row["state"] for row in rows}
    assert "warming" in states
    assert states & {"ok", "degraded"}
    assert kd("run", "--camera", "synthetic:", "--duration", "0.1")[0] == 0  # a camera that never ends by itself
    code, text, _ = kd("study", "table", "runs/tiny")
    assert code == 0
    assert "CE + DKD + MGCAM" in text


@pytest.mark.slow  # two exports and five evaluations; each verb has its quick tests elsewhere
def test_one_command_from_recordings_to_an_artifact_and_its_tables(kd: Kd, tmp_path: Path) -> None:
    alone = Recipe.model_validate(tiny_values(name="tiny", teacher=None, losses=[]))
    (tmp_path / "tiny.toml").write_text(recipes.to_toml(alone))
    code, text, _ = kd("train", "tiny.toml", "--json", "--out", "runs/tiny", "--export", "student.onnx")
    assert code == 0
    made = json.loads(text)
    assert (made["export"]["precision"], made["export"]["file"]) == ("fp32", "student.onnx")
    manifest = artifact.load(tmp_path / "student.onnx").manifest
    assert manifest.recipe_fingerprint == made["training"]["recipe_fingerprint"]
    figures = json.loads(kd("evaluate", "student.onnx", "--streaming", "--json")[1])
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- robustness -->\n<!-- /robustness -->\nafter\n")
    code, text, _ = kd("study", "robustness", "tiny=student.onnx", "--into", "page.md")
    assert (code, text) == (0, "1 row in page.md\n")
    assert "| illumination fall-off |" in page.read_text()
    code, _, error = kd("study", "robustness", "--against", "other")
    assert (code, "--against other, which is not a row of the table" in one_line(error)) == (2, True)
    code, _, error = kd("study", "robustness", "new=gone", "--against", "other")
    assert "--against other, which is not a row of the table. Expected one of tiny, new" in one_line(error)
    code, text, _ = kd("study", "robustness", "--json")  # from the ledger alone
    lines = json.loads(text)
    assert len(lines) == 19
    assert lines[0]["kind"] == "blur", "sorted, so that two machines' lines merge"
    clean = next(line for line in lines if line["kind"] == "clean")
    assert clean["accuracy"] == figures["clip"]["accuracy"]
    page.write_text("<!-- shipped -->\n<!-- /shipped -->\n")
    for _ in range(2):  # the second time from the ledger
        code, text, _ = kd("study", "shipped", "tiny=student.onnx", "--into", "page.md")
        assert (code, text) == (0, "1 row in page.md\n")
    assert page.read_text().count("| tiny | fp32 |") == 1
    (line,) = json.loads(kd("study", "shipped", "--json")[1])
    assert line["accuracy"] == figures["clip"]["accuracy"]
    assert line["stream_accuracy"] == figures["streaming"]["every"]["accuracy"]
    assert line["stream_accuracy"] - line["accuracy"] == pytest.approx(figures["stream_change"], abs=1e-12)

    # Another model under the same name is judged, and the table has it; the one before, where it is asked for.
    known = artifact.load(tmp_path / "student.onnx")
    other = artifact.rewrite(
        known, known.manifest.model_copy(update={"unknown_threshold": 0.9}), tmp_path / "other.onnx"
    )
    for file, content in (("other", other.manifest_sha256), ("student", manifest.manifest_sha256)):
        (line,) = json.loads(kd("study", "shipped", f"tiny={file}.onnx", "--json")[1])
        assert line["content"] == content
    (line,) = json.loads(kd("study", "shipped", "--json")[1])
    assert line["content"] == other.manifest_sha256, "the last that was measured"
    _, text, error = kd("study", "shipped", "mine=other.onnx", "--json")
    assert [line["row"] for line in json.loads(text)] == ["mine"], "the table is of what was named"
    assert "results saved in docs/results/shipped.jsonl" in error
    assert [line["row"] for line in json.loads(kd("study", "shipped", "--json")[1])] == ["mine", "tiny"]
    assert len((tmp_path / "docs/results/shipped.jsonl").read_text().splitlines()) == 3
    weights = (tmp_path / "runs/tiny/student.safetensors").read_bytes()
    with corrupted_test(tmp_path / "runs/tiny") as test:
        assert test.content == hashlib.sha256(weights).hexdigest()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["runs/a"], "'runs/a'. Expected ROW=RUN"),
        (["A b=runs/a"], "'A b=runs/a'. Expected ROW=RUN"),
        (["a=gone"], "gone"),
        ([], "no figures in docs/results/robustness.jsonl"),
        (["--rows", "alone"], "no figures in"),
    ],
)
def test_faults_of_a_robustness_table(kd: Kd, tmp_path: Path, arguments: list[str], part: str) -> None:
    code, _, error = kd("study", "robustness", *arguments)
    assert code == 2
    assert part in one_line(error)
    assert not list(tmp_path.rglob("*.jsonl"))


def test_faults_of_a_table_of_what_ships(kd: Kd, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for arguments, part in (
        (["best=gone.onnx"], "gone.onnx"),
        (["best=run"], "run"),
        (["--rows", "best"], "no figures in docs/results/shipped.jsonl"),
    ):
        code, _, error = kd("study", "shipped", *arguments)
        assert code == 2
        assert part in one_line(error)
    assert not list(tmp_path.rglob("*.jsonl"))


def test_help_ends_in_examples(kd: Kd) -> None:
    for verb in ("train", "export", "run", "evaluate", "bench", "demo"):
        code, text, _ = kd(verb, "--help")
        assert code == 0
        assert "Example" in text
        assert f"kd-edge {verb}" in text


def test_cameras_as_json(kd: Kd) -> None:
    code, text, _ = kd("cameras", "--json")
    assert code == 0
    assert "ir0" in {camera["name"] for camera in json.loads(text)["configured"]}


@pytest.mark.slow
def test_recipes_are_listed_shown_and_copied(kd: Kd, tmp_path: Path) -> None:
    _, text, _ = kd("recipes", "list", "--json")
    assert {"quickstart", "bundled", "utd_mhad_pose_to_depth", "utd_mhad_depth_alone"} <= set(json.loads(text))
    _, shown, _ = kd("recipes", "show", "quickstart")
    code, _, _ = kd("recipes", "copy", "quickstart")
    assert code == 0
    assert (tmp_path / "train" / "recipes" / "quickstart.toml").read_text() == shown
    code, _, error = kd("recipes", "copy", "quickstart")
    assert code == 2
    assert "already there" in one_line(error)


def test_a_listed_recipe_says_a_whole_sentence(kd: Kd, tmp_path: Path) -> None:
    place = tmp_path / "train" / "recipes"
    place.mkdir(parents=True)
    (place / "mine.toml").write_text(
        "# Two rooms, v1.2: a student\n# of the day. And more.\nname = 'mine'  # not this\n"
    )
    _, text, _ = kd("recipes", "list")
    assert "mine  Two rooms, v1.2: a student of the day" in text.splitlines()


def test_a_study_of_which_nothing_ran_says_where_it_looked(kd: Kd) -> None:
    code, text, error = kd("study", "report", "quickstart", "--out", "elsewhere")
    assert code == 0
    assert "not run" in text
    where = "no finished run of quickstart in elsewhere, and no figures of it in docs/results/quickstart.jsonl"
    assert where in error


def test_settings_of_a_stage_that_a_recipe_has_not_are_refused(kd: Kd) -> None:
    code, _, error = kd("train", "utd_mhad_best", "--set", "student.epochs=3")
    assert code == 2
    assert "stages.dense, stages.head. Fix: for example --set stages.dense.epochs=..." in one_line(error)


@pytest.mark.slow
def test_synthetic_clips_are_written_and_replayed(kd: Kd, tmp_path: Path) -> None:
    code, _, _ = kd("data", "synth", "--out", "figures", "--clips-per-class", "1")
    assert code == 0
    code, text, _ = kd("data", "check", "files", "--data", "figures", "--quick")
    assert code == 0
    assert "figures: 10 samples, 10 complete, 10 classes (1 to 1 samples each), 1 subject" in text
    clip = next((tmp_path / "figures").glob("*_nir.npy"))
    code, _, error = kd("run", "--camera", f"replay:{clip}", "--sink", "jsonl:out.jsonl")
    assert code == 0
    assert f"{len(np.load(clip))} frames labelled" in error
    code, _, error = kd("data", "synth", "--out", "figures")
    assert code == 2
    assert "is not an empty folder" in one_line(error)


# ----------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["train", "quikstart"], ["unknown recipe 'quikstart'", "did you mean 'quickstart'?"]),
        (["train", "--set", "student.epohs=3"], ["student.epohs: unknown key", "did you mean 'epochs'?"]),
        (["train", "--set", "student.epochs=many"], ["student.epochs", "valid integer", "got 'many'"]),
        (["train", "--set", "student.epochs=0"], ["student.epochs", "greater than or equal to 1", "got 0"]),
        (["train", "--set", "split=odds"], ["odds", "subjects"]),
        (["train", "utd_mhad_depth_alone"], ["no folder given", "KD_EDGE_DATA"]),
        (["train", "utd_mhad_depth_alone", "--data", "nowhere"], ["nowhere"]),
        (["train", "utd_mhad_depth_alone", "--data", "."], ["Depth"]),
        (["train", "--export", "gone/a.onnx"], ["--export gone/a.onnx is in gone, which is not a folder"]),
        (["train", "--export", "."], ["--export . is a folder"]),
        (["train", "--export", "a.onnx", "--dry-run"], ["--export with --dry-run"]),
        (["train", "--resume", "gone"], ["gone"]),
        (["train", "--resume"], ["no unfinished run"]),
        (["train", "--resume", "--seed", "1"], ["--resume alone"]),
        (["export"], ["no finished run in runs/", "kd-edge train"]),
        (["export", "gone"], ["no run gone", "kd-edge train"]),
        (["export", "--profile", "fp61"], ["unknown profile 'fp61'", "did you mean 'fp16'?"]),
        (["evaluate", "gone.onnx"], ["no file gone.onnx"]),
        (["run", "--camera", "ir0"], ["ir0", "/dev/video", "kd-edge cameras"]),
        (["run", "--camera", "ir1"], ["unknown camera 'ir1'", "did you mean 'ir0'?"]),
        (["run", "--camera", "replai:x"], ["replai", "did you mean 'replay'?"]),
        (["run", "--camera", "replay:gone.npy"], ["gone.npy"]),
        (["run", "--camera", "synthetic:", "--sink", "jsonl:/proc/no/labels"], ["/proc/no"]),
        (["run", "--camera", "synthetic:", "--sink", "json:x"], ["json:x", "did you mean 'jsonl'?"]),
        (["run", "--camera", "synthetic:", "--provider", "tpu"], ["provider 'tpu'", "cpu, cuda, gpu, npu"]),
        (["run", "--camera", "synthetic:", "--engine", "onnxruntim"], ["(did you mean 'onnxruntime'?)"]),
        (["run", "--camera", "synthetic:", "--engine", "onnxruntime", "--provider", "npu"], ["--engine openvino"]),
        (["evaluate", "gone.onnx", "--engine", "opnvino"], ["did you mean 'openvino'?"]),
        (["bench", "gone.onnx", "--engine", "openvno"], ["did you mean 'openvino'?"]),
        (["bench"], ["ARTIFACT", "--reference"]),
        (["bench", "--reference", "resnet81"], ["resnet81", "did you mean 'resnet18'?"]),
        (["data", "check", "utd_mad"], ["no data set or recipe 'utd_mad'", "did you mean 'utd_mhad'?"]),
        (["recipes", "show", "bundeld"], ["unknown recipe 'bundeld'", "did you mean 'bundled'?"]),
        (["study", "table", "gone"], ["no run gone"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0] in cli_verbs() else "",
)
def test_a_mistake_is_one_line_and_exit_code_2(kd: Kd, tmp_path: Path, arguments: list[str], parts: list[str]) -> None:
    code, text, error = kd(*arguments)
    assert code == 2
    line = one_line("\n".join(row for row in error.splitlines() if not row.startswith("model ")))
    for part in parts:
        assert part in line
    assert text == ""
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "student.onnx").exists()


def cli_verbs() -> tuple[str, ...]:
    return ("train", "export", "evaluate", "run", "bench", "data", "recipes", "study")


@pytest.mark.parametrize("fault", ["foreign", "truncated", "damaged"])
def test_a_bad_model_file(kd: Kd, tmp_path: Path, fault: str) -> None:
    content = bytearray(artifact.BUNDLED.read_bytes())
    if fault == "foreign":
        content[:] = b"PK\x03\x04" + bytes(100)
    elif fault == "truncated":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 0xFF
    (tmp_path / "bad.onnx").write_bytes(content)
    code, _, error = kd("run", "--camera", "synthetic:", "--model", "bad.onnx", "--duration", "1")
    assert code == 2
    expected = {"foreign": "is not an ONNX model", "truncated": "is truncated", "damaged": "is damaged"}[fault]
    assert expected in error


@pytest.mark.slow
def test_an_unwritable_output_folder(kd: Kd, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    code, _, error = kd("train", "quickstart", *TINY_SETTINGS, "--out", "file/run")
    assert code == 2
    assert "cannot be written" in one_line(error)


def test_a_missing_extra_is_named(kd: Kd, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_torch(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return real(name, *args, **kwargs)

    unload(monkeypatch, "kd_edge.train", "kd_edge.models", "kd_edge.export")
    monkeypatch.setattr(builtins, "__import__", without_torch)
    code, _, error = kd("train")
    assert code == 2
    assert "[train]" in one_line(error)


@pytest.mark.slow
def test_a_corrupt_recording_is_named_and_the_rest_goes_on(kd: Kd, tmp_path: Path, utd_root: Path) -> None:
    for folder, kind in (("Depth", "depth"), ("Skeleton", "skeleton"), ("Inertial", "inertial")):
        (tmp_path / "utd" / folder).mkdir(parents=True)
        for subject in (1, 2):
            for action in range(1, 28):
                name = f"{folder}/a{action}_s{subject}_t1_{kind}.mat"
                (tmp_path / "utd" / name).symlink_to(utd_root / name)
    broken = tmp_path / "utd" / "Depth" / "a3_s2_t1_depth.mat"
    broken.unlink()
    broken.write_bytes(b"not a mat file")
    small = [p for p in TINY_SETTINGS if p != "--set" and p.startswith("student")]
    settings = [part for s in (*small, "validation_subjects=[]") for part in ("--set", s)]
    code, _, error = kd("train", "utd_mhad_pose_to_depth_alone", "--data", "utd", *settings, "--out", "runs/utd")
    assert code == 0
    assert "a3_s2_t1" in error
    assert "1 samples cannot be used" in error
    summary = json.loads((tmp_path / "runs/utd/summary.json").read_text())
    assert summary["protocol"]["test_samples"] == 26
    code, text, _ = kd("data", "check", "utd_mhad", "--data", "utd", "--modality", "depth")
    assert code == 1
    assert "a3_s2_t1" in text


def test_a_class_without_a_sample(kd: Kd, tmp_path: Path, utd_root: Path) -> None:
    for folder, kind in (("Depth", "depth"), ("Skeleton", "skeleton"), ("Inertial", "inertial")):
        (tmp_path / "utd" / folder).mkdir(parents=True)
        for subject in (1, 2):
            name = f"{folder}/a1_s{subject}_t1_{kind}.mat"
            (tmp_path / "utd" / name).symlink_to(utd_root / name)
    code, _, error = kd("train", "utd_mhad_depth_alone", "--data", "utd")
    assert code == 2
    assert "swipe right" in one_line(error)


def test_training_is_not_overwritten(kd: Kd, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    shutil.copy(Path(__file__).parents[2] / "train" / "recipes" / "quickstart.toml", folder / "recipe.toml")
    code, _, error = kd("train", "--out", "runs/mine")
    assert code == 2
    assert "contains a run already" in one_line(error)


@pytest.mark.slow
def test_bench_live(tmp_path, kd):
    code, text, _ = kd("bench", "--soak", "1000", "--size", "64x48", "--json")
    assert code == 0
    report = json.loads(text)
    assert report["frames"] == 1000
    assert report["labels"].get("ok", 0) + report["labels"].get("degraded", 0) > 100  # a figure, no noise
    code, text, error = kd("bench", "--soak", "1000", "--overload")
    assert (code, "--overload and --soak" in error) == (2, True)


@pytest.mark.slow
def test_ctrl_c_while_the_program_is_still_being_loaded_is_no_traceback() -> None:
    script = """
import sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == "kd_edge.cli.sign":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
import kd_edge.cli
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (130, "")


def test_ctrl_c_before_a_verb_begins_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", interrupted)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130


def test_no_word_at_all_is_completed_to_none() -> None:
    """``kd-edge`` alone prints its help."""
    assert cli._completed([]) == []
    assert cli._completed(["train", "--resume"]) == ["train", "--resume", "latest"]
    assert cli._completed(["doctor", "--json", "--hardware"]) == ["doctor", "--json", "-", "--hardware"]
