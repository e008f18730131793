"""A bundle's FP32 graphs exported anew from their own weights: what a newer exporter does better, without the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from fer_edge.core.bundle import Bundle
from fer_edge.core.files import sha256_bytes
from fer_edge.core.json import encode
from fer_edge.core.manifest import timestamp
from fer_edge.export.from_torch.graphs import OPSET, TorchNetwork, check_graphs, graph_files, network_graphs
from fer_edge.export.parity.torch_record import RECORD, record_outputs
from fer_edge.model.cost import encoder_macs, head_macs
from fer_edge.train.bundle_weights import BundleOrigin

__all__ = ["export_again"]


def export_again(
    bundle: Bundle, out: Path, *, name: str | None = None, tolerance: float = 1e-4, overwrite: bool = False
) -> Bundle:
    """Write a bundle of the same weights whose FP32 graphs this version has made.

    Accuracy, temperature and provenance stay, since the function does. Its INT8 forms are not carried over: they were
    rounded from the graphs before, and `fer-edge calibrate` makes them anew.

    Args:
        bundle: one with an ``fp32`` variant.
        out: the new bundle's folder.
        name: its name; the bundle's own by default.
        tolerance: largest difference of any output between torch and ONNX Runtime.
        overwrite: replace a bundle that stands at `out`.

    Raises:
        InputError: the bundle holds another architecture, or was exported by a version whose graphs are not understood.
        GateError: the new graphs do not compute what torch computes; nothing is written.
        BundleError: the bundle has no ``fp32``, or is damaged.
        OutputError: the bundle cannot be written.
    """
    origin = BundleOrigin(bundle=bundle)
    model, manifest, before = origin.load_model(), bundle.manifest, bundle.variant("fp32")
    window = manifest.sequence.window
    graphs = network_graphs(model)
    parity = check_graphs(model, graphs, tolerance)
    files, network = graph_files(graphs, window=window), TorchNetwork(model)
    outputs = record_outputs(network.encode, network.logits, manifest.preprocess, window=window)
    made_by = f"torch {torch.__version__}, opset {OPSET}, traced, constants folded"
    variant = replace(
        before,
        encoder=files["encoder"],
        head=files["head"],
        how_made={**before.how_made, "exporter": made_by, "exported_again_from": bundle.sha256},
        parity={**{part: result.to_json() for part, result in parity.items()}, RECORD: encode(outputs)},
    )
    costs = {"macs_encoder": encoder_macs(model.config), "macs_head": head_macs(model.config, window)}
    result = replace(
        manifest,
        name=name or manifest.name,
        created=timestamp(),
        variants=(variant,),
        model={**manifest.model, **costs},
    )
    return Bundle.create(out, result, {sha256_bytes(data): data for data in graphs.values()}, overwrite=overwrite)
