"""A bundle's FP32 graphs exported again from their own weights, without the training run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from fer_edge.core.bundle import Bundle
from fer_edge.core.bundle_writer import create_bundle
from fer_edge.core.graph_card import with_cards
from fer_edge.core.manifest import timestamp
from fer_edge.core.provenance import Provenance, read_provenance
from fer_edge.export.from_torch.graphs import OPSET, export_network
from fer_edge.model.cost import encoder_macs, head_macs
from fer_edge.train.bundle_weights import BundleWeights

__all__ = ["reexport_bundle"]


def reexport_bundle(
    bundle: Bundle,
    out: Path,
    *,
    name: str | None = None,
    licence: str | None = None,
    tolerance: float = 1e-4,
    overwrite: bool = False,
) -> Bundle:
    """Re-export a bundle's FP32 graphs with this version, from the same weights.

    Accuracy, temperature and training history are kept. INT8 variants are left out, since they were rounded from the
    old graphs: run `fer-edge calibrate` again.

    Args:
        bundle: one with an ``fp32`` variant.
        out: the new bundle's folder.
        name: its name; the bundle's own by default.
        licence: of the weights; the bundle's own by default.
        tolerance: largest difference between torch and ONNX Runtime, relative to its output's size.
        overwrite: replace a bundle at `out`.

    Raises:
        InputError: the bundle holds another architecture, or graphs of a version that is not understood.
        GateError: the new graphs differ from torch by more than `tolerance`; nothing is written.
        BundleError: the bundle has no ``fp32``, or is damaged.
        OutputError: the bundle cannot be written.
    """
    origin = BundleWeights(bundle=bundle)
    model, manifest, before = origin.load_model(), bundle.manifest, bundle.variant("fp32")
    window = manifest.sequence.window
    exported = export_network(model, window=window, tolerance=tolerance)
    variant = replace(
        before,
        encoder=exported.files["encoder"],
        head=exported.files["head"],
        crowd=None if before.crowd is None else replace(before.crowd, graph=exported.files["crowd"]),
        how_made={
            **before.how_made,
            "exporter": f"torch {torch.__version__}, opset {OPSET}, traced, constants folded",
            "exported_again_from": bundle.sha256,
        },
        parity=exported.parity,
    )
    costs = {"macs_encoder": encoder_macs(model.config), "macs_head": head_macs(model.config, window)}
    result = replace(
        manifest,
        name=name or manifest.name,
        licence=licence or manifest.licence,
        created=timestamp(),
        variants=(variant,),
        model={**manifest.model, **costs},
    )
    history = Provenance(training=read_provenance(bundle).training, outputs={"fp32": exported.outputs})
    carded, graphs = with_cards(result, exported.by_sha256)
    return create_bundle(out, carded, graphs, provenance=history, overwrite=overwrite)
