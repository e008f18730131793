"""The bundle's graphs in the form that a recipe asks for, and what they are compared with before anything is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fer_edge.bundle import Bundle
from fer_edge.data.faces.stills import synthetic_stills
from fer_edge.errors import require
from fer_edge.export.parity import Parity, compare_outputs
from fer_edge.export.recipe import Shapes
from fer_edge.export.writer import InputShapes, Part, Run
from fer_edge.manifest import Manifest
from fer_edge.preprocess import prepare_stills
from fer_edge.runtime.providers import open_session

__all__ = ["Sample", "bundle_graphs", "compare_parts", "part_shapes", "reference_samples"]

_EDGES: Final = ("min", "opt", "max")

Shaped = Mapping[Part, Mapping[str, InputShapes]]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One run of one graph: what goes in, and what the bundle's own graph makes of it."""

    feeds: Mapping[str, NDArray[Any]]
    expected: Mapping[str, NDArray[Any]]


def bundle_graphs(bundle: Bundle, variant: str, *, clip: bool) -> dict[Part, bytes]:
    """A variant's own graphs, the fused one from a whole clip among them where asked for.

    Raises:
        BundleError: no such variant, or a damaged graph.
        MissingPackageError: `clip`, and the package onnx is not installed.
    """
    graphs: dict[Part, bytes] = {
        "encoder": bundle.graph_bytes(variant, "encoder"),
        "head": bundle.graph_bytes(variant, "head"),
    }
    if clip:
        require("onnx", needed_by="the fused clip graph", extra="calibrate")
        from fer_edge.graph.fuse import fuse_clip_graph
        from fer_edge.graph.load import dump_graph, load_graph

        graphs["clip"] = dump_graph(fuse_clip_graph(load_graph(graphs["encoder"]), load_graph(graphs["head"])))
    return graphs


def part_shapes(manifest: Manifest, shapes: Shapes) -> dict[Part, dict[str, InputShapes]]:
    """Every input of every part at the recipe's smallest, tuned and largest sizes."""
    size, width = manifest.preprocess.size, manifest.sequence.feature_size
    frames, windows, time = shapes.frames, shapes.windows, shapes.of_time(manifest.sequence.window)

    def at(*dimensions: Any) -> InputShapes:
        smallest, tuned, largest = (
            tuple(each if isinstance(each, int) else int(getattr(each, edge)) for each in dimensions) for edge in _EDGES
        )
        return InputShapes(min=smallest, opt=tuned, max=largest)

    return {
        "encoder": {"frames": at(frames, size, size)},
        "head": {"features": at(windows, time, width), "length": at(windows)},
        "clip": {"frames": at(windows, time, size, size), "length": at(windows)},
    }


def reference_samples(
    bundle: Bundle, graphs: Mapping[Part, bytes], shapes: Shaped, *, provider: str = "cpu"
) -> dict[Part, tuple[Sample, ...]]:
    """Generated faces through the bundle's own graphs, at the smallest, tuned and largest shapes.

    Args:
        bundle: says how faces become frames.
        graphs: its own graphs.
        shapes: of every part.
        provider: the engine that runs them.

    Raises:
        SessionError, MissingPackageError: the engine is not to be had.
    """
    manifest = bundle.manifest
    windows, time = shapes["head"]["features"].max[:2]
    count = max(shapes["encoder"]["frames"].max[0], windows * time)
    faces = prepare_stills(synthetic_stills(count, seed=0)[0], manifest.preprocess)
    samples: dict[Part, tuple[Sample, ...]] = {}
    features: NDArray[Any] = np.empty((0,))
    for part, graph in graphs.items():
        with open_session(graph, provider=provider) as session:
            if part == "encoder":
                features = session.run({"frames": faces})["features"]
            feeds = _feeds(part, shapes[part], faces, features)
            samples[part] = tuple(Sample(feeds=feed, expected=session.run(feed)) for feed in feeds)
    return samples


def _feeds(
    part: Part, shapes: Mapping[str, InputShapes], faces: NDArray[Any], features: NDArray[Any]
) -> list[dict[str, NDArray[Any]]]:
    name, given = ("features", features) if part == "head" else ("frames", faces)
    leading = 1 if part == "encoder" else 2
    feeds: list[dict[str, NDArray[Any]]] = []
    for shape in dict.fromkeys(getattr(shapes[name], edge) for edge in _EDGES):
        count = int(np.prod(shape[:leading]))
        feed = {name: np.ascontiguousarray(given[:count].reshape(shape))}
        if "length" in shapes:
            batch, time = shape[:2]
            feed["length"] = np.linspace(time, 1 + time // 2, batch).round().clip(1, time).astype(np.int64)
        feeds.append(feed)
    return feeds


def compare_parts(
    opened: Callable[[Part], AbstractContextManager[Run]], samples: Mapping[Part, tuple[Sample, ...]]
) -> Parity:
    """Run every part on its samples and compare with what the bundle's graphs made of them.

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
