"""The bundle's graphs in the form that a recipe asks for, and what they are compared with before anything is built."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import require
from fer_edge.core.manifest import Manifest
from fer_edge.core.preprocess import prepare_stills
from fer_edge.core.types import Array
from fer_edge.data.faces.stills import synthetic_stills
from fer_edge.export.backend import InputShapes, Part, Run
from fer_edge.export.parity.outputs import Parity, compare_outputs
from fer_edge.export.recipe import Shapes, TargetRecipe
from fer_edge.runtime.providers import open_session
from fer_edge.runtime.session import Session

if TYPE_CHECKING:
    from fer_edge.graph.graph import Graph

__all__ = [
    "Prepared",
    "Sample",
    "bundle_graphs",
    "compare_parts",
    "part_shapes",
    "prepare_graphs",
    "reference_samples",
    "running",
]

_EDGES: Final = ("min", "opt", "max")
_FACES: Final = 32  # generated ones; a larger batch repeats them

Shaped = Mapping[Part, Mapping[str, InputShapes]]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One run of one graph: what goes in, and what the bundle's own graph makes of it."""

    feeds: Mapping[str, Array]
    expected: Mapping[str, Array]


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
        from fer_edge.graph.clip_graph import fuse_clip_graph
        from fer_edge.graph.graph import Graph

        graphs["clip"] = fuse_clip_graph(Graph.read(graphs["encoder"]), Graph.read(graphs["head"])).write()
    return graphs


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Graphs after a recipe's passes.

    Attributes:
        graphs: the ONNX bytes by part.
        keep_float32: by part, the nodes whose range wants FP32.
        passes: what was done, in order, in a few words each.
    """

    graphs: Mapping[Part, bytes]
    keep_float32: Mapping[Part, tuple[str, ...]]
    passes: tuple[str, ...]


def prepare_graphs(graphs: Mapping[Part, bytes], recipe: TargetRecipe, shapes: Shaped, *, float16: bool) -> Prepared:
    """Apply the passes that a recipe asks for.

    In this order: for TensorRT the uint8 input is cast before anything else reads it, and what ONNX leaves open is
    written out; weights stored as int8 come back to float; dimensions with one size become fixed; the LSTM takes its
    form; constants are folded; FP16 is written in as casts. The last is left to the builder where the flavour of
    TensorRT has no strong typing.

    Args:
        graphs: the bundle's own.
        recipe: says which passes.
        shapes: of every part.
        float16: the float parts are to compute in FP16.

    Raises:
        InputError: a graph does not bear a pass.
        MissingPackageError: onnx or onnxslim is not installed.
    """
    if not recipe.rewrites:
        return Prepared(graphs=graphs, keep_float32={}, passes=())
    for package in ("onnx", "onnxslim") if recipe.fold else ("onnx",):
        require(package, needed_by="rewriting graphs for a target", extra="tensorrt")
    from fer_edge.graph.float16 import float32_nodes
    from fer_edge.graph.graph import Graph

    typed = recipe.tensorrt is not None and recipe.tensorrt.strong_typing
    done, kept, passes = dict[Part, bytes](), dict[Part, tuple[str, ...]](), list[str]()
    for part, data in graphs.items():
        graph = Graph.read(data, name=f"the {part}")
        said = _rewrite(graph, recipe, shapes[part], float16=float16 and typed)
        passes += [each for each in said if each not in passes]
        kept[part] = float32_nodes(graph) if float16 and not typed else ()
        done[part] = graph.write(name=f"the {part} after {', '.join(said) or 'no pass'}")
    return Prepared(graphs=done, keep_float32=kept, passes=tuple(passes))


def _rewrite(graph: Graph, recipe: TargetRecipe, shapes: Mapping[str, InputShapes], *, float16: bool) -> list[str]:
    """Apply the passes in place; returns what was done."""
    from fer_edge.graph.float16 import to_float16
    from fer_edge.graph.lstm_forms import rewrite_lstm
    from fer_edge.graph.simplify import fix_dimensions, fold_constants
    from fer_edge.graph.tensorrt_rewrites import rewrite_for_tensorrt
    from fer_edge.graph.weight_compression import restore_weights

    said = []
    if recipe.tensorrt is not None:
        rewrite_for_tensorrt(graph)
    if recipe.float_weights:
        restore_weights(graph)
        said.append("float weights")
    if sizes := {} if recipe.shapes.dynamic or recipe.kind == "openvino" else _fixed_sizes(graph, shapes):
        fix_dimensions(graph, sizes)
        said.append("fixed " + ", ".join(f"{symbol} = {size}" for symbol, size in sizes.items()))
    if recipe.lstm != "loop":
        rewrite_lstm(graph, form=recipe.lstm)
        said.append(f"LSTM {recipe.lstm}")
    if recipe.fold:
        fold_constants(graph)
        said.append("constants folded")
    if float16:
        to_float16(graph)
        said.append("FP16 casts")
    return said


def _fixed_sizes(graph: Graph, shapes: Mapping[str, InputShapes]) -> dict[str, int]:
    """Sizes of the graph's symbolic dimensions that have one size alone."""
    return {
        symbol: shapes[name].max[axis]
        for name, tensor in graph.inputs.items()
        if name in shapes
        for axis, symbol in enumerate(tensor.shape)
        if isinstance(symbol, str) and shapes[name].min[axis] == shapes[name].max[axis]
    }


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
    drawn = prepare_stills(synthetic_stills(min(count, _FACES), seed=0)[0], manifest.preprocess)
    samples: dict[Part, tuple[Sample, ...]] = {}
    features: Array = np.empty((0,))
    for part, graph in graphs.items():
        with open_session(graph, provider=provider) as session:
            if part == "encoder":
                features = session.run({"frames": drawn})["features"]
            feeds = _feeds(part, shapes[part], features if part == "head" else drawn)
            samples[part] = tuple(Sample(feeds=feed, expected=session.run(feed)) for feed in feeds)
    return samples


def _feeds(part: Part, shapes: Mapping[str, InputShapes], given: Array) -> list[dict[str, Array]]:
    """`given` at every shape, its rows repeated where there are too few."""
    name = "features" if part == "head" else "frames"
    leading = 1 if part == "encoder" else 2
    feeds: list[dict[str, Array]] = []
    for shape in dict.fromkeys(getattr(shapes[name], edge) for edge in _EDGES):
        count = int(np.prod(shape[:leading]))
        feed = {name: np.resize(given, (count, *given.shape[1:])).reshape(shape)}
        if "length" in shapes:
            batch, time = shape[:2]
            feed["length"] = np.linspace(time, 1 + time // 2, batch).round().clip(1, time).astype(np.int64)
        feeds.append(feed)
    return feeds


@contextmanager
def running(session: Session) -> Iterator[Run]:
    """An open session as a run, closed at the end."""
    with session:
        yield session.run


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
