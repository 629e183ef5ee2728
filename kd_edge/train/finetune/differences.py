"""Differences between the settings of a source and of the student fine-tuned from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from kd_edge.train.finetune.source import Facts
from kd_edge.train.inputs.material import Material


def differences(facts: Facts | None, material: Material) -> tuple[str, ...]:
    """A line for each setting that differs, with what the source had and what the recipe has."""
    if facts is None:
        return ("a file of weights does not say how its pictures were made: compare preprocess yourself",)
    recipe, student = material.recipe, material.student
    found = [f"modality: {facts.modality} there, {student.modality} here"] * (facts.modality != student.modality)
    here, there = (spec.model_dump(mode="json") for spec in (student.preprocess, facts.preprocess))
    found += [
        f"{name}: {_shown(theirs)} there, {_shown(ours)} here"
        for name, theirs, ours in _unlike("preprocess", there, here)
    ]
    if facts.temporal != student.model.temporal:  # of shifts and of a mean the head's weights are the same
        found.append(f"temporal: {facts.temporal} there, {student.model.temporal} here")
    window = {"segments": recipe.segments, "clip_seconds": material.clip_seconds}
    found += [
        f"{name}: {getattr(facts, name)} there, {value} here"
        for name, value in window.items()
        if getattr(facts, name) != value
    ]
    if facts.data != recipe.data.kind:
        found.append(f"data: {facts.data or 'not told'} there, {recipe.data.kind} here")
    elif facts.split != recipe.split:
        found.append(
            f"split: '{facts.split}' there, '{recipe.split}' here, of one kind of data set: clips that this run tests "
            "may have trained the source"
        )
    return tuple(found)


def _unlike(name: str, there: Any, here: Any) -> Iterator[tuple[str, Any, Any]]:
    """Settings that differ, key by key where two tables have the same ones."""
    if isinstance(there, dict) and isinstance(here, dict) and there.keys() == here.keys():
        for key in here:
            yield from _unlike(f"{name}.{key}", there[key], here[key])
    elif there != here:
        yield name, there, here


def _shown(value: Any) -> str:
    return json.dumps(value)
