"""The end of a run: evaluate the trained models once on the test clips and describe what was done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

import torch

from kd_edge import __version__, metrics
from kd_edge.models import ClipModel
from kd_edge.train import scores
from kd_edge.train.material import Material


def summarise(
    material: Material, models: Mapping[str, ClipModel], report: Mapping[str, Mapping[str, Any]], device: torch.device
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
            "backbone": stage.model.backbone,
            "temporal": stage.model.temporal,
            "epochs": stage.epochs,
            **report[name],
            "validation": validation,
            "test": test,
            "test_samples": len(tested),
            "parameters": sum(p.numel() for p in model.parameters()),
        }
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
        else "nothing: the recipe has no validation_subjects",
        "versions": {"kd-edge": __version__} | {name: version(name) for name in ("torch", "torchvision", "numpy")},
        "data_fingerprint": material.fingerprint,
        "data_fingerprints": {name: cache.fingerprint for name, cache in material.caches.items()},
        "recipe_fingerprint": recipe.fingerprint(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "student_model": _student_model(material),
    }


def _protocol(material: Material) -> dict[str, Any]:
    return {
        "dataset": material.dataset.name,
        "split": material.recipe.split,
        "validation_subjects": list(material.recipe.validation_subjects),
        "train_samples": len(material.train),
        "validation_samples": len(material.validation),
        "test_samples": len(material.test),
        "skipped": material.skipped,
    }


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
