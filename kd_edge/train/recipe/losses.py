"""The distillation terms of a recipe: one frozen pydantic model per ``kind``, with the papers' settings as defaults.

Terms on feature maps name the modules they compare. A path is one of ``kd-edge recipes layers RECIPE``, for example
``backbone.layer3`` (an image feature per frame) or ``backbone`` (the feature vector per frame). Left empty, a term
takes its own paper's choice.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class _Term(BaseModel):
    """What every term has.

    Attributes:
        weight: Of the term in the total loss.
        warmup_epochs: The weight rises linearly from 1 / warmup_epochs to its full value over that many epochs; 0 has
            it full from the start.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    weight: Positive = 1.0
    warmup_epochs: Annotated[int, Field(ge=0)] = 0


class _FeatureTerm(_Term):
    """A term on features.

    Attributes:
        student_layers: Module paths in the student; empty takes the term's own choice.
        teacher_layers: Their counterparts in the teacher, in the same order.
        segments: ``mean`` averages a clip's features over its segments, one sample per clip; ``fold`` makes every
            segment a sample of its own.
    """

    student_layers: tuple[str, ...] = ()
    teacher_layers: tuple[str, ...] = ()
    segments: Literal["mean", "fold"] = "mean"


class _OneLayerTerm(_FeatureTerm):
    """A term on one feature of each network."""

    @model_validator(mode="after")
    def _one_layer(self) -> _OneLayerTerm:
        if len(self.student_layers) > 1 or len(self.teacher_layers) > 1:
            raise ValueError(
                "this kind of loss compares one layer of each network; add a second [[losses]] for another"
            )
        return self


class SoftTargetLoss(_Term):
    """ST: Hinton's soft targets, see ``losses.soft_target``.

    Attributes:
        temperature: T.
        teachers: How several teachers count: ``mean`` alike, ``attention`` by the weights that the teachers' own
            attention gives them for this sample (``teacher.model.attention``).
    """

    kind: Literal["soft_target"] = "soft_target"
    temperature: Positive = 4.0
    teachers: Literal["mean", "attention"] = "mean"


class LogitsLoss(_Term):
    """Squared distance of the logits, see ``losses.logit_mse``."""

    kind: Literal["logits"] = "logits"


class DkdLoss(_Term):
    """Decoupled knowledge distillation, see ``losses.dkd``; ``weight`` is the paper's alpha.

    Attributes:
        target_weight: alpha_T.
        nontarget_weight: alpha_N.
        temperature: Not given in the paper; 4 as in the reference implementation of DKD.
    """

    kind: Literal["dkd"] = "dkd"
    weight: Positive = 0.1
    target_weight: NotNegative = 0.7
    nontarget_weight: NotNegative = 0.35
    temperature: Positive = 4.0

    @model_validator(mode="after")
    def _some_weight(self) -> DkdLoss:
        if self.target_weight == 0 == self.nontarget_weight:
            raise ValueError("target_weight and nontarget_weight are both 0: the loss is nothing")
        return self


class MgcamLoss(_FeatureTerm):
    """Multi-scale graph cross-attention on all stages, see ``losses.mgcam``; ``weight`` is the paper's beta.

    Attributes:
        graph: Edges between the samples of one network, or of the two (equal feature sizes only).
        scale: Distance of the sample graphs.
        tau: Factor on the attention's logits.
        reduction: Over the elements of a map.
        pairs: Which stages are compared.
        align: How different channel counts are compared.
        detach_attention: Keep the gradient out of the attention.
    """

    kind: Literal["mgcam"] = "mgcam"
    graph: Literal["intra", "cross"] = "intra"
    scale: Literal["mean", "l2norm", "median", "sum"] = "mean"
    tau: Positive = 1.0
    reduction: Literal["sum", "mean"] = "sum"
    pairs: Literal["matched", "all"] = "matched"
    align: Literal["conv", "channel_mean"] = "conv"
    detach_attention: bool = False


class FitnetLoss(_OneLayerTerm):
    """FitNet: the student's second stage, through a regressor, predicts the teacher's; see ``losses.hint_mse``."""

    kind: Literal["fitnet"] = "fitnet"
    weight: Positive = 100.0


class AttentionLoss(_FeatureTerm):
    """AT: spatial attention maps of all stages, see ``losses.attention_transfer``.

    Attributes:
        variant: ``squared`` as the method's own code, ``paper`` as its Eq. 2, ``sakdn`` as the SAKDN code has it.
    """

    kind: Literal["at"] = "at"
    weight: Positive = 1000.0
    variant: Literal["squared", "paper", "sakdn"] = "squared"


class SimilarityLoss(_OneLayerTerm):
    """SP: similarity of the batch's samples in the last stage, see ``losses.similarity_preserving``."""

    kind: Literal["sp"] = "sp"
    weight: Positive = 3000.0


class CorrelationLoss(_OneLayerTerm):
    """CC: correlation congruence of the feature vectors, see ``losses.correlation_congruence``.

    Attributes:
        variant: ``rbf`` compares Gaussian kernel matrices by their Taylor series; ``delta`` products of neighbouring
            differences between learned embeddings.
        gamma: Of the kernel.
        order: Of the Taylor series.
        embedding: Size of the embeddings (``delta``).
    """

    kind: Literal["cc"] = "cc"
    weight: Positive = 1.0
    variant: Literal["rbf", "delta"] = "rbf"
    gamma: Positive = 0.4
    order: Annotated[int, Field(ge=1, le=10)] = 2
    embedding: Annotated[int, Field(ge=1, le=4096)] = 128


class RkdLoss(_OneLayerTerm):
    """RKD: distances and angles between the samples' feature vectors, see ``losses.rkd_distance`` and ``rkd_angle``.

    Attributes:
        distance_weight: Of the distance term.
        angle_weight: Of the angle term.
    """

    kind: Literal["rkd"] = "rkd"
    distance_weight: NotNegative = 25.0
    angle_weight: NotNegative = 50.0

    @model_validator(mode="after")
    def _some_weight(self) -> RkdLoss:
        if self.distance_weight == 0 == self.angle_weight:
            raise ValueError("distance_weight and angle_weight are both 0: the loss is nothing")
        return self


class CcskdLoss(_FeatureTerm):
    """CCSKD: channel vectors, their relations and selective soft targets, on a schedule; see ``losses.ccskd``.

    The published marks are epochs of a run of 200; they are scaled to the run's length. The cross-entropy always stays.

    Attributes:
        schedule: ``always`` has the selective soft targets from the first epoch; ``cifar`` from 30 % of the run on.
        temperature: Of both soft-target parts.
    """

    kind: Literal["ccskd"] = "ccskd"
    schedule: Literal["always", "cifar"] = "always"
    temperature: Positive = 1.0


class GsdmLoss(_FeatureTerm):
    """GSDM: graph-guided semantically discriminative maps of five layers, see ``losses.gsdm``; ``weight`` is beta.

    Attributes:
        slope: How Eq. 15 divides: ``official`` as the equation with negative values cut off, ``stable`` by a
            denominator kept away from 0, which leaves a quarter of the samples with a negative weight and so without a
            map (docs/adr/012), ``norm`` as a ratio of norms.
        embedding: Vector of a sample's class: ``hard`` that of the likeliest, ``soft`` the expected one.
        weighting: Of a layer's channels: ``scalar`` all alike, ``channel`` each by its share of Eq. 15's vector.
        reduction: Over the elements of a map.
        ablation: What a student's ablated input is: ``zeros`` of the normalised input, or ``black`` pixels.
    """

    kind: Literal["gsdm"] = "gsdm"
    slope: Literal["official", "stable", "norm"] = "official"
    embedding: Literal["hard", "soft"] = "hard"
    weighting: Literal["scalar", "channel"] = "scalar"
    reduction: Literal["sum", "mean"] = "sum"
    ablation: Literal["zeros", "black"] = "zeros"


class SemanticLoss(_OneLayerTerm):
    """SP of the SAKDN paper (Eq. 24): the student's semantic feature is that of the teachers' fc2; ``weight`` is gamma.

    Attributes:
        reduction: ``mean`` over the elements as the official code, ``sum`` as the equation.
    """

    kind: Literal["semantic"] = "semantic"
    reduction: Literal["mean", "sum"] = "mean"


Loss = (
    SoftTargetLoss
    | LogitsLoss
    | DkdLoss
    | MgcamLoss
    | FitnetLoss
    | AttentionLoss
    | SimilarityLoss
    | CorrelationLoss
    | RkdLoss
    | CcskdLoss
    | GsdmLoss
    | SemanticLoss
)
LossConfig = Annotated[Loss, Field(discriminator="kind")]

BETWEEN_CLIPS = ("sp", "cc", "rkd")
"""Kinds that compare the clips of a batch with one another: they say nothing about a single clip."""
