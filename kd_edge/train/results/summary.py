"""The end of a run: evaluate the trained models once on the test clips and describe what was done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from kd_edge import __version__, metrics
from kd_edge.data import Sample
from kd_edge.train.inputs.material import Material
from kd_edge.train.results import scores
from kd_edge.train.teachers.base import Teacher


def summarise(
    material: Material, models: Mapping[str, nn.Module], report: Mapping[str, Mapping[str, Any]], device: torch.device
) -> dict[str, Any]:
    """Evaluate and describe; the only place where test clips are looked at.

    Temperature and unknown threshold are fitted on the validation clips; without any they stay 1 and 0 (nothing is
    unknown) and the summary says so.

    Args:
        material: The recordings.
        models: Trained models by stage; the student last.
        report: ``selected_epoch``, ``selected_by`` and ``seconds`` of each stage.
        device: Where to evaluate.

    Returns:
        The content of ``summary.json``.
    """
    recipe, labels = material.recipe, material.dataset.labels
    temperature, threshold = 1.0, 0.0
    stages: dict[str, Any] = {}
    for name, model in models.items():
        validation = None
        if material.having(name, material.validation):
            logits, truth = scores.predict(model, material.evaluation_loader(name, material.validation), device)
            validation = scores.brief(logits, truth)
            temperature = metrics.fit_temperature(logits, truth)
            threshold = metrics.fit_unknown_threshold(metrics.softmax(logits, temperature), truth)
        tested, test = material.having(name, material.test), None  # a teacher's modality may be there for training only
        if tested:
            logits, truth = scores.predict(model, material.evaluation_loader(name, tested), device)
            test = metrics.figures(logits, truth, labels, temperature=temperature)
        stage = material.stage(name)
        stages[name] = {
            "modality": stage.modality,
            **stage.architecture,
            "epochs": stage.epochs,
            **report[name],
            "validation": validation,
            "test": test,
            "test_samples": len(tested),
            "parameters": sum(p.numel() for p in model.parameters()),
        }
        if isinstance(model, Teacher) and tested:
            stages[name] |= _of_its_kind(material, model, tested, device)
    return {
        "complete": True,
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "recipe": recipe.model_dump(mode="json"),
        "protocol": _protocol(material),
        "seed": recipe.seed,
        "stages": stages,
        "clip_seconds": material.clip_seconds,
        "temperature": temperature,  # of the student, which comes last
        "unknown_threshold": threshold,
        "calibrated_on": "validation clips"
        if material.validation
        else "nothing: the recipe has no validation_subjects or validation_trials",
        "versions": {"kd-edge": __version__} | {name: version(name) for name in ("torch", "torchvision", "numpy")},
        "data_fingerprint": material.fingerprint,
        "data_fingerprints": material.fingerprints,
        "semantics": _semantics(material),
        "recipe_fingerprint": recipe.fingerprint(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "student_model": _student_model(material),
    }


def _of_its_kind(
    material: Material, teacher: Teacher, tested: Sequence[Sample], device: torch.device
) -> dict[str, Any]:
    """What only some kinds of teacher report, with what they lacked and had seen of it."""
    loader = material.evaluation_loader("teacher", tested)
    found = teacher.evaluate(loader, material.dataset.labels, device)
    seen = {"lacking": material.lacking, "seen_in_training": _seen_in_training(material.train, tested)}
    return found | seen if found else {}


def _seen_in_training(train: Sequence[Sample], tested: Sequence[Sample]) -> int:
    """Number of test samples whose performance, filmed by another camera, trained: their signals are the same."""
    performances = {(s.subject, s.trial, s.label) for s in train}
    return sum((s.subject, s.trial, s.label) in performances for s in tested)


def _protocol(material: Material) -> dict[str, Any]:
    return {
        "dataset": material.dataset.name,
        "split": material.recipe.split,
        "validation_subjects": list(material.recipe.validation_subjects),
        "validation_trials": list(material.recipe.validation_trials),
        "train_samples": len(material.train),
        "validation_samples": len(material.validation),
        "test_samples": len(material.test),
        "skipped": material.skipped,
    }


def _semantics(material: Material) -> dict[str, Any] | None:
    """Where the class names' vectors came from, and the words that had none."""
    found = material.semantics
    if found is None:
        return None
    return {"source": found.source, "size": found.vectors.shape[1], "unknown_words": dict(found.unknown)}


def _student_model(material: Material) -> dict[str, Any]:
    """Everything that rebuilds and feeds the student without the trainer, see ``models.saved``."""
    recipe, student = material.recipe, material.recipe.student
    return {
        "model": student.model.model_dump(mode="json"),
        "preprocess": student.preprocess.model_dump(mode="json"),
        "segments": recipe.segments,
        "clip_seconds": material.clip_seconds,
        "labels": list(material.dataset.labels),
        "modality": student.modality,
        "data": recipe.data.model_dump(mode="json"),
        "image_format": asdict(material.dataset.image_format(student.modality)),
        "split": recipe.split,
    }
