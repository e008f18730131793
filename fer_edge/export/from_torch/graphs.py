"""Export of a torch network to ONNX graphs, and their comparison with torch."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from fer_edge.core.files import sha256_bytes
from fer_edge.core.json import encode
from fer_edge.core.manifest import GraphFile
from fer_edge.core.preprocess import PreprocessSpec
from fer_edge.core.types import Float32, Int64, Uint8
from fer_edge.export.parity.frames import drawn_frames
from fer_edge.export.parity.outputs import Parity, compare_outputs, require_parity
from fer_edge.export.parity.torch_record import record_outputs
from fer_edge.graph.cost import graph_file
from fer_edge.graph.graph import Graph
from fer_edge.graph.simplify import fold_constants, remove_redundant_nodes
from fer_edge.model.config import ModelConfig
from fer_edge.model.deploy import deployed_encoder, deployed_head
from fer_edge.model.network import AttentionCnnBiLstm, FrameEncoder, SequenceHead
from fer_edge.runtime.providers import open_session

__all__ = [
    "ENCODER_SHAPES",
    "OPSET",
    "TRACED_FRAMES",
    "ExportedNetwork",
    "TorchNetwork",
    "check_graphs",
    "encoder_graph",
    "export_network",
    "graph_files",
    "network_graphs",
]

OPSET: Final = 17
TRACED_FRAMES: Final = 3
TRACED_WINDOW: Final = (2, 5)
ENCODER_SHAPES: Final = (1, 2, 7)
_FACES: Final = 32
HEAD_SHAPES: Final = ((1, 1), (1, 16), (3, 9), (5, 31))
"""(batch, time) at which the exported graphs are compared with torch; none is the traced one."""


def network_graphs(model: AttentionCnnBiLstm) -> dict[str, bytes]:
    """Export the FP32 graphs ``encoder``, ``head`` and, where there is one, ``crowd`` as ONNX files."""
    graphs = {
        "encoder": encoder_graph(model.encoder, model.config),
        "head": _head_graph(model.head, model.config),
    }
    return graphs if model.crowd is None else {**graphs, "crowd": _head_graph(model.crowd, model.config.crowd)}


def encoder_graph(encoder: FrameEncoder, config: ModelConfig) -> bytes:
    """Export a frame encoder as an ONNX file; its CNN may hold fake quantization."""
    frames = torch.zeros(TRACED_FRAMES, config.input_size, config.input_size, dtype=torch.uint8)
    batch = {0: "N"}
    return _export(
        deployed_encoder(encoder, config), (frames,), ["frames"], ["features", "attention"],
        {"frames": batch, "features": batch, "attention": batch},
    )  # fmt: skip


def _head_graph(head: SequenceHead, config: ModelConfig) -> bytes:
    features = torch.zeros(*TRACED_WINDOW, config.feature_size)
    length = torch.full((TRACED_WINDOW[0],), TRACED_WINDOW[1])
    axes = {"features": {0: "B", 1: "T"}, "length": {0: "B"}, "logits": {0: "B"}, "attention": {0: "B", 1: "T"}}
    deployed = deployed_head(head, config)
    return _export(deployed, (features, length), ["features", "length"], ["logits", "attention"], axes)


def _export(
    module: nn.Module, inputs: tuple[Tensor, ...], names: list[str], outputs: list[str], axes: Mapping[str, Any]
) -> bytes:
    """Export by tracing: it leaves one LSTM node where torch's newer exporter writes about fifty."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        path = Path(folder) / "graph.onnx"
        torch.onnx.export(
            module.eval().cpu(),
            inputs,
            path,
            input_names=names,
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
        graph = Graph.read(path.read_bytes(), name="the exported graph")
    fold_constants(graph)
    remove_redundant_nodes(graph)
    graph.made_by = "fer-edge", ""
    return graph.write()


@dataclass(frozen=True, kw_only=True)
class ExportedNetwork:
    """A network's FP32 graphs, compared with torch.

    Attributes:
        graphs: ``encoder``, ``head`` and, where there is one, ``crowd`` as ONNX files.
        files: their manifest entries.
        parity: the differences to torch, as the manifest stores them.
        outputs: torch's recorded outputs, as the provenance stores them.
    """

    graphs: Mapping[str, bytes]
    files: Mapping[str, GraphFile]
    parity: Mapping[str, Any]
    outputs: Mapping[str, Any]

    @property
    def by_sha256(self) -> dict[str, bytes]:
        """The graphs by hash, as `create_bundle` takes them."""
        return {sha256_bytes(data): data for data in self.graphs.values()}


def export_network(model: AttentionCnnBiLstm, *, window: int, tolerance: float) -> ExportedNetwork:
    """Export a network's FP32 graphs, compare them with torch and record torch's outputs.

    Args:
        model: the network.
        window: T of a full window.
        tolerance: largest difference between torch and ONNX Runtime, relative to the size of its output.

    Raises:
        GateError: some output differs by more than `tolerance` of its size.
    """
    graphs = network_graphs(model)
    parity = check_graphs(model, graphs, tolerance)
    network = TorchNetwork(model)
    outputs = record_outputs(network.encode, network.logits, size=model.config.input_size, window=window)
    return ExportedNetwork(
        graphs=graphs,
        files=graph_files(graphs, window=window),
        parity={part: encode(result) for part, result in parity.items()},
        outputs=encode(outputs),
    )


def graph_files(graphs: Mapping[str, bytes], *, window: int) -> dict[str, GraphFile]:
    """Describe an encoder and its heads for the manifest."""
    sizes = {part: {"N": 1} if part == "encoder" else {"B": 1, "T": window} for part in graphs}
    return {part: graph_file(graphs[part], dimensions=size, name=f"the {part}") for part, size in sizes.items()}


def check_graphs(model: AttentionCnnBiLstm, graphs: Mapping[str, bytes], tolerance: float) -> dict[str, Parity]:
    """Compare the graphs of `network_graphs` with torch on drawn faces, at shapes other than the traced ones.

    Raises:
        GateError: some output differs by more than `tolerance` of its size.
    """
    size = model.config.input_size
    drawn = torch.from_numpy(drawn_frames(max(max(ENCODER_SHAPES), _FACES), PreprocessSpec(size=size)))
    frames = [drawn[:count] for count in ENCODER_SHAPES]
    with torch.no_grad():
        features = model.eval().cpu().encoder(drawn)[0].numpy()  # of faces: a head's outputs for others have no bound
    windows = [
        (
            torch.from_numpy(np.resize(features, (batch, steps, features.shape[1]))),
            1 + torch.arange(batch) * (steps - 1) // batch,
        )
        for batch, steps in HEAD_SHAPES
    ]
    encoded = [{"frames": faces} for faces in frames]
    headed = [{"features": features, "length": length} for features, length in windows]
    parity = {
        "encoder": _compare(model.encoder, graphs["encoder"], encoded, ("features", "attention")),
        "head": _compare(model.head, graphs["head"], headed, ("logits", "attention")),
    }
    if model.crowd is not None:
        parity["crowd"] = _compare(model.crowd, graphs["crowd"], headed, ("logits", "attention"))
    for part, result in parity.items():
        require_parity(result, tolerance=tolerance, what=f"the exported {part} against torch")
    return parity


def _compare(module: nn.Module, graph: bytes, feeds: list[dict[str, Tensor]], names: tuple[str, ...]) -> Parity:
    pairs = []
    with open_session(graph) as session, torch.no_grad():
        for feed in feeds:
            expected = [value.numpy() for value in module(*feed.values())]
            got = session.run({name: np.ascontiguousarray(value.numpy()) for name, value in feed.items()})
            pairs.append((dict(zip(names, expected, strict=True)), got))
    return compare_outputs(pairs, [tuple(next(iter(feed.values())).shape) for feed in feeds])


class TorchNetwork:
    """A network in torch on the CPU, called with numpy arrays."""

    def __init__(self, model: AttentionCnnBiLstm) -> None:
        self._model = model.eval().cpu()

    @torch.no_grad()
    def encode(self, frames: Uint8) -> Float32:
        """Features float32 (N, F) of uint8 (N, S, S)."""
        return np.asarray(self._model.encoder(torch.from_numpy(np.ascontiguousarray(frames)))[0].numpy())

    @torch.no_grad()
    def logits(self, features: Float32, length: Int64) -> Float32:
        """Logits float32 (B, C) of features float32 (B, T, F) and lengths int64 (B,)."""
        windows = torch.from_numpy(np.ascontiguousarray(features))
        return np.asarray(self._model.head(windows, torch.from_numpy(length))[0].numpy())
