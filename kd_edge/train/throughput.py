"""What a training step costs: clips per second, the share of the losses, and whether the loader keeps up."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from lightning_fabric import Fabric

from kd_edge.models import ClipModel
from kd_edge.train.devices import make_fabric
from kd_edge.train.distil.learner import teach, term_names
from kd_edge.train.distil.terms import Teacher
from kd_edge.train.inputs.clips import Batch
from kd_edge.train.inputs.material import Material, Progress, gather_material
from kd_edge.train.networks import build, build_teacher, student_learner
from kd_edge.train.optim import make_optimiser
from kd_edge.train.recipe import Recipe, SensorTeacherConfig
from kd_edge.train.recipe.losses import Loss
from kd_edge.train.teachers.base import Observation
from kd_edge.train.teachers.sensors import network_inputs


@dataclass(frozen=True, slots=True)
class StepCost:
    """Seconds of the student's step on a batch that is already there; medians over rounds measured in turn.

    Attributes:
        teacher: The teacher's forward pass alone; 0 without a teacher.
        student: Forward and backward pass on the labels alone.
        distilled: Teacher's forward pass, student's forward and backward pass, and every loss of the recipe.
        ratio: Median over the rounds of ``distilled / (teacher + student)``: what the losses themselves add.
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
        loader: Reading, augmenting and stacking the student's batches (both modalities), nothing else.
        step: Student training step with the teacher's forward pass, on batches that are already there.
        cost: Where the step's time goes.
        threads: CPU threads of PyTorch.
        losses: Of a recipe with several, what each costs: the distilled step relative to the one without that loss.
        points: Of the signals' virtual images; 0 without teachers that see such images.
        images_ms: Median time for the virtual images of 64 tri-axial signals, milliseconds; 0 without.
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
        """How much faster the loader is; training does not wait for it when this is well above 1."""
        return self.loader / self.step


def measure(
    recipe: Recipe,
    data_root: Path | None = None,
    *,
    loader_batches: int = 40,
    rounds: int = 5,
    progress: Progress | None = None,
) -> Throughput:
    """Measure a recipe's student stage; the teacher has random weights, nothing is written.

    Args:
        recipe: What would be trained.
        data_root: Folder with the recordings.
        loader_batches: Batches to load.
        rounds: Of teacher, student and distilled step in turn, after one to warm up.
        progress: Called while a frame cache is made.
    """
    before = torch.get_num_threads()
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    try:
        material = gather_material(recipe, data_root, progress)
        loader = loader_throughput(material, loader_batches)
        pace, cost = step_cost(material, rounds)
        sensors = recipe.teacher if isinstance(recipe.teacher, SensorTeacherConfig) else None
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
    """Milliseconds for what networks see of 64 signals of three axes, scaled as in training.

    The median after one round to warm up; each sensor of a sample is one signal.
    """
    signals = torch.randn(64, 1, 3, config.points, generator=torch.Generator().manual_seed(0))
    ranges = torch.tensor([[-4.0, 4.0]])
    times = [_seconds(lambda: network_inputs(signals, config, ranges)) for _ in range(rounds + 1)]
    return 1e3 * statistics.median(times[1:])


def loader_throughput(material: Material, batches: int) -> float:
    """Clips per second of the student's training loader alone; the same clips were read once before."""
    for stream in (_endless(material), _endless(material)):
        start = time.perf_counter()
        clips = sum(len(next(stream)["labels"]) for _ in range(batches))
        pace = clips / (time.perf_counter() - start)
    return pace


def step_cost(material: Material, rounds: int) -> tuple[float, StepCost]:
    """Clips per second of the whole training step, and where its time goes."""
    recipe, stage = material.recipe, material.recipe.student
    fabric = make_fabric(recipe)
    teacher = build_teacher(material).to(memory_format=torch.channels_last) if recipe.teacher else None
    if teacher is not None:
        teacher.to(fabric.device)
    distilled = _Step(fabric, build(material, "student"), material, teacher)
    plain = _Step(fabric, build(material, "student"), material, None)
    batch = fabric.to_device(next(_endless(material)))
    times: list[tuple[float, float, float, float]] = []
    for _ in range(rounds + 1):
        alone = 0.0 if teacher is None else _seconds(lambda: distilled.look(batch))
        times.append((alone, _seconds(lambda: plain(batch)), _seconds(lambda: distilled(batch)), distilled.update()))
        plain.update()
    times = times[1:]  # the first round plans memory
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    ratio = statistics.median(full / (alone + student) for alone, student, full, _ in times)
    cost = StepCost(medians[0], medians[1], medians[2], ratio, rounds)
    return stage.batch_size / (medians[2] + medians[3]), cost


def losses_cost(material: Material, rounds: int) -> dict[str, float]:
    """What each of several losses costs: the step with all of them over the step without it, measured in turn.

    Args:
        material: Of a recipe with a teacher.
        rounds: After one to warm up; the ratios' median counts.

    Returns:
        Ratio by the loss's name; empty for a recipe with fewer than two.
    """
    recipe = material.recipe
    if len(recipe.losses) < 2:
        return {}
    fabric = make_fabric(recipe)
    teacher = build_teacher(material).to(memory_format=torch.channels_last).to(fabric.device)

    def step(losses: Sequence[Loss]) -> _Step:
        fewer = replace(material, recipe=recipe.model_copy(update={"losses": tuple(losses)}))
        return _Step(fabric, build(material, "student"), fewer, teacher)

    full = step(recipe.losses)
    without = [step([loss for loss in recipe.losses if loss is not left]) for left in recipe.losses]
    batch = fabric.to_device(next(_endless(material)))
    ratios: list[list[float]] = []
    for _ in range(rounds + 1):
        whole = _seconds(lambda: full(batch))
        ratios.append([whole / _seconds(partial(fewer, batch)) for fewer in without])
    medians = [statistics.median(column) for column in zip(*ratios[1:], strict=True)]
    return dict(zip(term_names(recipe.losses), medians, strict=True))


class _Step:
    """A learner with its optimiser, and the teacher it looks at."""

    def __init__(self, fabric: Fabric, model: ClipModel, material: Material, teacher: Teacher | None) -> None:
        learner = student_learner(material, model, teacher)
        learner.to(memory_format=torch.channels_last)
        self._learner, self._fabric, self._teacher = learner, fabric, teacher
        self._module, self._optimiser = fabric.setup(learner, make_optimiser(learner, material.recipe.student))

    def look(self, batch: Batch) -> tuple[Observation, ...]:
        """The teacher's forward pass."""
        assert self._teacher is not None
        with self._fabric.autocast():
            taps, ablate = self._learner.teacher_taps, self._learner.ablates
            return teach(self._teacher, batch["inputs"][1], taps, ablate=ablate)

    def __call__(self, batch: Batch) -> None:
        """Forward and backward, with the teacher's forward pass where there is one."""
        seen = None if self._teacher is None else self.look(batch)
        losses, _ = self._module(batch["inputs"][0], batch["labels"], seen)
        self._fabric.backward(losses["total"])
        losses["total"].item()  # wait for the device

    def update(self) -> float:
        """Seconds of the optimiser's step."""
        start = time.perf_counter()
        self._optimiser.step()
        self._optimiser.zero_grad()
        return time.perf_counter() - start


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
