"""A frame as passed to ``push``."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kd_edge.errors import CameraError, ConfigError
from kd_edge.types import Frame, Image

PUSH_MANY = "push_many({'left': (frame, captured_ns), 'right': ...}); push(frame, captured_ns) takes a single one"


class PushedFrame(NamedTuple):
    """A frame as given, unchecked."""

    image: Image
    stamp: object
    frame_id: int | None = None
    truth: str | None = None

    @classmethod
    def of(cls, source: str, frame: tuple[Image, int] | Frame) -> PushedFrame:
        """Either form.

        Raises:
            ConfigError: It is neither.
        """
        if isinstance(frame, Frame):
            return cls(frame.image, frame.captured_ns, frame.frame_id, frame.truth)
        if isinstance(frame, tuple) and len(frame) == 2:
            return cls(*frame)
        raise ConfigError(f"{kind_of(frame)} as the frame of '{source}'", "(frame, captured_ns), or a Frame", PUSH_MANY)

    def check(self, source: str) -> None:
        """Refuse an invalid number or truth.

        Raises:
            CameraError: One of them is something else.
        """
        if not (self.frame_id is None or isinstance(self.frame_id, (int, np.integer))):
            raise CameraError(f"{source}: frame_id {self.frame_id!r:.60}", "a whole number, or None", "correct it")
        if not (self.truth is None or isinstance(self.truth, str)):
            raise CameraError(f"{source}: truth {self.truth!r:.60}", "the name of an action, or None", "correct it")


def kind_of(value: object) -> str:
    """Description of a value for messages: the shape of an array, the type of anything else."""
    return f"an array {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
