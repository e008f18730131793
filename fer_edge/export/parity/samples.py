"""Sample inputs of a target's graphs, and the bundle's own outputs for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

import numpy as np

from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import BundleError
from fer_edge.core.types import Array
from fer_edge.export.graph_passes import EDGES, InputShapes, Part, Shaped
from fer_edge.export.parity.frames import drawn_frames
from fer_edge.export.parity.outputs import Parity, compare_outputs
from fer_edge.runtime.providers import open_session

__all__ = ["Sample", "compare_parts", "reference_samples"]

_FACES: Final = 32  # a larger batch repeats them


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One run of one graph: its inputs, and the outputs of the bundle's own graph."""

    feeds: Mapping[str, Array]
    expected: Mapping[str, Array]


def reference_samples(
    bundle: Bundle, graphs: Mapping[Part, bytes], shapes: Shaped, *, provider: str = "cpu"
) -> dict[Part, tuple[Sample, ...]]:
    """Run drawn faces through the bundle's own graphs, at the smallest, tuned and largest shapes.

    Args:
        bundle: states how faces are prepared.
        graphs: its own graphs.
        shapes: of every part.
        provider: the engine that runs them.

    Raises:
        BundleError: a graph without the output that its part has.
        SessionError, MissingPackageError: the engine is not available.
    """
    windows, time = shapes["head"]["features"].max[:2]
    count = max(shapes["encoder"]["frames"].max[0], windows * time)
    drawn: Array = drawn_frames(min(count, _FACES), bundle.manifest.preprocess)
    samples: dict[Part, tuple[Sample, ...]] = {}
    features: Array = np.empty((0,))
    for part, graph in graphs.items():
        with open_session(graph, provider=provider) as session:
            outputs = [tensor.name for tensor in session.outputs]
            if (wanted := "features" if part == "encoder" else "logits") not in outputs:
                raise BundleError(f"{part}: got the outputs {', '.join(outputs)}, expected {wanted!r} among them")
            if part == "encoder":
                features = session.run({"frames": drawn})["features"]
            feeds = _feeds(part, shapes[part], features if part in ("head", "crowd") else drawn)
            samples[part] = tuple(Sample(feeds=feed, expected=session.run(feed)) for feed in feeds)
    return samples


def _feeds(part: Part, shapes: Mapping[str, InputShapes], given: Array) -> list[dict[str, Array]]:
    """Bring `given` to every shape; its rows repeat where there are too few."""
    name = "features" if part in ("head", "crowd") else "frames"
    leading = 1 if part == "encoder" else 2
    feeds: list[dict[str, Array]] = []
    for shape in dict.fromkeys(getattr(shapes[name], edge) for edge in EDGES):
        count = int(np.prod(shape[:leading]))
        feed = {name: np.resize(given, (count, *given.shape[1:])).reshape(shape)}
        if "length" in shapes:
            batch, time = shape[:2]
            feed["length"] = np.linspace(time, 1 + time // 2, batch).round().clip(1, time).astype(np.int64)
        feeds.append(feed)
    return feeds


def compare_parts(
    opened: Callable[[Part], AbstractContextManager[Callable[[Mapping[str, Array]], dict[str, Array]]]],
    samples: Mapping[Part, tuple[Sample, ...]],
) -> Parity:
    """Run every part on its samples and compare with the expected outputs.

    Raises:
        GateError: an output is missing, of another shape or not finite.
    """
    pairs, shapes = [], []
    for part, expected in samples.items():
        with opened(part) as run:
            for sample in expected:
                pairs.append((sample.expected, run(sample.feeds)))
                shapes.append(next(iter(sample.feeds.values())).shape)
    return compare_outputs(pairs, shapes)
