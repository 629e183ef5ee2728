"""What every classical method's run is told."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from kd_edge.data import DataConfig

Share = Annotated[float, Field(gt=0, le=1)]


Positive = Annotated[float, Field(gt=0)]


class RunConfig(BaseModel):
    """What every comparator's run is told.

    Attributes:
        name: Name of the run directory.
        data: Data set of the recordings.
        split: Name of the data set's protocol.
        validation_subjects: Training subjects held out.
        seed: Seed of everything random.
        threads: CPU threads of PyTorch; None leaves its default. Figures repeat only with the same number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = "comparator"
    data: DataConfig
    split: str
    validation_subjects: tuple[str, ...] = ()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    threads: Annotated[int, Field(ge=1)] | None = None

    def fingerprint(self) -> str:
        """SHA-256 (hex) of everything that decides the figures; not of where the recordings lie."""
        values = self.model_dump(mode="json", exclude={"name": True, "data": {"root"}})
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    @property
    @abstractmethod
    def modalities(self) -> tuple[str, ...]:
        """What of the data set is used."""
