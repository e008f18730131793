"""What each layer of an encoder costs when it alone is quantized, and all others stay float."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto

from fer_edge.calibrate.evaluation import FloatParts, open_parts, sample_of, trial_bundle
from fer_edge.calibrate.int8_variants import FormGraphs
from fer_edge.calibrate.ptq import NNCF_VERSION, float_nodes, prepared_encoder, quantize_encoder
from fer_edge.calibrate.recipe import CalibrationRecipe, Form
from fer_edge.core.bundle import Bundle
from fer_edge.core.evaluate import StillOutputs, evaluate_windows
from fer_edge.core.files import read_json
from fer_edge.core.json import decode, encode, expect
from fer_edge.core.manifest import timestamp
from fer_edge.core.metrics import fit_temperature, paired_report, softmax
from fer_edge.core.types import Float32, Progress, Uint8
from fer_edge.data.dataset import Dataset, StillSet
from fer_edge.data.statistics import leaked_rows
from fer_edge.graph.graph import GraphIndex, dump_graph
from fer_edge.graph.layers import layer_of
from fer_edge.graph.qdq import to_signed_int8
from fer_edge.graph.weight_compression import STORAGE, store_weights_int8
from fer_edge.runtime.inference import Network

__all__ = ["LayerCost", "SensitivityReport", "layer_costs", "sensitive_first", "sensitivity_of"]

_BESIDE = ("schema", "what", "command")  # in the file beside the report's own fields
_POOLS = ("AveragePool", "GlobalAveragePool")
_EXACT_DB = 200.0  # what identical outputs count as


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One layer quantized alone, on the rows of the choosing split without leaked ones, T = 1.

    Attributes:
        layer: its path in torch (`layer_of`), or the node's name.
        node: its name in the graph.
        operator: Conv, MatMul, ...; ``"all"`` for everything that the recipe quantizes together.
        parameters: numbers in its weights.
        quantized_by_recipe: whether the recipe quantizes it; an LSTM's weights are stored as int8, computed in float.
        top1: share of right labels.
        top1_drop: of the float parent's over this; a gain is negative.
        flip_rate: labels that changed, right or wrong.
        ece_rise: of the calibration error, each side after its own temperature.
        feature_sqnr_db: signal to quantization noise of the encoder's features, in decibels.
        logit_sqnr_db: likewise of the logits, each row's mean taken off.
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
    """The costs of all layers of one bundle.

    Attributes:
        bundle: name and SHA-256 of its manifest.
        parent: the float variant.
        form: whose quantizers were put in.
        split: the choosing split.
        rows: how many of its rows were looked at.
        parent_top1: of the float parent on them.
        layers: what each costs alone, in the graph's order.
        together: what all that the recipe quantizes cost together.
        sample: the calibration sample.
        recipe: the calibration recipe.
        created: when.
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
    recipe: CalibrationRecipe
    created: str
    nncf: str

    def to_json(self) -> dict[str, Any]:
        """Plain values under the field names."""
        return {"schema": 1, "what": "sensitivity", **{key: encode(value) for key, value in vars(self).items()}}

    @classmethod
    def read(cls, path: Path) -> SensitivityReport:
        """What `--json` wrote.

        Raises:
            InputError: no such file, or a key that is missing, unknown or out of place.
        """
        value = read_json(path)
        expect(isinstance(value, dict) and value.get("what") == "sensitivity", str(path), value, "a sensitivity report")
        return decode(cls, {key: entry for key, entry in value.items() if key not in _BESIDE})


@dataclass(frozen=True, kw_only=True, eq=False)
class _Scale:
    """The float parent on the rows that costs are measured on."""

    stills: StillSet
    outputs: StillOutputs
    temperature: float

    def cost(self, node: tuple[str, str, str], outputs: StillOutputs, *, parameters: int, by_recipe: bool) -> LayerCost:
        labels, (before, after) = self.stills.labels, (each.by_window[1] for each in (self.outputs, outputs))
        temperature = fit_temperature(after, labels)
        paired = paired_report(
            softmax(before, temperature=self.temperature), softmax(after, temperature=temperature), labels
        )
        layer, name, operator = node
        centred = [logits - logits.mean(axis=1, keepdims=True) for logits in (before, after)]
        return LayerCost(
            layer=layer,
            node=name,
            operator=operator,
            parameters=parameters,
            quantized_by_recipe=by_recipe,
            top1=float((after.argmax(axis=1) == labels).mean()),
            top1_drop=0.0 - paired.top1_delta,
            flip_rate=paired.flip_rate,
            ece_rise=paired.ece_delta,
            feature_sqnr_db=_sqnr_db(self.outputs.features, outputs.features),
            logit_sqnr_db=_sqnr_db(*centred),
        )


def sensitivity_of(
    bundle: Bundle,
    dataset: Dataset,
    *,
    recipe: CalibrationRecipe,
    threads: int = 1,
    progress: Progress | None = None,
) -> SensitivityReport:
    """Quantize every layer of a bundle's encoder alone, and all of them together; the bundle stays as it is.

    Args:
        bundle: holds the recipe's parent variant.
        dataset: its training split is calibrated on; the choosing split without leaked rows is measured on, as many of
            them as the recipe says.
        recipe: how layers are quantized; of its first form are the quantizers (signed activations and whole-range
            weights, or not).
        threads: of each run.
        progress: called with (what, done, total).

    Raises:
        InputError: as `quantize_encoder`, or a split that is missing.
        BundleError: the bundle has no such parent or is damaged.
        SessionError: ONNX Runtime refuses a graph or failed.
    """
    form = recipe.forms[0]
    parts = open_parts(bundle, dataset, recipe)
    sample = sample_of(parts, dataset, recipe, threads=threads, progress=progress)
    choose = dataset.split("choose")
    kept = choose.subset(~leaked_rows(dataset, choose))
    scale = _scale(parts, kept, recipe, threads=threads, progress=progress)
    frames = parts.frames(sample.stills)
    layers = tuple(
        _costs(parts, scale, frames, recipe=recipe, form=form, threads=threads, progress=progress, beyond=True)
    )
    whole = quantize_encoder(parts.encoder, frames, recipe=recipe.ptq, overflow_fix=recipe.overflow_fix.of(form))
    together = store_weights_int8(whole, storage=STORAGE[form], until="attention")
    parameters = sum(layer.parameters for layer in layers if layer.quantized_by_recipe)
    outputs = _run(parts, together, form, recipe, scale.stills, threads=threads)
    return SensitivityReport(
        bundle={"name": parts.bundle.manifest.name, "sha256": parts.bundle.sha256},
        parent=parts.variant.name,
        form=form,
        split=kept.name,
        rows=len(scale.stills),
        parent_top1=float((scale.outputs.by_window[1].argmax(axis=1) == scale.stills.labels).mean()),
        layers=layers,
        together=scale.cost(("together", "", "all"), outputs, parameters=parameters, by_recipe=True),
        sample=sample.summary(),
        recipe=recipe,
        created=timestamp(),
        nncf=NNCF_VERSION,
    )


def layer_costs(
    parts: FloatParts,
    kept: StillSet,
    frames: Uint8,
    *,
    recipe: CalibrationRecipe,
    form: Form,
    threads: int = 1,
    progress: Progress | None = None,
) -> tuple[LayerCost, ...]:
    """What each layer costs alone that NNCF quantizes by this recipe; arguments as `sensitivity_of`."""
    scale = _scale(parts, kept, recipe, threads=threads, progress=progress)
    costs = _costs(parts, scale, frames, recipe=recipe, form=form, threads=threads, progress=progress, beyond=False)
    return tuple(costs)


def sensitive_first(costs: tuple[LayerCost, ...]) -> tuple[LayerCost, ...]:
    """The layer whose quantization puts most noise on the logits first. Labels that flip are too few to rank by."""
    return tuple(sorted(costs, key=lambda cost: cost.logit_sqnr_db))


def _scale(
    parts: FloatParts, kept: StillSet, recipe: CalibrationRecipe, *, threads: int, progress: Progress | None
) -> _Scale:
    stills = kept
    if len(kept) > recipe.sensitivity.rows:
        random = np.random.default_rng(recipe.sensitivity.seed)
        stills = kept.subset(np.sort(random.choice(len(kept), recipe.sensitivity.rows, replace=False)))
    with Network.open(parts.bundle, variant=parts.variant.name, provider="cpu", threads=threads) as network:
        outputs = evaluate_windows(
            network, stills.images, parts.bundle.manifest.preprocess, progress=_told(progress, parts.variant.name)
        )
    return _Scale(stills=stills, outputs=outputs, temperature=fit_temperature(outputs.by_window[1], stills.labels))


def _costs(
    parts: FloatParts,
    scale: _Scale,
    frames: Uint8,
    *,
    recipe: CalibrationRecipe,
    form: Form,
    threads: int,
    progress: Progress | None,
    beyond: bool,
) -> Iterator[LayerCost]:
    """Layer by layer; with `beyond` also what the recipe keeps float, and the LSTM's stored weights."""
    model = prepared_encoder(parts.encoder, recipe.ptq)
    index = GraphIndex(model)
    kept_float = set(float_nodes(model, recipe.ptq))
    for node in _layers(model, index):
        by_recipe = node.name not in kept_float or node.op_type == "LSTM"
        if not beyond and (not by_recipe or node.op_type == "LSTM"):
            continue
        layer = layer_of(node.name)
        if node.op_type == "LSTM":
            quantized = store_weights_int8(model, storage=STORAGE[form], kinds=("LSTM",))
        else:
            quantized = quantize_encoder(
                parts.encoder,
                frames,
                recipe=recipe.ptq,
                overflow_fix=recipe.overflow_fix.of(form),
                only=(node.name,),
            )
        outputs = _run(parts, quantized, form, recipe, scale.stills, threads=threads, progress=_told(progress, layer))
        weights = sum(value.size for name in node.input if (value := index.constant(name)) is not None)
        yield scale.cost((layer, node.name, node.op_type), outputs, parameters=weights, by_recipe=by_recipe)


def _layers(model: ModelProto, index: GraphIndex) -> list[NodeProto]:
    """What can be quantized: nodes with weights; among the convolutions also mean pooling and residual additions."""
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    sequence = index.descendants(node for node in model.graph.node if node.op_type in ("LSTM", "MatMul"))
    among = {node.name for node in index.descendants(convolutions)} - {node.name for node in sequence}

    def counts(node: NodeProto) -> bool:
        if node.op_type in ("MatMul", "Gemm"):
            return index.constant(node.input[1]) is not None
        if node.op_type == "Add":
            return node.name in among and all(index.constant(name) is None for name in node.input)
        return node.op_type in ("Conv", "LSTM") or (node.op_type in _POOLS and node.name in among)

    return [node for node in model.graph.node if counts(node)]


def _run(
    parts: FloatParts,
    encoder: ModelProto,
    form: Form,
    recipe: CalibrationRecipe,
    stills: StillSet,
    *,
    threads: int,
    progress: Any = None,
) -> StillOutputs:
    """The encoder before the parent's own head."""
    signed = to_signed_int8(encoder) if form == "int8-trt" else encoder
    graphs = FormGraphs(
        form=form,
        encoder=dump_graph(signed, name="the encoder with one layer quantized"),
        head=parts.bundle.read_graph(parts.variant.head),
    )
    with (
        trial_bundle(parts, graphs, recipe) as bundle,
        Network.open(bundle, variant=form, provider="cpu", threads=threads) as network,
    ):
        return evaluate_windows(network, stills.images, bundle.manifest.preprocess, progress=progress)


def _told(progress: Progress | None, what: str) -> Any:
    return None if progress is None else lambda done, total: progress(f"{what} alone", done, total)


def _sqnr_db(exact: Float32, other: Float32) -> float:
    """Signal over noise, in decibels: variance of the exact values over the mean squared difference."""
    noise = float(((other.astype(np.float64) - exact) ** 2).mean())
    signal = float(exact.astype(np.float64).var())
    if noise == 0 or signal == 0:
        return _EXACT_DB
    return min(_EXACT_DB, 10 * math.log10(signal / noise))
