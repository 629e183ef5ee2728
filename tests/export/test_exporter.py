from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from pydantic import ValidationError

from kd_edge import recipes
from kd_edge.artifact import load
from kd_edge.errors import ArtifactError, ExportError
from kd_edge.export import Exported, ExportProfile, export
from kd_edge.export.parity import Comparison, stage_faults
from kd_edge.models import ModelConfig
from kd_edge.runtime import Recognizer
from kd_edge.types import Float32
from tests.runs import write_run

FP32 = recipes.load("export", "fp32", ExportProfile)
FP16 = recipes.load("export", "fp16", ExportProfile)


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(run, FP32, tmp_path_factory.mktemp("out") / "student.onnx")


def test_every_shipped_profile_validates_and_is_named_after_its_file() -> None:
    assert {"fp16", "fp32"} <= set(recipes.names("export"))
    for name in recipes.names("export"):
        assert recipes.load("export", name, ExportProfile).name == name


def test_manifest_is_filled_from_the_run(exported: Exported) -> None:
    manifest = exported.artifact.manifest
    assert manifest.name == "thin"
    assert (manifest.modality, manifest.band, manifest.dtype) == ("nir", "nir", "uint8")
    assert manifest.value_range == (0.0, 255.0)
    assert len(manifest.labels) == 10
    assert (manifest.segments, manifest.clip_seconds, manifest.spacing_ns) == (8, 2.0, 250_000_000)
    assert (manifest.feature_size, manifest.temporal, manifest.graph, manifest.precision) == (
        24,
        "tconv",
        "step",
        "fp32",
    )
    assert (manifest.temperature, manifest.unknown_threshold) == (1.5, 0.2)
    assert manifest.accuracy == {"accuracy": 0.75, "macro_f1": 0.7}
    assert (manifest.recipe_fingerprint, manifest.data_fingerprint) == ("r", "d")
    assert manifest.versions["train_torch"] == "0.0"
    assert {"kd_edge", "torch", "onnx", "onnxruntime"} <= manifest.versions.keys()


def test_step_reproduces_the_clip_model_on_real_clips(exported: Exported) -> None:
    parity = exported.artifact.manifest.parity
    assert parity is not None
    assert parity.max_abs_error <= 1e-5
    assert parity.argmax_agreement == 1.0
    assert 1e-5 <= parity.tolerance < 2e-5
    assert parity.clips == 10  # one subject of four


def test_graph_is_plain_onnx_with_the_agreed_names(exported: Exported) -> None:
    model = onnx.load(exported.artifact.path)
    onnx.checker.check_model(model, full_check=True)
    shapes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
    assert shapes == {"frame": ["batch", 3, 32, 32], "past": ["batch", 7, 24]}
    assert [o.name for o in model.graph.output] == ["feature", "logits"]
    assert "BatchNormalization" not in {n.op_type for n in model.graph.node}
    assert (exported.report.opset, model.opset_import[0].version) == (20, 20)


@pytest.mark.slow
def test_a_head_on_regressed_numbers_alone_ships_and_streams_with_them(tmp_path: Path) -> None:
    model = ModelConfig(backbone="tiny", temporal="tcn", hidden=16, regressed=5, reads="targets")
    made = export(write_run(tmp_path / "run", model=model), FP32, tmp_path / "student.onnx")
    shapes = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*onnx.load(made.artifact.path).graph.input, *onnx.load(made.artifact.path).graph.output)
    }
    assert shapes["past"] == ["batch", 7, 5]
    assert shapes["feature"] == ["batch", 5]
    parity = made.artifact.manifest.parity
    assert parity is not None
    assert parity.max_abs_error <= 1e-5
    assert made.artifact.manifest.feature_size == 5
    recognizer = Recognizer.load(made.artifact)
    assert recognizer.self_test_error is not None
    assert recognizer.self_test_error <= 1e-5


def test_file_tells_nothing_of_the_machine_that_made_it(exported: Exported) -> None:
    content = exported.artifact.path.read_bytes()
    for trace in (str(Path(__file__).parents[2]), "site-packages", "streaming.py", "stack_trace"):
        assert trace.encode() not in content


def test_recognizer_passes_the_self_test_and_takes_a_batch(exported: Exported) -> None:
    recognizer = Recognizer.load(exported.artifact)
    assert recognizer.self_test_error is not None
    assert recognizer.self_test_error <= 1e-5
    frame = np.zeros((64, 80), dtype=np.uint8)
    assert set(recognizer.push_many({"a": (frame, 1), "b": (frame, 1), "c": (frame, 1)})) == {"a", "b", "c"}


def test_self_test_notices_another_preprocessing(exported: Exported, tmp_path: Path) -> None:
    from kd_edge.artifact import write

    manifest = exported.artifact.manifest
    wrong = manifest.model_copy(update={"preprocess": manifest.preprocess.model_copy(update={"std": (0.25,)})})
    graph = onnx.load(exported.artifact.path)
    del graph.metadata_props[:]
    write(graph.SerializeToString(), wrong, exported.artifact.golden, tmp_path / "wrong.onnx")
    with pytest.raises(ArtifactError, match="self-test"):
        Recognizer.load(tmp_path / "wrong.onnx")


@pytest.mark.slow
def test_fp16_keeps_float32_inputs_and_outputs(run: Path, exported: Exported, tmp_path: Path) -> None:
    half = export(run, FP16, tmp_path / "half.onnx")
    model = onnx.load(half.artifact.path)
    onnx.checker.check_model(model, full_check=True)
    floats = {v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)}
    assert floats == {onnx.TensorProto.FLOAT}
    assert {w.data_type for w in model.graph.initializer} <= {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64}
    assert half.artifact.manifest.precision == "fp16"
    assert half.artifact.manifest.parity is not None
    assert 0 < half.artifact.manifest.parity.max_abs_error <= half.artifact.manifest.parity.tolerance
    assert half.report.graph_bytes < 0.8 * exported.report.graph_bytes
    assert Recognizer.load(half.artifact).self_test_error is not None


def test_clip_graph(run: Path, tmp_path: Path) -> None:
    whole = export(run, FP32.model_copy(update={"graph": "clip"}), tmp_path / "clip.onnx")
    assert whole.artifact.manifest.parity is not None
    assert whole.artifact.golden is None
    assert (whole.artifact.manifest.health, whole.artifact.manifest.familiar) == (None, None)
    assert [i.name for i in onnx.load(whole.artifact.path).graph.input] == ["clip"]


def test_report_counts_the_work(exported: Exported) -> None:
    report = exported.report
    assert report.file_bytes == exported.artifact.path.stat().st_size
    # first convolution of the tiny net alone: 16x16 outputs, 8 channels, 3*3*3 weights, two operations each
    assert report.step_flops > 16 * 16 * 8 * 27 * 2
    assert 6 < report.clip_flops / report.step_flops < 8
    assert json.loads(report.model_dump_json())["golden_frames"] == report.golden_frames > 8


@pytest.mark.slow
def test_out_of_bound_writes_nothing(run: Path, tmp_path: Path) -> None:
    strict = FP32.model_copy(update={"max_abs_error": 1e-12})
    with pytest.raises(ExportError, match="differs from the trained model by"):
        export(run, strict, tmp_path / "never.onnx")
    assert list(tmp_path.iterdir()) == []


ANSWERS = np.array([[4.0, 0.0], [1.0, 3.0], [2.5, 1.5]], dtype=np.float32)  # the largest logit is 4
TRUTH = np.array([0, 1, 1])


def judged(found: Float32, **bounds: float) -> list[str]:
    """What of a graph's answers is out of bounds, by the trained model's ``ANSWERS``."""
    comparison = Comparison(
        np.arange(3, dtype=np.float32),  # the number of a clip is all that the model needs
        TRUTH,
        lambda clip: ANSWERS[clip.astype(int)],
        runner="torch",
        classes=2,
        temperature=1.0,
        side="validation clips",
    )
    profile = ExportProfile.model_validate({"name": "mine", "max_abs_error": 0.5, **bounds})
    answers = comparison.scored("int8", "onnxruntime", found, before=ANSWERS, milliseconds=1.0)
    return [fault.found for fault in stage_faults(answers, comparison, profile, "max_abs_error")]


def test_bounds_grow_with_the_logits_and_fail_closed() -> None:
    assert judged(ANSWERS + np.float32(1.9)) == []  # 0.5 times the largest logit is 2
    assert judged(ANSWERS - np.float32(2.5)) == ["differs from the trained model by 2.5 on 3 clips"]
    broken = ANSWERS.copy()
    broken[0, 1] = np.nan
    assert judged(broken)[0] == "differs from the trained model by inf on 3 clips"


def test_a_class_that_changes_is_out_of_bounds() -> None:
    flipped = ANSWERS + np.array([[0, 0], [0, 0], [-1, 1]], dtype=np.float32)  # the third clip: from wrong to right
    assert judged(flipped) == ["names the same class on only 66.7% of 3 clips"]
    assert judged(flipped, min_argmax_agreement=0.6) == []
    worse = ANSWERS + np.array([[0, 0], [1.5, -1.5], [0, 0]], dtype=np.float32)  # the second: from right to wrong
    loose = {"min_argmax_agreement": 0.0}
    assert judged(worse, max_accuracy_drop=0.3, **loose) == [
        "is right on 33.3% of 3 clips where the trained model is on 66.7%"
    ]
    assert judged(worse, max_accuracy_drop=0.34, **loose) == []


def test_no_run_and_unfinished_run(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="train one first: kd-edge train"):
        export(tmp_path / "nothing", FP32, tmp_path / "a.onnx")
    (tmp_path / "started").mkdir()
    (tmp_path / "started" / "recipe.toml").touch()
    with pytest.raises(ExportError, match=r"has no summary.json.*--resume"):
        export(tmp_path / "started", FP32, tmp_path / "a.onnx")
    half_way = shutil.copytree(run, tmp_path / "half_way")
    (half_way / "student.safetensors").unlink()
    with pytest.raises(ExportError, match=r"student.safetensors is missing"):
        export(half_way, FP32, tmp_path / "a.onnx")
    (half_way / "student.safetensors").write_bytes(b"garbage")
    with pytest.raises(ExportError, match="damaged student"):
        export(half_way, FP32, tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()


def test_unwritable_folder(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match="cannot be written"):
        export(run, FP32, tmp_path / "file" / "student.onnx")


def test_full_disk_leaves_the_old_file(exported: Exported, tmp_path: Path) -> None:
    """A file-size limit stands in for the full disk; a process of its own, for the limit stays."""
    old = tmp_path / "student.onnx"
    old.write_bytes(b"old")
    script = (
        "import resource, signal, sys; from pathlib import Path; from kd_edge.artifact import load, write\n"
        "from kd_edge.errors import ArtifactError\n"
        "a = load(sys.argv[1]); body = Path(sys.argv[1]).read_bytes()\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write(body, a.manifest, a.golden, Path(sys.argv[2]))\n"
        "except ArtifactError as error: raise SystemExit(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(exported.artifact.path), str(old)], check=False)
    assert done.returncode == 7
    assert [p.name for p in tmp_path.iterdir()] == ["student.onnx"]
    assert old.read_bytes() == b"old"


def test_exported_file_is_verified(exported: Exported, tmp_path: Path) -> None:
    damaged = bytearray(exported.artifact.path.read_bytes())
    damaged[len(damaged) // 3] ^= 1
    (tmp_path / "damaged.onnx").write_bytes(damaged)
    with pytest.raises(ArtifactError):
        load(tmp_path / "damaged.onnx")


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"carry": ("ncnn",), "graph": "clip"}, "an ncnn model with a clip graph"),
        ({"carry": ("ncnn",), "precision": "int8"}, "an ncnn model with int8"),
        ({"engine": "ncnn"}, "engine 'ncnn' without an ncnn model"),
    ],
)
def test_what_ncnn_cannot_run_is_refused_at_once(
    run: Path, tmp_path: Path, changes: dict[str, object], found: str
) -> None:
    told: list[str] = []
    with pytest.raises(ExportError, match=found):
        export(run, FP32.model_copy(update=changes), tmp_path / "a.onnx", say=told.append)
    assert (told, list(tmp_path.iterdir())) == ([], [])


def test_a_profile_without_bounds_has_those_of_its_precision() -> None:
    assert ExportProfile(name="mine").max_abs_error == 1e-5
    assert ExportProfile(name="mine", precision="fp16").max_abs_error == 0.002
    assert ExportProfile(name="mine", precision="int8").max_abs_error == 0.2
    assert ExportProfile(name="mine", precision="int8", max_abs_error=0.3).max_abs_error == 0.3
    for broken in ({"engine": "auto"}, {"max_abs_error": math.inf}, {"golden_tolerance": math.nan}):
        with pytest.raises(ValidationError):
            ExportProfile.model_validate({"name": "mine", **broken})


def test_a_file_that_cannot_be_written_is_refused_at_once(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path, tmp_path / "file" / "a.onnx"):
        told: list[str] = []
        with pytest.raises(ArtifactError, match="cannot be written"):
            export(run, FP32, out, say=told.append)
        assert told == []
    with pytest.raises(ExportError, match="is a file"):
        export(run, FP32, tmp_path / "a.onnx", report=tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
