"""The calibration recipe: a frozen record, read from TOML and stored with the bundle."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from fer_edge.core.errors import InputError, RecipeError
from fer_edge.core.int8_forms import FORMS, Form
from fer_edge.core.json import expect
from fer_edge.core.recipe_overrides import override
from fer_edge.data.sampling import SampleChoice, SampleRecipe

__all__ = [
    "FORMS",
    "CalibrationRecipe",
    "Candidate",
    "ChoiceRecipe",
    "Form",
    "GateLimits",
    "HalfRange",
    "Method",
    "OverflowFixes",
    "PtqRange",
    "PtqRecipe",
    "SampleChoice",
    "SampleRecipe",
    "SensitivityRecipe",
]

HalfRange: TypeAlias = Literal["disable", "first_layer_only", "enable"]
Method: TypeAlias = Literal["auto", "ptq", "qat"]
PtqRange: TypeAlias = Literal["histogram", "mean", "max", "percentile"]


@dataclass(frozen=True, kw_only=True)
class PtqRecipe:
    """NNCF's post-training quantization of the encoder.

    Attributes:
        activation_range: the range with the least error on a histogram of the values, the mean or the extremes of
            the batches' ranges, or the mean of their 0.01st and 99.99th percentiles.
        batch: faces a batch.
        bias_correction: shift biases by the mean quantization error (NNCF's fast algorithm).
        float_nodes: nodes that stay float: by name, by layer (``cnn.3``, ``cnn.3.0``), or by a regular expression after
            ``re:``.
    """

    activation_range: PtqRange = "histogram"
    batch: int = 64
    bias_correction: bool = False
    float_nodes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        expect(self.batch >= 1, "batch", self.batch, "1 or more")


@dataclass(frozen=True, kw_only=True)
class OverflowFixes:
    """Whether weights use half of the 8-bit range, so that two products fit into 16 bits; by form.

    x86 processors without VNNI add two 8-bit products in 16 bits and saturate there.

    Attributes:
        int8: for ONNX Runtime and OpenVINO.
        int8_trt: for TensorRT, whose tensor cores add in 32 bits.
    """

    int8: HalfRange = "enable"
    int8_trt: HalfRange = "disable"

    def of(self, form: Form) -> HalfRange:
        """The setting of one form."""
        return self.int8 if form == "int8" else self.int8_trt


@dataclass(frozen=True, kw_only=True)
class GateLimits:
    """Limits of the accuracy gate, against the parent; rates are fractions.

    Attributes:
        max_top1_drop: on the choosing split without leaked rows.
        max_flip_rate: share of labels that change there, correct or not.
        max_ece_rise: of the calibration error there, each side after its own temperature.
        min_agreement: share of equal labels on training rows outside the calibration sample.
        agreement_rows: number of those rows.
        agreement_seed: seed of their draw.
    """

    max_top1_drop: float = 0.005
    max_flip_rate: float = 0.03
    max_ece_rise: float = 0.01
    min_agreement: float = 0.97
    agreement_rows: int = 10_000
    agreement_seed: int = 7

    def __post_init__(self) -> None:
        for name in ("max_top1_drop", "max_flip_rate", "max_ece_rise", "min_agreement"):
            value = getattr(self, name)
            expect(0 <= value <= 1, name, value, "a fraction, 0 to 1")
        expect(self.agreement_rows >= 1, "agreement_rows", self.agreement_rows, "1 or more")
        expect(self.agreement_seed >= 0, "agreement_seed", self.agreement_seed, "0 or more")


@dataclass(frozen=True, kw_only=True)
class SensitivityRecipe:
    """Rows of a sensitivity measurement.

    Attributes:
        rows: number of rows of the choosing split without leaked ones; all where it holds fewer.
        seed: seed of their draw.
    """

    rows: int = 1500
    seed: int = 11

    def __post_init__(self) -> None:
        expect(self.rows >= 1, "rows", self.rows, "1 or more")
        expect(self.seed >= 0, "seed", self.seed, "0 or more")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One of several ways to quantize.

    Attributes:
        name: its name in tables.
        set: its changes to the recipe, in the form of ``--set``: ``"ptq.bias_correction=true"``.
    """

    name: str
    set: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ChoiceRecipe:
    """How a candidate is selected for each form: the fewest label flips on the choosing split, within the gate.

    Attributes:
        max_ece_rise: largest rise of the calibration error over the parent's, each after its own temperature.
        agreement_rows: training rows of the comparison. The selected candidate then takes the whole gate; if it fails,
            the next one does.
    """

    max_ece_rise: float = 0.0
    agreement_rows: int = 1000

    def __post_init__(self) -> None:
        expect(0 <= self.max_ece_rise <= 1, "max_ece_rise", self.max_ece_rise, "a fraction, 0 to 1")
        expect(self.agreement_rows >= 1, "agreement_rows", self.agreement_rows, "1 or more")


@dataclass(frozen=True, kw_only=True)
class CalibrationRecipe:
    """All settings of a calibration.

    Attributes:
        forms: INT8 variants to make.
        parent: the float variant to quantize and compare with.
        method: ``"ptq"`` quantizes the parent; ``"qat"`` takes the graphs that ``fer-edge export`` made of
            quantization-aware training; ``"auto"`` takes those where the bundle has them, else quantizes. A candidate
            takes them for ``"qat"`` only.
        sample: the calibration sample.
        ptq: post-training quantization.
        overflow_fix: half-range weights, by form.
        gate: limits of the gate.
        sensitivity: rows of a sensitivity measurement.
        choice: limits that a selected candidate keeps.
        candidates: ways to quantize, compared; without any, the recipe itself is the one way.
    """

    forms: tuple[Form, ...] = FORMS
    parent: str = "fp32"
    method: Method = "auto"
    sample: SampleRecipe = field(default_factory=SampleRecipe)
    ptq: PtqRecipe = field(default_factory=PtqRecipe)
    overflow_fix: OverflowFixes = field(default_factory=OverflowFixes)
    gate: GateLimits = field(default_factory=GateLimits)
    sensitivity: SensitivityRecipe = field(default_factory=SensitivityRecipe)
    choice: ChoiceRecipe = field(default_factory=ChoiceRecipe)
    candidates: tuple[Candidate, ...] = ()

    def __post_init__(self) -> None:
        expect(len(self.forms) > 0, "forms", self.forms, f"some of {', '.join(FORMS)}")
        expect(len(set(self.forms)) == len(self.forms), "forms", self.forms, "each form once")
        expect(self.parent not in FORMS, "parent", self.parent, "a float variant")
        names = [candidate.name for candidate in self.candidates]
        expect(len(set(names)) == len(names), "candidates", names, "each name once")
        for place, candidate in enumerate(self.candidates):
            try:
                self.of_candidate(candidate)
            except (InputError, RecipeError) as error:
                raise RecipeError(f"candidates[{place}].set: {candidate.name}: {error}") from error

    def of_candidate(self, candidate: Candidate) -> CalibrationRecipe:
        """Apply a candidate's changes; the result has no candidates.

        Raises:
            RecipeError: an invalid setting.
        """
        return override(dataclasses.replace(self, candidates=()), candidate.set)
