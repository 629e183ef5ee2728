"""Results of shipped artifacts in every precision: accuracy by clip and as a stream, size and speed, in a ledger.

The ledger is docs/results/shipped.jsonl.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

from pydantic import Field

from kd_edge import __version__
from kd_edge.artifact import Artifact, Manifest
from kd_edge.errors import ArtifactError
from kd_edge.evaluate import Evaluation
from kd_edge.study.ledger import FORMAT, ModelLine

NAME = "shipped"
"""Name of the ledger, and of the markers in a page."""
_HEADS = (
    "model", "precision", "MB", "clip by clip, %", "at clips' ends in the stream, %", "change, points",
    "frames with a label, %", "ms a frame, median", "99 of 100",
)  # fmt: skip


class ShippedLine(ModelLine):
    """One artifact on all test clips.

    Attributes:
        clips: Number of test clips.
        accuracy: Share of correctly classified clips, clip by clip.
        stream_accuracy: Share of clips whose last label is right, with each subject's clips joined into one stream.
        labelled: Share of the stream's frames with a label that a robot may act on.
        megabytes: Size of the file, 10^6 bytes.
        engine: Name and version of the engine.
        threads: Threads of the engine.
        median_ms: Median time from frame to label, on the measuring machine.
        p99_ms: 99th percentile of the same.
        period_ms: Typical time from one frame to the next.
    """

    clips: int = Field(ge=1)
    accuracy: float = Field(ge=0, le=1)
    stream_accuracy: float = Field(ge=0, le=1)
    labelled: float = Field(ge=0, le=1)
    megabytes: float = Field(gt=0)
    engine: str
    threads: int = Field(ge=1)
    median_ms: float = Field(ge=0)
    p99_ms: float = Field(ge=0)
    period_ms: float = Field(gt=0)

    @property
    def key(self) -> tuple[str | int, ...]:
        """Row, model and clips."""
        return self.model

    @property
    def place(self) -> tuple[str, ...]:
        """Row, precision and split."""
        return self.row, self.precision, self.split

    @property
    def figures(self) -> object:
        """The results that do not depend on the machine's speed."""
        return self.clips, self.accuracy, self.stream_accuracy

    @property
    def described(self) -> str:
        """Row and precision."""
        return f"{self.row} ({self.precision})"

    def is_of(self, row: str, manifest: Manifest) -> bool:
        """Whether this line is the result of this exact artifact."""
        return (self.row, self.content, self.data_fingerprint, self.split) == (
            row, manifest.manifest_sha256, manifest.data_fingerprint, manifest.split,
        )  # fmt: skip


def shipped(row: str, artifact: Artifact, evaluation: Evaluation) -> ShippedLine:
    """Create the line of an artifact that was evaluated as a stream.

    Raises:
        ArtifactError: The artifact was evaluated by clips only.
    """
    stream = evaluation.streaming
    if stream is None or stream.frame is None:
        raise ArtifactError(f"{artifact.path} was not streamed", "a streaming step", "export it with --graph step")
    return ShippedLine(
        format=FORMAT,
        release=__version__,
        row=row,
        recipe_fingerprint=artifact.manifest.recipe_fingerprint,
        precision=artifact.manifest.precision,
        dataset=evaluation.dataset,
        split=evaluation.split,
        content=artifact.manifest.manifest_sha256,
        data_fingerprint=artifact.manifest.data_fingerprint,
        measured=datetime.now(timezone.utc).isoformat(),
        clips=evaluation.clip.clips,
        accuracy=evaluation.clip.accuracy,
        stream_accuracy=stream.every.accuracy,
        labelled=stream.live.labelled,
        megabytes=artifact.path.stat().st_size / 1e6,
        engine=evaluation.engine,
        threads=stream.frame.threads,
        median_ms=stream.frame.median_ms,
        p99_ms=stream.frame.p99_ms,
        period_ms=stream.frame.period_ms,
    )


def shipped_markdown(lines: Sequence[ShippedLine], rows: Sequence[str]) -> str:
    """Format a table with one line per artifact.

    Args:
        lines: Lines of the ledger.
        rows: Names of the rows to show, in order.
    """
    table = [f"| {' | '.join(_HEADS)} |", f"|{'---|' * len(_HEADS)}"]
    chosen = [line for row in rows for line in lines if line.row == row]
    for line in chosen:
        change = 100 * (line.stream_accuracy - line.accuracy)
        cells = (
            line.row,
            line.precision,
            f"{line.megabytes:.1f}",
            f"{100 * line.accuracy:.1f}",
            f"{100 * line.stream_accuracy:.1f}",
            f"{change:+.1f}",
            f"{100 * line.labelled:.1f}",
            f"{line.median_ms:.2f}",
            f"{line.p99_ms:.2f}",
        )
        table.append(f"| {' | '.join(cells)} |")
    tests = dict.fromkeys(f"{line.clips} test clips of {line.dataset}, split {line.split}" for line in chosen)
    runners = dict.fromkeys(f"{line.engine}, threads: {line.threads}" for line in chosen)
    budget = dict.fromkeys(f"{line.period_ms:.1f} ms" for line in chosen)
    note = f"{'; '.join(tests)}. {'; '.join(runners)}; one frame comes every {', '.join(budget)}."
    return "\n".join([*table, "", note]) + "\n"
