"""Session: one graph loaded into one engine, with named arrays in and out, checked before the engine runs."""

from __future__ import annotations

import abc
import contextlib
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from fer_edge.core.errors import FerEdgeError, InputError, SessionError
from fer_edge.core.types import Array
from fer_edge.runtime.one_process import OneProcess

__all__ = ["Session", "SessionInfo", "TensorSpec", "all_finite", "check_feeds", "one_line"]

Opened = TypeVar("Opened", bound="Session")


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One input or output of a graph.

    Attributes:
        name: name in the graph.
        dtype: element type.
        shape: size of each dimension, None where it may vary.
        limits: smallest and largest size of each dimension, where the engine was built for a range.
        steps: the sizes of the second dimension, where the engine was built for a few.

    Example:
        >>> import numpy as np
        >>> from fer_edge.runtime import TensorSpec
        >>> print(TensorSpec(name="frames", dtype=np.dtype(np.uint8), shape=(None, 48, 48)))
        frames uint8 (any, 48, 48)
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    limits: tuple[tuple[int, int], ...] | None = None
    steps: tuple[int, ...] = ()

    @property
    def largest(self) -> tuple[int, ...]:
        """The largest shape.

        Raises:
            InputError: a dimension has no limit.
        """
        if self.limits is None and None in self.shape:
            raise InputError(f"largest: got {self}, expected a limit for every dimension")
        return tuple(most for _, most in self.limits or ((size or 0, size or 0) for size in self.shape))

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} ({', '.join(map(self._size, range(len(self.shape))))})"

    def _size(self, axis: int) -> str:
        if (size := self.shape[axis]) is not None:
            return str(size)
        if axis == 1 and self.steps:
            return " or ".join(map(str, self.steps))
        return "any" if self.limits is None else "{} to {}".format(*self.limits[axis])


@dataclass(frozen=True, kw_only=True)
class SessionInfo:
    """What a session runs.

    Attributes:
        inputs: what `Session.run` takes.
        outputs: what it returns.
        provider: fer-edge's name of the engine that runs: ``"cpu"``, ``"cuda"``, ``"openvino"``, ...
        provider_version: the engine's package and version: ``"onnxruntime 1.32.0"``.
        threads: threads that one run may use.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    provider: str
    provider_version: str
    threads: int = 1


class Session(OneProcess, abc.ABC):
    """One graph loaded into one engine; a context manager. `open_session` opens one by the provider's name.

    Every session may be used from several threads: the runs of one are either concurrent (ONNX Runtime on the CPU,
    TensorRT) or wait for each other.

    Args:
        info: what the session runs; its fields are attributes of the session.
        concurrent: the engine computes several runs at once; otherwise runs wait for each other.

    Example:
        >>> import numpy as np
        >>> from fer_edge import Bundle
        >>> from fer_edge.runtime import open_session
        >>> with open_session(Bundle.open("nano").graph_bytes("fp32", "encoder")) as session:
        ...     session.run({"frames": np.zeros((2, 48, 48), np.uint8)})["features"].shape[0]
        2
    """

    def __init__(self, info: SessionInfo, *, concurrent: bool = False) -> None:
        self.info = info
        self.inputs, self.outputs, self.threads = info.inputs, info.outputs, info.threads
        self.provider, self.provider_version = info.provider, info.provider_version
        self._turn: Any = contextlib.nullcontext() if concurrent else threading.Lock()
        self._closing = threading.Lock()
        self._closed = False

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute every output.

        Args:
            feeds: an array for every input, of its dtype and shape; floats finite.

        Returns:
            An array for every output, owned by the caller.

        Raises:
            InputError: a feed is missing, unknown, of another type or shape, or not finite.
            SessionError: the engine failed, or the session is closed.
        """
        check_feeds(self.inputs, feeds)
        self.check_process()
        with self._turn:
            if self._closed:
                raise SessionError("session: got a run after close, expected an open session; open it again")
            try:
                return self._compute(feeds)
            except FerEdgeError:
                raise
            except Exception as error:  # engines raise types of their own, without a common base
                raise SessionError(f"{self.provider_version} failed while running: {one_line(error)}") from error

    def close(self) -> None:
        """Release the engine; a second call does nothing."""
        with self._closing:
            if self._closed:
                return
            with self._turn:
                self._closed = True
                self._release()

    def __enter__(self: Opened) -> Opened:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @abc.abstractmethod
    def _compute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the engine on checked feeds."""

    @abc.abstractmethod
    def _release(self) -> None:
        """Release the engine; called once."""


def check_feeds(inputs: Sequence[TensorSpec], feeds: Mapping[str, Array]) -> None:
    """Compare the feeds with the graph's inputs.

    Raises:
        InputError: naming the input, what was got and what was expected.
    """
    for spec in inputs:
        array = feeds.get(spec.name)
        if not isinstance(array, np.ndarray) or array.dtype != spec.dtype or not _fits(array.shape, spec):
            raise InputError(_misfit(spec, inputs, feeds))
        if array.dtype.kind == "f" and not all_finite(array):
            raise InputError(f"input {spec.name!r}: got NaN or infinity, expected finite numbers")
    if len(feeds) > len(inputs):
        unknown = sorted(set(feeds) - {spec.name for spec in inputs})
        raise InputError(f"unknown input {unknown[0]!r}; expected {', '.join(map(str, inputs))}")


def _fits(shape: tuple[int, ...], spec: TensorSpec) -> bool:
    """Compare a shape with an input's; a loop, because generators are measurable at two calls a frame."""
    if len(shape) != len(spec.shape):
        return False
    for got, expected in zip(shape, spec.shape, strict=True):
        if not got or (expected is not None and got != expected):
            return False
    if spec.steps and shape[1] not in spec.steps:
        return False
    return spec.limits is None or all(
        least <= size <= most for size, (least, most) in zip(shape, spec.limits, strict=True)
    )


def _misfit(spec: TensorSpec, inputs: Sequence[TensorSpec], feeds: Mapping[str, Any]) -> str:
    """Describe the fault of one input's feed."""
    if spec.name not in feeds:
        return f"input {spec.name!r} is missing; expected {', '.join(map(str, inputs))}"
    array = feeds[spec.name]
    if not isinstance(array, np.ndarray):
        return f"input {spec.name!r}: got {type(array).__name__}, expected a numpy array: {spec}"
    if array.dtype != spec.dtype:
        return f"input {spec.name!r}: got dtype {array.dtype}, expected {spec.dtype}"
    if _fits(array.shape, replace(spec, limits=None, steps=())):
        return f"input {spec.name!r}: got shape {array.shape}, but the engine was built for {spec}"
    return f"input {spec.name!r}: got shape {array.shape}, expected {spec} with no empty dimension"


def all_finite(array: Array) -> bool:
    """Return whether a float array of any shape has neither NaN nor infinity.

    The sum of squares decides in a third of the time of `numpy.isfinite`; only where it overflows is each number
    tested.
    """
    return math.isfinite(np.vdot(array, array)) or bool(np.isfinite(array).all())


def one_line(error: Exception) -> str:
    """Return an engine's message on one line."""
    return " ".join(str(error).split())
