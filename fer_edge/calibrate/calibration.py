"""Calibration: the float variant of a bundle quantized to INT8 forms that pass the accuracy gate."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import onnxruntime

from fer_edge.calibrate.evaluation import Evaluated, Evaluation, FloatParent
from fer_edge.calibrate.gate import GateRows, draw_agreement_rows, require_gates
from fer_edge.calibrate.int8_variants import qat_graphs, quantized_graphs
from fer_edge.calibrate.ptq import NNCF_VERSION
from fer_edge.calibrate.recipe import CalibrationRecipe
from fer_edge.core.bundle import Bundle
from fer_edge.core.bundle_writer import update_bundle
from fer_edge.core.errors import RecipeError
from fer_edge.core.graph_card import with_cards
from fer_edge.core.manifest import Variant, timestamp
from fer_edge.core.provenance import read_provenance
from fer_edge.core.types import Progress
from fer_edge.data.dataset import Dataset
from fer_edge.data.sampling import RowSample

__all__ = ["CalibrationOutcome", "measure_forms", "outcome_of"]


@dataclass(frozen=True, kw_only=True, eq=False)
class CalibrationOutcome:
    """Every form of a calibration, with its parent; `write` adds them to the bundle.

    Attributes:
        bundle: as it was opened.
        parent: the float variant, with the accuracy and temperature measured now.
        forms: the INT8 forms.
        samples: the calibration sample of each form.
        split: the split that the accuracies were measured on.
        provenance: history of each form.
    """

    bundle: Bundle
    parent: Variant
    forms: tuple[Evaluated, ...]
    samples: dict[str, RowSample]
    split: str
    provenance: dict[str, dict[str, Any]]

    @property
    def sample(self) -> RowSample:
        """Calibration sample of the first form; without candidates, of every form."""
        return next(iter(self.samples.values()))

    @property
    def passed(self) -> bool:
        """Whether every form passed the gate."""
        return all(form.gate.passed for form in self.forms)

    def require_passed(self) -> None:
        """Refuse the outcome unless every form passed the gate.

        Raises:
            GateError: names each failed check with its figure.
        """
        require_gates((form.variant.name, form.gate) for form in self.forms)

    def write(self) -> Bundle:
        """Add the forms to the bundle; forms of the same name are replaced.

        Raises:
            GateError: a form did not pass; the bundle is untouched.
            BundleError: the bundle changed since it was opened.
            OutputError: it cannot be written; nothing is changed.
        """
        self.require_passed()
        manifest = self.bundle.manifest
        graphs: dict[str, bytes] = {}
        history = read_provenance(self.bundle)
        calibration = dict(history.calibration)
        for form in self.forms:
            variant, recipe = _split_recipe(form.variant)
            manifest = manifest.with_variant(variant)
            calibration[variant.name] = {**self.provenance[variant.name], **recipe}
            if form.graphs.qat is not None:  # the manifest has it under the form's name now
                manifest = manifest.without_variant(form.graphs.qat.name)
            graphs |= form.graphs.by_sha256
        manifest, graphs = with_cards(manifest, graphs)
        return update_bundle(
            self.bundle, manifest, graphs, provenance=dataclasses.replace(history, calibration=calibration)
        )

    def to_json(self) -> dict[str, Any]:
        """Verdict, sizes, accuracies and gate figures."""
        return {
            "passed": self.passed,
            "bundle": self.bundle.manifest.name,
            "parent": _summary(self.parent, self.split),
            "forms": [
                {
                    **_summary(form.variant, self.split),
                    "parity": dict(form.variant.parity),
                    "gate": form.gate.to_json(),
                }
                for form in self.forms
            ],
            "calibration": next(iter(self.provenance.values()), {}),
        }


def measure_forms(
    bundle: Bundle,
    dataset: Dataset,
    *,
    recipe: CalibrationRecipe,
    threads: int = 1,
    progress: Progress | None = None,
) -> CalibrationOutcome:
    """Make a recipe's INT8 forms and judge them by the gate; nothing is written, and a failed gate does not raise.

    Args:
        bundle: holds the recipe's parent variant.
        dataset: calibrates on its training split, measures on its choosing split.
        recipe: forms, settings and the gate's limits.

    Raises:
        InputError: a graph that cannot be quantized so.
        RecipeError: the recipe has candidates.
        DataError: a split that is missing or too small.
        BundleError: the bundle has no such parent, or is damaged.
    """
    if recipe.candidates:
        raise RecipeError(f"candidates: got {len(recipe.candidates)}, expected none; compare_candidates measures them")
    source = FloatParent.open(bundle, dataset, recipe, threads=threads, progress=progress)
    sample = recipe.sample.draw(dataset)
    gate = recipe.gate
    outside = draw_agreement_rows(dataset, sample, size=gate.agreement_rows, seed=gate.agreement_seed)
    evaluation = Evaluation.of(source, GateRows.of(dataset, outside))
    made = qat_graphs(bundle, recipe) or quantized_graphs(
        source.encoder, source.head, source.frames(sample.stills), recipe=recipe, crowd=source.crowd, progress=progress
    )
    forms = [evaluation.judge(graphs, recipe) for graphs in made]
    return outcome_of(evaluation, forms, {form.variant.name: sample for form in forms})


def outcome_of(
    evaluation: Evaluation,
    forms: Sequence[Evaluated],
    samples: Mapping[str, RowSample],
    *,
    choice: Mapping[str, Any] | None = None,
) -> CalibrationOutcome:
    """Collect judged forms with their history.

    Args:
        evaluation: that judged them.
        forms: the forms.
        samples: calibration sample by form.
        choice: candidates, where they were chosen from several.
    """
    rows = evaluation.rows
    common = {
        "agreement_rows": rows.outside.summary(),
        "chosen_on": {"split": rows.choose, "n": len(rows.labels), "leaked_left_out": int(rows.leaked.sum())},
        "versions": {"nncf": NNCF_VERSION, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__},
        "date": timestamp(),
        **({} if choice is None else {"choice": dict(choice)}),
    }
    return CalibrationOutcome(
        bundle=evaluation.source.bundle,
        parent=evaluation.parent,
        forms=tuple(forms),
        samples=dict(samples),
        split=rows.choose,
        provenance={name: {"sample": sample.summary(), **common} for name, sample in samples.items()},
    )


def _split_recipe(variant: Variant) -> tuple[Variant, dict[str, Any]]:
    """Take the recipe, which is history, out of a variant's `how_made`."""
    moved = {key: value for key, value in variant.how_made.items() if key in ("recipe", "calibration_recipe")}
    kept = {key: value for key, value in variant.how_made.items() if key not in moved}
    return dataclasses.replace(variant, how_made=kept), moved


def _summary(variant: Variant, split: str) -> dict[str, Any]:
    return {
        "name": variant.name,
        "encoder_bytes": variant.encoder.size_bytes,
        "head_bytes": variant.head.size_bytes,
        "temperature": variant.temperature,
        "accuracy": variant.metrics[split].to_json(),
    }
