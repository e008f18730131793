"""OpenCV's frontal-face Haar cascade (Viola and Jones 2001), from pip's or the system's OpenCV."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from fer_edge.core.errors import SessionError, require

__all__ = ["CASCADE_PIXELS", "load_cascade"]

CASCADE_PIXELS: Final = 24
"""Side of the cascade's training window, the smallest face that it detects."""

_CASCADE: Final = "haarcascade_frontalface_default.xml"
_SYSTEM_FOLDERS: Final = (Path("/usr/share/opencv4/haarcascades"), Path("/usr/local/share/opencv4/haarcascades"))


def load_cascade() -> Any:
    """Load the cascade; use the result in one thread only.

    Raises:
        SessionError: this OpenCV has no cascades, or cannot read them.
        MissingPackageError: OpenCV is not installed.
    """
    cv2 = require("cv2", needed_by="face detection", extra="cpu")
    if not hasattr(cv2, "CascadeClassifier"):
        raise SessionError(
            f"OpenCV: got {cv2.__version__} without CascadeClassifier, expected version 4; install it "
            "(pip install 'opencv-python-headless<5'), or pass another detector"
        )
    folders = list(_SYSTEM_FOLDERS)
    data = getattr(cv2, "data", None)  # JetPack's build has no cv2.data
    if data is not None:
        folders.insert(0, Path(data.haarcascades))
    for folder in folders:
        path = folder / _CASCADE
        if path.is_file():
            cascade = cv2.CascadeClassifier(str(path))
            if cascade.empty():
                raise SessionError(f"OpenCV cannot read the cascade {path}; reinstall OpenCV")
            return cascade
    places = ", ".join(map(str, folders))
    raise SessionError(f"no {_CASCADE} in {places}; on JetPack: sudo apt-get install opencv-data")
