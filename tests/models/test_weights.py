"""Weights from files: what is accepted, and what is said of everything else."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from kd_edge.errors import TrainingError
from kd_edge.models.backbones import build_backbone
from kd_edge.models.weights import load_whole, local_state, misfit

STATE = {"conv.weight": torch.arange(6.0).view(2, 3), "bn.num_batches_tracked": torch.tensor(7)}
OTHER = {"conv.weight": torch.zeros(1)}


def named(prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in STATE.items()}


def saved(folder: Path, found: Any, suffix: str = ".pt") -> Path:
    path = folder / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(found, path)
    else:
        torch.save(found, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_parallel_and_compiled_modules_are_taken_off(prefix: str, suffix: str, tmp_path: Path) -> None:
    found = local_state(saved(tmp_path, named(prefix), suffix))
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[key], STATE[key]) for key in STATE)


@pytest.mark.slow
def test_torch_puts_those_prefixes_before_names() -> None:
    layer = nn.Linear(2, 3)
    assert list(nn.DataParallel(layer).state_dict()) == ["module.weight", "module.bias"]
    assert list(torch.compile(layer).state_dict()) == ["_orig_mod.weight", "_orig_mod.bias"]  # compiles when called


def test_a_prefix_that_not_all_names_have_is_a_name(tmp_path: Path) -> None:
    mixed = {"module.conv.weight": torch.ones(1), "head.weight": torch.ones(1)}
    assert local_state(saved(tmp_path, mixed)).keys() == mixed.keys()


@pytest.mark.parametrize(
    "checkpoint",
    [
        {"state_dict": STATE, "epoch": 3, "hyper_parameters": {"lr": 0.1}},
        {"model_state_dict": STATE, "optimizer_state_dict": {"state": {0: {"step": torch.tensor(1)}}}},
        {"model": named("module."), "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}, "scaler": None},
        {"net": named("_orig_mod."), "acc": 91.5, "epoch": 20},
        {"epoch": 1, "state_dict": STATE, "ema": OTHER},  # an average under a name of its own
    ],
    ids=["lightning", "tutorial", "timm", "cifar", "average"],
)
def test_weights_are_taken_out_of_a_checkpoint(checkpoint: dict[str, Any], tmp_path: Path) -> None:
    found = local_state(saved(tmp_path, checkpoint))
    assert found.keys() == STATE.keys()
    assert torch.equal(found["conv.weight"], STATE["conv.weight"])


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([1, 2], "contain a list"),
        (torch.zeros(3), "contain a Tensor"),
        ({}, "contain an empty dictionary"),
        ({0: torch.zeros(1)}, "contain no weights but 0 (Tensor)"),
        ({"epoch": 3, "weights": STATE}, "contain no weights but 'epoch' (int), 'weights' (dict)"),
        ({"state_dict": {}, "epoch": 3}, "contain no weights but 'state_dict' (dict), 'epoch' (int)"),
        ({"state_dict": STATE, "model": OTHER}, "several dictionaries of tensors: 'state_dict', 'model'"),
        ({str(n): n for n in range(9)}, "'4' (int) and 4 more"),
    ],
)
def test_what_else_a_file_holds_is_described(found: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError) as caught:
        local_state(saved(tmp_path, found))
    assert words in caught.value.found
    assert "alone or under one of 'state_dict', 'model_state_dict', 'model', 'net', 'student'" in caught.value.expected
    assert "torch.save(model.state_dict(), path)" in caught.value.fix
    assert len(str(caught.value).splitlines()) == 1


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(3000))


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def text(path: Path) -> None:
    path.write_text("hello\n")


@pytest.mark.parametrize(
    ("damage", "suffix", "why"),
    [
        (emptied, ".safetensors", "it is empty"),
        (emptied, ".pt", "it is empty"),
        (cut, ".safetensors", "Error while deserializing header"),
        (cut, ".pt", "PytorchStreamReader failed reading zip archive"),
        (noise, ".safetensors", "Error while deserializing header"),
        (noise, ".pt", "it is truncated, or was not written by torch.save"),
        (text, ".safetensors", "Error while deserializing header"),
        (text, ".pt", "it is truncated, or was not written by torch.save"),
        (folder, ".safetensors", "it is a folder"),
        (folder, ".pt", "it is a folder"),
        (Path.unlink, ".safetensors", "No such file"),
        (Path.unlink, ".pt", "No such file"),
    ],
)
def test_damaged_files_are_one_line(damage: Callable[[Path], None], suffix: str, why: str, tmp_path: Path) -> None:
    path = saved(tmp_path, STATE, suffix)
    damage(path)
    with pytest.raises(TrainingError) as caught:
        build_backbone("tiny", in_channels=3, weights=path)
    assert why in caught.value.found
    assert str(path) in caught.value.found
    assert len(str(caught.value).splitlines()) == 1


def test_a_run_gives_its_students_weights(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    save_file(STATE, tmp_path / "run" / "student.safetensors")
    assert local_state(tmp_path / "run").keys() == STATE.keys()
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match=r"it is a folder without student\.safetensors"):
        local_state(tmp_path / "empty")


def test_an_artifact_is_no_file_of_weights(tmp_path: Path) -> None:
    (tmp_path / "student.onnx").write_bytes(b"\x08\x07graph")
    with pytest.raises(TrainingError, match=r"it is an artifact, .* name the run it was exported from"):
        local_state(tmp_path / "student.onnx")


def test_an_old_file_that_was_cut_has_no_message_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    assert local_state(path).keys() == STATE.keys()
    cut(path)
    with pytest.raises(TrainingError, match="it is truncated, or"):
        local_state(path)


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    """A whole module, or settings of a class: neither is loaded, and the class is named."""
    with pytest.raises(TrainingError, match=r"it contains torch\.nn\.modules\.linear\.Linear besides tensors"):
        local_state(saved(tmp_path, nn.Linear(2, 3)))
    with pytest.raises(TrainingError, match=r"it contains argparse\.Namespace besides tensors"):
        local_state(saved(tmp_path, {"state_dict": STATE, "args": argparse.Namespace(lr=0.1)}))


def test_whole_networks_take_their_own_weights_only() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    own = {key: torch.ones_like(value) for key, value in network.state_dict().items()}
    assert load_whole(network, {k: v for k, v in own.items() if "num_batches" not in k}, "teacher") == ""
    assert torch.equal(network[0].weight, torch.ones(3, 2))
    before = network[0].bias.clone()
    for found, fault in (
        ({**own, "2.weight": torch.ones(1)}, "1 entries are of other layers, such as '2.weight'"),
        ({k: v for k, v in own.items() if k != "0.bias"}, "1 of 7 entries are missing, such as '0.bias'"),
        ({**own, "0.weight": torch.ones(3, 9)}, "'0.weight' is (3, 9), not (3, 2)"),
        (
            {"fc.weight": torch.ones(1)},
            "none of their 1 entries is one of the teacher's, such as '0.weight'; they have",
        ),
    ):
        assert load_whole(network, {k: v * 2 for k, v in found.items()}, "teacher").startswith(fault)
        assert torch.equal(network[0].bias, before), "none was loaded"


def test_a_classifier_beside_a_backbones_weights_does_not_matter() -> None:
    wanted = {"layer1.weight": torch.ones(1)}
    found = {"layer1.weight": torch.ones(1), "fc.weight": torch.ones(1)}
    assert misfit(wanted, found, "backbone", whole=False) == ""
    assert misfit(wanted, found, "backbone", whole=True) == "1 entries are of other layers, such as 'fc.weight'"
