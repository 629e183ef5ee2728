"""Wearable sensors as teachers: from resampled signals to the observations that a student learns from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_edge.data import SignalFormat
from kd_edge.errors import TrainingError, did_you_mean
from kd_edge.models.config import PLACES
from kd_edge.models.sensors import SensorNetworks, SensorOutput
from kd_edge.train.gaf import gramian_angular_field
from kd_edge.train.losses import semantic_preserving
from kd_edge.train.recipe.stages import SensorTeacherConfig
from kd_edge.train.teachers.base import Observation, Tap

BLOCKS = PLACES[:5]
"""The convolutional blocks, Eq. 21."""


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
    """What the networks see of signals, see ``SensorTeacher.encode``.

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


class SensorTeacher(nn.Module):
    """The networks of m wearable sensors, and the virtual images that they see.

    Signals arrive as (B, m, 3, n) float32, resampled onto the clip's time; a sensor that a sample lacks is all NaN.

    Args:
        config: Of the recipe.
        formats: Of each sensor.
        classes: Number of classes K.

    Attributes:
        sensors: Their names.
        points: n.
        attends: Whether the networks weigh one another, sample by sample.
        stages: Places that correspond to an image backbone's four stages.
        feature: Place of the feature vector.
    """

    stages = PLACES[1:5]
    feature = PLACES[6]

    def __init__(self, config: SensorTeacherConfig, formats: Sequence[SignalFormat], classes: int) -> None:
        super().__init__()
        self.sensors = config.sensors
        self.points = config.points
        self.attends = config.model.attention
        self._config = config
        self.networks = SensorNetworks(config.model, len(config.sensors), classes, config.points)
        self.register_buffer("ranges", sensor_ranges(config, formats), persistent=False)

    def forward(self, signals: Tensor) -> Tensor:
        """(B, m, 3, n) -> (B, K), what the sensors that are there say together."""
        return self.look(signals)[0].together

    def look(self, signals: Tensor) -> tuple[SensorOutput, Tensor]:
        """Everything the networks put out, and which sensors are there, (B, m) bool."""
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
        """What each sensor's network makes of a batch; with ``ablate`` also of black images."""
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


class SensorLearner(nn.Module):
    """The sensors' networks in training (Eq. 20): cross-entropy and semantic preserving loss, means over the sensors.

    A sample counts for the sensors it has.

    Args:
        model: The networks.
        class_vectors: (K, D) of the class names; None leaves the semantic preserving loss out.
        config: Of the recipe.

    Raises:
        TrainingError: Vectors of another size than the networks' fc2.
    """

    def __init__(self, model: SensorTeacher, class_vectors: Tensor | None, config: SensorTeacherConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.teacher_taps: tuple[Tap, ...] = ()
        self.ablates = False
        if class_vectors is not None and class_vectors.shape[1] != config.model.width:
            raise TrainingError(
                f"class vectors of {class_vectors.shape[1]} values for networks whose fc2 has {config.model.width}",
                "the same size",
                f"set teacher.model.width={class_vectors.shape[1]}",
            )
        self.register_buffer("class_vectors", class_vectors, persistent=False)

    def forward(
        self, signals: Tensor, labels: Tensor, seen: object = None, epoch: int = 1
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Losses of a batch.

        Args:
            signals: (B, m, 3, n) float32, NaN where a sample lacks a sensor.
            labels: (B,) int64.
            seen: Nobody teaches the sensors.
            epoch: Counted from 1; nothing is on a schedule.

        Returns:
            Scalars by name (``ce``, ``semantic``, with attention ``attention``, and ``total``), and the logits (B, K)
            of all sensors together.
        """
        output, present = self.model.look(signals)
        ce, semantic = self._means(output, present, labels)
        values = {"ce": ce}
        total = ce
        if semantic is not None:
            values["semantic"] = semantic
            total = total + self.config.semantic_weight * semantic
        together = output.together.float()
        if self.config.model.attention:
            values["attention"] = F.cross_entropy(together, labels)  # what teaches the attention its weights
            total = total + values["attention"]
        return values | {"total": total}, together

    def _means(self, output: SensorOutput, present: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Cross-entropy and semantic loss, the mean over the sensors of the means over their samples."""
        entropies, distances = [], []
        for k in range(len(self.model.sensors)):
            rows = present[:, k]
            if not rows.any():
                continue
            smoothing = self.config.label_smoothing
            entropies.append(F.cross_entropy(output.logits[rows, k].float(), labels[rows], label_smoothing=smoothing))
            if self.class_vectors is not None:
                wanted = self.get_buffer("class_vectors")[labels[rows]]
                feature = output.stages[SensorTeacher.feature][k][rows]
                distances.append(semantic_preserving(feature, wanted, reduction=self.config.semantic_reduction))
        if not entropies:
            raise TrainingError(
                "a batch without any sensor", "samples that have at least one", "raise teacher.batch_size"
            )
        return torch.stack(entropies).mean(), torch.stack(distances).mean() if distances else None


def places(teacher: SensorTeacher) -> Mapping[str, tuple[int, ...]]:
    """Shape of each place's output for one sample."""
    signals = torch.zeros(1, len(teacher.sensors), 3, teacher.points)
    taps = [Tap(path, "mean") for path in PLACES]
    training = teacher.training
    with torch.no_grad():
        first = teacher.eval().observe(signals, taps)[0]
    teacher.train(training)
    return {tap.path: tuple(first.taps[tap].shape[1:]) for tap in taps}
