"""Memory-mapped arrays of ``.npy`` files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kd_edge.errors import reason
from kd_edge.reading import open_regular


def mapped(path: Path) -> npt.NDArray[Any]:
    """Memory-map the array of a file; nothing is unpickled.

    Raises:
        OSError: The file is missing or not a regular file.
        ValueError: The file is not an array, or damaged.
    """
    open_regular(path).close()  # mapping would block on a FIFO
    try:
        array: npt.NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # for a damaged header NumPy raises any error of Python's parser
        raise ValueError(reason(error)) from error
    return array
