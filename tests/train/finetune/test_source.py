"""What can be fine-tuned from, and what is refused, in one line each."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kd_edge import artifact
from kd_edge.adapt.gate import Gate
from kd_edge.adapt.graph import graph_of, with_class
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


class Call:
    """A shell command, as a pickle could hold it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self._path}'",)


def refused(name: object, kind: type[KdEdgeError] = KdEdgeError) -> str:
    with pytest.raises(kind) as caught:
        opened(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_paths_that_hold_nothing(tmp_path: Path) -> None:
    for name in ("gone", "gone.safetensors", "gone.onnx", "gone/run"):
        assert "gone" in refused(tmp_path / name)
    (tmp_path / "folder").mkdir()
    assert "folder is a folder without a run" in refused(tmp_path / "folder", TrainingError)
    (tmp_path / "folder" / "recipe.toml").touch()
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
    assert "besides tensors" in refused(tmp_path / "code.pt", TrainingError)
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Code()))
    assert "plain.pt cannot be read" in refused(tmp_path / "plain.pt", TrainingError)


def test_a_pickle_that_calls_the_system_is_named_and_calls_nothing(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}, "extra": Call(tmp_path / "called")}, tmp_path / "code.pt")
    assert "it contains posix.system besides tensors" in refused(tmp_path / "code.pt", TrainingError)
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("backbone.layer1.0.weight", torch.full((8, 1, 3, 3), float("nan")), "are not finite"),
        ("backbone.layer1.0.weight", torch.full((8, 1, 3, 3), 1e300, dtype=torch.float64), "are not finite"),
        ("backbone.layer1.0.weight", torch.ones(8, 1, 3, 3, dtype=torch.int8), "are integers (int8)"),
        ("backbone.layer1.0.weight", torch.ones(8, 1, 3, 3, dtype=torch.bool), "are integers (bool)"),
        ("backbone.layer1.1.running_var", torch.tensor([1.0] * 7 + [-1e-9]), "are variances below 0"),
        ("backbone.more", torch.zeros(1).expand(1 << 40), "are no plain numbers"),  # 4 TB, if it were computed with
        ("backbone.more", torch.zeros(2, dtype=torch.complex64), "are no plain numbers"),
        ("backbone.more", torch.zeros(2, device="meta"), "are no plain numbers"),
    ],
)
def test_weights_that_nothing_can_be_computed_with(key: str, value: torch.Tensor, said: str, tmp_path: Path) -> None:
    state = build_model(ModelConfig(backbone="tiny", temporal="tsn"), 1, 3, 2).state_dict()
    torch.save(state | {key: value}, tmp_path / "w.pt")
    assert f"weights '{key}' of {tmp_path / 'w.pt'} {said}" in refused(tmp_path / "w.pt", TrainingError)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_numbers_of_other_precisions_and_integers_of_other_layers_are_read(dtype: torch.dtype, tmp_path: Path) -> None:
    state = build_model(ModelConfig(backbone="tiny", temporal="tsn"), 1, 3, 2).state_dict()
    state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    torch.save(state | {"backbone.index": torch.arange(4)}, tmp_path / "w.pt")
    assert opened(tmp_path / "w.pt").weights["backbone.layer1.0.weight"].dtype == dtype


def test_a_small_file_that_unpacks_to_a_large_one_is_not_unpacked(tmp_path: Path) -> None:
    torch.save({"backbone.conv1.weight": torch.zeros(1 << 20)}, tmp_path / "stored.pt")
    with ZipFile(tmp_path / "stored.pt") as stored, ZipFile(tmp_path / "packed.pt", "w", ZIP_DEFLATED) as packed:
        for name in stored.namelist():
            packed.writestr(name, stored.read(name))
    assert (tmp_path / "packed.pt").stat().st_size < 10_000
    assert opened(tmp_path / "stored.pt").weights["backbone.conv1.weight"].shape == (1 << 20,)
    assert "packed.pt cannot be read (it unpacks to 4,1" in refused(tmp_path / "packed.pt", TrainingError)


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    said = refused("x" * 5000, TrainingError)
    assert "cannot be read (File name too long)" in said
    assert len(said) < 700
    assert "cannot be read (embedded null byte)" in refused("a\0b", TrainingError)


def test_of_an_adapted_artifact_the_classifier_and_what_was_added_are_told_apart(
    exported: Path, tmp_path: Path
) -> None:
    loaded = artifact.load(exported)
    known = loaded.manifest
    facts = {
        "label": "wave", "parent_sha256": known.sha256, "clips": 4, "windows": 8, "accuracy": 1.0, "folds": "clips",
        "nearest": known.labels[0], "separation": 2.0,
    }  # fmt: skip
    added = known.model_copy(
        update={"labels": (*known.labels, "wave"), "added": (artifact.AddedClass.model_validate(facts),)}
    )
    gate = Gate(np.zeros(known.feature_size, dtype=np.float32), 0.0)
    artifact.write(with_class(graph_of(loaded), gate, known), added, None, tmp_path / "adapted.onnx")

    found = opened(tmp_path / "adapted.onnx")
    assert found.facts is not None
    assert (found.facts.labels, found.facts.added) == (known.labels, ("wave",))
    assert found.weights["head.classifier.weight"].shape[0] == len(known.labels)


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
    assert "is not a regular file" in refused("/dev/zero", TrainingError)


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
