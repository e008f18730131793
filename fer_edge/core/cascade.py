"""OpenCV's frontal-face Haar cascade (Viola and Jones 2001), wherever this OpenCV keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from fer_edge.core.errors import SessionError, require

__all__ = ["CASCADE_PIXELS", "load_cascade"]

CASCADE_PIXELS: Final = 24
"""Side of the window that the cascade was trained on: it finds no smaller face."""

_CASCADE: Final = "haarcascade_frontalface_default.xml"
_SYSTEM_FOLDERS: Final = (Path("/usr/share/opencv4/haarcascades"), Path("/usr/local/share/opencv4/haarcascades"))


def load_cascade() -> Any:
    """The cascade, as OpenCV loads it. It belongs to one thread.

    Raises:
        SessionError: this OpenCV has no cascades, or cannot read them.
        MissingPackageError: OpenCV is not installed.
    """
    cv2 = require("cv2", needed_by="face detection", extra="cpu")
    if not hasattr(cv2, "CascadeClassifier"):
        raise SessionError(
            f"this OpenCV {cv2.__version__} has no CascadeClassifier, which OpenCV 5 dropped; install OpenCV 4 "
            "(pip install 'opencv-python-headless<5'), or give VideoRecognizer a detector of your own"
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
