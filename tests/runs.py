"""Run directories for the rooms that need one: trained, killed while training, or as the trainer leaves one."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from kd_edge.data import SyntheticData, open_dataset
from kd_edge.models import ModelConfig, build_model
from kd_edge.models.saved import StudentSpec
from kd_edge.preprocess import Preprocess
from kd_edge.train.events import Event, StepDone
from kd_edge.train.recipe import Recipe
from kd_edge.train.trainer import train
from kd_edge.window import PercentileWindow

DATA = SyntheticData(clips_per_class=4, subjects=4, height_px=64, width_px=80)

# Killed trainings are forked from a process that has imported torch: a fresh interpreter would take seconds for it.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["kd_edge.train.trainer"])


def tiny_values(**changes: Any) -> dict[str, Any]:
    """A recipe that trains in about a second: 24 generated clips of three frames' worth of network."""

    def stage(modality: str, channels: int) -> dict[str, Any]:
        return {
            "modality": modality,
            "model": {"backbone": "tiny", "temporal": "tconv", "hidden": 8},
            "preprocess": {"channels": channels, "resize_px": 36, "input_px": 32},
            "optimiser": "adamw",
            "learning_rate": 0.003,
            "schedule": "one_cycle",
            "epochs": 3,
            "batch_size": 6,
        }

    values = {
        "name": "tiny",
        "data": {"kind": "synthetic", "clips_per_class": 4, "subjects": 4, "height_px": 40, "width_px": 48},
        "split": "subjects",
        "segments": 4,
        "threads": 1,
        "student": stage("nir", 1),
        "teacher": stage("rgb", 3),
        "losses": [{"kind": "dkd"}, {"kind": "mgcam"}, {"kind": "soft_target", "weight": 0.5}],
    }
    return values | changes


def run_all(recipe: Recipe, folder: Path, **options: Any) -> list[Event]:
    """Train to the end, on the processor."""
    return list(train(recipe, folder, accelerator="cpu", **options))


def killed(values: dict[str, Any], folder: Path, resume: bool, at: tuple[str, int, int]) -> int:
    """Exit code of a training that is killed (``kill -9``) after a step: stage, epoch, step."""
    process = _processes.Process(target=_train_until, args=(values, folder, resume, at))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def on_a_full_disk(values: dict[str, Any], folder: Path, file_bytes: int) -> tuple[int | None, str]:
    """Exit code and error output of a training that can write files of so many bytes only."""
    errors = folder.with_suffix(".stderr")
    process = _processes.Process(target=_train_with_small_files, args=(values, folder, file_bytes, errors))
    process.start()
    process.join()
    return process.exitcode, errors.read_text()


def _train_until(values: dict[str, Any], folder: Path, resume: bool, at: tuple[str, int, int] | None) -> None:
    for event in train(Recipe.model_validate(values), folder, resume=resume, accelerator="cpu"):
        if isinstance(event, StepDone) and (event.stage, event.epoch, event.step) == at:
            os.kill(os.getpid(), signal.SIGKILL)


def _train_with_small_files(values: dict[str, Any], folder: Path, file_bytes: int, errors: Path) -> None:
    sys.stderr = errors.open("w", buffering=1)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    _train_until(values, folder, resume=False, at=None)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The student's."""
    return load_file(folder / "student.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def write_run(folder: Path, **changes: Any) -> Path:
    """A run directory as the trainer leaves it, with random weights."""
    preprocess = Preprocess(
        resize_px=40, input_px=32, window=PercentileWindow(), motion_offsets_ms=(0, 70, 140), mean=(0.4,), std=(0.3,)
    )
    dataset = open_dataset(DATA)
    settings = {
        "model": ModelConfig(backbone="tiny", temporal="tconv", hidden=16),
        "preprocess": preprocess,
        "segments": 8,
        "clip_seconds": 2.0,
        "labels": dataset.labels,
        "modality": "nir",
        "data": DATA,
        "image_format": asdict(dataset.image_format("nir")),
        "split": "subjects",
    }
    spec = StudentSpec.model_validate({**settings, **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = build_model(spec.model, spec.preprocess.input_channels, len(spec.labels), spec.segments)
        for module in model.modules():  # statistics of a trained net: folding them must be seen to work
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)  # type: ignore[union-attr]
                module.running_var.uniform_(0.05, 0.2)  # type: ignore[union-attr]
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "student.safetensors")
    summary = {
        "complete": True,
        "recipe": {"name": "thin"},
        "student_model": spec.model_dump(mode="json"),
        "temperature": 1.5,
        "unknown_threshold": 0.2,
        "stages": {"student": {"test": {"accuracy": 0.75, "macro_f1": 0.7, "per_class": {}, "confusion": [[1]]}}},
        "versions": {"torch": "0.0"},
        "recipe_fingerprint": "r",
        "data_fingerprint": "d",
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder
