"""What stands in ``summary.json`` and ``metrics.jsonl``.

A record says what it was told and nothing else: keys of another release are kept, a key that was never set is not
written, and reads as its default. So a summary that is read and written again has the keys it had.
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
    """A table of a run directory's JSON; every number is finite."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, ser_json_inf_nan="constants")

    @model_serializer(mode="wrap")
    def _what_was_said(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in write(self).items() if key in self.model_fields_set}


def first_fault(error: ValidationError) -> str:
    """The first thing that is wrong with a record, in one line: where, and what."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]


Share = Annotated[float, Field(ge=0, le=1 + 1e-6)]
"""A fraction in [0, 1], and the rounding of a mean of ones."""
Marks = Annotated[str, Field(pattern="^[01]+$")]
"""``1`` or ``0`` for each clip, right or wrong."""


class Scores(Record):
    """Figures of one network on some clips, each a fraction in [0, 1]; None where there is no such figure.

    Attributes:
        clips: Number of clips, where it is not the stage's.
        accuracy: Share of right answers.
        loss: Mean cross entropy in nats.
        top5: Share of clips whose class is among the five of highest score.
        macro_f1: Mean F1 over the classes, see ``kd_edge.metrics.macro_f1``.
        map: Mean average precision over the classes.
        sakdn_f: What SAKDN's code calls F-measure.
        ece: Expected calibration error; None for scores that are no logits.
        per_class: Recall by class name; None for a class without a clip.
        confusion: (K, K) counts, rows are the truth.
        right: Subject -> ``1`` or ``0`` for each of their clips in the order of the clips' ids, right or wrong.
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
"""What a run trains: its teacher, or a stage of its student."""


class Spread(Record):
    """How far the student's embeddings of an epoch's training clips lie apart, as they were drawn.

    Attributes:
        cosine: Mean cosine between the embeddings of two clips: 1 where all are the same.
        dimensions: How many dimensions they fill: participation ratio of the variances along their principal axes.
    """

    cosine: float = 0.0
    dimensions: float = 0.0


class Selection(Record):
    """Which of a stage's weights were kept.

    Attributes:
        selected_epoch: The epoch they are of, from 1; 0 when they were not trained in this run.
        selected_by: Why that one.
        seconds: Spent on training.
        spread: Of the student's embeddings in the last epoch, where a loss looks at features.
        collapsed_epoch: The first epoch after which they had collapsed; None where they did not.
    """

    selected_epoch: int = 0
    selected_by: str = ""
    seconds: float = 0.0
    spread: Spread | None = None
    collapsed_epoch: int | None = None


class DenseReport(Selection):
    """What became of a student's dense stage.

    Attributes:
        targets: Numbers regressed in every frame.
        explained: Target -> share of its variance over the validation clips' frames that is explained; None for one
            that they lack.
        lacking: Target -> clips that were to train and are without it.
        absent: Target -> share of its numbers that the training clips' frames lack: joints that were not seen, clips
            without it.
        unlabelled: Clips that nobody has labelled and that took part.
    """

    targets: int = 0
    explained: dict[str, float | None] = {}
    lacking: dict[str, int] = {}
    absent: dict[str, float] = {}
    unlabelled: int = 0


class FoldReport(DenseReport):
    """What became of an encoder that was trained without some subjects, for cross-fitting.

    Attributes:
        subjects: Whom it was trained without; ``explained`` is of their clips.
    """

    subjects: tuple[str, ...] = ()


class StageReport(Selection):
    """What became of the teacher or of the student.

    Attributes:
        modality: What it sees; of sensors their names.
        backbone: The network.
        temporal: What joins the network's outputs.
        epochs: It was to be trained for.
        validation: Figures of the selected weights on the validation clips; None without any.
        test: Figures on the test clips; None when no test clip has its modality.
        test_samples: Number of those clips; None in summaries of the first release, where it is the protocol's.
        parameters: Number of values in its weights.
        sensors: Test figures of each sensor's own network; None of a sensor that no test clip has.
        similarity: Way of comparing the clips of a batch -> network -> test accuracy.
        lacking: Sensor -> number of samples without it.
        seen_in_training: Test clips whose very signals trained the sensors' networks.
        dense: What became of a student's dense stage; None without one.
        folds: What became of the encoders that a student's head was cross-fitted with, by stage name.
        head: Which weights were kept of a student's head stage; None without one.
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
        """Spent on training, with dense and head stages and the folds; a dense stage that runs share counts in each."""
        parts = [part for part in (self.dense, *self.folds.values(), self.head) if part is not None]
        return self.seconds + sum(part.seconds for part in parts)

    @property
    def trained_for(self) -> str:
        """Epochs it was to be trained for; with dense and head stages those of each, in their order, and the folds."""
        if self.dense is None and self.head is None:
            return str(self.epochs)
        dense = [f"dense {self.dense.selected_epoch}"] if self.dense is not None else []
        dense += [f"{len(self.folds)} folds"] * bool(self.folds)
        whole = [str(self.epochs)] if self.selected_epoch else []
        head = [f"head {self.head.selected_epoch}"] if self.head is not None else []
        return " + ".join([*dense, *whole, *head])

    @property
    def selected(self) -> str:
        """Which epoch of how many was kept; with dense and head stages what ``trained_for`` says."""
        alone = self.dense is None and self.head is None
        return f"{self.selected_epoch} of {self.epochs}" if alone else self.trained_for


class LossNote(Record):
    """A loss of the recipe; its options stand beside its kind."""

    kind: str = ""


class TeacherNote(Record):
    """The recipe's teacher: whether it was given, and how much it heeded the class names' vectors."""

    weights: str | None = None
    semantic_weight: float = 0.0


class RecipeNote(Record):
    """The recipe as resolved; of its keys those that reports name.

    Attributes:
        name: What the recipe calls itself.
        kind: Which classical method it is; None for a trained student.
        losses: What the student is trained by, beside the cross entropy.
        teacher: None of a student that learned alone.
    """

    name: str = ""
    kind: str | None = None
    losses: tuple[LossNote, ...] = ()
    teacher: TeacherNote | None = None


class Protocol(Record):
    """Which clips were trained on, chosen by and tested on.

    Attributes:
        dataset: Name of the data set.
        split: Name of its protocol.
        validation_subjects: Subjects held out of the training side.
        validation_trials: Trials held out of the training side.
        train_samples: Number of training clips.
        trained_on: SHA-256 (hex) of their ids; empty in runs of before.
        validation_samples: Number of validation clips.
        test_samples: Number of test clips.
        skipped: Sample id -> why it could not be used.
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
    """What a student was fine-tuned from, and what of it.

    Attributes:
        source: As it was named.
        kind: ``run``, ``artifact`` or ``file``.
        precision: What an artifact's weights were rounded to.
        sha256: Of the file with the weights.
        taken: Tensors of the student that begin with the source's values, a classifier's in part.
        new: Tensors that begin with random ones.
        ignored: Why -> number of the source's tensors that were not taken.
        channels: Input channels there and here; None where they are the same.
        head: ``kept``, or why the temporal head is new.
        classes_kept: Classes whose rows of the classifier were taken.
        classes_new: Classes whose rows begin anew.
        classes_left: Classes of the source that the student does not have.
        frozen: What of the backbone is not trained.
        frozen_parameters: Number of values in it.
        head_rate: Learning rate of the classifier and of what is new, relative to the rest.
        differences: A line for each setting that the source had otherwise.
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
        """The note as a short report."""
        rounded = f", rounded to {self.precision}" if self.precision != "fp32" else ""
        said = [
            f"fine-tuned from {self.source} ({self.kind}{rounded}, SHA-256 {self.sha256[:12]}): {self.taken} tensors "
            f"taken, {self.new} new, {sum(self.ignored.values())} ignored"
        ]
        first = (
            ""
            if self.channels is None
            else f", its first convolution from {self.channels[0]} to {self.channels[1]} channels"
        )
        said.append(f"backbone: taken{first}" + (f"; frozen: {', '.join(self.frozen)}" if self.frozen else ""))
        if self.frozen:
            said[-1] += f" ({self.frozen_parameters:,} parameters)"
        said.append(f"temporal head: {self.head}")
        classes = f"classes: {len(self.classes_kept)} of {len(self.classes_kept) + len(self.classes_new)} kept by name"
        for word, names in (("new", self.classes_new), ("left out", self.classes_left)):
            classes += f"; {word}: {', '.join(names)}" if names else ""
        said.append(classes)
        said += [f"ignored: {count} {why}" for why, count in self.ignored.items()]
        said.append(f"learning rate of classifier and new parts: {self.head_rate:g} times the rest (student.head_rate)")
        return said + [f"differs: {line}" for line in self.differences]


class SemanticsNote(Record):
    """Where the class names' vectors came from.

    Attributes:
        source: Name of the vectors.
        size: Values of each.
        unknown_words: Class name -> its words without a vector.
    """

    source: str = ""
    size: int = 0
    unknown_words: dict[str, tuple[str, ...]] = {}


class Summary(Record):
    """``summary.json``.

    Attributes:
        complete: Whether the run came to its end.
        finished: When, ISO 8601 in UTC.
        recipe: As resolved.
        protocol: The clips.
        seed: Where everything random starts from.
        stages: ``teacher`` (if any) and ``student``.
        clip_seconds: Length of the live window.
        temperature: Divides the student's logits before the softmax.
        unknown_threshold: Confidence below which the student's answer is ``unknown``; 0 when nothing is.
        calibrated_on: What both were fitted on.
        versions: Releases of the packages that trained.
        data_fingerprint: SHA-256 (hex) of all recordings' content and how they were read.
        data_fingerprints: The same for each stage alone; for a classical method, the content of each modality.
        semantics: None without class vectors.
        recipe_fingerprint: SHA-256 (hex) of the settings that decide the result.
        threads: CPU threads of PyTorch.
        device: What trained, for example ``cpu``.
        source: What the student was fine-tuned from; None where it was not.
        student_model: How the student is built and fed: ``kd_edge.models.saved.StudentSpec``. Empty of a classical
            method, which has no network.
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
        """Number of clips a stage was tested on."""
        return self.protocol.test_samples if stage.test_samples is None else stage.test_samples


class MetricsLine(Record):
    """One epoch of a stage, a line of ``metrics.jsonl``.

    Attributes:
        stage: ``teacher``, ``student``, or ``dense`` and ``head`` of the student's stages of that kind; ``fold1`` and
            so on of the encoders that a head is cross-fitted with.
        epoch: From 1.
        losses: Mean of each loss over the epoch's steps, with ``total``.
        train_accuracy: Share of right answers on the training clips as they were drawn.
        learning_rate: What the epoch's last step was taken with.
        seconds: Spent on the steps.
        clips_per_second: Pace of training, all devices together.
        validation: Accuracy and loss on the validation clips; None without any.
        spread: Of the student's embeddings, where a loss looks at features.
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
