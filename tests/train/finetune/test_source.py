"""What can be fine-tuned from, and what is refused, in one line each."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kd_edge import artifact
from kd_edge.adapt.gate import Gate
from kd_edge.errors import KdEdgeError, MissingExtraError, TrainingError
from kd_edge.models import ModelConfig, build_model
from kd_edge.models.backbones import build_backbone
from kd_edge.models.saved import SavedStudent
from kd_edge.train.finetune import source as sources
from kd_edge.train.finetune.begin import ready
from kd_edge.train.finetune.source import Source, open_source
from kd_edge.train.recipe import Recipe, StudentConfig
from tests.adapt.test_graph import added
from tests.train.finetune.conftest import alone


def opened(name: object) -> Source:
    found = open_source(StudentConfig.model_validate({"modality": "nir", "source": str(name)}))
    assert found is not None
    return found


def test_a_student_that_begins_otherwise_has_no_source() -> None:
    assert open_source(StudentConfig(modality="nir")) is None
    recipe = Recipe.model_validate(alone())
    assert ready(recipe) is recipe


def test_a_run_gives_its_weights_and_says_how_it_saw(finished: Path) -> None:
    found, saved = opened(finished), SavedStudent.load(finished)
    weights = load_file(finished / "student.safetensors")
    assert found.weights.keys() == weights.keys()
    assert all(torch.equal(value, found.weights[key]) for key, value in weights.items())
    assert (found.kind, found.is_folded, len(found.sha256)) == ("run", False, 64)
    assert found.facts is not None
    assert found.facts.labels == saved.spec.labels
    assert (found.facts.data, found.facts.split, found.facts.segments) == ("synthetic", "subjects", 4)


def test_an_artifact_gives_what_stands_in_its_graph(finished: Path, exported: Path) -> None:
    found, weights = opened(exported), load_file(finished / "student.safetensors")
    assert (found.kind, found.is_folded, found.precision) == ("artifact", True, "fp32")
    assert torch.equal(found.weights["head.classifier.weight"], weights["head.classifier.weight"])
    scale = weights["backbone.layer1.1.weight"] / (weights["backbone.layer1.1.running_var"] + 1e-5).sqrt()
    torch.testing.assert_close(
        found.weights["backbone.layer1.0.weight"], weights["backbone.layer1.0.weight"] * scale[:, None, None, None]
    )
    assert found.facts is not None
    assert found.facts.labels == SavedStudent.load(finished).spec.labels


def test_of_an_adapted_artifact_the_classes_are_those_of_its_network(exported: Path, tmp_path: Path) -> None:
    parent = artifact.load(exported)
    gate = Gate(np.ones(parent.manifest.feature_size, dtype=np.float32), 0.0)
    adapted = added(parent, tmp_path / "adapted.onnx", "a new one", gate)
    assert adapted.manifest.labels[-1] == "a new one"
    found, before = opened(adapted.path), opened(exported)
    assert found.facts is not None
    assert found.facts.labels == parent.manifest.labels
    own = {key for key in found.weights if key.startswith(("backbone.", "head."))}
    assert own == set(before.weights)
    assert all(torch.equal(found.weights[key], before.weights[key]) for key in own)


def test_the_bundled_student_is_a_source() -> None:
    found = opened("bundled")
    assert (found.kind, found.precision) == ("artifact", "fp16")
    assert found.facts is not None
    assert found.facts.labels == artifact.load(artifact.BUNDLED).manifest.labels
    assert found.weights["backbone.conv1.weight"].shape == (32, 3, 7, 7)


def test_files_of_weights_with_prefixes_and_nestings(tmp_path: Path) -> None:
    model = build_model(ModelConfig(backbone="tiny", temporal="tsn"), 1, 3, 2)
    state = model.state_dict()
    parallel = {f"module.{key}": value for key, value in state.items()}
    torch.save(parallel, tmp_path / "parallel.pt")
    for nesting in ("state_dict", "model", "student"):
        torch.save({nesting: parallel, "epoch": 3}, tmp_path / f"{nesting}.pth")
    save_file(state, tmp_path / "plain.safetensors")
    for path in sorted(tmp_path.iterdir()):
        found = opened(path)
        assert (found.kind, found.facts) == ("file", None)
        assert found.weights.keys() == state.keys(), path
        assert all(torch.equal(value, found.weights[key]) for key, value in state.items())


def test_a_backbone_alone_gets_its_place(tmp_path: Path) -> None:
    state = build_backbone("tiny", in_channels=3).state_dict()
    save_file(state, tmp_path / "backbone.safetensors")
    assert opened(tmp_path / "backbone.safetensors").weights.keys() == {f"backbone.{key}" for key in state}


# ------------------------------------------------------------------------------------------------------ bad input


class Code:
    """What a pickle would run."""

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return exec, ("raise SystemExit('it ran')",)


def refused(name: object, kind: type[KdEdgeError] = KdEdgeError) -> str:
    with pytest.raises(kind) as caught:
        opened(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_paths_that_hold_nothing(tmp_path: Path) -> None:
    for name in ("gone", "gone.safetensors", "gone.onnx", "gone/run"):
        assert "gone" in refused(tmp_path / name)
    (tmp_path / "folder").mkdir()
    assert "is not finished (it has no summary.json)" in refused(tmp_path / "folder")
    (tmp_path / "empty.pt").write_bytes(b"")
    assert "it is empty" in refused(tmp_path / "empty.pt")
    (tmp_path / "empty.onnx").write_bytes(b"")
    assert "empty.onnx" in refused(tmp_path / "empty.onnx")


def test_a_run_that_is_not_finished_or_lost_its_student(finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    (folder / "student.safetensors").unlink()
    assert "student.safetensors is missing" in refused(folder)
    (folder / "summary.json").unlink()
    assert "is not finished" in refused(folder)


def test_damaged_files(finished: Path, exported: Path, tmp_path: Path) -> None:
    weights = (finished / "student.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(weights[: len(weights) // 2])
    assert "cannot be read" in refused(tmp_path / "cut.safetensors", TrainingError)
    torch.save(load_file(finished / "student.safetensors"), tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:3000])
    assert "cannot be read" in refused(tmp_path / "cut.pt", TrainingError)
    content = bytearray(exported.read_bytes())
    content[1000] ^= 0xFF
    (tmp_path / "damaged.onnx").write_bytes(content)
    assert "damaged.onnx" in refused(tmp_path / "damaged.onnx")
    (tmp_path / "text.pt").write_text("weights")
    assert "cannot be read" in refused(tmp_path / "text.pt", TrainingError)


def test_a_pickle_with_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}, "extra": Code()}, tmp_path / "code.pt")
    assert "beside tensors it holds" in refused(tmp_path / "code.pt", TrainingError)
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Code()))
    assert "plain.pt cannot be read" in refused(tmp_path / "plain.pt", TrainingError)


def test_eight_bit_integers_are_refused(exported: Path, tmp_path: Path) -> None:
    loaded = artifact.load(exported)
    for precision in ("int8", "int8-tensorrt"):
        path = tmp_path / f"{precision}.onnx"
        artifact.rewrite(loaded, loaded.manifest.model_copy(update={"precision": precision}), path)
        said = refused(path, TrainingError)
        assert "computes in 8-bit integers" in said
        assert "name the run it was exported from" in said


def test_a_file_of_no_end_and_a_device_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "long.pt").write_bytes(b"0" * 100)
    monkeypatch.setattr(sources, "MOST_BYTES", 99)
    assert "has 100 bytes" in refused(tmp_path / "long.pt", TrainingError)
    assert "is no regular file" in refused("/dev/zero", TrainingError)


def test_a_missing_package_is_named(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(module: str, extra: str) -> None:
        raise MissingExtraError(f"package '{module}' is not installed", f"the extra [{extra}]", "install it")

    monkeypatch.setattr(sources, "import_extra", lacks)
    assert "the extra [export]" in refused(exported, MissingExtraError)


def test_another_file_than_the_run_began_with_is_refused(finished: Path, tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    shutil.copy(finished / "student.safetensors", file)
    recipe = ready(Recipe.model_validate(alone(source=str(file))))
    assert recipe.student.source_sha256 == opened(file).sha256
    assert ready(recipe) == recipe
    changed = load_file(file)
    changed["head.classifier.bias"] += 1
    save_file(changed, file)
    with pytest.raises(TrainingError, match="is not what this run is fine-tuned from: its SHA-256 begins with"):
        ready(recipe)
