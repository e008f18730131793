"""Encoded images: the one place that decodes them."""

from __future__ import annotations

import numpy as np

from fer_edge.core.errors import DataError, require
from fer_edge.core.types import Uint8

__all__ = ["decode_image"]


def decode_image(data: bytes, *, where: str, grey: bool = False) -> Uint8:
    """Decode an encoded image to uint8 (H, W, 3) BGR or (H, W) grey, turned as its EXIF orientation says.

    Raises:
        DataError: the bytes are not an image, or one that is too large; the message begins with `where`.
        MissingPackageError: OpenCV is not installed.
    """
    cv2 = require("cv2", needed_by="reading images", extra="cpu")
    kind = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), kind) if data else None
    except (cv2.error, MemoryError) as error:  # OpenCV's limit on pixels, or the memory's
        raise DataError(f"{where}: cannot be decoded as an image ({getattr(error, 'err', error)})") from error
    if image is None:
        raise DataError(f"{where}: {len(data):,} bytes that cannot be decoded as an image; the file may be truncated")
    return np.asarray(image, np.uint8)
