"""Does training starve? Clips per second of the loader alone against those of the training step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from kd_edge.models import ClipModel, build_model
from kd_edge.train.clips import Batch
from kd_edge.train.devices import make_fabric
from kd_edge.train.distil import Learner, teach
from kd_edge.train.material import Material, Progress, gather_material
from kd_edge.train.optim import make_optimiser
from kd_edge.train.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Throughput:
    """Clips per second, with a warm cache.

    Attributes:
        loader: Reading, augmenting and stacking the student's batches (both modalities), nothing else.
        step: Student training step with the teacher's forward pass, on batches that are already there.
        threads: CPU threads of PyTorch.
    """

    loader: float
    step: float
    threads: int

    @property
    def ratio(self) -> float:
        """How much faster the loader is; training does not wait for it when this is well above 1."""
        return self.loader / self.step


def measure(
    recipe: Recipe,
    data_root: Path | None = None,
    *,
    loader_batches: int = 40,
    step_batches: int = 8,
    progress: Progress | None = None,
) -> Throughput:
    """Measure a recipe's student stage; networks have random weights, nothing is written.

    Args:
        recipe: What would be trained.
        data_root: Folder with the recordings.
        loader_batches: Batches to load.
        step_batches: Batches to train on, after one to warm up.
        progress: Called while a frame cache is made.
    """
    before = torch.get_num_threads()
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    try:
        material = gather_material(recipe, data_root, progress)
        loader = loader_throughput(material, loader_batches)
        return Throughput(loader, step_throughput(material, step_batches), torch.get_num_threads())
    finally:
        torch.set_num_threads(before)


def loader_throughput(material: Material, batches: int) -> float:
    """Clips per second of the student's training loader alone; the same clips were read once before."""
    for stream in (_endless(material), _endless(material)):
        pace = _clips_per_second(lambda stream=stream: len(next(stream)["labels"]), batches)  # type: ignore[misc]
    return pace


def step_throughput(material: Material, batches: int) -> float:
    """Clips per second of the student's training step alone; one step warms it up."""
    recipe = material.recipe
    fabric = make_fabric(recipe)
    teacher = _model(material, "teacher").to(fabric.device).eval() if recipe.teacher else None
    learner = Learner(_model(material, "student"), recipe.losses, teacher, recipe.student.label_smoothing)
    module, optimiser = fabric.setup(learner, make_optimiser(learner, recipe.student))
    batch = fabric.to_device(next(_endless(material)))

    def step() -> int:
        seen = None
        if teacher is not None:
            with fabric.autocast():
                seen = teach(teacher, batch["inputs"][1], learner.losses)
        losses, _ = module(batch["inputs"][0], batch["labels"], seen)
        fabric.backward(losses["total"])
        optimiser.step()
        optimiser.zero_grad()
        losses["total"].item()  # wait for the device
        return len(batch["labels"])

    step()
    return _clips_per_second(step, batches)


def _model(material: Material, name: str) -> ClipModel:
    stage = material.stage(name)
    classes = len(material.dataset.labels)
    model = build_model(stage.model, stage.preprocess.input_channels, classes, material.recipe.segments)
    return model.to(memory_format=torch.channels_last)


def _endless(material: Material) -> Iterator[Batch]:
    stages = ["student", "teacher"] if material.recipe.teacher else ["student"]
    loader, batches = material.training_loader(stages, material.recipe.student.batch_size)
    while True:
        batches.epoch += 1
        yield from loader


def _clips_per_second(work: Callable[[], int], repeats: int) -> float:
    start = time.perf_counter()
    clips = sum(work() for _ in range(repeats))
    return clips / (time.perf_counter() - start)
