"""What a calibration is told: one frozen record, read from a TOML recipe and written into the bundle."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from fer_edge.core.errors import InputError
from fer_edge.core.int8_forms import FORMS, Form
from fer_edge.core.json import expect
from fer_edge.core.recipes import override
from fer_edge.data.sampling import SampleChoice, SampleRecipe

__all__ = [
    "FORMS",
    "CalibrationRecipe",
    "Candidate",
    "ChoiceRecipe",
    "ChoiceRule",
    "Form",
    "GateLimits",
    "HalfRange",
    "LstmStorage",
    "Method",
    "MixedRecipe",
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
LstmStorage: TypeAlias = Literal["weights", "float", "projection"]
ChoiceRule: TypeAlias = Literal[
    "fewest-flips-within-gate", "best-top1-within-gate", "least-ece-within-gate", "smallest-within-gate"
]


@dataclass(frozen=True, kw_only=True)
class PtqRecipe:
    """NNCF's post-training quantization of the encoder.

    Attributes:
        preset: ``"performance"`` keeps every zero point at 0; ``"mixed"`` gives signed activations one, which
            ``"int8-trt"`` cannot have.
        activation_range: the range with the least error on a histogram of the values, the mean or the extremes of
            the batches' ranges, or the mean of their 0.01st and 99.99th percentiles.
        batch: faces a batch.
        bias_correction: shift biases by the mean error that quantization brings (NNCF's fast algorithm).
        smooth_quant: SmoothQuant's alpha for convolutions (0 to 1), which adds a Mul before some of them; none leaves
            it out.
        float_types: operator types that stay float.
        float_nodes: further nodes that stay float: by name, by layer (``cnn.3``, ``cnn.3.0``), or by a regular
            expression after ``re:``.
        lstm: what becomes of the encoder's LSTM: weights stored as int8 and computed in float; float altogether; or
            its input's product for all steps hoisted out of the loop and quantized like a convolution, the recurrent
            part float.
        round_map: the map that the regions' means are taken of is rounded to 8 bits, so that the convolution or sum
            which makes it is computed in 8 bits to its end; the means stay float.
    """

    preset: Literal["performance", "mixed"] = "performance"
    activation_range: PtqRange = "histogram"
    batch: int = 64
    bias_correction: bool = False
    smooth_quant: float | None = None
    float_types: tuple[str, ...] = ("MatMul", "Mul", "Softmax", "ReduceSum")
    float_nodes: tuple[str, ...] = ()
    lstm: LstmStorage = "weights"
    round_map: bool = True

    def __post_init__(self) -> None:
        expect(self.batch >= 1, "batch", self.batch, "1 or more")
        smooth = self.smooth_quant is None or 0 <= self.smooth_quant <= 1
        expect(smooth, "smooth_quant", self.smooth_quant, "0 to 1, or nothing")


@dataclass(frozen=True, kw_only=True)
class OverflowFixes:
    """Whether weights use half of the 8-bit range, so that two products fit into 16 bits; by form.

    x86 processors without VNNI multiply 8-bit numbers pairwise into 16 bits and saturate there.

    Attributes:
        int8: for ONNX Runtime and OpenVINO.
        int8_trt: for TensorRT, whose tensor cores add up in 32 bits.
    """

    int8: HalfRange = "enable"
    int8_trt: HalfRange = "disable"

    def of(self, form: Form) -> HalfRange:
        """The setting of one form."""
        return self.int8 if form == "int8" else self.int8_trt


@dataclass(frozen=True, kw_only=True)
class GateLimits:
    """What an INT8 form may lose against its parent; rates are fractions.

    Attributes:
        max_top1_drop: on the choosing split without leaked rows.
        max_flip_rate: labels that change there, right or wrong.
        max_ece_rise: of the calibration error there, after each side's own temperature.
        min_agreement: of labels on training rows outside the calibration sample.
        agreement_rows: how many of those.
        agreement_seed: of their draw.
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
    """How the cost of each layer alone is measured.

    Attributes:
        rows: of the choosing split without leaked rows; all of them where it holds no more.
        seed: of their draw.
    """

    rows: int = 1500
    seed: int = 11

    def __post_init__(self) -> None:
        expect(self.rows >= 1, "rows", self.rows, "1 or more")
        expect(self.seed >= 0, "seed", self.seed, "0 or more")


@dataclass(frozen=True, kw_only=True)
class MixedRecipe:
    """What is tried where a form does not pass the gate: float layers, chosen by what they cost.

    Attributes:
        method: ``"none"`` leaves the failure a failure. ``"sensitivity"`` leaves float the layer that costs most when
            quantized alone, then the two that do, and so on. ``"accuracy-control"`` is NNCF's own search, which takes
            out of the quantized graph what gains most.
        max_layers: at most so many are left float (with accuracy control: so many groups of layers).
    """

    method: Literal["none", "sensitivity", "accuracy-control"] = "none"
    max_layers: int = 4

    def __post_init__(self) -> None:
        expect(self.max_layers >= 1, "max_layers", self.max_layers, "1 or more")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One of several ways to quantize.

    Attributes:
        name: what tables call it.
        set: what it changes in the recipe, as ``--set`` takes it: ``"ptq.bias_correction=true"``.
    """

    name: str
    set: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ChoiceRecipe:
    """By what rule one of the candidates is shipped, form by form. Everything is measured on the choosing split.

    Attributes:
        rule: what is best, among the candidates that pass the gate. Of equal ones the one with fewer flips is taken,
            then the earlier one.
        max_ece_rise: how much worse than the parent's a candidate's calibration error may be, each after its own
            temperature; 0: not at all.
        agreement_rows: training rows for the comparison's agreement. The candidate that is chosen goes through the
            whole gate afterwards, and if it fails there, the next.
    """

    rule: ChoiceRule = "fewest-flips-within-gate"
    max_ece_rise: float = 0.0
    agreement_rows: int = 1000

    def __post_init__(self) -> None:
        expect(0 <= self.max_ece_rise <= 1, "max_ece_rise", self.max_ece_rise, "a fraction, 0 to 1")
        expect(self.agreement_rows >= 1, "agreement_rows", self.agreement_rows, "1 or more")


@dataclass(frozen=True, kw_only=True)
class CalibrationRecipe:
    """Everything a calibration is told.

    Attributes:
        forms: INT8 variants to make.
        parent: the float variant they are made from and measured against.
        method: ``"ptq"`` quantizes the parent; ``"qat"`` takes the graphs that ``fer-edge export`` made of a run of
            quantization-aware training; ``"auto"`` takes those where the bundle holds them, and quantizes where not.
            A candidate takes them for ``"qat"`` alone.
        sample: the calibration sample.
        ptq: how the encoder is quantized.
        overflow_fix: half-range weights, by form.
        gate: what may be lost.
        sensitivity: how layers are measured alone.
        mixed: what is tried where the gate is not passed.
        choice: by what rule one of the candidates is taken.
        candidates: ways to quantize, compared; without any, the recipe is the one way.
    """

    forms: tuple[Form, ...] = FORMS
    parent: str = "fp32"
    method: Method = "auto"
    sample: SampleRecipe = field(default_factory=SampleRecipe)
    ptq: PtqRecipe = field(default_factory=PtqRecipe)
    overflow_fix: OverflowFixes = field(default_factory=OverflowFixes)
    gate: GateLimits = field(default_factory=GateLimits)
    sensitivity: SensitivityRecipe = field(default_factory=SensitivityRecipe)
    mixed: MixedRecipe = field(default_factory=MixedRecipe)
    choice: ChoiceRecipe = field(default_factory=ChoiceRecipe)
    candidates: tuple[Candidate, ...] = ()

    def __post_init__(self) -> None:
        expect(len(self.forms) > 0, "forms", self.forms, f"some of {', '.join(FORMS)}")
        expect(len(set(self.forms)) == len(self.forms), "forms", self.forms, "each form once")
        expect(self.parent not in FORMS, "parent", self.parent, "a float variant")
        if "int8-trt" in self.forms and self.ptq.preset == "mixed":
            raise InputError(
                'ptq.preset: got "mixed", which gives activations a zero point; expected "performance" for the form '
                '"int8-trt", since TensorRT takes symmetric INT8 only'
            )
        names = [candidate.name for candidate in self.candidates]
        expect(len(set(names)) == len(names), "candidates", names, "each name once")
        for place, candidate in enumerate(self.candidates):
            try:
                changed = self.of_candidate(candidate)
            except InputError as error:
                raise InputError(f"candidates[{place}].set: {candidate.name}: {error}") from error
            searched = changed.mixed.method
            expect(searched == "none", "mixed.method", searched, '"none" beside candidates; name float layers in one')

    def of_candidate(self, candidate: Candidate) -> CalibrationRecipe:
        """This recipe with what the candidate changes, and without candidates.

        Raises:
            InputError: a setting that does not fit.
        """
        return override(dataclasses.replace(self, candidates=()), candidate.set)
