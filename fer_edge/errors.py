"""What fer-edge raises.

    FerEdgeError              base of all; the CLI prints its message and exits 1
    ├── InputError            data, frames, arguments or recipes that cannot be used as given
    ├── OutputError           a file or folder that cannot be written; nothing half-written is left
    ├── BundleError           a bundle that is missing, corrupt, foreign or of an unknown schema
    ├── SessionError          an engine, provider or precision that is not to be had, or that failed to run
    ├── GateError             a parity or accuracy gate that did not pass; nothing was written
    └── MissingPackageError   a package that this call needs and this environment lacks

A message says what was got, what was expected and what to do about it.
"""

from __future__ import annotations

import importlib
import platform
from pathlib import Path
from types import ModuleType

__all__ = [
    "BundleError",
    "FerEdgeError",
    "GateError",
    "InputError",
    "MissingPackageError",
    "OutputError",
    "SessionError",
    "require",
]


class FerEdgeError(Exception):
    """Base of every error that is the user's or the environment's to mend."""


class InputError(FerEdgeError):
    """Data, frames, arguments or recipes that cannot be used as given."""


class OutputError(FerEdgeError):
    """A file or folder that cannot be written."""


class BundleError(FerEdgeError):
    """A bundle that is missing, corrupt, foreign or of an unknown schema."""


class SessionError(FerEdgeError):
    """An engine, provider or precision that is not to be had, or that failed to run."""


class GateError(FerEdgeError):
    """A parity or accuracy gate that did not pass; nothing was written."""


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
