"""Benchmark of training: clips per second, the cost of the losses, and whether the loader keeps up."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from lightning_fabric import Fabric

from kd_edge.train.devices import make_fabric
from kd_edge.train.distil.methods import Loss, term_names
from kd_edge.train.inputs.clips import Batch
from kd_edge.train.inputs.gathering import gather_material
from kd_edge.train.inputs.material import Material, Progress
from kd_edge.train.networks import build_teacher, student_learner
from kd_edge.train.recipe import Recipe, SensorTeacherConfig
from kd_edge.train.recipe.student_stages import DenseLoss
from kd_edge.train.step import Step
from kd_edge.train.teachers.base import Teacher
from kd_edge.train.teachers.sensors import network_inputs


@dataclass(frozen=True, slots=True)
class StepCost:
    """Seconds of the student's step on a loaded batch; medians over rounds, measured in turn.

    Attributes:
        teacher: The teacher's forward pass alone; 0 without a teacher.
        student: Forward and backward pass on the labels alone.
        distilled: Teacher's forward pass, student's forward and backward pass, and every loss of the recipe.
        ratio: Median over the rounds of ``distilled / (teacher + student)``: the cost of the losses themselves.
        rounds: Number of rounds.
    """

    teacher: float
    student: float
    distilled: float
    ratio: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Throughput:
    """Clips per second, with a warm cache.

    Attributes:
        loader: Loader alone: reading, augmenting and stacking the student's batches (both modalities).
        step: Student training step with the teacher's forward pass, on loaded batches.
        cost: Parts of the step.
        threads: CPU threads of PyTorch.
        losses: Cost by loss: time of the distilled step relative to the step without it; empty with a single loss.
        points: Side of the signals' virtual images; 0 without them.
        images_ms: Median time for the virtual images of 64 tri-axial signals, milliseconds; 0 without them.
    """

    loader: float
    step: float
    cost: StepCost
    threads: int
    losses: dict[str, float] = field(default_factory=dict)
    points: int = 0
    images_ms: float = 0.0

    @property
    def ratio(self) -> float:
        """Speed of the loader relative to the step; training does not wait for it if this is well above 1."""
        return self.loader / self.step


def measure(
    recipe: Recipe,
    data_root: Path | None = None,
    *,
    loader_batches: int = 40,
    rounds: int = 5,
    progress: Progress | None = None,
) -> Throughput:
    """Measure a recipe's student stage, with a teacher with random weights; nothing is written.

    Args:
        recipe: The recipe.
        data_root: Folder with the recordings.
        loader_batches: Number of batches to load.
        rounds: Rounds in which teacher, student and distilled step are timed in turn, after one to warm up.
        progress: Called while a frame cache is created.
    """
    before = torch.get_num_threads()
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    try:
        material = gather_material(recipe, data_root, progress)
        loader = loader_throughput(material, loader_batches)
        pace, cost = step_cost(material, rounds)
        sensors = recipe.wearables
        imaged = None if sensors is None or sensors.model.network == "conv1d" else sensors
        return Throughput(
            loader,
            pace,
            cost,
            torch.get_num_threads(),
            losses_cost(material, rounds),
            imaged.points if imaged else 0,
            images_cost(imaged) if imaged else 0.0,
        )
    finally:
        torch.set_num_threads(before)


def images_cost(config: SensorTeacherConfig, rounds: int = 20) -> float:
    """Measure the milliseconds for the virtual images of 64 signals with three axes, scaled as in training.

    Returns the median after one round to warm up; each sensor of a sample is one signal.
    """
    signals = torch.randn(64, 1, 3, config.points, generator=torch.Generator().manual_seed(0))
    ranges = torch.tensor([[-4.0, 4.0]])
    times = [_seconds(lambda: network_inputs(signals, config, ranges)) for _ in range(rounds + 1)]
    return 1e3 * statistics.median(times[1:])


def loader_throughput(material: Material, batches: int) -> float:
    """Measure the clips per second of the student's training loader alone, on its second pass."""
    for stream in (_endless(material), _endless(material)):
        start = time.perf_counter()
        clips = sum(len(next(stream)["labels"]) for _ in range(batches))
        pace = clips / (time.perf_counter() - start)
    return pace


def step_cost(material: Material, rounds: int) -> tuple[float, StepCost]:
    """Measure the clips per second of the whole training step, and its parts."""
    recipe, stage = material.recipe, material.recipe.student
    fabric = make_fabric(recipe)
    teacher = _teacher(material, fabric)
    distilled, plain = _student_step(fabric, material, teacher), _student_step(fabric, material, None)
    batch = fabric.to_device(next(_endless(material)))
    times: list[tuple[float, float, float, float]] = []
    for _ in range(rounds + 1):
        alone = 0.0 if teacher is None else _seconds(lambda: distilled.look(batch))
        student, full = (_seconds(partial(_gradients, step, batch)) for step in (plain, distilled))
        start = time.perf_counter()
        distilled.update()
        times.append((alone, student, full, time.perf_counter() - start))
        plain.update()
    times = times[1:]  # the first round allocates memory
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    ratio = statistics.median(full / (alone + student) for alone, student, full, _ in times)
    cost = StepCost(medians[0], medians[1], medians[2], ratio, rounds)
    return stage.batch_size / (medians[2] + medians[3]), cost


def losses_cost(material: Material, rounds: int) -> dict[str, float]:
    """Measure the cost of each loss: the step with all losses relative to the step without it, in turn.

    Args:
        material: The recordings of a recipe with a teacher.
        rounds: Number of rounds after one to warm up; the median ratio is returned.

    Returns:
        Ratio by name of the loss; empty for fewer than two losses.
    """
    recipe = material.recipe
    if len(recipe.losses) < 2:
        return {}
    fabric = make_fabric(recipe)
    teacher = _teacher(material, fabric)

    def step(losses: Sequence[Loss | DenseLoss]) -> Step:
        fewer = replace(material, recipe=recipe.model_copy(update={"losses": tuple(losses)}))
        return _student_step(fabric, fewer, teacher)

    full = step(recipe.losses)
    without = [step([loss for loss in recipe.losses if loss is not left]) for left in recipe.losses]
    batch = fabric.to_device(next(_endless(material)))
    ratios: list[list[float]] = []
    for _ in range(rounds + 1):
        whole = _seconds(lambda: _gradients(full, batch))
        ratios.append([whole / _seconds(partial(_gradients, fewer, batch)) for fewer in without])
    medians = [statistics.median(column) for column in zip(*ratios[1:], strict=True)]
    return dict(zip(term_names(recipe.losses), medians, strict=True))


def _teacher(material: Material, fabric: Fabric) -> Teacher | None:
    """The teacher on the device, with initial weights, in the memory format used for teaching."""
    if material.recipe.teacher is None:
        return None
    teacher = build_teacher(material, material.recipe.teacher)
    teacher.to(memory_format=torch.channels_last)
    return teacher.to(fabric.device)


def _student_step(fabric: Fabric, material: Material, teacher: Teacher | None) -> Step:
    return Step(fabric, student_learner(material, teacher), material.recipe.student, teacher)


def _gradients(step: Step, batch: Batch) -> None:
    """Run a step up to its gradients and wait for it."""
    step.gradients(batch).wait()


def _endless(material: Material) -> Iterator[Batch]:
    stages = ["student", "teacher"] if material.recipe.teacher else ["student"]
    loader, batches = material.training_loader(stages, material.recipe.student.batch_size)
    while True:
        batches.epoch += 1
        yield from loader


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
