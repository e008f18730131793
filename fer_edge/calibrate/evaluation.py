"""INT8 candidates evaluated on the rows of the accuracy gate."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from fer_edge.calibrate.gate import GateReport, check_gate
from fer_edge.calibrate.int8_variants import FormGraphs
from fer_edge.calibrate.ptq import NNCF_VERSION
from fer_edge.calibrate.recipe import CalibrationRecipe, GateLimits, LstmStorage
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import InputError
from fer_edge.core.evaluate import evaluate, evaluate_windows
from fer_edge.core.json import encode
from fer_edge.core.manifest import Variant
from fer_edge.core.metrics import AccuracyReport, PairedReport, accuracy_report, fit_temperature, paired_report, softmax
from fer_edge.core.preprocess import prepare_stills
from fer_edge.core.types import Float32, Int64, Progress, Uint8
from fer_edge.data.dataset import Dataset, StillSet
from fer_edge.data.sampling import RowSample, draw_sample
from fer_edge.data.statistics import leaked_rows
from fer_edge.graph.cost import graph_file
from fer_edge.graph.graph import load_graph
from fer_edge.graph.weight_compression import STORAGE
from fer_edge.runtime.inference import Network

__all__ = [
    "FloatParts",
    "FormOutcome",
    "GateRows",
    "LogitDifference",
    "RowSample",
    "Trial",
    "VariantLogits",
    "compare",
    "draw_agreement_rows",
    "draw_sample",
    "logit_difference",
    "open_parts",
    "run_variant",
    "sample_of",
    "trial_bundle",
]

Logits = Float32


@dataclass(frozen=True, kw_only=True, eq=False)
class GateRows:
    """The rows that the gate looks at.

    Attributes:
        dataset: the data set's name.
        choose: the choosing split's name.
        images: uint8 (N, H, W) of that split.
        labels: int64 (N,).
        leaked: bool (N,), True where the pixels also stand in the training split.
        outside: training rows outside the calibration sample.
    """

    dataset: str
    choose: str
    images: Uint8
    labels: Int64
    leaked: NDArray[np.bool_]
    outside: RowSample

    @property
    def kept(self) -> StillSet:
        """The choosing split without leaked rows; `rows` are positions in it."""
        index = np.flatnonzero(~self.leaked).astype(np.int64)
        return StillSet(name=self.choose, images=self.images[index], labels=self.labels[index], rows=index)

    @classmethod
    def of(cls, dataset: Dataset, outside: RowSample) -> GateRows:
        """The choosing split of `dataset` beside `outside`.

        Raises:
            InputError: there is no such split, or every row of it is leaked.
        """
        split = dataset.split("choose")
        leaked = leaked_rows(dataset, split)
        if leaked.all():
            raise InputError(
                f"{dataset.source}: {int(leaked.sum()):,} of the {len(split):,} rows of {split.name} also stand in the "
                "training split, so none is left to choose on"
            )
        return cls(
            dataset=dataset.name,
            choose=split.name,
            images=split.images,
            labels=split.labels,
            leaked=leaked,
            outside=outside,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class VariantLogits:
    """One variant on the gate's rows, before temperature.

    Attributes:
        by_window: window T -> float32 (N, C) on the choosing split, each still repeated T times.
        outside: float32 (M, C) at T = 1 on the training rows outside the sample.
        temperature: fitted at T = 1 on the choosing split without leaked rows.
        accuracy: on the choosing split at T = 1, with that temperature.
    """

    by_window: Mapping[int, Logits]
    outside: Logits
    temperature: float
    accuracy: AccuracyReport

    @property
    def every_logit(self) -> Logits:
        """All logits in a row, float32 (R, C)."""
        return np.concatenate([*self.by_window.values(), self.outside])


@dataclass(frozen=True, kw_only=True)
class LogitDifference:
    """How far two variants' logits lie apart, before temperature.

    Attributes:
        against: the variant compared with.
        max_abs_logit_diff: largest absolute difference.
        mean_abs_logit_diff: mean absolute difference.
        rows: rows of logits compared.
    """

    against: str
    max_abs_logit_diff: float
    mean_abs_logit_diff: float
    rows: int


def run_variant(
    bundle: Bundle,
    variant: str,
    rows: GateRows,
    *,
    threads: int = 1,
    progress: Progress | None = None,
) -> VariantLogits:
    """Run a variant on the gate's rows, in ONNX Runtime on the CPU.

    A single still never feeds an LSTM its own output back, so the choosing split is run at the full window as well.

    Raises:
        InputError: images that the bundle's preprocessing refuses.
        SessionError: the engine refuses a graph or failed.
    """
    spec = bundle.manifest.preprocess

    def outputs(images: Uint8, windows: list[int], what: str) -> Mapping[int, Logits]:
        def report(done: int, total: int) -> None:
            if progress is not None:
                progress(f"{variant} on {what}", done, total)

        return evaluate_windows(network, images, spec, windows=windows, progress=report).by_window

    with Network.open(bundle, variant=variant, provider="cpu", threads=threads) as network:
        by_window = outputs(rows.images, sorted({1, network.window}), rows.choose)
        outside = outputs(rows.outside.stills.images, [1], f"{rows.outside.stills.name} outside the sample")[1]
    temperature = fit_temperature(by_window[1][~rows.leaked], rows.labels[~rows.leaked])
    return VariantLogits(
        by_window=by_window,
        outside=outside,
        temperature=temperature,
        accuracy=accuracy_report(
            softmax(by_window[1], temperature=temperature),
            rows.labels,
            dataset=rows.dataset,
            split=rows.choose,
            leaked=rows.leaked,
            classes=bundle.manifest.labels,
        ),
    )


def compare(reference: VariantLogits, other: VariantLogits, rows: GateRows, limits: GateLimits) -> GateReport:
    """Hold one form against its parent."""
    kept = ~rows.leaked

    def paired(first: Logits, second: Logits, labels: Int64) -> PairedReport:
        return paired_report(
            softmax(first, temperature=reference.temperature), softmax(second, temperature=other.temperature), labels
        )

    choosing = {
        f"{_where(rows.choose, window)}, without leaked rows": paired(
            logits[kept], other.by_window[window][kept], rows.labels[kept]
        )
        for window, logits in reference.by_window.items()
    }
    train = rows.outside.stills
    outside = {
        f"{len(train):,} rows of {train.name} outside the sample, T = 1": paired(
            reference.outside, other.outside, train.labels
        )
    }
    return check_gate(choosing, outside, limits)


def logit_difference(reference: VariantLogits, other: VariantLogits, *, against: str) -> LogitDifference:
    """How far all logits of the gate's rows lie apart; `against` is the reference's name."""
    difference = np.abs(reference.every_logit.astype(np.float64) - other.every_logit)
    return LogitDifference(
        against=against,
        max_abs_logit_diff=float(difference.max()),
        mean_abs_logit_diff=float(difference.mean()),
        rows=len(difference),
    )


def _where(split: str, window: int) -> str:
    return f"{split}, T = {window}"


_SEQUENCE: Final[dict[LstmStorage, str]] = {
    "weights": "sequence weights stored as int8, computed in float",
    "float": "the encoder's LSTM float, other sequence weights stored as int8, computed in float",
    "projection": "the product of its LSTM's input too; other sequence weights stored as int8, computed in float",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class FormOutcome:
    """One INT8 form, made and measured.

    Attributes:
        variant: what the manifest will say of it.
        graphs: its ONNX files.
        gate: its verdict.
        logits: on the gate's rows.
    """

    variant: Variant
    graphs: FormGraphs
    gate: GateReport
    logits: VariantLogits


@dataclass(frozen=True, kw_only=True, eq=False)
class FloatParts:
    """What is quantized: a bundle's float variant, opened.

    Attributes:
        bundle: it is of.
        variant: the parent of the forms.
        encoder: `frames` -> `features`, `attention`.
        head: `features`, `length` -> `logits`, `attention`.
    """

    bundle: Bundle
    variant: Variant
    encoder: ModelProto
    head: ModelProto

    @classmethod
    def of(cls, bundle: Bundle, name: str) -> FloatParts:
        """The variant called `name`.

        Raises:
            BundleError: the bundle has no such variant or is damaged.
            InputError: a graph that is none.
        """
        variant = bundle.variant(name)
        encoder, head = (
            load_graph(bundle.read_graph(file), name=f"the {name} {part}")
            for file, part in ((variant.encoder, "encoder"), (variant.head, "head"))
        )
        return cls(bundle=bundle, variant=variant, encoder=encoder, head=head)

    def frames(self, stills: StillSet) -> Uint8:
        """uint8 (N, S, S): the stills, prepared as the bundle says."""
        return prepare_stills(stills.images, self.bundle.manifest.preprocess)


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """The gate's rows with the parent's logits on them.

    Attributes:
        parts: the parent.
        rows: what the gate looks at.
        reference: the parent on them.
        threads: of each run.
        progress: called with (what, done, total).
    """

    parts: FloatParts
    rows: GateRows
    reference: VariantLogits
    threads: int
    progress: Progress | None

    @classmethod
    def of(cls, parts: FloatParts, rows: GateRows, *, threads: int, progress: Progress | None) -> Trial:
        """Run the parent.

        Raises:
            InputError, SessionError: as `run_variant`.
        """
        reference = run_variant(parts.bundle, parts.variant.name, rows, threads=threads, progress=progress)
        return cls(parts=parts, rows=rows, reference=reference, threads=threads, progress=progress)

    @property
    def parent(self) -> Variant:
        """The float variant, with the accuracy and temperature measured now."""
        return _measured(self.parts.variant, self.reference)

    def judge(
        self, graphs: FormGraphs, recipe: CalibrationRecipe, *, mixed: Mapping[str, Any] | None = None
    ) -> FormOutcome:
        """Run a form on the gate's rows and hold it against the parent.

        Args:
            graphs: the form.
            recipe: by which it was made, and the gate's limits.
            mixed: how it was decided which layers stay float, for the manifest.

        Raises:
            SessionError: ONNX Runtime refuses a graph or failed.
        """
        with trial_bundle(self.parts, graphs, recipe) as bundle:
            draft = bundle.variant(graphs.form)
            logits = run_variant(bundle, graphs.form, self.rows, threads=self.threads, progress=self.progress)
        gate = compare(self.reference, logits, self.rows, recipe.gate)
        how_made = {**_how_made(graphs, recipe), "gate": gate.to_json()}
        if mixed is not None:
            how_made["mixed"] = dict(mixed)
        parity = encode(logit_difference(self.reference, logits, against=recipe.parent))
        variant = dataclasses.replace(
            _measured(draft, logits), parent=self.parts.variant.name, how_made=how_made, parity=parity
        )
        return FormOutcome(variant=variant, graphs=graphs, gate=gate, logits=logits)


@contextlib.contextmanager
def trial_bundle(parts: FloatParts, graphs: FormGraphs, recipe: CalibrationRecipe) -> Iterator[Bundle]:
    """A bundle of one form, while the block runs."""
    manifest = dataclasses.replace(parts.bundle.manifest, variants=(_draft(parts, graphs, recipe),))
    with tempfile.TemporaryDirectory(prefix="fer-edge-") as folder:
        yield Bundle.create(Path(folder) / "trial", manifest, graphs.by_sha256)


def open_parts(bundle: Bundle, dataset: Dataset, recipe: CalibrationRecipe) -> FloatParts:
    """The recipe's parent, if its labels are the data set's.

    Raises:
        InputError: other labels, or a graph that is none.
        BundleError: the bundle has no such parent or is damaged.
    """
    parts = FloatParts.of(bundle, recipe.parent)
    dataset.expect_expressions(bundle.manifest.labels, of=f"the bundle {bundle.manifest.name}")
    return parts


def sample_of(
    parts: FloatParts, dataset: Dataset, recipe: CalibrationRecipe, *, threads: int, progress: Progress | None
) -> RowSample:
    """The recipe's calibration sample.

    Raises:
        InputError: as `draw_sample`.
    """
    return draw_sample(
        dataset,
        size=recipe.sample.size,
        seed=recipe.sample.seed,
        choice=recipe.sample.choice,
        margins=lambda stills: _label_margins(parts, stills, threads=threads, progress=progress),
    )


def _label_margins(parts: FloatParts, stills: StillSet, *, threads: int, progress: Progress | None) -> Float32:
    """float32 (N,): how far the parent's best logit lies above its second best."""

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress(f"{parts.variant.name} on rows to choose from", done, total)

    with Network.open(parts.bundle, variant=parts.variant.name, provider="cpu", threads=threads) as network:
        logits = evaluate(network, stills.images, parts.bundle.manifest.preprocess, progress=report)
    best = np.sort(logits, axis=1)
    return best[:, -1] - best[:, -2]


def _how_made(graphs: FormGraphs, recipe: CalibrationRecipe) -> dict[str, Any]:
    told = encode(dataclasses.replace(recipe, candidates=()))
    if graphs.learnt is not None:
        return {**graphs.learnt.how_made, "calibration_recipe": told}
    return {
        "method": f"post-training quantization of the encoder; {_SEQUENCE[recipe.ptq.lstm]}",
        "nncf": NNCF_VERSION,
        "overflow_fix": recipe.overflow_fix.of(graphs.form),
        "weight_storage": STORAGE[graphs.form],
        "recipe": told,
    }


def _draft(parts: FloatParts, graphs: FormGraphs, recipe: CalibrationRecipe) -> Variant:
    """The variant, but for its parent and what is yet to be measured."""
    window = parts.bundle.manifest.sequence.window
    written_out = recipe.ptq.lstm == "projection" and graphs.learnt is None
    encoder = graph_file(
        graphs.encoder, dimensions=None if written_out else {"N": 1}, name=f"the {graphs.form} encoder"
    )
    if written_out:  # its loop's body is not counted, and it is the same network
        known = parts.variant.encoder
        encoder = dataclasses.replace(encoder, parameters=known.parameters, macs=known.macs)
    return Variant(
        name=graphs.form,
        precision="int8",
        encoder=encoder,
        head=graph_file(graphs.head, dimensions={"B": 1, "T": window}, name=f"the {graphs.form} head"),
        unknown_threshold=parts.variant.unknown_threshold,
    )


def _measured(variant: Variant, logits: VariantLogits) -> Variant:
    metrics = {**variant.metrics, logits.accuracy.split: logits.accuracy}
    return dataclasses.replace(variant, temperature=logits.temperature, metrics=metrics)


def draw_agreement_rows(dataset: Dataset, *samples: RowSample, size: int, seed: int) -> RowSample:
    """Draw training rows none of whose images stands in a sample, pixel for pixel.

    Raises:
        InputError: fewer such rows are left.
    """
    train = dataset.split("train")
    known = {image.tobytes() for sample in samples for image in sample.stills.images}
    outside = np.flatnonzero([image.tobytes() not in known for image in train.images])
    if size > len(outside):
        raise InputError(
            f"{dataset.source}: {len(outside):,} rows of {train.name} lie outside the calibration sample, fewer than "
            f"the {size:,} to compare labels on; give --set gate.agreement_rows={max(1, len(outside))}"
        )
    random = np.random.default_rng(seed)
    rows = train.subset(np.sort(random.choice(outside, size, replace=False)))
    return RowSample(dataset=dataset.name, dataset_sha256=dataset.sha256, seed=seed, stills=rows)
