"""The exceptions of fer-edge.

    FerEdgeError              base class; the CLI prints the message and exits with status 1
    ├── InputError            a wrong argument or option
    ├── FrameError            one frame that cannot be used; the next call may succeed
    ├── DataError             a data set, image or video that cannot be read as labelled or as given
    ├── RecipeError           a recipe file or setting that is unknown, missing or out of range
    ├── BundleError           a bundle that is missing, damaged, foreign or of an unknown schema
    ├── SessionError          an engine, provider or precision that is not available or failed to run
    ├── OutputError           a file or folder that cannot be written; no partial output is left
    ├── GateError             a parity or accuracy gate that did not pass; nothing was written
    ├── TrainingDiverged      a training whose loss is not finite
    └── MissingPackageError   a package that this call needs and this environment lacks

Every message has one form: ``<what>: got <value>, expected <what>; <what to do>``.
"""

from __future__ import annotations

import importlib
import platform
from pathlib import Path
from types import ModuleType

__all__ = [
    "BundleError",
    "DataError",
    "FerEdgeError",
    "FrameError",
    "GateError",
    "InputError",
    "MissingPackageError",
    "OutputError",
    "RecipeError",
    "SessionError",
    "TrainingDiverged",
    "require",
]


class FerEdgeError(Exception):
    """Base class of every error that the user or the environment can fix.

    Example:
        >>> from fer_edge import FerEdgeError, Recognizer
        >>> try:
        ...     Recognizer("no-such-bundle")
        ... except FerEdgeError as error:
        ...     print(type(error).__name__)
        BundleError
    """


class InputError(FerEdgeError):
    """A wrong argument or option."""


class FrameError(FerEdgeError):
    """One frame that cannot be used, such as a late timestamp; the next call may succeed."""


class DataError(FerEdgeError):
    """A data set, image or video that cannot be read."""


class RecipeError(FerEdgeError):
    """A recipe file or setting that is unknown, missing or out of range."""


class BundleError(FerEdgeError):
    """A bundle that is missing, damaged, foreign or of an unknown schema."""


class SessionError(FerEdgeError):
    """An engine, provider or precision that is not available or failed to run."""


class OutputError(FerEdgeError):
    """A file or folder that cannot be written."""


class GateError(FerEdgeError):
    """A parity or accuracy gate that did not pass; nothing was written."""


class TrainingDiverged(FerEdgeError):  # noqa: N818 - the name that the design gives it
    """A training whose loss is not finite."""


class MissingPackageError(FerEdgeError):
    """A package that this call needs and this environment lacks."""


# JetPack brings these itself; pip would put a build without GStreamer or CUDA in front of them.
_JETPACK_APT = {"cv2": "python3-libnvinfer-dev nvidia-opencv", "tensorrt": "python3-libnvinfer"}


def require(module: str, *, needed_by: str, extra: str) -> ModuleType:
    """Import `module`, or say which command installs it.

    Args:
        module: import name, for example ``"onnxruntime"``.
        needed_by: what the user was doing, for example ``"fer-edge calibrate"``.
        extra: the fer-edge extra that brings the package.

    Raises:
        MissingPackageError: the module, or something it imports, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        on_jetson = platform.machine() == "aarch64" and Path("/etc/nv_tegra_release").exists()
        if on_jetson and module in _JETPACK_APT:
            cure = f"sudo apt-get install {_JETPACK_APT[module]}"
        else:
            cure = f"pip install 'fer-edge[{extra}]'"
        raise MissingPackageError(
            f"{needed_by} needs the package {module!r}, which cannot be imported here ({error}). "
            f"Install it with: {cure}"
        ) from error
