"""A bundle's float variant to gated INT8 variants."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from fer_edge.bundle import Bundle
from fer_edge.calibrate.forms import FormGraphs, learnt_forms, make_forms
from fer_edge.calibrate.gate import GateReport, require_gates
from fer_edge.calibrate.measure import GateRows, VariantLogits, compare, logit_difference, run_variant
from fer_edge.calibrate.ptq import NNCF_VERSION
from fer_edge.calibrate.recipe import CalibrationRecipe
from fer_edge.calibrate.sample import RowSample, draw_agreement_rows, draw_sample
from fer_edge.data.stills import Dataset
from fer_edge.decode import encode
from fer_edge.graph.info import graph_file
from fer_edge.graph.int8_storage import STORAGE
from fer_edge.graph.load import load_graph
from fer_edge.manifest import Variant, timestamp
from fer_edge.preprocess import prepare_stills

__all__ = ["CalibrationOutcome", "FormOutcome", "calibrate_bundle", "measure_forms"]


@dataclass(frozen=True, kw_only=True, eq=False)
class FormOutcome:
    """One INT8 form, made and measured.

    Attributes:
        variant: what the manifest will say of it.
        graphs: its ONNX files.
        gate: its verdict.
    """

    variant: Variant
    graphs: FormGraphs
    gate: GateReport


@dataclass(frozen=True, kw_only=True, eq=False)
class CalibrationOutcome:
    """Every form of a calibration, beside the parent it was made from; nothing of it is written yet.

    Attributes:
        bundle: as it was opened.
        parent: the float variant, with the accuracy and temperature measured now.
        forms: what was made.
        sample: the rows calibrated on.
        split: the split that the accuracies were measured on.
        provenance: the manifest's account of it all.
    """

    bundle: Bundle
    parent: Variant
    forms: tuple[FormOutcome, ...]
    sample: RowSample
    split: str
    provenance: dict[str, Any]

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
        for form in self.forms:
            manifest = manifest.with_variant(form.variant)
            if form.graphs.learnt is not None:  # it now stands there under its own name
                manifest = manifest.without_variant(form.graphs.learnt.name)
            graphs |= form.graphs.by_sha256
        old = manifest.provenance
        calibration = {**old.calibration, **{form.variant.name: self.provenance for form in self.forms}}
        provenance = dataclasses.replace(old, calibration=calibration)
        return self.bundle.updated(dataclasses.replace(manifest, provenance=provenance), graphs)

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
            "calibration": self.provenance,
        }


def calibrate_bundle(
    bundle: Bundle,
    dataset: Dataset,
    *,
    recipe: CalibrationRecipe,
    threads: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
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
    progress: Callable[[str, int, int], None] | None = None,
) -> CalibrationOutcome:
    """As `calibrate_bundle`, but nothing is written and a form that lost too much is an outcome like any other."""
    parent = bundle.variant(recipe.parent)
    dataset.expect_expressions(bundle.manifest.labels, of=f"the bundle {bundle.manifest.name}")
    sample = draw_sample(dataset, size=recipe.sample.size, seed=recipe.sample.seed)
    outside = draw_agreement_rows(dataset, sample, size=recipe.gate.agreement_rows, seed=recipe.gate.agreement_seed)
    rows = GateRows.of(dataset, outside)
    graphs = learnt_forms(bundle, recipe) or _quantized(bundle, parent, sample, recipe, progress)
    drafts = [_draft(form, parent, window=bundle.manifest.sequence.window) for form in graphs]
    logits = _run(bundle, parent, list(zip(drafts, graphs, strict=True)), rows, threads=threads, progress=progress)
    reference = logits[parent.name]
    forms = tuple(
        _judged(draft, form, recipe, reference, logits[draft.name], rows)
        for draft, form in zip(drafts, graphs, strict=True)
    )
    return CalibrationOutcome(
        bundle=bundle,
        parent=_measured(parent, reference),
        forms=forms,
        sample=sample,
        split=rows.choose,
        provenance={
            "sample": sample.summary(),
            "agreement_rows": outside.summary(),
            "chosen_on": {"split": rows.choose, "n": len(rows.labels), "leaked_left_out": int(rows.leaked.sum())},
            "versions": {"nncf": NNCF_VERSION, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__},
            "date": timestamp(),
        },
    )


def _quantized(
    bundle: Bundle,
    parent: Variant,
    sample: RowSample,
    recipe: CalibrationRecipe,
    progress: Callable[[str, int, int], None] | None,
) -> tuple[FormGraphs, ...]:
    encoder, head = (
        load_graph(bundle.read_graph(file), name=f"the {parent.name} {part}")
        for file, part in ((parent.encoder, "encoder"), (parent.head, "head"))
    )
    frames = prepare_stills(sample.stills.images, bundle.manifest.preprocess)
    return make_forms(encoder, head, frames, recipe=recipe, progress=progress)


def _draft(graphs: FormGraphs, parent: Variant, *, window: int) -> Variant:
    """The variant, but for what is yet to be measured."""
    return Variant(
        name=graphs.form,
        precision="int8",
        encoder=graph_file(graphs.encoder, dimensions={"N": 1}, name=f"the {graphs.form} encoder"),
        head=graph_file(graphs.head, dimensions={"B": 1, "T": window}, name=f"the {graphs.form} head"),
        parent=parent.name,
        unknown_threshold=parent.unknown_threshold,
    )


def _run(
    bundle: Bundle,
    parent: Variant,
    drafts: list[tuple[Variant, FormGraphs]],
    rows: GateRows,
    *,
    threads: int,
    progress: Callable[[str, int, int], None] | None,
) -> dict[str, VariantLogits]:
    """Logits of the parent and of every draft, from a bundle like the one that would be written."""
    manifest = dataclasses.replace(bundle.manifest, variants=(parent, *(draft for draft, _ in drafts)))
    graphs = {file.sha256: bundle.read_graph(file) for file in parent.graphs}
    for _, form in drafts:
        graphs |= form.by_sha256
    with tempfile.TemporaryDirectory(prefix="fer-edge-") as folder:
        trial = Bundle.create(Path(folder) / "trial", manifest, graphs)
        return {
            variant.name: run_variant(trial, variant.name, rows, threads=threads, progress=progress)
            for variant in manifest.variants
        }


def _judged(
    draft: Variant,
    graphs: FormGraphs,
    recipe: CalibrationRecipe,
    reference: VariantLogits,
    logits: VariantLogits,
    rows: GateRows,
) -> FormOutcome:
    gate = compare(reference, logits, rows, recipe.gate)
    how_made = {**_how_made(graphs, recipe), "gate": gate.to_json()}
    difference = logit_difference(reference, logits, against=recipe.parent)
    variant = dataclasses.replace(_measured(draft, logits), how_made=how_made, parity=encode(difference))
    return FormOutcome(variant=variant, graphs=graphs, gate=gate)


def _how_made(graphs: FormGraphs, recipe: CalibrationRecipe) -> dict[str, Any]:
    if graphs.learnt is not None:
        return {**graphs.learnt.how_made, "calibration_recipe": encode(recipe)}
    return {
        "method": "post-training quantization of the encoder; sequence weights stored as int8, computed in float",
        "nncf": NNCF_VERSION,
        "overflow_fix": recipe.overflow_fix.of(graphs.form),
        "weight_storage": STORAGE[graphs.form],
        "recipe": encode(recipe),
    }


def _measured(variant: Variant, logits: VariantLogits) -> Variant:
    metrics = {**variant.metrics, logits.accuracy.split: logits.accuracy}
    return dataclasses.replace(variant, temperature=logits.temperature, metrics=metrics)


def _summary(variant: Variant, split: str) -> dict[str, Any]:
    return {
        "name": variant.name,
        "encoder_bytes": variant.encoder.size_bytes,
        "head_bytes": variant.head.size_bytes,
        "temperature": variant.temperature,
        "accuracy": variant.metrics[split].to_json(),
    }
