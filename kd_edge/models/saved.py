"""Load the trained student of a run directory, to evaluate or export it without the trainer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from kd_edge import recipes
from kd_edge.data import DataConfig, ImageFormat, data_of_model
from kd_edge.errors import ExportError, KdEdgeError
from kd_edge.models.clip import ClipModel, build_model
from kd_edge.models.config import ModelConfig
from kd_edge.models.weights import load_whole, local_state
from kd_edge.preprocess import Preprocess, recorded_input
from kd_edge.rundir import STUDENT, SUMMARY, Summary, read_summary
from kd_edge.sampling import segment_indices
from kd_edge.types import Clip, Float32


class StudentSpec(BaseModel):
    """The content of the key ``student_model`` of ``summary.json``.

    Attributes:
        model: Architecture.
        preprocess: Preprocessing of frames.
        segments: Number T of segments in a window.
        clip_seconds: Length of the live window.
        labels: Class names.
        modality: Modality of the data set used as input.
        data: The data set it was trained on.
        image_format: Format of that modality's frames.
        split: Name of the split that defines the test samples.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    model: ModelConfig
    preprocess: Preprocess
    segments: int = Field(ge=1)
    clip_seconds: float = Field(gt=0)
    labels: tuple[str, ...] = Field(min_length=2)
    modality: str
    data: DataConfig
    image_format: ImageFormat
    split: str


@dataclass(frozen=True, slots=True)
class SavedStudent:
    """A finished run's student.

    Attributes:
        path: The run directory.
        spec: How to build and feed the student.
        model: The clip model with its weights, in eval mode.
        summary: Content of ``summary.json``.
    """

    path: Path
    spec: StudentSpec
    model: ClipModel
    summary: Summary

    @classmethod
    def load(cls, run: Path | str) -> SavedStudent:
        """Rebuild the student of a run directory.

        Raises:
            ExportError: The folder is not a run, the run is not finished, or one of its files is damaged.
            ConfigError: The run was trained on an unknown kind of data set.
        """
        run = Path(run)
        summary = read_summary(run, ExportError)
        weights = run / STUDENT
        if not weights.exists():
            raise ExportError(
                f"{run} is a finished run, but {STUDENT} is missing",
                "the run as written by kd-edge train",
                "restore the file, or train again: kd-edge train",
            )
        if isinstance(known := summary.student_model.get("data"), dict):
            data_of_model(known, str(run))
        try:
            spec = recipes.validate(summary.student_model, StudentSpec, "student_model")
            model = build_model(spec.model, spec.preprocess.input_channels, len(spec.labels), spec.segments)
            fault = load_whole(model, local_state(weights), "student")
        except KdEdgeError as error:
            fault = error.found
        if fault:
            raise ExportError(
                f"{run} contains a damaged student ({fault})",
                f"{SUMMARY} and {STUDENT} as written by kd-edge train",
                "train again: kd-edge train",
            )
        return cls(run, spec, model.eval(), summary)

    def network_input(self, clip: Clip) -> Float32:
        """Compute the network input of a recorded clip's centre-sampled segments, (T, C, S, S) float32."""
        at = segment_indices(len(clip), self.spec.segments, mode="centre")
        return recorded_input(clip, at, self.spec.preprocess)
