"""Wearable sensors as teachers: from resampled signals to observations for the student's losses."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from kd_edge.data import Dataset, SignalFormat
from kd_edge.errors import TrainingError, did_you_mean
from kd_edge.models.config import PLACES, Similarity
from kd_edge.models.layers import Layer as NamedLayer
from kd_edge.models.layers import evaluating
from kd_edge.models.sensors import SensorNetworks, SensorOutput
from kd_edge.train.gaf import gramian_angular_field
from kd_edge.train.inputs.clips import Batch
from kd_edge.train.losses import cross_entropy, semantic_preserving
from kd_edge.train.recipe.teacher_stages import SensorTeacherConfig
from kd_edge.train.results import scores
from kd_edge.train.teachers.base import LabelLearner, Observation, Places, Shape, Tap, Teacher
from kd_edge.types import Float32, Int64

BLOCKS = PLACES[:5]
"""The convolutional blocks, Eq. 21."""


FEATURE = PLACES[6]
"""fc2, the last feature before the logits."""


_ANY = SignalFormat("", (-1.0, 1.0), 50.0)

SCALED = (-1.0, 1.0)
"""Range of scaled signals: a field's own scaling by it changes nothing."""


def sensor_ranges(config: SensorTeacherConfig, formats: Sequence[SignalFormat]) -> Tensor:
    """Lowest and highest value of each sensor, (m, 2): the recipe's, else all that it can tell."""
    ranges = [config.ranges.get(s, f.value_range) for s, f in zip(config.sensors, formats, strict=True)]
    return torch.tensor(ranges, dtype=torch.float32)


def scale_signals(signals: Tensor, config: SensorTeacherConfig, ranges: Tensor) -> Tensor:
    """Bring signals to the recipe's interval, by each axis' own extremes (Eq. 1) or by the sensor's range.

    Args:
        signals: (B, m, 3, n) in the sensors' units; a NaN spoils its own axis.
        config: Says by what and to which interval.
        ranges: (m, 2), see ``sensor_ranges``.

    Returns:
        (B, m, 3, n) in [-1, 1] or [0, 1]; a constant axis is 1 by its extremes, as its field is.
    """
    if config.scaling == "sample":
        low, high = signals.aminmax(dim=3, keepdim=True)
    else:
        low, high = ranges[:, :, None, None].unbind(dim=1)  # (m, 1, 1) each
    span = high - low
    scaled = ((signals - low) + (signals - high)) / torch.where(span > 0, span, 1.0)
    held = torch.where(span == 0, 1.0, scaled).clamp(*SCALED)
    return (held + 1) / 2 if config.interval == "unit" else held


def network_inputs(signals: Tensor, config: SensorTeacherConfig, ranges: Tensor) -> tuple[Tensor, Tensor]:
    """Network input of signals, see ``SensorTeacher.encode``.

    Args:
        signals: (B, m, 3, n) in the sensors' units, all NaN for a sensor that a sample lacks.
        config: Says how they are scaled, and whether the network sees images.
        ranges: (m, 2), see ``sensor_ranges``.

    Returns:
        (images (B, m, 3, n, n) or scaled signals (B, m, 3, n), 0 for a sensor that is not there; (B, m) bool, which
        are).
    """
    present = ~signals.isnan().flatten(2).any(dim=2)  # (B, m)
    there = present[:, :, None, None]
    scaled = scale_signals(torch.where(there, signals, 0.0), config, ranges)
    if config.model.network == "conv1d":
        return torch.where(there, scaled, 0.0), present
    images = gramian_angular_field(scaled, value_range=SCALED)
    lacking = (~present).flatten().nonzero()[:, 0]
    images.view(-1, *images.shape[2:]).index_fill_(0, lacking, 0.0)  # a mask would pass over all of the images
    return images, present


class SensorTeacher(Teacher):
    """The networks of m wearable sensors and their input, virtual images.

    Signals arrive as (B, m, 3, n) float32, resampled onto the clip's time; a sensor that a sample lacks is all NaN.

    Args:
        config: The recipe's ``[teacher]``.
        formats: Unit and range of each sensor's signal.
        classes: Number of classes K.

    Attributes:
        sensors: Their names.
        points: n.
    """

    has_segments = False

    def __init__(self, config: SensorTeacherConfig, formats: Sequence[SignalFormat], classes: int) -> None:
        super().__init__()
        self.sensors = config.sensors
        self.count = len(config.sensors)
        self.points = config.points
        self.attends = config.model.attention
        self._config = config
        self.networks = SensorNetworks(config.model, len(config.sensors), classes, config.points)
        self.register_buffer("ranges", sensor_ranges(config, formats), persistent=False)

    @classmethod
    def build(cls, config: SensorTeacherConfig, segments: int, classes: int, dataset: Dataset | None) -> SensorTeacher:
        """See ``Teacher.build``."""
        formats = [_ANY] * len(config.sensors) if dataset is None else config.formats(dataset)
        return cls(config, formats, classes)

    @property
    def places(self) -> Places:
        """The places of every network; its last layer before the classifier is the feature and the semantic one."""
        return Places(PLACES[1:5], BLOCKS, FEATURE, FEATURE, self.check_place)

    def layers(self, shape: Shape) -> list[NamedLayer]:
        """The places of one network, which are those of all, with their outputs for one sample (m, 3, n)."""
        taps = [Tap(path, "mean") for path in PLACES]
        with torch.no_grad(), evaluating(self):
            first = self.observe(torch.zeros(1, *shape), taps)[0]
        return [NamedLayer(tap.path, "sensor network", tuple(first.taps[tap].shape)) for tap in taps]

    def forward(self, signals: Tensor) -> Tensor:
        """(B, m, 3, n) -> (B, K), what the sensors that are there say together."""
        return self.look(signals)[0].together

    def look(self, signals: Tensor) -> tuple[SensorOutput, Tensor]:
        """All outputs of the networks, and which sensors are present, (B, m) bool."""
        inputs, present = self.encode(signals)
        return self.networks(inputs, present), present

    def encode(self, signals: Tensor) -> tuple[Tensor, Tensor]:
        """Virtual images (B, m, 3, n, n), or scaled signals (B, m, 3, n) for networks on signals.

        Returns:
            (inputs, 0 for a sensor that is not there; (B, m) bool, which are).

        Raises:
            TrainingError: Signals of another shape.
        """
        if signals.ndim != 4 or signals.shape[1:] != (len(self.sensors), 3, self.points):
            raise TrainingError(
                f"signals of shape {tuple(signals.shape)}",
                f"(batch, {len(self.sensors)} sensors, 3, {self.points} points)",
                "resample with the teacher's points",
            )
        return network_inputs(signals, self._config, self.get_buffer("ranges"))

    def observe(self, signals: Tensor, taps: Collection[Tap], *, ablate: bool = False) -> tuple[Observation, ...]:
        """Outputs of each sensor's network for a batch; with ``ablate`` also for black images."""
        seen, present = self.look(signals)
        black = self.ablated(signals) if ablate else None
        return tuple(
            Observation(
                logits=seen.logits[:, k],
                taps={tap: seen.stages[tap.path][k] for tap in taps},
                ablated=None if black is None else black.logits[:, k],
                present=present[:, k],
                attention=seen.weights[:, k],
            )
            for k in range(len(self.sensors))
        )

    def ablated(self, signals: Tensor) -> SensorOutput:
        """The networks' answer to one black image each (all -1), or to flat signals: in eval mode that of all such."""
        shape = (1, *signals.shape[1:]) + ((self.points,) if self.networks.takes_images else ())
        black = SCALED[0] if self.networks.takes_images else 0.0
        output: SensorOutput = self.networks(signals.new_full(shape, black), None)
        return output

    def check_place(self, path: str) -> None:
        """Raise unless a layer that a loss names is one of the networks' places.

        Raises:
            TrainingError: With the closest place there is.
        """
        if path not in PLACES:
            raise TrainingError(
                f"the sensors' networks have no layer '{path}'{did_you_mean(path, PLACES)}",
                f"one of {', '.join(PLACES)}",
                "change teacher_layers",
            )

    def learner(
        self, config: SensorTeacherConfig, class_vectors: Tensor | None, class_weights: Tensor | None = None
    ) -> SensorLearner:
        """The training objective of the networks; class vectors are used only with a ``semantic_weight``."""
        return SensorLearner(self, class_vectors if config.semantic_weight else None, config, class_weights)

    def evaluate(self, loader: Iterable[Batch], labels: Sequence[str], device: torch.device) -> dict[str, Any]:
        """Figures of each sensor's own network, and what similarity between a batch's samples would change.

        In evaluation a sample's result must not depend on its neighbours. The published figures are of batches in the
        order of the classes, where the similarity matrix of Eq. 4 tells what the neighbours are (``batch``): all ways
        stand side by side.

        Returns:
            ``sensors``, figures by sensor, and ``similarity``, accuracies by similarity and sensor.
        """
        usual, by_sensor, by_similarity = self.networks.similarity, {}, {}
        for similarity in get_args(Similarity):
            self.networks.similarity = similarity
            logits, together, truth = self._predict(loader, device)
            by_similarity[similarity] = {"together": scores.accuracy(together, truth)} | {
                sensor: scores.accuracy(logits[:, k], truth) for k, sensor in enumerate(self.sensors)
            }
            if similarity == usual:
                by_sensor = {s: scores.of_present(logits[:, k], truth, labels) for k, s in enumerate(self.sensors)}
        self.networks.similarity = usual
        return {"sensors": by_sensor, "similarity": by_similarity}

    def _predict(self, loader: Iterable[Batch], device: torch.device) -> tuple[Float32, Float32, Int64]:
        """Logits (N, m, K) of each sensor (NaN where a sample lacks it), of all together (N, K), and labels (N,)."""
        self.eval()
        logits, together, labels = [], [], []
        with torch.no_grad():
            for batch in loader:
                output, present = self.look(batch["inputs"][0].to(device))
                alone = output.logits.float().masked_fill(~present[:, :, None], torch.nan)
                logits.append(alone.cpu().numpy())
                together.append(output.together.float().cpu().numpy())
                labels.append(batch["labels"].numpy())
        return np.concatenate(logits), np.concatenate(together), np.concatenate(labels)


class SensorLearner(LabelLearner):
    """The sensors' networks in training (Eq. 20): cross-entropy and semantic preserving loss, means over the sensors.

    A sample counts for the sensors it has.

    Args:
        model: The networks.
        class_vectors: (K, D) of the class names; None leaves the semantic preserving loss out.
        config: The recipe's ``[teacher]``.
        class_weights: (K,) of the classes in the cross-entropy; None takes 1.

    Raises:
        TrainingError: Vectors of another size than the networks' fc2.
    """

    model: SensorTeacher

    def __init__(
        self,
        model: SensorTeacher,
        class_vectors: Tensor | None,
        config: SensorTeacherConfig,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__(model, config.label_smoothing, class_weights)
        self.config = config
        if class_vectors is not None and class_vectors.shape[1] != config.model.width:
            raise TrainingError(
                f"class vectors of {class_vectors.shape[1]} values for networks whose fc2 has {config.model.width}",
                "the same size",
                f"set teacher.model.width={class_vectors.shape[1]}",
            )
        self.register_buffer("class_vectors", class_vectors, persistent=False)

    def forward(
        self, inputs: Tensor, labels: Tensor, seen: Sequence[Observation] | None = None, epoch: int = 1
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Losses of a batch.

        Args:
            inputs: Signals (B, m, 3, n) float32, NaN where a sample lacks a sensor.
            labels: (B,) int64.
            seen: Nobody teaches the sensors.
            epoch: Counted from 1; nothing is on a schedule.

        Returns:
            Scalars by name (``ce``, ``semantic``, with attention ``attention``, and ``total``), and the logits (B, K)
            of all sensors together.
        """
        output, present = self.model.look(inputs)
        ce, semantic = self._means(output, present, labels)
        values = {"ce": ce}
        total = ce
        if semantic is not None:
            values["semantic"] = semantic
            total = total + self.config.semantic_weight * semantic
        together = output.together.float()
        if self.config.model.attention:
            values["attention"] = cross_entropy(
                together, labels, class_weights=self.class_weights
            )  # teaches the attention
            total = total + values["attention"]
        return values | {"total": total}, together

    def _means(self, output: SensorOutput, present: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Cross-entropy and semantic loss, the mean over the sensors of the means over their samples."""
        entropies, distances = [], []
        for k in range(len(self.model.sensors)):
            rows = present[:, k]
            if not rows.any():
                continue
            entropies.append(self.cross_entropy(output.logits[rows, k], labels[rows]))
            if self.class_vectors is not None:
                wanted = self.get_buffer("class_vectors")[labels[rows]]
                feature = output.stages[FEATURE][k][rows]
                distances.append(semantic_preserving(feature, wanted, reduction=self.config.semantic_reduction))
        if not entropies:
            raise TrainingError(
                "a batch without any sensor", "samples that have at least one", "raise teacher.batch_size"
            )
        return torch.stack(entropies).mean(), torch.stack(distances).mean() if distances else None
