"""Arrays of ``.npy`` files, mapped: they do not pass through memory at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kd_edge.errors import reason
from kd_edge.reading import open_regular


def mapped(path: Path) -> npt.NDArray[Any]:
    """An array as it lies in its file; nothing is unpickled.

    Raises:
        OSError: Not there, or no regular file.
        ValueError: No array, or a damaged one.
    """
    open_regular(path).close()  # mapping would wait for a FIFO
    try:
        array: npt.NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # of a damaged header NumPy raises whatever Python's own parser does
        raise ValueError(reason(error)) from error
    return array
