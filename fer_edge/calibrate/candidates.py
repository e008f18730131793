"""Several ways to quantize, compared; and which of them ships, by a rule that stands in the recipe."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fer_edge.calibrate.calibration import CalibrationOutcome, outcome_of
from fer_edge.calibrate.evaluation import (
    FormOutcome,
    GateRows,
    RowSample,
    Trial,
    VariantLogits,
    draw_agreement_rows,
    open_parts,
    sample_of,
)
from fer_edge.calibrate.int8_variants import learnt_forms, make_forms
from fer_edge.calibrate.ptq import NNCF_VERSION
from fer_edge.calibrate.recipe import CalibrationRecipe, Candidate, ChoiceRecipe, Form
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import GateError, InputError
from fer_edge.core.json import encode
from fer_edge.core.manifest import timestamp
from fer_edge.core.metrics import expected_calibration_error, softmax
from fer_edge.core.types import Progress
from fer_edge.data.dataset import Dataset

__all__ = ["CandidateResult", "Comparison", "compare_candidates", "ranked"]


@dataclass(frozen=True, kw_only=True)
class CandidateResult:
    """One candidate's form, measured on the choosing split without leaked rows, T = 1, unless said otherwise.

    Attributes:
        name: the candidate's.
        set: what it changes in the recipe.
        form: which form of it.
        top1: share of right labels.
        top1_drop: of the parent's over this; a gain is negative.
        flip_rate: labels that changed, right or wrong.
        only_parent_right: rows that the parent alone labels rightly.
        only_form_right: rows that the form alone labels rightly.
        mcnemar_p: whether chance alone splits these so unevenly.
        ece: calibration error after the form's own temperature, fitted on the same rows.
        ece_rise: over the parent's after its own.
        temperature: the form's own.
        agreement: of labels on training rows outside every candidate's sample.
        mean_abs_logit_diff: to the parent, before temperature, over all rows that were run.
        size_bytes: encoder and head.
        gate_passed: whether it is within the recipe's gate, with the comparison's agreement rows.
        within: whether the calibration error is within the choice's limit, too.
        quantize_s: what making the candidate's forms took, on one machine on one day.
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
    """All candidates, and those that the rule takes.

    Attributes:
        bundle: name and SHA-256 of its manifest.
        parent: accuracy and calibration error of the float parent, on the same rows.
        rows: what was looked at, and how much of it.
        recipe: with the rule and the candidates.
        results: a candidate and form each, in the recipe's order.
        chosen: form -> the candidate that the rule takes; a form that none may ship for is absent.
        passed_over: form -> candidates that the rule puts first but the whole gate refused.
        outcome: the chosen ones' whole gate; what would be written.
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
        """Refuse the comparison unless the rule takes a candidate for every form.

        Raises:
            GateError: naming the form and what came nearest.
        """
        allowed = self.recipe.choice.max_ece_rise
        for form in self.recipe.forms:
            if form in self.chosen:
                continue
            mine = [each for each in self.results if each.form == form]
            nearest = min(mine, key=lambda each: (not each.gate_passed, each.ece_rise))
            raise GateError(
                f"{form}: none of {len(mine)} candidates is within the gate and has a calibration error at most "
                f"{allowed:.4f} above the parent's; nearest is {nearest.name!r}, flips {nearest.flip_rate:.4f}, ECE "
                f"{nearest.ece_rise:+.4f}, gate {'passed' if nearest.gate_passed else 'failed'}. Add candidates, or "
                "allow more in choice.max_ece_rise"
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
    forms: dict[Form, FormOutcome]
    seconds: float


def compare_candidates(
    bundle: Bundle,
    dataset: Dataset,
    *,
    recipe: CalibrationRecipe,
    threads: int = 1,
    progress: Progress | None = None,
) -> Comparison:
    """Make and measure every candidate of a recipe, and put those that its rule takes through the whole gate.

    Args:
        bundle: holds the recipe's parent variant; nothing is written.
        dataset: its training split is calibrated on, its choosing split chosen on.
        recipe: candidates, rule and gate.
        threads: of each run.
        progress: called with (what, done, total).

    Raises:
        InputError: no candidate makes a form that is asked for, or as `measure_forms`.
        BundleError, SessionError: as `measure_forms`.
    """
    parts = open_parts(bundle, dataset, recipe)
    plans = _plans(recipe)
    samples = {
        changed.sample: sample_of(parts, dataset, changed, threads=threads, progress=progress) for _, changed in plans
    }
    choice, gate = recipe.choice, recipe.gate
    outside = draw_agreement_rows(dataset, *samples.values(), size=gate.agreement_rows, seed=gate.agreement_seed)
    whole = Trial.of(parts, GateRows.of(dataset, outside), threads=threads, progress=progress)
    trial = _with_fewer(whole, choice.agreement_rows)
    made, results = [], []
    for candidate, changed in plans:
        sample = samples[changed.sample]
        began = time.perf_counter()
        forms = learnt_forms(bundle, changed) if changed.method == "qat" else ()
        forms = forms or make_forms(
            parts.encoder, parts.head, parts.frames(sample.stills), recipe=changed, progress=progress
        )
        seconds = time.perf_counter() - began
        judged = {graphs.form: trial.judge(graphs, changed) for graphs in forms}
        made.append(_Made(candidate=candidate, recipe=changed, sample=sample, forms=judged, seconds=seconds))
        results += [_result(trial, made[-1], outcome, choice) for outcome in judged.values()]
    finals: dict[Form, tuple[_Made, FormOutcome]] = {}
    passed_over: dict[str, list[str]] = {}
    for form in recipe.forms:
        first, passed_over[form] = _first_through(form, made, results, whole, choice)
        if first is not None:
            finals[form] = first
    chosen = {form: taken.candidate.name for form, (taken, _) in finals.items()}
    rows = trial.rows
    return Comparison(
        bundle={"name": bundle.manifest.name, "sha256": bundle.sha256},
        parent={
            "top1": float((trial.reference.by_window[1][~rows.leaked].argmax(axis=1) == rows.kept.labels).mean()),
            "ece": _ece(trial.reference, rows),
            "temperature": trial.reference.temperature,
        },
        rows={
            "split": rows.choose,
            "n": len(rows.kept),
            "leaked_left_out": int(rows.leaked.sum()),
            "agreement": rows.outside.summary(),
        },
        recipe=recipe,
        results=tuple(results),
        chosen={str(form): name for form, name in chosen.items()},
        passed_over=passed_over,
        outcome=outcome_of(
            whole,
            [outcome for _, outcome in finals.values()],
            {form: taken.sample for form, (taken, _) in finals.items()},
            choice={"rule": encode(choice), "of": [candidate.name for candidate, _ in plans], "chosen": chosen},
        ),
    )


def ranked(results: Sequence[CandidateResult], choice: ChoiceRecipe) -> list[CandidateResult]:
    """One form's candidates that may ship, the rule's first one first; in any other order equal ones stay."""
    keys = {
        "fewest-flips-within-gate": lambda each: (each.flip_rate,),
        "best-top1-within-gate": lambda each: (-each.top1, each.flip_rate),
        "least-ece-within-gate": lambda each: (each.ece, each.flip_rate),
        "smallest-within-gate": lambda each: (each.size_bytes, each.flip_rate),
    }
    return sorted((each for each in results if each.within), key=keys[choice.rule])


def _with_fewer(trial: Trial, count: int) -> Trial:
    """The same trial on `count` of its training rows, spread over all of them."""
    outside = trial.rows.outside
    index = np.unique(np.linspace(0, len(outside.stills) - 1, min(count, len(outside.stills))).round().astype(int))
    few = dataclasses.replace(outside, stills=outside.stills.subset(index))
    return dataclasses.replace(
        trial,
        rows=dataclasses.replace(trial.rows, outside=few),
        reference=dataclasses.replace(trial.reference, outside=trial.reference.outside[index]),
    )


def _plans(recipe: CalibrationRecipe) -> list[tuple[Candidate, CalibrationRecipe]]:
    found = []
    for candidate in recipe.candidates:
        changed = recipe.of_candidate(candidate)
        forms = tuple(form for form in changed.forms if form in recipe.forms)
        if forms:
            found.append((candidate, dataclasses.replace(changed, forms=forms)))
    for form in recipe.forms:
        if not any(form in changed.forms for _, changed in found):
            raise InputError(f"candidates: none of them makes the form {form!r}; leave the form out, or add one")
    return found


def _result(trial: Trial, made: _Made, outcome: FormOutcome, choice: ChoiceRecipe) -> CandidateResult:
    kept = ~trial.rows.leaked
    (paired, *_), agreement = (
        [report for on, report in outcome.gate.paired.items() if "outside" not in on],
        next(report for on, report in outcome.gate.paired.items() if "outside" in on),
    )
    logits = outcome.logits.by_window[1][kept]
    return CandidateResult(
        name=made.candidate.name,
        set=made.candidate.set,
        form=outcome.graphs.form,
        top1=float((logits.argmax(axis=1) == trial.rows.labels[kept]).mean()),
        top1_drop=0.0 - paired.top1_delta,
        flip_rate=paired.flip_rate,
        only_parent_right=paired.only_reference_right,
        only_form_right=paired.only_other_right,
        mcnemar_p=paired.mcnemar_p,
        ece=_ece(outcome.logits, trial.rows),
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
    form: Form, made: Sequence[_Made], results: Sequence[CandidateResult], whole: Trial, choice: ChoiceRecipe
) -> tuple[tuple[_Made, FormOutcome] | None, list[str]]:
    """The first candidate by the rule that is through the whole gate, if any is, and those passed over."""
    more = len(whole.rows.outside.stills) > choice.agreement_rows
    refused: list[str] = []
    for result in ranked([each for each in results if each.form == form], choice):
        taken = next(each for each in made if each.candidate.name == result.name)
        outcome = taken.forms[form]
        if more:
            outcome = whole.judge(outcome.graphs, taken.recipe)
        if outcome.gate.passed:
            return (taken, outcome), refused
        refused.append(result.name)
    return None, refused


def _ece(logits: VariantLogits, rows: GateRows) -> float:
    kept = ~rows.leaked
    probabilities = softmax(logits.by_window[1][kept], temperature=logits.temperature)
    return expected_calibration_error(probabilities, rows.labels[kept])
