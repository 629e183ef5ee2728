"""Checks a recipe for contradictions between its parts; reports all of them together."""

from __future__ import annotations

from collections.abc import Iterator

from kd_edge.train.recipe.settings import Settings
from kd_edge.train.recipe.student_stages import (
    DenseLoss,
    FeatureTargets,
    JointTargets,
    PixelTargets,
    SignalTargets,
)
from kd_edge.train.recipe.teacher_stages import OnnxTeacherConfig, TeacherConfig

SHUFFLED = ("images", "sensors")
"""Kinds of teachers that can be shown another clip than the student."""

_MIRRORED: dict[type, str] = {
    JointTargets: "a mirrored skeleton has its left and right sides swapped",
    SignalTargets: "signals of worn sensors are not mirrored with the picture",
    PixelTargets: "components of the picture are not mirrored with it",
}
"""Dense targets that do not fit a mirrored picture, and the reason."""


def contradictions(recipe: Settings) -> Iterator[str]:
    """One sentence per contradiction, with its fix, for a recipe whose parts are valid by themselves."""
    yield from _of_losses(recipe)
    yield from _of_stages(recipe)
    yield from _of_dense_targets(recipe)


def _of_losses(recipe: Settings) -> Iterator[str]:
    teacher, student = recipe.teacher, recipe.student
    if teacher is None and recipe.teacher_losses:
        yield "losses need a teacher: add [teacher], or set losses = []"
    if recipe.teacher_shuffle is not None and (teacher is None or teacher.kind not in SHUFFLED):
        yield f"teacher_shuffle is for a teacher of kind {' or '.join(SHUFFLED)}: remove it"
    elif recipe.teacher_shuffle is not None and (recipe.feature_targets or not recipe.teacher_losses):
        yield (
            "teacher_shuffle applies to losses that compare the student with its teacher; dense targets 'features' "
            "have a shuffle of their own: add such [[losses]] and remove 'features' from the targets, or remove it"
        )
    if teacher is not None and not recipe.teacher_losses and not recipe.feature_targets:
        yield (
            "a teacher without losses teaches nothing: add [[losses]], or a dense stage whose targets include "
            "'features', or remove [teacher]"
        )
    asking = [loss.kind for loss in recipe.teacher_losses if loss.needs_answers]
    if isinstance(teacher, OnnxTeacherConfig) and asking:
        yield (
            f"loss '{asking[0]}' compares logits, but an encoder has no classes: write losses = [] above the first "
            "table, or use losses on features (contrastive, rkd, cc, sp, semantic)"
        )
    slow = [loss.kind for loss in recipe.losses if loss.warmup_epochs > student.epochs]
    if slow:
        yield f"loss '{slow[0]}' warms up longer than student.epochs: lower its warmup_epochs"
    if recipe.cache_every > 1 and any(stage.has_motion for stage in recipe.networks.values()):
        yield "cache_every drops the frames that motion stacks need: set it to 1"
    if recipe.compares_clips and student.batch_size < 2:
        yield f"loss '{recipe.compares_clips}' compares a batch's clips: student.batch_size must be at least 2"
    if recipe.semantics is None and recipe.needs_semantics:
        yield (
            f"{recipe.needs_semantics} compares with the class names' vectors: add [semantics] with vectors = "
            "'FILE' (kd-edge data glove imports them)"
        )


def _of_stages(recipe: Settings) -> Iterator[str]:
    kinds = [stage.kind for stage in recipe.stages]
    if kinds not in (
        ["labels"],
        ["labels", "head"],
        ["dense", "labels"],
        ["dense", "head"],
        ["dense", "labels", "head"],
    ):
        yield (
            f"stages are {', '.join(kinds)}: use each of dense, labels and head at most once, in this order, with "
            "labels or dense before head, and labels or head last"
        )
    model, labels, head = recipe.student.model, recipe.labels_stage, recipe.head_stage
    if kinds != ["labels"] and model.has_shifts:
        yield f"dense and head stages need features of single frames; temporal '{model.temporal}' mixes segments"
    if "dense" in kinds and recipe.student.freeze == "backbone":
        yield "a dense stage trains only the backbone, and student.freeze = 'backbone' freezes it: freeze single stages"
    if labels is None and recipe.losses:
        yield "losses apply to the labels stage, which is missing: add it, or set losses = []"
    of_its_own = labels is not None and labels.segments is not None
    if of_its_own and (head is None or model.temporal == "trn" or recipe.first_segments > recipe.segments):
        yield (
            "segments of a labels stage is for a student whose temporal head takes any number of them and is trained "
            "on more in a head stage"
        )
    if model.reads == "targets" and not recipe.keeps_targets:
        yield "student.model.reads = 'targets' needs a dense stage that keeps its targets: add one, or remove reads"
    if head is not None and head.crossfit is not None and (kinds != ["dense", "head"] or model.reads != "targets"):
        yield (
            "crossfit needs a dense and a head stage with student.model.reads = 'targets': the features of several "
            "encoders are not comparable, the targets they regress are"
        )


def _of_dense_targets(recipe: Settings) -> Iterator[str]:
    teacher = recipe.teacher
    mirrored = [_MIRRORED[type(target)] for target in recipe.dense_targets if type(target) in _MIRRORED]
    if recipe.student.augment.flip and mirrored:
        yield f"{mirrored[0]}: set student.augment.flip = false"
    for table in (recipe.dense_stage, recipe.dense_loss):
        if table is not None and sum(isinstance(target, FeatureTargets) for target in table.targets) > 1:
            yield "'features' occurs twice in the targets, but there is only one teacher: name it once"
    if sum(isinstance(loss, DenseLoss) for loss in recipe.losses) > 1:
        yield "loss 'dense' occurs twice: name it once, with all its targets"
    if not recipe.feature_targets:
        return
    if isinstance(teacher, TeacherConfig) and teacher.model.has_shifts:
        mixing = teacher.model.temporal
        yield f"dense targets 'features' need features of single frames; teacher temporal '{mixing}' mixes segments"
    if not isinstance(teacher, TeacherConfig | OnnxTeacherConfig):
        yield (
            "dense targets 'features' need a teacher that sees images: add [teacher] of kind images or onnx; for "
            "sensors use targets of kind 'signals'"
        )
