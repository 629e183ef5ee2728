"""The training run, from top to bottom: prepare the recordings, train teacher and student, evaluate once, summarise."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kd_edge import rundir
from kd_edge.errors import TrainingError
from kd_edge.models import ClipModel
from kd_edge.rundir import FoldReport, Selection, check_free
from kd_edge.train import checks
from kd_edge.train.crossfit import folds, without
from kd_edge.train.dense import DenseLearner, frame_loaders, lacking_note, report, take_features
from kd_edge.train.devices import first_alone, make_fabric
from kd_edge.train.distil.learner import Learner
from kd_edge.train.events import Collapsed, EpochDone, Event, FineTuned, Finished, Prepared, StageStarted, StepDone
from kd_edge.train.finetune.begin import ready
from kd_edge.train.fit import fit
from kd_edge.train.given import check_readable, load_trained, take_weights, weights_metadata
from kd_edge.train.head import HeadLearner, feature_loaders
from kd_edge.train.inputs.clips import Loaders
from kd_edge.train.inputs.gathering import gather_material
from kd_edge.train.inputs.material import Progress
from kd_edge.train.inputs.targets import DenseTargets
from kd_edge.train.networks import begin_head, build_student, build_teacher, student_learner
from kd_edge.train.recipe import DenseStage, HeadStage, Recipe
from kd_edge.train.recipe.student_stages import DenseLoss
from kd_edge.train.recipe.teacher_stages import AnyTeacher, OnnxTeacherConfig
from kd_edge.train.rehearsal import rehearse_losses
from kd_edge.train.results import plots, run
from kd_edge.train.results.summary import summarise
from kd_edge.train.session import Session
from kd_edge.train.teachers.base import Teacher

__all__ = ["Collapsed", "EpochDone", "Event", "FineTuned", "Finished", "Prepared", "StageStarted", "StepDone", "train"]


def train(
    recipe: Recipe,
    run_dir: Path,
    *,
    data_root: Path | None = None,
    resume: bool = False,
    accelerator: str = "auto",
    devices: int | str = 1,
    nodes: int = 1,
    teacher_runs: Sequence[Path] = (),
    dense_runs: Sequence[Path] = (),
    progress: Progress | None = None,
) -> Generator[Event, None, None]:
    """Train a recipe's teacher and student.

    During training, PyTorch's number of threads and deterministic mode are set to the recipe's for the whole process
    and restored at the end. A caller that stops early has to close the generator:
    ``with contextlib.closing(train(...)) as events:``.

    Args:
        recipe: The recipe.
        run_dir: The run directory: a new one, or that of an interrupted run with ``resume``.
        data_root: Folder with the recordings; overrides the recipe's and is stored in the run's recipe.
        resume: Continue after the last complete epoch of an interrupted run. On the CPU with the same number of threads
            the final weights are those of an uninterrupted run, bit for bit.
        accelerator: Lightning Fabric's accelerator: ``auto``, ``cpu``, ``cuda``.
        devices: Devices per node.
        nodes: Number of nodes.
        teacher_runs: Finished runs that trained the same teacher (same data, seed and settings). The weights of the
            first one with the same training clips are used instead of training again, with the same result. The
            training clips differ if other clips lacked one of the run's modalities.
        dense_runs: Finished runs with the same dense stage; used likewise.
        progress: Called while a frame cache is created.

    Yields:
        Events, ``Finished`` last. With several processes only the first one writes and yields events.

    Raises:
        TrainingError: The run cannot start, a loss is not finite (the state of the last epoch is kept), or a file
            cannot be written.
        DataError: The recordings cannot be used.
    """
    if data_root is not None and recipe.data.kind != "synthetic":
        data = recipe.data.model_copy(update={"root": data_root.resolve()})
        recipe = recipe.model_copy(update={"data": data})
    if not resume:
        check_free(run_dir)  # before minutes of decoding
    fabric = make_fabric(recipe, accelerator, devices, nodes)
    fabric.launch()
    run_dir = fabric.broadcast(run_dir)  # each process may have generated a different name
    checks.check_batches(recipe, fabric.world_size)
    readable = first_alone(fabric, partial(_readable, recipe))
    if readable is None:
        return
    recipe = readable
    state = run.load_state(run_dir, recipe) if resume else None
    with ExitStack() as held:
        held.enter_context(_repeatable(recipe.threads))
        shown = progress if fabric.is_global_zero else None
        material = first_alone(fabric, partial(gather_material, recipe, data_root, shown))
        if material is None:
            return
        hold = partial(_hold, held if fabric.is_global_zero else None, run_dir, None if resume else recipe)
        if first_alone(fabric, hold) is None:
            return
        checks.check_same_data(state, material, run_dir)
        teacher_run, dense_run = (run.of_same_clips(each, material) for each in (teacher_runs, dense_runs))
        not_taken = {*(() if teacher_run else teacher_runs), *(() if dense_run else dense_runs)}
        session = Session(
            fabric,
            run_dir,
            material,
            state,
            run.selections(state),
            teacher_run=teacher_run,
            dense_run=dense_run,
            not_taken=tuple(sorted(not_taken)),
        )
        if resume and session.writes:
            rundir.truncate_metrics(run_dir, *((state["stage"], state["epoch"]) if state else (rundir.STAGES[0], 0)))
        for event in _stages(session):
            if session.writes:
                yield event


def _readable(recipe: Recipe) -> Recipe:
    """Check that weights named by the recipe can be read; return it with the hash of the student's source."""
    check_readable(recipe)
    return ready(recipe)


def _hold(held: ExitStack | None, run_dir: Path, new: Recipe | None) -> bool:
    """Create and lock the run directory, in the process that writes, once the recordings are ready."""
    if held is None:
        return True
    held.enter_context(run.locked(run_dir) if new is None else run.begun(run_dir, new))
    return True


def _stages(session: Session) -> Iterator[Event]:
    """Train teacher and student, and evaluate both in the process that writes."""
    material, recipe, models = session.material, session.recipe, dict[str, nn.Module]()
    yield _prepared(session)
    teacher = None if recipe.teacher is None else build_teacher(material, recipe.teacher)
    learner = student_learner(material, teacher)
    if learner.source is not None:
        yield FineTuned(learner.source)
    if recipe.teacher is not None and teacher is not None:
        rehearse_losses(learner, recipe, teacher)  # before training a teacher whose layers do not fit
        yield from _train_teacher(session, recipe.teacher, teacher)
        models["teacher"] = teacher
    yield from _train_student(session, learner, teacher)
    models["student"] = learner.model
    if session.writes:
        summary = summarise(material, models, session.selections, session.fabric.device, learner.source)
        plots.plot_run(rundir.read_metrics(session.folder), summary, material.dataset.labels, session.folder / "plots")
        rundir.write_summary(session.folder, summary)
        yield Finished(session.folder, summary)


def _train_teacher(session: Session, config: AnyTeacher, teacher: Teacher) -> Generator[Event, None, None]:
    """Load a trained teacher or train it: on the labels, sensors also on word vectors of the class names."""
    trained = session.folder / rundir.TEACHER
    if isinstance(config, OnnxTeacherConfig):  # its embeddings are cached, and there are no weights to save
        chosen = f"encoder {config.file.name}"
        session.selections["teacher"] = Selection(selected_epoch=0, selected_by=chosen, seconds=0.0)
        return
    if "teacher" in session.selections:
        # The interrupted run had finished this stage.
        load_trained(teacher, trained, f"restore the file, or remove {session.folder / rundir.STATE} to start again")
    elif session.teacher_run is not None:
        session.selections["teacher"] = run.same_teacher(
            session.teacher_run, session.recipe, session.material.fingerprints["teacher"]
        )
        load_trained(teacher, session.teacher_run / rundir.TEACHER, f"remove the run {session.teacher_run}")
    elif config.weights is not None:
        take_weights(teacher, config.weights, config, session.material.dataset.labels)
        session.selections["teacher"] = Selection(
            selected_epoch=0, selected_by=f"weights {config.weights}", seconds=0.0
        )
    else:
        material = session.material
        learner = teacher.learner(config, material.class_vectors, material.class_weights("teacher"))
        loaders = _clip_loaders(session, ["teacher"])
        session.selections["teacher"] = yield from fit(session, "teacher", config, learner, loaders)
    if session.writes:
        run.save_weights(trained, teacher.state_dict(), weights_metadata(config))
    teacher.requires_grad_(False)
    # The memory format of its training: others use other kernels, whose results differ in the last bits.
    teacher.to(memory_format=torch.channels_last)
    teacher.to(session.fabric.device).eval()


def _train_student(session: Session, learner: Learner, teacher: Teacher | None) -> Generator[Event, None, None]:
    """Train the student stage by stage."""
    model, recipe = learner.model, session.recipe
    left_out = folds(session.material)  # raises before anything is trained
    if recipe.dense_stage is not None:
        yield from _dense_stage(session, model, recipe.dense_stage, teacher)
    if recipe.labels_stage is not None:
        yield from _student_stage(session, "student", model, _train_whole(session, learner, teacher))
    if recipe.head_stage is not None:
        encoders = yield from _train_folds(session, left_out)
        yield from _student_stage(session, "head", model, _train_head(session, model, recipe.head_stage, encoders))
    model.eval()


def _dense_stage(
    session: Session, model: ClipModel, stage: DenseStage, teacher: Teacher | None
) -> Generator[Event, None, None]:
    """Train the backbone on dense targets, or load the result of the same stage from another run."""
    other = session.dense_run
    if other is None or "dense" in session.selections:
        training = _train_dense(session, model, stage, teacher)
        yield from _student_stage(session, "dense", model.backbone, training, rundir.DENSE)
        return
    session.selections["dense"] = run.same_dense_stage(other, session.recipe, session.material.fingerprints)
    load_trained(model.backbone, other / rundir.DENSE, f"remove the run {other}")
    if session.writes:
        run.save_weights(session.folder / rundir.DENSE, model.backbone.state_dict())


def _student_stage(
    session: Session,
    name: str,
    model: nn.Module,
    training: Generator[Event, None, Selection],
    file: str = rundir.STUDENT,
) -> Generator[Event, None, None]:
    """Train a stage and save its model, or load it if the interrupted run had finished the stage.

    The student's file has the result of the last finished stage; the head stage saves all weights of the student.
    """
    finished = session.folder / file
    if name in session.selections:
        load_trained(model, finished, f"restore the file, or remove {session.folder / rundir.STATE} to start again")
        return
    session.selections[name] = yield from training
    if session.writes:
        run.save_weights(finished, model.state_dict())


def _train_dense(
    session: Session, model: ClipModel, stage: DenseStage, teacher: Teacher | None
) -> Generator[Event, None, Selection]:
    """Train a student's backbone to regress dense targets in every frame."""
    fabric, material = session.fabric, session.material
    _take_features(session, stage, material.dense, teacher)
    learner = DenseLearner(model, material.dense_targets, keep=session.recipe.keeps_targets)
    loaders = frame_loaders(material, stage, rank=fabric.global_rank, world=fabric.world_size)
    kept = yield from fit(session, "dense", stage, learner, loaders)
    return report(material, learner, kept, fabric.device)


def _train_folds(session: Session, left_out: Sequence[tuple[str, ...]]) -> Generator[Event, None, dict[str, nn.Module]]:
    """Train one encoder per fold, without the fold's subjects; return subject -> encoder not trained on it."""
    stage, encoders = session.recipe.dense_stage, dict[str, nn.Module]()
    if stage is None or "head" in session.selections:  # no cross-fitting, or the head is trained already
        return encoders
    for number, subjects in enumerate(left_out, 1):
        name, model = f"fold{number}", build_student(session.material)
        training = _train_fold(session, name, model, stage, subjects)
        yield from _student_stage(session, name, model, training, f"{rundir.FOLDS}/{name}.safetensors")
        model.to(memory_format=torch.channels_last)  # see _train_teacher; also for loaded weights
        encoders |= dict.fromkeys(subjects, model.backbone.to(session.fabric.device))
    return encoders


def _train_fold(
    session: Session, name: str, model: ClipModel, stage: DenseStage, subjects: tuple[str, ...]
) -> Generator[Event, None, Selection]:
    """Repeat the dense stage without some subjects, and evaluate it on them."""
    fabric, material = session.fabric, without(session.material, subjects)
    learner = DenseLearner(model, material.dense_targets, keep=True)
    loaders = frame_loaders(material, stage, rank=fabric.global_rank, world=fabric.world_size)
    minutes = session.selections["dense"].seconds / 60
    note = f"an encoder not trained on {', '.join(subjects)}; the one trained on all took {minutes:.0f} min"
    kept = yield from fit(session, name, stage, learner, loaders._replace(note=note))
    evaluated = report(material, learner, kept, fabric.device)
    return FoldReport(**evaluated.model_dump(), subjects=subjects)


def _take_features(
    session: Session, table: DenseStage | DenseLoss | None, targets: DenseTargets | None, teacher: Teacher | None
) -> None:
    """Compute the trained teacher's features if they are among the dense targets."""
    if table is None or targets is None or table.features is None or teacher is None:
        return
    device, folder = session.fabric.device, session.folder
    take = partial(take_features, session.material, targets, table.features, teacher, device, folder)
    if first_alone(session.fabric, take) is None:
        raise TrainingError("the first process failed to compute the teacher's features", "features", "see its message")


def _train_whole(session: Session, learner: Learner, teacher: Teacher | None) -> Generator[Event, None, Selection]:
    """Train the whole student on labels and teacher (Alg. 1 of the MGCAM paper)."""
    _take_features(session, session.recipe.dense_loss, session.material.loss, teacher)
    if not session.recipe.teacher_losses:
        teacher = None  # it is only used for dense targets
    loaders = _clip_loaders(session, ["student"] if teacher is None else ["student", "teacher"])
    if session.material.loss is not None:
        loaders = loaders._replace(note=lacking_note(session.material.loss, session.material.train))
    return (yield from fit(session, "student", session.recipe.student, learner, loaders, teacher))


def _train_head(
    session: Session, model: ClipModel, stage: HeadStage, encoders: Mapping[str, nn.Module]
) -> Generator[Event, None, Selection]:
    """Train a student's head alone, on features of its backbone or of the folds' backbones."""
    fabric, material = session.fabric, session.material
    begin_head(model, material, stage)
    model.to(memory_format=torch.channels_last)  # see _train_teacher; also for loaded weights
    ranks = {"rank": fabric.global_rank, "world": fabric.world_size}
    loaders = feature_loaders(material, model, stage, fabric.device, of_subjects=encoders, **ranks)
    learner = HeadLearner(model.head, stage, material.class_weights("student", stage))
    return (yield from fit(session, "head", stage, learner, loaders))


def _clip_loaders(session: Session, stages: list[str]) -> Loaders:
    """Loaders of training clips as one or more networks see them, and of the first one's validation clips."""
    fabric, material, name = session.fabric, session.material, stages[0]
    training, batches = material.training_loader(
        stages, material.stage(name).batch_size, rank=fabric.global_rank, world=fabric.world_size
    )
    chosen_by = material.having(name, material.validation)
    if not chosen_by:
        return Loaders(training, batches, None)
    validation = material.evaluation_loader(name, chosen_by, material.recipe.first_segments)
    return Loaders(training, batches, validation)


def _prepared(session: Session) -> Prepared:
    material, state = session.material, session.state
    return Prepared(
        run=session.folder,
        classes=len(material.dataset.labels),
        train=len(material.train),
        validation=len(material.validation),
        test=len(material.test),
        skipped=material.skipped,
        clip_seconds=material.clip_seconds,
        device=str(session.fabric.device),
        threads=torch.get_num_threads(),
        resumed=_resumed(state),
        teacher_run=session.teacher_run,
        dense_run=session.dense_run,
        not_taken=session.not_taken,
    )


def _resumed(state: dict[str, Any] | None) -> str | None:
    if state is None:
        return None
    text = f"{state['stage']} after epoch {state['epoch']}"
    if state["threads"] != torch.get_num_threads():
        text += (
            f" (with {torch.get_num_threads()} threads instead of {state['threads']}: not the same weights bit for bit)"
        )
    return text


@contextmanager
def _repeatable(threads: int | None) -> Iterator[None]:
    """Use deterministic kernels where available and a fixed number of threads; restore both afterwards."""
    memory: Any = torch.utils.deterministic
    threads_before, fills_before = torch.get_num_threads(), memory.fill_uninitialized_memory
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    if threads is not None:
        torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False  # would cost time without changing the results
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)
        torch.use_deterministic_algorithms(was_deterministic, warn_only=only_warned)
        memory.fill_uninitialized_memory = fills_before
