"""End of a run: evaluates the trained models once on the test clips and writes the summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from kd_edge import __version__, metrics
from kd_edge.data import Sample
from kd_edge.models.saved import StudentSpec
from kd_edge.rundir import FoldReport, Protocol, Scores, Selection, SemanticsNote, SourceNote, StageReport, Summary
from kd_edge.train.inputs.material import Material
from kd_edge.train.results import scores
from kd_edge.train.teachers.base import Teacher


def summarise(
    material: Material,
    models: Mapping[str, nn.Module],
    selections: Mapping[str, Selection],
    device: torch.device,
    source: SourceNote | None = None,
) -> Summary:
    """Evaluate and summarise; the only place where test clips are used.

    Temperature and unknown threshold are fitted on the validation clips; without any they stay 1 and 0 (nothing is
    unknown) and the summary says so.

    Args:
        material: The recordings.
        models: Trained models by stage; the student last.
        selections: Which weights each stage kept.
        device: Where to evaluate.
        source: What the student was fine-tuned from; None where it was not.

    Returns:
        What ``summary.json`` says.
    """
    recipe, labels = material.recipe, material.dataset.labels
    temperature, threshold = 1.0, 0.0
    stages: dict[str, StageReport] = {}
    for name, model in models.items():
        validation = None
        answers = not isinstance(model, Teacher) or model.names_classes
        if answers and material.having(name, material.validation):
            logits, truth = scores.predict(model, material.evaluation_loader(name, material.validation), device)
            validation = scores.brief(logits, truth)
            temperature = metrics.fit_temperature(logits, truth)
            threshold = metrics.fit_unknown_threshold(metrics.softmax(logits, temperature), truth)
        # A teacher's modality may be there for training only, and an encoder names no class.
        tested, test = material.having(name, material.test) if answers else (), None
        if tested:
            logits, truth = scores.predict(model, material.evaluation_loader(name, tested), device)
            figures = metrics.figures(logits, truth, labels, temperature=temperature)
            test = Scores(**figures, right=scores.right_by_subject(tested, logits, truth))
        stage = material.stage(name)
        stages[name] = StageReport(
            modality=stage.modality,
            **stage.architecture,
            epochs=stage.epochs,
            **selections.get(name, Selection()).model_dump(),
            **(_later_stages(selections) if name == "student" else {}),
            validation=validation,
            test=test,
            test_samples=len(tested),
            parameters=sum(p.numel() for p in model.parameters()),
            **(_of_its_kind(material, model, tested, device) if isinstance(model, Teacher) and tested else {}),
        )
    return Summary(
        complete=True,
        finished=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        recipe=recipe.model_dump(mode="json"),
        protocol=_protocol(material),
        seed=recipe.seed,
        stages=stages,
        clip_seconds=material.clip_seconds,
        temperature=temperature,  # of the student, which comes last
        unknown_threshold=threshold,
        calibrated_on="validation clips"
        if material.validation
        else "nothing: the recipe has no validation_subjects or validation_trials",
        versions={"kd-edge": __version__} | {name: version(name) for name in ("torch", "torchvision", "numpy")},
        data_fingerprint=material.fingerprint,
        data_fingerprints=material.fingerprints,
        semantics=_semantics(material),
        recipe_fingerprint=recipe.fingerprint(),
        threads=torch.get_num_threads(),
        device=str(device),
        **({} if source is None else {"source": source}),
        student_model=_student_spec(material).model_dump(mode="json"),
    )


def _later_stages(selections: Mapping[str, Selection]) -> dict[str, Any]:
    """Results of the student's dense and head stages."""
    folds = {name: kept for name, kept in selections.items() if isinstance(kept, FoldReport)}
    return {name: selections[name] for name in ("dense", "head") if name in selections} | {"folds": folds}


def _of_its_kind(
    material: Material, teacher: Teacher, tested: Sequence[Sample], device: torch.device
) -> dict[str, Any]:
    """Results that only some kinds of teachers report, with their missing and known inputs."""
    loader = material.evaluation_loader("teacher", tested)
    found = teacher.evaluate(loader, material.dataset.labels, device)
    seen = {"lacking": material.lacking, "seen_in_training": _seen_in_training(material.train, tested)}
    return found | seen if found else {}


def _seen_in_training(train: Sequence[Sample], tested: Sequence[Sample]) -> int:
    """Number of test samples whose performance, filmed by another camera, trained: their signals are the same."""
    performances = {(s.subject, s.trial, s.label) for s in train}
    return sum((s.subject, s.trial, s.label) in performances for s in tested)


def _protocol(material: Material) -> Protocol:
    return Protocol(
        dataset=material.dataset.name,
        split=material.recipe.split,
        validation_subjects=tuple(material.recipe.validation_subjects),
        validation_trials=tuple(material.recipe.validation_trials),
        train_samples=len(material.train),
        trained_on=material.trained_on,
        validation_samples=len(material.validation),
        test_samples=len(material.test),
        skipped=material.skipped,
    )


def _semantics(material: Material) -> SemanticsNote | None:
    """Where the class names' vectors came from, and the words that had none."""
    found = material.semantics
    if found is None:
        return None
    return SemanticsNote(source=found.source, size=found.vectors.shape[1], unknown_words=dict(found.unknown))


def _student_spec(material: Material) -> StudentSpec:
    """Everything needed to rebuild the student and its input without the trainer."""
    recipe, student = material.recipe, material.student
    return StudentSpec(
        model=student.model,
        preprocess=student.preprocess,
        segments=recipe.segments,
        clip_seconds=material.clip_seconds,
        labels=tuple(material.dataset.labels),
        modality=student.modality,
        data=recipe.data,
        image_format=material.dataset.image_format(student.modality),
        split=recipe.split,
    )
