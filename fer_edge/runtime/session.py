"""What every engine looks like from outside: named arrays in, named arrays out, checked first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from fer_edge.core.errors import InputError
from fer_edge.core.types import Array

__all__ = ["Session", "TensorSpec", "all_finite", "check_feeds", "one_line"]


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One input or output of a graph.

    Attributes:
        name: as the graph calls it.
        dtype: its type.
        shape: its sizes, None where it may vary.
        limits: the smallest and the largest size of every dimension, where the engine was built for a range.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    limits: tuple[tuple[int, int], ...] | None = None

    @property
    def largest(self) -> tuple[int, ...]:
        """The largest shape.

        Raises:
            InputError: some dimension has no limit.
        """
        if self.limits is None and None in self.shape:
            raise InputError(f"{self} has no largest shape")
        return tuple(most for _, most in self.limits or ((size or 0, size or 0) for size in self.shape))

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} ({', '.join(map(self._size, range(len(self.shape))))})"

    def _size(self, axis: int) -> str:
        if (size := self.shape[axis]) is not None:
            return str(size)
        return "any" if self.limits is None else "{} to {}".format(*self.limits[axis])


class Session(Protocol):
    """One graph loaded into one engine; a context manager.

    `provider` is the one that really runs. Whether `run` may be called from several threads at once stands in the
    docstring of each kind; all kinds may be called from different threads one after the other.
    """

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `run` takes."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `run` gives."""

    @property
    def provider(self) -> str:
        """Our name of the engine that runs: ``"cpu"``, ``"cuda"``, ``"openvino"``, ..."""

    @property
    def provider_version(self) -> str:
        """The engine's package and version: ``"onnxruntime 1.32.0"``."""

    @property
    def threads(self) -> int:
        """Threads that one `run` may use."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute every output.

        Args:
            feeds: an array for every input, of its dtype and shape; floats finite.

        Raises:
            InputError: a feed is missing, unknown, or of another type, shape or not finite.
            SessionError: the engine failed, or the session is closed.
        """

    def close(self) -> None:
        """Give the engine's memory back; a second call does nothing."""

    def __enter__(self) -> Session:
        """The session itself."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""


def check_feeds(inputs: Sequence[TensorSpec], feeds: Mapping[str, Array]) -> None:
    """Hold the feeds against the graph's inputs.

    Raises:
        InputError: naming the input, what was got and what was expected.
    """
    for spec in inputs:
        array = feeds.get(spec.name)
        if not isinstance(array, np.ndarray) or array.dtype != spec.dtype or not _fits(array.shape, spec):
            raise InputError(_misfit(spec, inputs, feeds))
        if array.dtype.kind == "f" and not all_finite(array):
            raise InputError(f"input {spec.name!r} holds NaN or infinity, expected finite numbers")
    if len(feeds) > len(inputs):
        unknown = sorted(set(feeds) - {spec.name for spec in inputs})
        raise InputError(f"unknown input {unknown[0]!r}; expected {', '.join(map(str, inputs))}")


def _fits(shape: tuple[int, ...], spec: TensorSpec) -> bool:
    """Whether an input may have this shape. A loop, since this is asked twice a frame and generators are felt there."""
    if len(shape) != len(spec.shape):
        return False
    for got, expected in zip(shape, spec.shape, strict=True):
        if not got or (expected is not None and got != expected):
            return False
    return spec.limits is None or _within(shape, spec.limits)


def _within(shape: tuple[int, ...], limits: tuple[tuple[int, int], ...]) -> bool:
    return all(least <= size <= most for size, (least, most) in zip(shape, limits, strict=True))


def _misfit(spec: TensorSpec, inputs: Sequence[TensorSpec], feeds: Mapping[str, Any]) -> str:
    """What is wrong with the feed of one input."""
    if spec.name not in feeds:
        return f"input {spec.name!r} is missing; expected {', '.join(map(str, inputs))}"
    array = feeds[spec.name]
    if not isinstance(array, np.ndarray):
        return f"input {spec.name!r}: got {type(array).__name__}, expected a numpy array: {spec}"
    if array.dtype != spec.dtype:
        return f"input {spec.name!r}: got dtype {array.dtype}, expected {spec.dtype}"
    if _fits(array.shape, replace(spec, limits=None)):
        return f"input {spec.name!r}: got shape {array.shape}, but the engine was built for {spec}"
    return f"input {spec.name!r}: got shape {array.shape}, expected {spec} with no empty dimension"


def all_finite(array: Array) -> bool:
    """Whether a float array of any shape holds neither NaN nor infinity.

    The sum of squares says so in a third of the time that looking at each number takes, and on a small network that is
    felt; numbers whose squares leave the range are looked at.
    """
    return math.isfinite(np.vdot(array, array)) or bool(np.isfinite(array).all())


def one_line(error: Exception) -> str:
    """An engine's message, which often runs over many lines, on one."""
    return " ".join(str(error).split())
