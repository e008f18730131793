"""Type aliases that every room uses: arrays and the progress callback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Float32", "Int64", "Progress", "Uint8", "no_progress"]

Array: TypeAlias = NDArray[Any]
Uint8: TypeAlias = NDArray[np.uint8]
Float32: TypeAlias = NDArray[np.float32]
Int64: TypeAlias = NDArray[np.int64]

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in total); the CLI draws it as a bar."""


def no_progress(what: str, done: int, total: int) -> None:
    """Ignore the progress: the default callback."""
