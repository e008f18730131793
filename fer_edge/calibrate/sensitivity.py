"""Sensitivity: the cost of each encoder layer when it alone is quantized."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import NodeProto

from fer_edge.calibrate.evaluation import FloatParent
from fer_edge.calibrate.int8_variants import Int8Graphs
from fer_edge.calibrate.ptq import NNCF_VERSION, float_nodes, prepared_encoder, quantize_encoder
from fer_edge.calibrate.recipe import CalibrationRecipe, Form
from fer_edge.core.bundle import Bundle
from fer_edge.core.evaluate import StillOutputs, evaluate
from fer_edge.core.files import read_json
from fer_edge.core.json import decode, encode, expect
from fer_edge.core.manifest import timestamp
from fer_edge.core.metrics import fit_temperature, paired_report, softmax
from fer_edge.core.types import Float32, Progress, Uint8
from fer_edge.data.dataset import Dataset, StillSet
from fer_edge.data.statistics import leaked_rows
from fer_edge.graph.graph import Graph
from fer_edge.graph.layers import layer_of
from fer_edge.graph.qdq import to_signed_int8
from fer_edge.graph.weight_compression import STORAGE, compress_weights
from fer_edge.runtime.inference import Network

__all__ = ["LayerCost", "LayerMeasurement", "SensitivityReport", "measure_sensitivity"]

_BESIDE = ("schema", "what", "command")  # keys of the file that are no fields of the report
_POOLS = ("AveragePool", "GlobalAveragePool")
_EXACT_DB = 200.0  # for identical outputs


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One layer quantized alone, on rows of the choosing split without leaked ones, T = 1.

    Attributes:
        layer: its path in torch (`layer_of`), or the node's name.
        node: its name in the graph.
        operator: Conv, MatMul, ...; ``"all"`` for everything that the recipe quantizes together.
        parameters: count of its weights.
        quantized_by_recipe: whether the recipe quantizes it (an LSTM: compresses its weights).
        top1: share of correct labels.
        top1_drop: the float parent's top-1 minus this; a gain is negative.
        flip_rate: share of labels that changed, correct or not.
        ece_rise: rise of the calibration error, each side after its own temperature.
        feature_sqnr_db: signal to quantization noise of the encoder's features, in decibels.
        logit_sqnr_db: the same of the logits, each row's mean removed.
    """

    layer: str
    node: str
    operator: str
    parameters: int
    quantized_by_recipe: bool
    top1: float
    top1_drop: float
    flip_rate: float
    ece_rise: float
    feature_sqnr_db: float
    logit_sqnr_db: float


@dataclass(frozen=True, kw_only=True)
class SensitivityReport:
    """Costs of all layers of one bundle.

    Attributes:
        bundle: name and SHA-256 of its manifest.
        parent: the float variant.
        form: the form whose quantizers are measured.
        split: the choosing split.
        rows: number of its rows that are measured on.
        parent_top1: top-1 of the float parent on them.
        layers: cost of each layer, in graph order.
        together: cost of everything that the recipe quantizes.
        sample: the calibration sample.
        recipe: the calibration recipe.
        created: UTC time.
        nncf: its version.
    """

    bundle: dict[str, str]
    parent: str
    form: Form
    split: str
    rows: int
    parent_top1: float
    layers: tuple[LayerCost, ...]
    together: LayerCost
    sample: dict[str, Any]
    recipe: Mapping[str, Any]
    created: str
    nncf: str

    def to_json(self) -> dict[str, Any]:
        """Plain values under the field names."""
        return {"schema": 1, "what": "sensitivity", **{key: encode(value) for key, value in vars(self).items()}}

    @classmethod
    def read(cls, path: Path) -> SensitivityReport:
        """Read a report that `to_json` wrote.

        Raises:
            InputError: no such file, or a missing, unknown or misplaced key.
        """
        value = read_json(path)
        expect(isinstance(value, dict) and value.get("what") == "sensitivity", str(path), value, "a sensitivity report")
        return decode(cls, {key: entry for key, entry in value.items() if key not in _BESIDE})


class LayerMeasurement:
    """The cost of layers quantized alone, on rows of the choosing split.

    Args:
        source: the float parent.
        kept: rows of the choosing split without leaked ones; measured on as many as the recipe says.
        frames: uint8 (M, S, S), the prepared calibration sample.
        recipe: how layers are quantized.
        form: whose quantizers are measured.
    """

    def __init__(
        self, source: FloatParent, kept: StillSet, frames: Uint8, *, recipe: CalibrationRecipe, form: Form
    ) -> None:
        self.source, self.frames, self.recipe, self.form, self.stills = source, frames, recipe, form, kept
        if len(kept) > recipe.sensitivity.rows:
            random = np.random.default_rng(recipe.sensitivity.seed)
            self.stills = kept.subset(np.sort(random.choice(len(kept), recipe.sensitivity.rows, replace=False)))
        with source.network() as network:
            self.outputs = _outputs(network, source, self.stills, source.variant.name)
        self.temperature = fit_temperature(self.outputs.by_window[1], self.stills.labels)

    def layers(self) -> tuple[LayerCost, ...]:
        """Cost of each layer, also of those that the recipe keeps float, and of the LSTM's compressed weights."""
        prepared = prepared_encoder(self.source.encoder)
        kept_float = set(float_nodes(prepared, self.recipe.ptq))
        costs = []
        for node in _quantizable(prepared):
            lstm = node.op_type == "LSTM"
            by_recipe = node.name not in kept_float or lstm
            quantized = prepared.copy()
            if lstm:
                compress_weights(quantized, storage=STORAGE[self.form], kinds=("LSTM",))
            else:
                quantized = self.quantized(only=(node.name,))
            costs.append(
                self.cost(
                    quantized,
                    layer=layer_of(node.name),
                    node=node.name,
                    operator=node.op_type,
                    parameters=sum(value.size for name in node.input if (value := prepared.constant(name)) is not None),
                    quantized_by_recipe=by_recipe,
                )
            )
        return tuple(costs)

    def quantized(self, *, only: tuple[str, ...] | None = None) -> Graph:
        """The encoder quantized by the recipe, or its nodes `only`."""
        overflow_fix = self.recipe.overflow_fix.of(self.form)
        return quantize_encoder(
            self.source.encoder, self.frames, recipe=self.recipe.ptq, overflow_fix=overflow_fix, only=only
        )

    def cost(self, encoder: Graph, *, layer: str, **known: Any) -> LayerCost:
        """Compare an encoder, before the parent's own head, with the parent."""
        if self.form == "int8-trt":
            to_signed_int8(encoder)
        graphs = Int8Graphs(
            form=self.form,
            encoder=encoder.write(name=f"the encoder with {layer} quantized"),
            head=self.source.head_bytes,
        )
        with self.source.network(graphs) as network:
            outputs = _outputs(network, self.source, self.stills, f"{layer} alone")
        labels, before, after = self.stills.labels, self.outputs.by_window[1], outputs.by_window[1]
        temperature = fit_temperature(after, labels)
        paired = paired_report(
            softmax(before, temperature=self.temperature), softmax(after, temperature=temperature), labels
        )
        centred = [logits - logits.mean(axis=1, keepdims=True) for logits in (before, after)]
        return LayerCost(
            layer=layer,
            top1=float((after.argmax(axis=1) == labels).mean()),
            top1_drop=0.0 - paired.top1_delta,
            flip_rate=paired.flip_rate,
            ece_rise=paired.ece_delta,
            feature_sqnr_db=_sqnr_db(self.outputs.features, outputs.features),
            logit_sqnr_db=_sqnr_db(*centred),
            **known,
        )


def measure_sensitivity(
    bundle: Bundle,
    dataset: Dataset,
    *,
    recipe: CalibrationRecipe,
    threads: int = 1,
    progress: Progress | None = None,
) -> SensitivityReport:
    """Quantize every layer of a bundle's encoder alone, then all of them together; the bundle stays as it is.

    Args:
        bundle: holds the recipe's parent variant.
        dataset: calibrates on its training split and measures on its choosing split without leaked rows, as many as
            the recipe says.
        recipe: how layers are quantized, for its first form.

    Raises:
        InputError, DataError: as `quantize_encoder`, or a missing split.
        BundleError: the bundle has no such parent or is damaged.
        SessionError: ONNX Runtime refuses a graph or failed.
    """
    form = recipe.forms[0]
    source = FloatParent.open(bundle, dataset, recipe, threads=threads, progress=progress)
    sample = recipe.sample.draw(dataset)
    choose = dataset.split("choose")
    kept = choose.subset(~leaked_rows(dataset, choose))
    measurement = LayerMeasurement(source, kept, source.frames(sample.stills), recipe=recipe, form=form)
    layers = measurement.layers()
    together = measurement.quantized()
    compress_weights(together, storage=STORAGE[form], until="attention")
    parameters = sum(layer.parameters for layer in layers if layer.quantized_by_recipe)
    return SensitivityReport(
        bundle={"name": bundle.manifest.name, "sha256": bundle.sha256},
        parent=source.variant.name,
        form=form,
        split=kept.name,
        rows=len(measurement.stills),
        parent_top1=float((measurement.outputs.by_window[1].argmax(axis=1) == measurement.stills.labels).mean()),
        layers=layers,
        together=measurement.cost(
            together, layer="together", node="", operator="all", parameters=parameters, quantized_by_recipe=True
        ),
        sample=sample.summary(),
        recipe=encode(recipe),
        created=timestamp(),
        nncf=NNCF_VERSION,
    )


def _outputs(network: Network, source: FloatParent, stills: StillSet, what: str) -> StillOutputs:
    return evaluate(network, stills.images, source.bundle.manifest.preprocess, progress=source.told(what))


def _quantizable(graph: Graph) -> list[NodeProto]:
    """Nodes with weights; before the sequence part also mean pooling and residual additions."""
    convolutions = [node for node in graph.nodes if node.op_type == "Conv"]
    sequence = graph.descendants(node for node in graph.nodes if node.op_type in ("LSTM", "MatMul"))
    among = {node.name for node in graph.descendants(convolutions)} - {node.name for node in sequence}

    def counts(node: NodeProto) -> bool:
        if node.op_type in ("MatMul", "Gemm"):
            return graph.constant(node.input[1]) is not None
        if node.op_type == "Add":
            return node.name in among and all(graph.constant(name) is None for name in node.input)
        return node.op_type in ("Conv", "LSTM") or (node.op_type in _POOLS and node.name in among)

    return [node for node in graph.nodes if counts(node)]


def _sqnr_db(exact: Float32, other: Float32) -> float:
    """Signal to noise in decibels: variance of the exact values over the mean squared difference."""
    noise = float(((other.astype(np.float64) - exact) ** 2).mean())
    signal = float(exact.astype(np.float64).var())
    return min(_EXACT_DB, 10 * math.log10(signal / noise)) if noise and signal else _EXACT_DB
