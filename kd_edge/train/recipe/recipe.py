"""The recipe of a training run: consistent settings, and the fingerprints of what they train."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import model_validator

from kd_edge.data import Dataset
from kd_edge.models.config import Temporal
from kd_edge.train.recipe.consistency import contradictions
from kd_edge.train.recipe.settings import Settings
from kd_edge.train.recipe.teacher_stages import OnnxTeacherConfig


class Recipe(Settings):
    """One training run: :class:`Settings`, which documents the attributes, checked for contradictions."""

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("teacher", ...) is None:
            losses = values.get("losses", ())
            if isinstance(losses, list | tuple):  # validation rejects other types
                losses = tuple(loss for loss in losses if _kind_of(loss) == "dense")
            return values | {"losses": losses, "teacher_shuffle": None}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if found := list(contradictions(self)):
            raise ValueError("\n".join(found))
        return self

    def check_data(self, dataset: Dataset) -> None:
        """Refuse a data set that lacks something the recipe needs.

        Raises:
            ConfigError: Settings of another modality than the data set's, or of a class that it does not have.
            DataError: No such modality, or clips are mirrored that must not be.
        """
        for name, stage in self.networks.items():
            stage.check_data(name, dataset)
            stage.check_classes(name, dataset.labels)

    def fingerprint(self) -> str:
        """SHA-256 (hex) of everything that decides the weights, which excludes the recordings' location."""
        return _hash(self._deciding())

    def teacher_fingerprint(self) -> str:
        """SHA-256 (hex) of every setting that affects the teacher's weights: equal teachers are trained once."""
        values = self._deciding("student", "losses", "stages", "teacher_shuffle") | {"segments": self.first_segments}
        if self.wearables is not None:
            values["clips"] = self.student.modality  # signals are resampled to its clips' time
        return _hash(values)

    def dense_fingerprint(self) -> str | None:
        """SHA-256 (hex) of every setting that affects the backbone after the dense stage: equals are trained once.

        None if there is no such stage, or if its student or teacher starts from a file.
        """
        if self.dense_stage is None or self.student.source is not None:
            return None
        asked = self.teacher if self.dense_stage.features is not None else None
        if asked is not None and asked.weights:
            return None
        values = self._deciding("teacher", "losses", "teacher_shuffle", "stages")
        values["student"]["model"].pop("reads", None)
        if asked is not None:
            values["teacher"] = self.teacher_fingerprint()
        stage = _stage_as_before(self.dense_stage.model_dump(mode="json"))
        return _hash({**values, "stage": stage, "kept": self.keeps_targets})

    def _deciding(self, *without: str) -> dict[str, Any]:
        """All values except those of the name, the loader, the folder and ``without``."""
        left: dict[str, Any] = {"name": True, "workers": True, "data": {"root"}, "student": {"source_sha256"}}
        left |= dict.fromkeys(without, True)
        values = self.model_dump(mode="json", exclude=left)
        if isinstance(self.teacher, OnnxTeacherConfig) and "teacher" in values:
            del values["teacher"]["file"]  # its content is part of the recordings' fingerprint
        for name in self.networks.keys() & values.keys():
            values[name] = _as_before(values[name])
            for part in ("augment", "model", "preprocess"):
                if part in values[name]:
                    values[name][part] = _as_before(_in_use(values[name][part]))
        if "stages" in values:
            values["stages"] = [_stage_as_before(stage) for stage in values["stages"]]
        for target in (target for loss in values.get("losses", ()) for target in loss.get("targets", ())):
            if target["kind"] == "features" and target["shuffle"] is None:  # other kinds always had it
                del target["shuffle"]
        return _as_before(values)


_ADDED: dict[str, Any] = {
    "class_weights": None,
    "sampler": "shuffled",
    "repeat": 1,
    "rotation_degrees": 0.0,
    "quarter_turns": False,
    "aspect": 0.0,
    "erase": 0.0,
    "regressed": 0,
    "reads": "both",
    "teacher_shuffle": None,
    "dropout_at": "all",
    "relation_hidden": None,
    "source": None,
    "freeze": None,
    "holes": "averaged",
    "stages": [{"kind": "labels", "segments": None}],
}
"""Keys added later, with the values that earlier runs were trained with, so that their fingerprints stay."""


_ADDED_TO_STAGES: dict[str, Any] = {"shuffle": None, "crossfit": None, "frame": "sensor", "same_device": {}}
"""Keys of the student's stages and targets added later, with the values of earlier runs."""


_OF_HEADS: dict[str, tuple[Temporal, ...]] = {"dropout_at": ("tconv", "trn"), "relation_hidden": ("trn",)}
"""Keys of a model added later that have no effect under other temporal heads."""


def _kind_of(loss: Any) -> Any:
    """A loss's kind, before or after validation."""
    return loss.get("kind") if isinstance(loss, dict) else getattr(loss, "kind", None)


def _in_use(values: dict[str, Any]) -> dict[str, Any]:
    """A model's values without those that its temporal head does not use."""
    return {k: v for k, v in values.items() if k not in _OF_HEADS or values.get("temporal") in _OF_HEADS[k]}


def _as_before(values: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if k not in _ADDED or v != _ADDED[k]}


def _stage_as_before(stage: dict[str, Any]) -> dict[str, Any]:
    """A stage's values, and those of its targets, without later keys that have their original values."""
    kept = {k: v for k, v in stage.items() if k not in _ADDED_TO_STAGES or v != _ADDED_TO_STAGES[k]}
    return kept | {"targets": [_stage_as_before(each) for each in kept["targets"]]} if "targets" in kept else kept


def _hash(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
