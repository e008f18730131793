"""TensorRT or TensorRT-RTX: the module, its row in the table of flavours, and its log.

Both modules have the same API, so code that uses them takes a `TensorRtLibrary` and reads the differences in its row.
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
    """TensorRT's warnings and errors, from any thread.

    TensorRT keeps the first logger that it gets, so there is one per library and process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: list[list[tuple[bool, str]]] = []

    def write(self, *, error: bool, message: str) -> None:
        """Pass a message to all listeners."""
        with self._lock:
            for heard in self._listeners:
                heard.append((error, " ".join(message.split())))

    @contextlib.contextmanager
    def listen(self) -> Iterator[Messages]:
        """Collect the messages logged while the block runs."""
        heard: list[tuple[bool, str]] = []
        with self._lock:
            self._listeners.append(heard)
        try:
            yield Messages(heard)
        finally:
            with self._lock:
                self._listeners = [other for other in self._listeners if other is not heard]


class Messages:
    """Messages that were collected."""

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
        """Return the errors on one line, for an error message."""
        return "; ".join(self.errors) or "no reason given"


@dataclass(frozen=True, kw_only=True)
class TensorRtLibrary:
    """An imported TensorRT.

    Attributes:
        package: ``"tensorrt"`` or ``"tensorrt_rtx"``.
        version: its ``__version__``.
        flavour: its row in the table of flavours.
        module: the module itself.
        logger: the logger for its objects.
        log: collects the logger's messages.
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


_LOADED: dict[Package, TensorRtLibrary] = {}  # one per module, because TensorRT keeps its first logger


def load_tensorrt(package: Package) -> TensorRtLibrary:
    """Import TensorRT.

    Raises:
        MissingPackageError: it is not installed; the message has the command for this machine.
        SessionError: it cannot be imported, or is older than the oldest supported version.
    """
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        if error.name not in (None, package):
            raise SessionError(f"{package} is installed but cannot be imported: {error}") from error
        raise MissingPackageError(f"{package} is not installed. {_cure(package)}") from error
    if not hasattr(module, "__version__"):  # a folder of type stubs imports as an empty namespace
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
    """Return the numpy type of a TensorRT `DataType` (`tensorrt.nptype` uses names that numpy 2 dropped).

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
            "JetPack has it: sudo apt-get install python3-libnvinfer, in an environment with --system-site-packages; "
            "from JetPack 7.2.2 on it is NVIDIA's package for SBSA, 11.4.1 or later"
        )
    return (
        "Install it with: pip install tensorrt-cu12 (or tensorrt-cu13), whose libraries come from NVIDIA's index, "
        "pypi.nvidia.com; or take it from NVIDIA's apt repository or SDK"
    )
