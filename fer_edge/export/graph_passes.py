"""Graph passes of a target recipe, from a bundle's graphs to those that an engine gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import require
from fer_edge.core.manifest import Manifest
from fer_edge.export.recipe import Shapes, TargetRecipe

if TYPE_CHECKING:
    from fer_edge.graph.graph import Graph

__all__ = [
    "EDGES",
    "InputShapes",
    "Part",
    "Prepared",
    "Shaped",
    "bundle_graphs",
    "part_shapes",
    "prepare_graphs",
]

Part: TypeAlias = Literal["encoder", "head", "crowd", "clip"]
EDGES: Final = ("min", "opt", "max")


@dataclass(frozen=True, kw_only=True)
class InputShapes:
    """The shapes of one input in an optimisation profile; all three equal where nothing is dynamic."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    @property
    def fixed(self) -> bool:
        """Whether there is only one shape."""
        return self.min == self.max

    def __str__(self) -> str:
        opt = "x".join(map(str, self.opt))
        return opt if self.fixed else f"{'x'.join(map(str, self.min))}..{opt}..{'x'.join(map(str, self.max))}"


Shaped = Mapping[Part, Mapping[str, InputShapes]]


def bundle_graphs(bundle: Bundle, variant: str, *, clip: bool, crowd: bool = False) -> dict[Part, bytes]:
    """Read a variant's own graphs.

    Args:
        variant: its name.
        clip: also fuse encoder and head into one graph from a whole clip to its logits.
        crowd: also read the head `crowd`, where the variant has one.

    Raises:
        BundleError: no such variant, or a damaged graph.
        MissingPackageError: `clip`, and the package onnx is not installed.
    """
    graphs: dict[Part, bytes] = {
        "encoder": bundle.graph_bytes(variant, "encoder"),
        "head": bundle.graph_bytes(variant, "head"),
    }
    if crowd and bundle.variant(variant).crowd is not None:
        graphs["crowd"] = bundle.graph_bytes(variant, "crowd")
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
        keep_float32: by part, the nodes whose range needs FP32.
        passes: the passes in order, a few words each.
    """

    graphs: Mapping[Part, bytes]
    keep_float32: Mapping[Part, tuple[str, ...]]
    passes: tuple[str, ...]


def prepare_graphs(graphs: Mapping[Part, bytes], recipe: TargetRecipe, shapes: Shaped, *, float16: bool) -> Prepared:
    """Apply the passes of a recipe.

    In this order: for TensorRT the uint8 input is cast first and ONNX defaults are written out; weights stored as int8
    become float; dimensions with one size are fixed; the LSTM is rewritten; constants are folded; FP16 casts are
    inserted, except for a TensorRT without strong typing, whose builder decides.

    Args:
        graphs: the bundle's own.
        recipe: names the passes.
        shapes: of every part.
        float16: compute the float layers in FP16.

    Raises:
        InputError: a graph does not allow a pass.
        MissingPackageError: onnx or onnxslim is not installed.
    """
    if recipe.tensorrt is None and not recipe.fold and not recipe.float_weights and recipe.lstm == "loop":
        return Prepared(graphs=graphs, keep_float32={}, passes=())
    for package in ("onnx", "onnxslim") if recipe.fold else ("onnx",):
        extra = "litert" if recipe.kind == "litert" else "tensorrt"
        require(package, needed_by="rewriting graphs for a target", extra=extra)
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
    """Apply the passes in place and return them in words."""
    from fer_edge.graph.float16 import to_float16
    from fer_edge.graph.lstm_forms import unroll_lstm
    from fer_edge.graph.simplify import fix_dimensions, fold_constants
    from fer_edge.graph.tensorrt_rewrites import rewrite_for_tensorrt
    from fer_edge.graph.weight_compression import restore_weights

    said = []
    if recipe.tensorrt is not None or recipe.kind == "litert":
        rewrite_for_tensorrt(graph)
    if recipe.float_weights:
        restore_weights(graph)
        said.append("float weights")
    if sizes := {} if recipe.shapes.dynamic or recipe.kind == "openvino" else _fixed_sizes(graph, shapes):
        fix_dimensions(graph, sizes)
        said.append("fixed " + ", ".join(f"{symbol} = {size}" for symbol, size in sizes.items()))
    if recipe.lstm == "unrolled":
        unroll_lstm(graph)
        said.append("LSTM unrolled")
    if recipe.fold:
        fold_constants(graph)
        said.append("constants folded")
    if float16:
        to_float16(graph)
        said.append("FP16 casts")
    return said


def _fixed_sizes(graph: Graph, shapes: Mapping[str, InputShapes]) -> dict[str, int]:
    """Collect the symbolic dimensions that have only one size."""
    return {
        symbol: shapes[name].max[axis]
        for name, tensor in graph.inputs.items()
        if name in shapes
        for axis, symbol in enumerate(tensor.shape)
        if isinstance(symbol, str) and shapes[name].min[axis] == shapes[name].max[axis]
    }


def part_shapes(manifest: Manifest, shapes: Shapes) -> dict[Part, dict[str, InputShapes]]:
    """Compute every input's smallest, tuned and largest shape, for every part."""
    size, width = manifest.preprocess.size, manifest.sequence.feature_size
    frames, windows, time = shapes.frames, shapes.windows, shapes.time or manifest.sequence.window

    def at(*dimensions: Any) -> InputShapes:
        smallest, tuned, largest = (
            tuple(each if isinstance(each, int) else int(getattr(each, edge)) for each in dimensions) for edge in EDGES
        )
        return InputShapes(min=smallest, opt=tuned, max=largest)

    head = {"features": at(windows, time, width), "length": at(windows)}
    return {
        "encoder": {"frames": at(frames, size, size)},
        "head": head,
        "crowd": head,
        "clip": {"frames": at(windows, time, size, size), "length": at(windows)},
    }
