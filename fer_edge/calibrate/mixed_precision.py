"""Float layers for a form that does not pass the gate, chosen by what they cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from fer_edge.calibrate.evaluation import FormOutcome, Trial, trial_bundle
from fer_edge.calibrate.gate import GateReport
from fer_edge.calibrate.int8_variants import FormGraphs, form_graphs
from fer_edge.calibrate.ptq import float_nodes, prepared_encoder, quantize_encoder, quantize_until
from fer_edge.calibrate.recipe import CalibrationRecipe, Form
from fer_edge.calibrate.sensitivity import layer_costs, sensitive_first
from fer_edge.core.evaluate import evaluate
from fer_edge.core.types import Float32, Uint8
from fer_edge.graph.graph import GraphIndex
from fer_edge.runtime.inference import Network

__all__ = ["gate_use", "restore_accuracy"]

_ITEM = 64  # rows that NNCF ranks by at once


def restore_accuracy(trial: Trial, frames: Uint8, failed: FormOutcome, recipe: CalibrationRecipe) -> FormOutcome:
    """Leave layers of a form float until it passes the gate, or until the recipe allows no more.

    Args:
        trial: the gate's rows and the parent.
        frames: uint8 (M, S, S), the calibration sample, prepared.
        failed: the form as quantized whole.
        recipe: its ``mixed`` says how layers are chosen.

    Returns:
        the first that passed; where none does, the one that came nearest, whose gate says so.

    Raises:
        InputError, SessionError: as `quantize_encoder` and `Trial.judge`.
    """
    form = failed.graphs.form
    if recipe.mixed.method == "accuracy-control":
        found = _controlled(trial, frames, form, recipe)
        return found if found.gate.passed or gate_use(found.gate) < gate_use(failed.gate) else failed
    return _by_sensitivity(trial, frames, failed, recipe)


def gate_use(gate: GateReport) -> float:
    """The largest share of a limit that a check uses up: 0 with nothing lost, 1 where the limit is met exactly.

    A limit of nothing at all is used up by any loss.
    """
    shares = [0.0]
    for check in gate.checks:
        agreement = check.name == "min_agreement"
        lost, allowed = (1 - check.measured, 1 - check.limit) if agreement else (check.measured, check.limit)
        shares.append(max(0.0, lost) / max(allowed, 1e-9))
    return max(shares)


def _by_sensitivity(trial: Trial, frames: Uint8, failed: FormOutcome, recipe: CalibrationRecipe) -> FormOutcome:
    form, parts = failed.graphs.form, trial.parts
    costs = layer_costs(
        parts, trial.rows.kept, frames, recipe=recipe, form=form, threads=trial.threads, progress=trial.progress
    )
    best, tried = failed, [_tried([], failed.gate)]
    for count in range(1, min(recipe.mixed.max_layers, len(costs)) + 1):
        left = [cost.node for cost in sensitive_first(costs)[:count]]
        ptq = dataclasses.replace(recipe.ptq, float_nodes=(*recipe.ptq.float_nodes, *left))
        changed = dataclasses.replace(recipe, ptq=ptq)
        encoder = quantize_encoder(parts.encoder, frames, recipe=ptq, overflow_fix=recipe.overflow_fix.of(form))
        graphs = form_graphs(form, encoder, parts.head, recipe=changed)
        account = {"method": "sensitivity", "float_layers": left, "tried": tried}
        outcome = trial.judge(graphs, changed, mixed=account)
        tried.append(_tried(left, outcome.gate))
        if gate_use(outcome.gate) < gate_use(best.gate):
            best = outcome
        if outcome.gate.passed:
            return outcome
    return best


def _controlled(trial: Trial, frames: Uint8, form: Form, recipe: CalibrationRecipe) -> FormOutcome:
    """NNCF's search; every graph that it looks at is made into the form first, so that what is judged is what ships."""
    parts = trial.parts
    images, logits = trial.rows.images, trial.reference.by_window[1]
    items = -(-len(images) // _ITEM)
    whole: list[FormOutcome] = []

    def score(graph: ModelProto, wanted: Sequence[int]) -> tuple[float, list[float]]:
        rows = np.concatenate([np.arange(len(images))[item * _ITEM : (item + 1) * _ITEM] for item in wanted])
        if not _quantized(graph):
            return 1.0, [1.0] * len(wanted)
        graphs = form_graphs(form, graph, parts.head, recipe=recipe)
        if len(wanted) < items:  # groups are ranked by the noise on the logits of some rows
            noise = _noise(_logits(trial, graphs, recipe, images[rows]), logits[rows])
            return 1 - float(noise.mean()), _by_item(noise)
        whole.append(trial.judge(graphs, recipe))
        noise = _noise(whole[-1].logits.by_window[1], logits)
        return 1 - gate_use(whole[-1].gate), _by_item(noise)

    encoder = quantize_until(
        parts.encoder,
        frames,
        recipe=recipe.ptq,
        overflow_fix=recipe.overflow_fix.of(form),
        score=score,
        items=items,
        max_drop=1.0,
        max_groups=recipe.mixed.max_layers,
    )
    left = _left_float(prepared_encoder(parts.encoder, recipe.ptq), encoder, recipe)
    tried = [{"gate_use": gate_use(outcome.gate), "passed": outcome.gate.passed} for outcome in whole]
    account: dict[str, Any] = {"method": "accuracy-control", "float_layers": left, "tried": tried}
    # Judged once more, on the very bytes: NNCF stores weights as int8 only at its end.
    return trial.judge(form_graphs(form, encoder, parts.head, recipe=recipe), recipe, mixed=account)


def _logits(trial: Trial, graphs: FormGraphs, recipe: CalibrationRecipe, images: Uint8) -> Float32:
    with (
        trial_bundle(trial.parts, graphs, recipe) as bundle,
        Network.open(bundle, variant=graphs.form, provider="cpu", threads=trial.threads) as network,
    ):
        return evaluate(network, images, bundle.manifest.preprocess)


def _noise(logits: Float32, exact: Float32) -> NDArray[np.float64]:
    """float64 (N,): mean squared difference of each row's logits."""
    return np.asarray(((logits.astype(np.float64) - exact) ** 2).mean(axis=1))


def _by_item(noise: NDArray[np.float64]) -> list[float]:
    return [1 - float(noise[start : start + _ITEM].mean()) for start in range(0, len(noise), _ITEM)]


def _quantized(graph: ModelProto) -> bool:
    return any(node.op_type == "QuantizeLinear" for node in graph.graph.node)


def _left_float(before: ModelProto, after: ModelProto, recipe: CalibrationRecipe) -> list[str]:
    """Convolutions and the like whose weights are float in `after`, though the recipe did not ask for it."""
    index = GraphIndex(after)
    asked = set(float_nodes(before, recipe.ptq))
    found = []
    for node in after.graph.node:
        if node.op_type == "Conv" and node.name not in asked:
            source = index.producer(node.input[1])
            if source is None or source.op_type != "DequantizeLinear":
                found.append(node.name)
    return found


def _tried(left: list[str], gate: GateReport) -> dict[str, Any]:
    return {"float_layers": left, "gate_use": gate_use(gate), "passed": gate.passed}
