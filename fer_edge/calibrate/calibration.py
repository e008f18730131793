"""A bundle's float variant to gated INT8 variants."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import onnxruntime

from fer_edge.calibrate.evaluation import (
    FormOutcome,
    GateRows,
    RowSample,
    Trial,
    draw_agreement_rows,
    open_parts,
    sample_of,
)
from fer_edge.calibrate.gate import require_gates
from fer_edge.calibrate.int8_variants import learnt_forms, make_forms
from fer_edge.calibrate.mixed_precision import restore_accuracy
from fer_edge.calibrate.ptq import NNCF_VERSION
from fer_edge.calibrate.recipe import CalibrationRecipe
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import InputError
from fer_edge.core.manifest import Variant, timestamp
from fer_edge.core.types import Progress
from fer_edge.data.dataset import Dataset

__all__ = ["CalibrationOutcome", "calibrate_bundle", "measure_forms", "outcome_of"]


@dataclass(frozen=True, kw_only=True, eq=False)
class CalibrationOutcome:
    """Every form of a calibration, beside the parent it was made from; nothing of it is written yet.

    Attributes:
        bundle: as it was opened.
        parent: the float variant, with the accuracy and temperature measured now.
        forms: what was made.
        samples: the rows calibrated on, by form.
        split: the split that the accuracies were measured on.
        provenance: the manifest's account of it all, by form.
    """

    bundle: Bundle
    parent: Variant
    forms: tuple[FormOutcome, ...]
    samples: dict[str, RowSample]
    split: str
    provenance: dict[str, dict[str, Any]]

    @property
    def sample(self) -> RowSample:
        """The rows that the first form was calibrated on; where no candidates are compared, every form was."""
        return next(iter(self.samples.values()))

    @property
    def passed(self) -> bool:
        """Whether every form is through the gate."""
        return all(form.gate.passed for form in self.forms)

    def require_passed(self) -> None:
        """Refuse the outcome unless every form is through the gate.

        Raises:
            GateError: naming what failed and by how much.
        """
        require_gates((form.variant.name, form.gate) for form in self.forms)

    def write(self) -> Bundle:
        """Add the forms to the bundle; forms of the same name are replaced.

        Raises:
            GateError: a form did not pass; the bundle is untouched.
            BundleError: the bundle changed since it was opened.
            OutputError: it cannot be written; it is as it was.
        """
        self.require_passed()
        manifest = self.bundle.manifest
        graphs: dict[str, bytes] = {}
        history = self.bundle.read_provenance()
        calibration = dict(history.calibration)
        for form in self.forms:
            variant, recipe = _split_recipe(form.variant)
            manifest = manifest.with_variant(variant)
            calibration[variant.name] = {**self.provenance[variant.name], **recipe}
            if form.graphs.learnt is not None:  # it now stands there under its own name
                manifest = manifest.without_variant(form.graphs.learnt.name)
            graphs |= form.graphs.by_sha256
        return self.bundle.updated(manifest, graphs, provenance=dataclasses.replace(history, calibration=calibration))

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


def calibrate_bundle(
    bundle: Bundle,
    dataset: Dataset,
    *,
    recipe: CalibrationRecipe,
    threads: int = 1,
    progress: Progress | None = None,
) -> CalibrationOutcome:
    """Add the recipe's INT8 forms to a bundle, if all of them pass the gate.

    Args:
        bundle: holds the recipe's parent variant.
        dataset: its training split is calibrated on, its choosing split measured on.
        recipe: what to make, how, and what may be lost.
        threads: of each run.
        progress: called with (what, done, total).

    Returns:
        what was made and measured; the bundle on disk holds it.

    Raises:
        GateError: a form lost too much; the bundle is untouched.
        InputError: a split that is missing or too small, or a graph that cannot be quantized so.
        BundleError: the bundle has no such parent, is damaged, or changed meanwhile.
        OutputError: the bundle cannot be written; it is as it was.
    """
    outcome = measure_forms(bundle, dataset, recipe=recipe, threads=threads, progress=progress)
    outcome.write()
    return outcome


def measure_forms(
    bundle: Bundle,
    dataset: Dataset,
    *,
    recipe: CalibrationRecipe,
    threads: int = 1,
    progress: Progress | None = None,
) -> CalibrationOutcome:
    """As `calibrate_bundle`, but nothing is written and a form that lost too much is an outcome like any other."""
    if recipe.candidates:
        raise InputError("the recipe lists candidates: compare_candidates measures them; expected one way to quantize")
    parts = open_parts(bundle, dataset, recipe)
    sample = sample_of(parts, dataset, recipe, threads=threads, progress=progress)
    gate = recipe.gate
    outside = draw_agreement_rows(dataset, sample, size=gate.agreement_rows, seed=gate.agreement_seed)
    trial = Trial.of(parts, GateRows.of(dataset, outside), threads=threads, progress=progress)
    frames = parts.frames(sample.stills)
    made = learnt_forms(bundle, recipe) or make_forms(
        parts.encoder, parts.head, frames, recipe=recipe, progress=progress
    )
    forms = []
    for graphs in made:
        form = trial.judge(graphs, recipe)
        if not form.gate.passed and recipe.mixed.method != "none" and graphs.learnt is None:
            form = restore_accuracy(trial, frames, form, recipe)
        forms.append(form)
    return outcome_of(trial, forms, {form.variant.name: sample for form in forms})


def outcome_of(
    trial: Trial,
    forms: Sequence[FormOutcome],
    samples: Mapping[str, RowSample],
    *,
    choice: Mapping[str, Any] | None = None,
) -> CalibrationOutcome:
    """What is written and told of forms that were judged.

    Args:
        trial: where.
        forms: the outcomes.
        samples: what each was calibrated on, by its name.
        choice: of what they were chosen and by what rule, for the manifest.
    """
    rows = trial.rows
    common = {
        "agreement_rows": rows.outside.summary(),
        "chosen_on": {"split": rows.choose, "n": len(rows.labels), "leaked_left_out": int(rows.leaked.sum())},
        "versions": {"nncf": NNCF_VERSION, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__},
        "date": timestamp(),
        **({} if choice is None else {"choice": dict(choice)}),
    }
    return CalibrationOutcome(
        bundle=trial.parts.bundle,
        parent=trial.parent,
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
