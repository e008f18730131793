"""Mixed precision: float layers for a form that fails the gate, chosen by their cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from fer_edge.calibrate.evaluation import Evaluated, Evaluation
from fer_edge.calibrate.gate import GateReport
from fer_edge.calibrate.int8_variants import finished_graphs
from fer_edge.calibrate.ptq import (
    AccuracySearch,
    float_nodes,
    prepared_encoder,
    quantize_encoder,
    quantize_with_accuracy_control,
)
from fer_edge.calibrate.recipe import CalibrationRecipe, Form
from fer_edge.calibrate.sensitivity import LayerMeasurement, sensitive_first
from fer_edge.core.evaluate import evaluate
from fer_edge.core.types import Array, Float32, Uint8
from fer_edge.graph.graph import Graph

__all__ = ["gate_use", "restore_accuracy"]

_ITEM = 64  # rows that NNCF ranks by at once


def restore_accuracy(evaluation: Evaluation, frames: Uint8, failed: Evaluated, recipe: CalibrationRecipe) -> Evaluated:
    """Leave layers of a form float until it passes the gate, or until the recipe's limit.

    Args:
        evaluation: the gate's rows and the parent.
        frames: uint8 (M, S, S), the prepared calibration sample.
        failed: the form with all layers quantized.
        recipe: ``mixed`` selects the method.

    Returns:
        The first that passes; else the nearest one, with its failed gate.

    Raises:
        InputError, SessionError: as `quantize_encoder` and `Evaluation.judge`.
    """
    if recipe.mixed.method == "accuracy-control":
        found = _by_accuracy_control(evaluation, frames, failed.graphs.form, recipe)
        return found if found.gate.passed or gate_use(found.gate) < gate_use(failed.gate) else failed
    return _by_sensitivity(evaluation, frames, failed, recipe)


def gate_use(gate: GateReport) -> float:
    """The largest used share of a limit: 0 with nothing lost, 1 where a limit is met exactly.

    Any loss exceeds a limit of 0.
    """
    shares = [0.0]
    for check in gate.checks:
        agreement = check.name == "min_agreement"
        lost, allowed = (1 - check.measured, 1 - check.limit) if agreement else (check.measured, check.limit)
        shares.append(max(0.0, lost) / max(allowed, 1e-9))
    return max(shares)


def _by_sensitivity(evaluation: Evaluation, frames: Uint8, failed: Evaluated, recipe: CalibrationRecipe) -> Evaluated:
    form, source = failed.graphs.form, evaluation.source
    costs = LayerMeasurement(source, evaluation.rows.kept, frames, recipe=recipe, form=form).layers()
    best, tried = failed, [_tried([], failed.gate)]
    for count in range(1, min(recipe.mixed.max_layers, len(costs)) + 1):
        left = [cost.node for cost in sensitive_first(costs)[:count]]
        ptq = dataclasses.replace(recipe.ptq, float_nodes=(*recipe.ptq.float_nodes, *left))
        changed = dataclasses.replace(recipe, ptq=ptq)
        encoder = quantize_encoder(source.encoder, frames, recipe=ptq, overflow_fix=recipe.overflow_fix.of(form))
        graphs = finished_graphs(form, encoder, source.head, recipe=changed, crowd=source.crowd)
        record = {"method": "sensitivity", "float_layers": left, "tried": tried}
        outcome = evaluation.judge(graphs, changed, mixed=record)
        tried.append(_tried(left, outcome.gate))
        if gate_use(outcome.gate) < gate_use(best.gate):
            best = outcome
        if outcome.gate.passed:
            return outcome
    return best


def _by_accuracy_control(evaluation: Evaluation, frames: Uint8, form: Form, recipe: CalibrationRecipe) -> Evaluated:
    """NNCF's search; every graph that it scores is finished as the form first, so that it judges what ships."""
    source, images, logits = evaluation.source, evaluation.rows.images, evaluation.reference.by_window[1]
    items = -(-len(images) // _ITEM)
    judged: list[Evaluated] = []

    def score(graph: Graph, wanted: Sequence[int]) -> tuple[float, list[float]]:
        if all(node.op_type != "QuantizeLinear" for node in graph.nodes):
            return 1.0, [1.0] * len(wanted)
        graphs = finished_graphs(form, graph, source.head, recipe=recipe, crowd=source.crowd)
        if len(wanted) < items:  # groups are ranked by the noise on the logits of some rows
            rows = np.concatenate([np.arange(len(images))[item * _ITEM : (item + 1) * _ITEM] for item in wanted])
            with source.network(graphs) as network:
                found = evaluate(network, images[rows], source.bundle.manifest.preprocess).by_window[1]
            noise = _noise(found, logits[rows])
            return 1 - float(noise.mean()), _by_item(noise)
        judged.append(evaluation.judge(graphs, recipe))
        return 1 - gate_use(judged[-1].gate), _by_item(_noise(judged[-1].logits.by_window[1], logits))

    encoder = quantize_with_accuracy_control(
        source.encoder,
        frames,
        recipe=recipe.ptq,
        overflow_fix=recipe.overflow_fix.of(form),
        search=AccuracySearch(score=score, items=items, max_drop=1.0, max_groups=recipe.mixed.max_layers),
    )
    record: dict[str, Any] = {
        "method": "accuracy-control",
        "float_layers": _float_convolutions(encoder, source.encoder, recipe),
        "tried": [{"gate_use": gate_use(each.gate), "passed": each.gate.passed} for each in judged],
    }
    # NNCF stores weights as int8 only at its end, so the final graph is judged once more.
    return evaluation.judge(
        finished_graphs(form, encoder, source.head, recipe=recipe, crowd=source.crowd), recipe, mixed=record
    )


def _noise(logits: Float32, exact: Float32) -> Array:
    """float64 (N,): mean squared difference of each row's logits."""
    return np.asarray(((logits.astype(np.float64) - exact) ** 2).mean(axis=1))


def _by_item(noise: Array) -> list[float]:
    return [1 - float(noise[start : start + _ITEM].mean()) for start in range(0, len(noise), _ITEM)]


def _float_convolutions(quantized: Graph, encoder: Graph, recipe: CalibrationRecipe) -> list[str]:
    """Convolutions with float weights that the recipe does not ask for."""
    asked = set(float_nodes(prepared_encoder(encoder, recipe.ptq), recipe.ptq))
    convolutions = [node for node in quantized.nodes if node.op_type == "Conv" and node.name not in asked]
    sources = {node.name: quantized.producer(node.input[1]) for node in convolutions}
    return [name for name, node in sources.items() if node is None or node.op_type != "DequantizeLinear"]


def _tried(left: list[str], gate: GateReport) -> dict[str, Any]:
    return {"float_layers": left, "gate_use": gate_use(gate), "passed": gate.passed}
