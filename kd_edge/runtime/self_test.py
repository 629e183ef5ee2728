"""Does this engine, on this machine, give the logits that the model was exported with?"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from kd_edge.artifact import GoldenClip, Manifest
from kd_edge.engines import Binding
from kd_edge.errors import KdEdgeError, MissingExtraError
from kd_edge.runtime.source import SourceState, check_frame
from kd_edge.sampling import gather

_SOURCE = "self-test"


class SelfTested(NamedTuple):
    """What came of a self-test.

    Attributes:
        error: Largest difference of a logit; None where there is no logit to compare.
        fault: What is wrong; None where the logits are reproduced.
    """

    error: float | None
    fault: str | None


def self_test(golden: GoldenClip, manifest: Manifest, bind: Callable[[], Binding]) -> SelfTested:
    """Take in the golden clip like any camera's frames and compare the logits of its last window.

    Frames that only the motion stack needs are observed, not encoded: loading takes T runs, not 3 T.

    Args:
        golden: The clip, its logits, and how far from them is tolerated.
        manifest: Of its model.
        bind: Gives the arrays of one source.

    Raises:
        MissingExtraError: A package cannot be imported: the model is not at fault, and no label would come.
    """
    try:
        logits = _last_logits(golden, manifest, bind)
    except MissingExtraError:
        raise
    except (KdEdgeError, ValueError) as error:
        return SelfTested(None, str(error))
    if logits is None:
        return SelfTested(None, "its window is not full")
    largest = float(np.abs(logits - golden.logits).max())
    if largest <= golden.tolerance:  # not so where it is no number
        return SelfTested(largest, None)
    return SelfTested(largest, f"logits differ by {largest:.2g}, tolerance {golden.tolerance:.2g}")


def _last_logits(golden: GoldenClip, manifest: Manifest, bind: Callable[[], Binding]) -> np.ndarray | None:
    """The logits of the window that ends with the clip; None where it is not full."""
    state, stamps_ns = SourceState(manifest), golden.stamps_ns
    segments = gather(stamps_ns, int(stamps_ns[-1]), manifest.segments, manifest.spacing_ns)
    encoded = set() if segments is None else set(segments.tolist())
    logits = None
    for position, (frame, stamp_ns) in enumerate(zip(golden.frames, stamps_ns, strict=True)):
        check_frame(frame, manifest, _SOURCE)
        state.observe(frame, int(stamp_ns))
        logits = None
        if position in encoded and state.stack is not None:  # a step, due or not at the clip's rate
            binding = bind()
            is_full = state.begin(binding, 0) is not None
            binding.run()
            state.end(binding, 0)
            logits = binding.logits[0] if is_full else None
    return logits
