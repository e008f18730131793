"""TensorRT or TensorRT-RTX, whichever is asked for: the module, its row in the table of flavours, and its log.

The two modules share their names, so everything that uses them takes a `TensorRtLibrary` and asks its row what it has.
"""

from __future__ import annotations

import contextlib
import importlib
import platform
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from fer_edge.core.errors import InputError, MissingPackageError, SessionError
from fer_edge.core.tensorrt_flavours import Package, TensorRtFlavour, installed_flavour

__all__ = ["MessageLog", "TensorRtLibrary", "load_tensorrt", "numpy_dtype"]

_DTYPES: Final = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


class MessageLog:
    """What TensorRT says at the level of a warning or above, from whatever thread.

    TensorRT keeps to the first logger that it is given, so there is one a library and a process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: list[list[tuple[bool, str]]] = []

    def write(self, *, error: bool, message: str) -> None:
        """Take a message down."""
        with self._lock:
            for heard in self._listeners:
                heard.append((error, " ".join(message.split())))

    @contextlib.contextmanager
    def listen(self) -> Iterator[Messages]:
        """What is said while the block runs."""
        heard: list[tuple[bool, str]] = []
        with self._lock:
            self._listeners.append(heard)
        try:
            yield Messages(heard)
        finally:
            with self._lock:
                self._listeners = [other for other in self._listeners if other is not heard]


class Messages:
    """What was heard."""

    def __init__(self, heard: list[tuple[bool, str]]) -> None:
        self._heard = heard

    @property
    def warnings(self) -> tuple[str, ...]:
        """Each warning once, in order."""
        return tuple(dict.fromkeys(message for error, message in self._heard if not error))

    @property
    def errors(self) -> tuple[str, ...]:
        """Each error once, in order."""
        return tuple(dict.fromkeys(message for error, message in self._heard if error))

    def reason(self) -> str:
        """The errors in one line, for a message of our own."""
        return "; ".join(self.errors) or "it does not say why"


@dataclass(frozen=True, kw_only=True)
class TensorRtLibrary:
    """An imported TensorRT.

    Attributes:
        package: ``"tensorrt"`` or ``"tensorrt_rtx"``.
        version: its ``__version__``.
        flavour: what it accepts.
        module: the module itself.
        logger: to be handed to every object of it that wants one.
        log: where the logger writes.
    """

    package: Package
    version: str
    flavour: TensorRtFlavour
    module: Any
    logger: Any
    log: MessageLog

    @property
    def title(self) -> str:
        """``"tensorrt 10.3.0"``."""
        return f"{self.package} {self.version}"


_LOADED: dict[Package, TensorRtLibrary] = {}  # one a module, because TensorRT keeps to the first logger


def load_tensorrt(package: Package) -> TensorRtLibrary:
    """Import TensorRT.

    Raises:
        MissingPackageError: it is not installed; the message says how to get it here.
        SessionError: it is installed but cannot be used, or is older than what is supported.
    """
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        if error.name not in (None, package):
            raise SessionError(f"{package} is installed but cannot be imported: {error}") from error
        raise MissingPackageError(f"{package} is not installed. {_cure(package)}") from error
    if not hasattr(module, "__version__"):  # a folder of type stubs alone imports as an empty namespace
        raise MissingPackageError(f"{package} is not installed, only its type stubs are. {_cure(package)}")
    loaded = _LOADED.get(package)
    if loaded is not None and loaded.module is module:
        return loaded
    version = str(module.__version__)
    try:
        flavour = installed_flavour(package, version)
    except InputError as error:
        raise SessionError(f"{error}; install a newer one") from error
    log = MessageLog()
    _LOADED[package] = TensorRtLibrary(
        package=package, version=version, flavour=flavour, module=module, logger=_logger(module, log), log=log
    )
    return _LOADED[package]


def numpy_dtype(kind: Any) -> np.dtype[Any]:
    """The numpy type of a TensorRT `DataType`; not by `tensorrt.nptype`, which asks numpy 2 for names it has dropped.

    Raises:
        SessionError: numpy has no such type.
    """
    if kind.name not in _DTYPES:
        raise SessionError(f"the engine has a tensor of type {kind.name}, expected one of {', '.join(_DTYPES)}")
    return np.dtype(_DTYPES[kind.name])


def _logger(module: Any, log: MessageLog) -> Any:
    severity = module.ILogger.Severity
    errors = (severity.INTERNAL_ERROR, severity.ERROR)

    class Logger(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, level: Any, message: str) -> None:
            if level in errors or level == severity.WARNING:
                log.write(error=level in errors, message=message)

    return Logger()


def _cure(package: Package) -> str:
    if package == "tensorrt_rtx":
        return "Install it with: pip install 'fer-edge[rtx]'"
    if platform.machine() == "aarch64" and Path("/etc/nv_tegra_release").exists():
        return (
            "JetPack brings it: sudo apt-get install python3-libnvinfer, in an environment with --system-site-packages"
        )
    return "It comes from NVIDIA, not from PyPI: JetPack, its apt repository or its SDK"
