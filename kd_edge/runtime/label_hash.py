"""A hash of a label stream: two runs gave the same labels exactly if their hashes are equal."""

from __future__ import annotations

import hashlib
import struct

import numpy as np

from kd_edge.types import Prediction

_NUMBERS = struct.Struct("<qqi")


class LabelHash:
    """SHA-256 of the predictions of pushed frames as the recogniser gave them, by source, whose name is not hashed.

    Everything that depends on the time of reading is left out: ``emitted_ns``, watchdog time-outs, late labels. So the
    replay of a recording, with the same model, engine and threads, has the same hash as the recorded run.
    """

    def __init__(self) -> None:
        self._digests: dict[str, hashlib._Hash] = {}

    def add(self, prediction: Prediction) -> None:
        """Add the next prediction of its source."""
        digest = self._digests.setdefault(prediction.source, hashlib.sha256())
        texts = (prediction.state.value, prediction.label or "", prediction.reason.value)
        for text in texts:
            content = text.encode("utf-8", "surrogatepass")
            digest.update(len(content).to_bytes(4, "little") + content)
        digest.update(_NUMBERS.pack(prediction.frame_id, prediction.captured_ns, prediction.index))
        digest.update(np.ascontiguousarray(prediction.probabilities, dtype="<f4").tobytes())

    @property
    def by_source(self) -> dict[str, str]:
        """Hexadecimal hash of each source, sorted by name."""
        return {name: self._digests[name].hexdigest() for name in sorted(self._digests)}

    def hexdigest(self) -> str:
        """The hash of the only source, or of all together, independent of their interleaving; "" if there is none."""
        by_source = self.by_source
        if len(by_source) < 2:
            return next(iter(by_source.values()), "")
        return hashlib.sha256("".join(by_source.values()).encode()).hexdigest()
