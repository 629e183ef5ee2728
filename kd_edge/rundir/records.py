"""The records in ``summary.json`` and ``metrics.jsonl``.

A record writes only the keys that were set: unknown keys of another release are kept, and a key that was never set is
not written and reads as its default. A summary that is read and written again therefore has the same keys.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    StrictBool,
    ValidationError,
    model_serializer,
)
from pydantic_core import PydanticCustomError


class Record(BaseModel):
    """A JSON object of a run directory; every number is finite."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, ser_json_inf_nan="constants")

    @model_serializer(mode="wrap")
    def _only_set_fields(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in write(self).items() if key in self.model_fields_set}


def first_fault(error: ValidationError) -> str:
    """Describe the first fault of a record in one line: ``location: fault``."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]


Share = Annotated[float, Field(ge=0, le=1 + 1e-6)]
"""A fraction in [0, 1], with tolerance for the rounding of a mean of ones."""
Marks = Annotated[str, Field(pattern="^[01]+$")]
"""``1`` (correct) or ``0`` (wrong) for each clip."""


class Scores(Record):
    """Metrics of one network on some clips, fractions in [0, 1] unless noted; None if not available.

    Attributes:
        clips: Number of clips, if it differs from the stage's.
        accuracy: Share of correct predictions.
        loss: Mean cross entropy in nats.
        top5: Share of clips whose class is among the five with the highest scores.
        macro_f1: Mean F1 over the classes, see ``kd_edge.metrics.macro_f1``.
        map: Mean average precision over the classes.
        sakdn_f: The "F-measure" of SAKDN's code, see ``kd_edge.metrics.sakdn_fmeasure``.
        ece: Expected calibration error; None for scores that are not logits.
        per_class: Recall by class name; None for a class without clips.
        confusion: (K, K) counts, rows are the truth.
        right: Marks by subject, in the order of the subject's clip ids.
    """

    clips: int | None = None
    accuracy: Share
    loss: float | None = None
    top5: Share | None = None
    macro_f1: Share | None = None
    map: Share | None = None
    sakdn_f: Share | None = None
    ece: Share | None = None
    per_class: dict[str, Share | None] = {}
    confusion: list[list[int]] = []
    right: dict[str, Marks] = {}


def _is_stage(name: str) -> str:
    if not re.fullmatch("teacher|dense|fold[1-9][0-9]{0,2}|student|head", name):
        raise PydanticCustomError("stage", "should be teacher, dense, fold1 and so on, student or head")
    return name


StageName = Annotated[str, AfterValidator(_is_stage)]
"""Name of a training stage of a run: the teacher, or a stage of the student."""


class Spread(Record):
    """Spread of the student's embeddings of an epoch's training clips, with the augmentation of the epoch.

    Attributes:
        cosine: Mean cosine similarity between the embeddings of two clips; 1 if all are equal.
        dimensions: Effective number of dimensions: participation ratio of the variances along the principal axes.
    """

    cosine: float = 0.0
    dimensions: float = 0.0


class Selection(Record):
    """The weights of a stage that were kept.

    Attributes:
        selected_epoch: Epoch of the weights, from 1; 0 if they were not trained in this run.
        selected_by: Criterion of the selection.
        seconds: Time spent on training.
        spread: Spread of the student's embeddings in the last epoch, if a loss uses features.
        collapsed_epoch: First epoch after which the embeddings had collapsed; None if they did not.
    """

    selected_epoch: int = 0
    selected_by: str = ""
    seconds: float = 0.0
    spread: Spread | None = None
    collapsed_epoch: int | None = None


class DenseReport(Selection):
    """Result of a student's dense stage.

    Attributes:
        targets: Number of values regressed in every frame.
        explained: Explained share of each target's variance over the frames of the validation clips; None for a target
            that they lack.
        lacking: Number of training clips without each target.
        absent: Share of each target's values that is missing in the frames of the training clips: joints that were not
            seen, clips without the target.
        unlabelled: Number of unlabelled clips used.
    """

    targets: int = 0
    explained: dict[str, float | None] = {}
    lacking: dict[str, int] = {}
    absent: dict[str, float] = {}
    unlabelled: int = 0


class FoldReport(DenseReport):
    """Result of an encoder that was trained without some subjects, for cross-fitting.

    Attributes:
        subjects: The subjects left out; ``explained`` refers to their clips.
    """

    subjects: tuple[str, ...] = ()


class StageReport(Selection):
    """Result of the teacher or of the student.

    Attributes:
        modality: Input modality; for sensors, their names.
        backbone: Name of the network.
        temporal: Temporal model on top of the network.
        epochs: Number of epochs in the recipe.
        validation: Metrics of the selected weights on the validation clips; None if there are none.
        test: Metrics on the test clips; None if no test clip has the modality.
        test_samples: Number of those clips; None in summaries of the first release, which have the protocol's only.
        parameters: Number of weights.
        sensors: Test metrics of each sensor's own network; None for a sensor that no test clip has.
        similarity: Test accuracy by similarity (see ``SPAMFM``) and network.
        lacking: Number of samples without each sensor.
        seen_in_training: Number of test clips whose signals were used to train the sensors' networks.
        dense: Result of a student's dense stage; None without one.
        folds: Results of the encoders used to cross-fit a student's head, by stage name.
        head: Selected weights of a student's head stage; None without one.
    """

    modality: str = ""
    backbone: str = ""
    temporal: str = ""
    epochs: int = 0
    validation: Scores | None = None
    test: Scores | None = None
    test_samples: int | None = None
    parameters: int = 0
    sensors: dict[str, Scores | None] = {}
    similarity: dict[str, dict[str, float | None]] = {}
    lacking: dict[str, int] = {}
    seen_in_training: int = 0
    dense: DenseReport | None = None
    folds: dict[str, FoldReport] = {}
    head: Selection | None = None

    @property
    def all_seconds(self) -> float:
        """Training time with dense and head stages and folds; a dense stage shared by several runs counts in each."""
        parts = [part for part in (self.dense, *self.folds.values(), self.head) if part is not None]
        return self.seconds + sum(part.seconds for part in parts)

    @property
    def trained_for(self) -> str:
        """Number of epochs; with dense and head stages those of each stage in order, and the number of folds."""
        if self.dense is None and self.head is None:
            return str(self.epochs)
        dense = [f"dense {self.dense.selected_epoch}"] if self.dense is not None else []
        dense += [f"{len(self.folds)} folds"] * bool(self.folds)
        whole = [str(self.epochs)] if self.selected_epoch else []
        head = [f"head {self.head.selected_epoch}"] if self.head is not None else []
        return " + ".join([*dense, *whole, *head])

    @property
    def selected(self) -> str:
        """The selected epoch and the number of epochs; with dense and head stages the same as ``trained_for``."""
        alone = self.dense is None and self.head is None
        return f"{self.selected_epoch} of {self.epochs}" if alone else self.trained_for


class LossNote(Record):
    """A loss of the recipe; its options are kept as further keys."""

    kind: str = ""


class TeacherNote(Record):
    """The recipe's teacher: a given file of weights, if any, and the weight of the class names' vectors."""

    weights: str | None = None
    semantic_weight: float = 0.0


class RecipeNote(Record):
    """The keys of the resolved recipe that reports use.

    Attributes:
        name: Name of the recipe.
        kind: Kind of the classical method; None for a trained student.
        losses: Losses of the student in addition to the cross entropy.
        teacher: The teacher; None for a student trained alone.
    """

    name: str = ""
    kind: str | None = None
    losses: tuple[LossNote, ...] = ()
    teacher: TeacherNote | None = None


class Protocol(Record):
    """The clips used for training, selection and testing.

    Attributes:
        dataset: Name of the data set.
        split: Name of the data set's split.
        validation_subjects: Subjects held out of the training side.
        validation_trials: Trials held out of the training side.
        train_samples: Number of training clips.
        trained_on: SHA-256 (hex) of their ids; empty in runs of earlier releases.
        validation_samples: Number of validation clips.
        test_samples: Number of test clips.
        skipped: Reason why a sample could not be used, by sample id.
    """

    dataset: str = ""
    split: str = ""
    validation_subjects: tuple[str, ...] = ()
    validation_trials: tuple[str, ...] = ()
    train_samples: int = 0
    trained_on: str = ""
    validation_samples: int = 0
    test_samples: int = 0
    skipped: dict[str, str] = {}


class SourceNote(Record):
    """The source that a student was fine-tuned from, and what was taken from it.

    Attributes:
        source: The source as named by the user.
        kind: ``run``, ``artifact`` or ``file``.
        precision: Precision that an artifact's weights were rounded to.
        sha256: SHA-256 (hex) of the file with the weights.
        taken: Number of the student's tensors initialised from the source, a classifier's possibly in part.
        new: Number of tensors initialised at random.
        ignored: Number of the source's tensors that were not used, by reason.
        channels: Input channels of the source and of the student; None if they are the same.
        head: ``kept``, or the reason why the temporal head is new.
        classes_kept: Classes whose rows of the classifier were taken.
        classes_new: Classes whose rows are new.
        classes_left: Classes of the source that the student does not have.
        frozen: Parts of the backbone that are not trained.
        frozen_parameters: Number of weights in the frozen parts.
        head_rate: Learning rate of the classifier and of new parts, relative to the rest.
        differences: One line for each setting that differs from the source's.
    """

    source: str = ""
    kind: str = ""
    precision: str = "fp32"
    sha256: str = ""
    taken: int = 0
    new: int = 0
    ignored: dict[str, int] = {}
    channels: tuple[int, int] | None = None
    head: str = "kept"
    classes_kept: tuple[str, ...] = ()
    classes_new: tuple[str, ...] = ()
    classes_left: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    frozen_parameters: int = 0
    head_rate: float = 1.0
    differences: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """The note as lines of a short report."""
        rounded = f", rounded to {self.precision}" if self.precision != "fp32" else ""
        lines = [
            f"fine-tuned from {self.source} ({self.kind}{rounded}, SHA-256 {self.sha256[:12]}): {self.taken} tensors "
            f"taken, {self.new} new, {sum(self.ignored.values())} ignored"
        ]
        first = (
            ""
            if self.channels is None
            else f", its first convolution from {self.channels[0]} to {self.channels[1]} channels"
        )
        lines.append(f"backbone: taken{first}" + (f"; frozen: {', '.join(self.frozen)}" if self.frozen else ""))
        if self.frozen:
            lines[-1] += f" ({self.frozen_parameters:,} parameters)"
        lines.append(f"temporal head: {self.head}")
        classes = f"classes: {len(self.classes_kept)} of {len(self.classes_kept) + len(self.classes_new)} kept by name"
        for word, names in (("new", self.classes_new), ("left out", self.classes_left)):
            classes += f"; {word}: {', '.join(names)}" if names else ""
        lines.append(classes)
        lines += [f"ignored: {count} {why}" for why, count in self.ignored.items()]
        lines.append(
            f"learning rate of classifier and new parts: {self.head_rate:g} times the rest (student.head_rate)"
        )
        return lines + [f"differs: {line}" for line in self.differences]


class SemanticsNote(Record):
    """The word vectors used for the class names.

    Attributes:
        source: Name of the vectors.
        size: Length of each vector.
        unknown_words: Words without a vector, by class name.
    """

    source: str = ""
    size: int = 0
    unknown_words: dict[str, tuple[str, ...]] = {}


class Summary(Record):
    """The content of ``summary.json``.

    Attributes:
        complete: Whether the run finished.
        finished: Time of the end, ISO 8601 in UTC.
        recipe: The resolved recipe.
        protocol: The clips used.
        seed: Seed of the run.
        stages: ``teacher`` (if any) and ``student``.
        clip_seconds: Length of the live window.
        temperature: Divisor of the student's logits before the softmax.
        unknown_threshold: Confidence below which the student's prediction is ``unknown``; 0 disables it.
        calibrated_on: Description of the clips that temperature and threshold were fitted on.
        versions: Versions of the packages used for training.
        data_fingerprint: SHA-256 (hex) of the content of all recordings and how they were read.
        data_fingerprints: The fingerprint of each stage; for a classical method, of each modality's content.
        semantics: The class vectors; None without any.
        recipe_fingerprint: SHA-256 (hex) of the settings that determine the result.
        threads: Number of CPU threads used by PyTorch.
        device: Device used for training, for example ``cpu``.
        source: Source that the student was fine-tuned from; None if it was trained from scratch.
        student_model: How to build and feed the student, see ``kd_edge.models.saved.StudentSpec``. Empty for a
            classical method, which has no network.
    """

    complete: StrictBool = False
    finished: str = ""
    recipe: RecipeNote = RecipeNote()
    protocol: Protocol = Protocol()
    seed: int = 0
    stages: dict[str, SerializeAsAny[StageReport]] = {}
    clip_seconds: float | None = None
    temperature: float = Field(default=1.0, gt=0)
    unknown_threshold: float = Field(default=0.0, ge=0, le=1)
    calibrated_on: str = ""
    versions: dict[str, str] = {}
    data_fingerprint: str = ""
    data_fingerprints: dict[str, str] = {}
    semantics: SemanticsNote | None = None
    recipe_fingerprint: str = ""
    threads: int | None = None
    device: str = ""
    source: SourceNote | None = None
    student_model: dict[str, Any] = {}

    def test_clips(self, stage: StageReport) -> int:
        """Number of clips that a stage was tested on."""
        return self.protocol.test_samples if stage.test_samples is None else stage.test_samples


class MetricsLine(Record):
    """One epoch of a stage, a line of ``metrics.jsonl``.

    Attributes:
        stage: ``teacher``, ``student``, ``dense`` or ``head`` for these stages of the student, or ``fold1`` and so on
            for the encoders used to cross-fit a head.
        epoch: Number of the epoch, from 1.
        losses: Mean of each loss over the epoch's steps, and their ``total``.
        train_accuracy: Share of correct predictions on the training clips, with augmentation.
        learning_rate: Learning rate of the epoch's last step.
        seconds: Time spent on the steps.
        clips_per_second: Training speed, all devices together.
        validation: Accuracy and loss on the validation clips; None without any.
        spread: Spread of the student's embeddings, if a loss uses features.
    """

    stage: StageName
    epoch: int = Field(ge=1)
    losses: dict[str, float] = {}
    train_accuracy: Share | None = None
    learning_rate: float | None = None
    seconds: float = 0.0
    clips_per_second: float = 0.0
    validation: Scores | None = None
    spread: Spread | None = None
