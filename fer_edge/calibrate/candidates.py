"""Candidates: several ways to quantize, compared, and the one with the fewest flips selected for each form."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fer_edge.calibrate.calibration import CalibrationOutcome, outcome_of
from fer_edge.calibrate.evaluation import Evaluated, Evaluation, FloatParent
from fer_edge.calibrate.gate import GateRows, draw_agreement_rows
from fer_edge.calibrate.int8_variants import qat_graphs, quantized_graphs
from fer_edge.calibrate.ptq import NNCF_VERSION
from fer_edge.calibrate.recipe import CalibrationRecipe, Candidate, ChoiceRecipe, Form
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import GateError, RecipeError
from fer_edge.core.json import encode
from fer_edge.core.manifest import timestamp
from fer_edge.core.types import Progress
from fer_edge.data.dataset import Dataset
from fer_edge.data.sampling import RowSample

__all__ = ["CandidateResult", "Comparison", "compare_candidates", "ranked"]


@dataclass(frozen=True, kw_only=True)
class CandidateResult:
    """One form of one candidate, measured on the choosing split without leaked rows at T = 1.

    Attributes:
        name: the candidate's name.
        set: its changes to the recipe.
        form: the form.
        top1: share of correct labels.
        top1_drop: the parent's top-1 minus this; a gain is negative.
        flip_rate: share of labels that changed, correct or not.
        only_parent_right: rows that only the parent labels correctly.
        only_form_right: rows that only the form labels correctly.
        mcnemar_p: McNemar's p-value of these two counts.
        ece: calibration error after the form's own temperature, fitted on the same rows.
        ece_rise: rise over the parent's after its own temperature.
        temperature: the form's own.
        agreement: share of equal labels on training rows outside every candidate's sample.
        mean_abs_logit_diff: to the parent, before temperature, over all evaluated rows.
        size_bytes: encoder and head.
        gate_passed: whether it passes the recipe's gate, on the comparison's agreement rows.
        within: whether its calibration error also keeps the choice's limit.
        quantize_s: seconds that quantization took.
    """

    name: str
    set: tuple[str, ...]
    form: Form
    top1: float
    top1_drop: float
    flip_rate: float
    only_parent_right: int
    only_form_right: int
    mcnemar_p: float
    ece: float
    ece_rise: float
    temperature: float
    agreement: float
    mean_abs_logit_diff: float
    size_bytes: int
    gate_passed: bool
    within: bool
    quantize_s: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """All candidates, and those that are selected.

    Attributes:
        bundle: name and SHA-256 of its manifest.
        parent: accuracy and calibration error of the float parent, on the same rows.
        rows: the compared rows and their count.
        recipe: with the candidates.
        results: one for each candidate and form, in the recipe's order.
        chosen: form -> the selected candidate; absent where none may ship.
        passed_over: form -> candidates that rank first but the whole gate refused.
        outcome: the whole gate of the selected ones; what would be written.
    """

    bundle: dict[str, str]
    parent: dict[str, float]
    rows: dict[str, Any]
    recipe: CalibrationRecipe
    results: tuple[CandidateResult, ...]
    chosen: dict[str, str]
    passed_over: dict[str, list[str]]
    outcome: CalibrationOutcome

    def require_chosen(self) -> None:
        """Refuse the comparison unless a candidate is selected for every form.

        Raises:
            GateError: naming the form and the nearest candidate.
        """
        for form in self.recipe.forms:
            if form in self.chosen:
                continue
            mine = [each for each in self.results if each.form == form]
            nearest = min(mine, key=lambda each: (not each.gate_passed, each.ece_rise))
            raise GateError(
                f"{form}: got {len(mine)} candidates, expected one that passes the gate with an ECE at most "
                f"{self.recipe.choice.max_ece_rise:.4f} above the parent's; nearest is {nearest.name!r}, flips "
                f"{nearest.flip_rate:.4f}, ECE {nearest.ece_rise:+.4f}, gate "
                f"{'passed' if nearest.gate_passed else 'failed'}; add candidates, or raise choice.max_ece_rise"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain values under the field names."""
        values = {key: encode(value) for key, value in vars(self).items() if key != "outcome"}
        return {
            "schema": 1,
            "what": "calibration candidates",
            "created": timestamp(),
            "nncf": NNCF_VERSION,
            **values,
            "outcome": self.outcome.to_json(),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class _Made:
    """A candidate's forms, judged on the comparison's rows."""

    candidate: Candidate
    recipe: CalibrationRecipe
    sample: RowSample
    forms: dict[Form, Evaluated]
    seconds: float


def compare_candidates(
    bundle: Bundle,
    dataset: Dataset,
    *,
    recipe: CalibrationRecipe,
    threads: int = 1,
    progress: Progress | None = None,
) -> Comparison:
    """Make and measure every candidate of a recipe, and put those with the fewest flips through the whole gate.

    Args:
        bundle: holds the recipe's parent variant; nothing is written.
        dataset: calibrates on its training split, compares on its choosing split.
        recipe: candidates and gate.

    Raises:
        RecipeError: no candidate makes one of the forms.
        InputError, DataError, BundleError, SessionError: as `measure_forms`.
    """
    source = FloatParent.open(bundle, dataset, recipe, threads=threads, progress=progress)
    plans = _plans(recipe)
    samples = {changed.sample: changed.sample.draw(dataset) for _, changed in plans}
    choice, gate = recipe.choice, recipe.gate
    outside = draw_agreement_rows(dataset, *samples.values(), size=gate.agreement_rows, seed=gate.agreement_seed)
    whole = Evaluation.of(source, GateRows.of(dataset, outside))
    evaluation = whole.on_fewer(choice.agreement_rows)
    made, results = [], []
    for candidate, changed in plans:
        made.append(_make(evaluation, candidate, changed, samples[changed.sample]))
        results += [_result(evaluation, made[-1], outcome, choice) for outcome in made[-1].forms.values()]
    finals: dict[Form, tuple[_Made, Evaluated]] = {}
    passed_over: dict[str, list[str]] = {}
    for form in recipe.forms:
        first, passed_over[form] = _first_through(form, made, results, whole, choice)
        if first is not None:
            finals[form] = first
    chosen = {str(form): taken.candidate.name for form, (taken, _) in finals.items()}
    rows, accuracy = evaluation.rows, evaluation.reference.accuracy
    return Comparison(
        bundle={"name": bundle.manifest.name, "sha256": bundle.sha256},
        parent={
            "top1": evaluation.top1(evaluation.reference),
            "ece": evaluation.ece(evaluation.reference),
            "temperature": evaluation.reference.temperature,
        },
        rows={
            "split": accuracy.split,
            "n": len(rows.kept),
            "leaked_left_out": int(rows.leaked.sum()),
            "agreement": rows.outside.summary(),
        },
        recipe=recipe,
        results=tuple(results),
        chosen=chosen,
        passed_over=passed_over,
        outcome=outcome_of(
            whole,
            [outcome for _, outcome in finals.values()],
            {form: taken.sample for form, (taken, _) in finals.items()},
            choice={"limits": encode(choice), "of": [candidate.name for candidate, _ in plans], "chosen": chosen},
        ),
    )


def ranked(results: Sequence[CandidateResult]) -> list[CandidateResult]:
    """Sort one form's candidates that may ship, fewest flips first; equal ones keep their order."""
    return sorted((each for each in results if each.within), key=lambda each: each.flip_rate)


def _make(evaluation: Evaluation, candidate: Candidate, recipe: CalibrationRecipe, sample: RowSample) -> _Made:
    source = evaluation.source
    began = time.perf_counter()
    graphs = qat_graphs(source.bundle, recipe) if recipe.method == "qat" else ()
    graphs = graphs or quantized_graphs(
        source.encoder,
        source.head,
        source.frames(sample.stills),
        recipe=recipe,
        crowd=source.crowd,
        progress=source.progress,
    )
    seconds = time.perf_counter() - began
    judged = {each.form: evaluation.judge(each, recipe) for each in graphs}
    return _Made(candidate=candidate, recipe=recipe, sample=sample, forms=judged, seconds=seconds)


def _plans(recipe: CalibrationRecipe) -> list[tuple[Candidate, CalibrationRecipe]]:
    found = []
    for candidate in recipe.candidates:
        changed = recipe.of_candidate(candidate)
        forms = tuple(form for form in changed.forms if form in recipe.forms)
        if forms:
            found.append((candidate, dataclasses.replace(changed, forms=forms)))
    for form in recipe.forms:
        if not any(form in changed.forms for _, changed in found):
            raise RecipeError(f"candidates: got none of the form {form!r}, expected one; add one, or drop the form")
    return found


def _result(evaluation: Evaluation, made: _Made, outcome: Evaluated, choice: ChoiceRecipe) -> CandidateResult:
    # check_gate puts the choosing split at T = 1 first and the rows outside the sample last
    paired, *_, agreement = outcome.gate.paired.values()
    return CandidateResult(
        name=made.candidate.name,
        set=made.candidate.set,
        form=outcome.graphs.form,
        top1=evaluation.top1(outcome.logits),
        top1_drop=0.0 - paired.top1_delta,
        flip_rate=paired.flip_rate,
        only_parent_right=paired.only_reference_right,
        only_form_right=paired.only_other_right,
        mcnemar_p=paired.mcnemar_p,
        ece=evaluation.ece(outcome.logits),
        ece_rise=paired.ece_delta,
        temperature=outcome.logits.temperature,
        agreement=agreement.agreement,
        mean_abs_logit_diff=float(outcome.variant.parity["mean_abs_logit_diff"]),
        size_bytes=sum(file.size_bytes for file in outcome.variant.graphs),
        gate_passed=outcome.gate.passed,
        within=outcome.gate.passed and paired.ece_delta <= choice.max_ece_rise,
        quantize_s=round(made.seconds, 1),
    )


def _first_through(
    form: Form, made: Sequence[_Made], results: Sequence[CandidateResult], whole: Evaluation, choice: ChoiceRecipe
) -> tuple[tuple[_Made, Evaluated] | None, list[str]]:
    """The first candidate in rank that passes the whole gate, if any, and those that did not."""
    more = len(whole.rows.outside.stills) > choice.agreement_rows
    refused: list[str] = []
    for result in ranked([each for each in results if each.form == form]):
        taken = next(each for each in made if each.candidate.name == result.name)
        outcome = taken.forms[form]
        if more:
            outcome = whole.judge(outcome.graphs, taken.recipe)
        if outcome.gate.passed:
            return (taken, outcome), refused
        refused.append(result.name)
    return None, refused
