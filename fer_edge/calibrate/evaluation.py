"""INT8 graphs evaluated in memory: the float parent and its INT8 forms on the rows of the accuracy gate."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fer_edge.calibrate.crowd_logits import CrowdLogits, crowd_logits, crowd_pairs
from fer_edge.calibrate.gate import GateReport, GateRows, check_gate
from fer_edge.calibrate.int8_variants import Int8Graphs
from fer_edge.calibrate.ptq import NNCF_VERSION
from fer_edge.calibrate.recipe import CalibrationRecipe
from fer_edge.core.bundle import Bundle
from fer_edge.core.evaluate import StillOutputs, evaluate
from fer_edge.core.json import encode
from fer_edge.core.manifest import CrowdHead, Variant
from fer_edge.core.metrics import (
    AccuracyReport,
    PairedReport,
    accuracy_report,
    expected_calibration_error,
    fit_temperature,
    paired_report,
    softmax,
)
from fer_edge.core.preprocess import prepare_stills
from fer_edge.core.types import Float32, Int64, Progress, Uint8
from fer_edge.data.dataset import Dataset, StillSet
from fer_edge.graph.cost import graph_file
from fer_edge.graph.graph import Graph
from fer_edge.graph.weight_compression import STORAGE
from fer_edge.runtime.inference import Network
from fer_edge.runtime.providers import open_session
from fer_edge.runtime.session import Session

__all__ = ["Evaluated", "Evaluation", "FloatParent", "VariantLogits"]


@dataclass(frozen=True, kw_only=True, eq=False)
class FloatParent:
    """The float variant that is quantized.

    Attributes:
        bundle: the bundle that holds it.
        variant: its entry in the manifest.
    """

    bundle: Bundle
    variant: Variant
    threads: int = 1
    progress: Progress | None = None

    @classmethod
    def open(
        cls, bundle: Bundle, dataset: Dataset, recipe: CalibrationRecipe, *, threads: int, progress: Progress | None
    ) -> FloatParent:
        """Select the recipe's parent.

        Raises:
            InputError: the bundle's labels are not the data set's.
            BundleError: the bundle has no such parent.
        """
        dataset.expect_expressions(bundle.manifest.labels, of=f"the bundle {bundle.manifest.name}")
        return cls(bundle=bundle, variant=bundle.variant(recipe.parent), threads=threads, progress=progress)

    @cached_property
    def encoder(self) -> Graph:
        """`frames` -> `features`, `attention`; copy it before an edit."""
        return Graph.read(self.bundle.read_graph(self.variant.encoder), name=f"the {self.variant.name} encoder")

    @cached_property
    def head(self) -> Graph:
        """`features`, `length` -> `logits`, `attention`; copy it before an edit."""
        return Graph.read(self.head_bytes, name=f"the {self.variant.name} head")

    @cached_property
    def crowd(self) -> Graph | None:
        """The head `crowd`, or None where the variant has none; copy it before an edit."""
        head = self.variant.crowd
        return None if head is None else Graph.read(self.bundle.read_graph(head.graph), name="the head crowd")

    @property
    def head_bytes(self) -> bytes:
        """The head's ONNX file."""
        return self.bundle.read_graph(self.variant.head)

    def frames(self, stills: StillSet) -> Uint8:
        """Prepare stills as the bundle requires: uint8 (N, S, S)."""
        return prepare_stills(stills.images, self.bundle.manifest.preprocess)

    @contextlib.contextmanager
    def network(self, graphs: Int8Graphs | None = None) -> Iterator[Network]:
        """Open ONNX Runtime on the CPU on an INT8 form's graphs, from memory; on the parent's own without them.

        Raises:
            SessionError: ONNX Runtime refuses a graph.
        """
        if graphs is None:
            with Network.open(self.bundle, variant=self.variant.name, provider="cpu", threads=self.threads) as network:
                yield network
            return
        variant = dataclasses.replace(self.variant, name=graphs.form, precision="int8")
        with (
            open_session(graphs.encoder, threads=self.threads) as encoder,
            open_session(graphs.head, threads=self.threads) as head,
        ):
            yield Network(bundle=self.bundle, variant=variant, encoder=encoder, head=head)

    def crowd_session(self, graphs: Int8Graphs | None = None) -> Session | None:
        """Open the head `crowd` of an INT8 form, or the parent's own without them; None where there is none.

        Raises:
            SessionError: ONNX Runtime refuses the graph.
        """
        head = self.variant.crowd
        if head is None:
            return None
        data = self.bundle.read_graph(head.graph) if graphs is None else graphs.crowd
        return None if data is None else open_session(data, threads=self.threads)

    def told(self, what: str) -> Any:
        """Progress of one evaluation: a function of (done, total), or None."""
        progress = self.progress
        return None if progress is None else lambda done, total: progress(what, done, total)


@dataclass(frozen=True, kw_only=True, eq=False)
class VariantLogits:
    """Logits of one variant on the gate's rows, before temperature.

    Attributes:
        by_window: window T -> float32 (N, C) on the choosing split, each still repeated T times.
        outside: float32 (M, C) at T = 1 on the training rows outside the sample.
        temperature: fitted at T = 1 on the choosing split without leaked rows.
        accuracy: on the choosing split at T = 1, with that temperature.
        crowd: of the head `crowd`; None where the variant has none.
    """

    by_window: Mapping[int, Float32]
    outside: Float32
    temperature: float
    accuracy: AccuracyReport
    crowd: CrowdLogits | None = None

    def difference(self, other: VariantLogits, *, against: str) -> dict[str, Any]:
        """Largest and mean absolute difference over all rows; `against` names this variant."""
        mine, others = (np.concatenate([*each.by_window.values(), each.outside]) for each in (self, other))
        difference = np.abs(mine.astype(np.float64) - others)
        return {
            "against": against,
            "max_abs_logit_diff": float(difference.max()),
            "mean_abs_logit_diff": float(difference.mean()),
            "rows": len(difference),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluated:
    """One INT8 form with its figures.

    Attributes:
        variant: its entry for the manifest.
        graphs: its ONNX files.
        gate: verdict of the gate.
        logits: on the gate's rows.
    """

    variant: Variant
    graphs: Int8Graphs
    gate: GateReport
    logits: VariantLogits


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """The gate's rows with the parent's logits on them.

    Attributes:
        source: the parent.
        rows: the rows.
        reference: the parent's logits.
    """

    source: FloatParent
    rows: GateRows
    reference: VariantLogits

    @classmethod
    def of(cls, source: FloatParent, rows: GateRows) -> Evaluation:
        """Run the parent.

        Raises:
            InputError: images that the bundle's preprocessing refuses.
            SessionError: ONNX Runtime refuses a graph or failed.
        """
        with source.network() as network:
            return cls(source=source, rows=rows, reference=_logits(network, source, rows, source.crowd_session()))

    @property
    def parent(self) -> Variant:
        """The float variant, with the accuracy and temperature measured now."""
        return _measured(self.source.variant, self.reference)

    def judge(self, graphs: Int8Graphs, recipe: CalibrationRecipe) -> Evaluated:
        """Run a form on the gate's rows and compare it with the parent.

        Args:
            graphs: the form.
            recipe: how it was made, and the gate's limits.

        Raises:
            SessionError: ONNX Runtime refuses a graph or failed.
        """
        with self.source.network(graphs) as network:
            logits = _logits(network, self.source, self.rows, self.source.crowd_session(graphs))
        gate = self._gate(logits, recipe)
        variant = dataclasses.replace(
            _measured(_entry(self.source, graphs), logits),
            parent=self.source.variant.name,
            how_made={**_how_made(graphs, recipe), "gate": gate.to_json()},
            parity=self.reference.difference(logits, against=recipe.parent),
        )
        return Evaluated(variant=variant, graphs=graphs, gate=gate, logits=logits)

    def top1(self, logits: VariantLogits) -> float:
        """Share of correct labels on the choosing split without leaked rows, at T = 1."""
        kept = ~self.rows.leaked
        return float((logits.by_window[1][kept].argmax(axis=1) == self.rows.labels[kept]).mean())

    def ece(self, logits: VariantLogits) -> float:
        """Calibration error on the same rows, after the variant's own temperature."""
        kept = ~self.rows.leaked
        probabilities = softmax(logits.by_window[1][kept], temperature=logits.temperature)
        return expected_calibration_error(probabilities, self.rows.labels[kept])

    def on_fewer(self, count: int) -> Evaluation:
        """The same evaluation on `count` of its training rows, spread over all of them."""
        outside = self.rows.outside
        last = len(outside.stills) - 1
        index = np.unique(np.linspace(0, last, min(count, last + 1)).round().astype(int))
        few = dataclasses.replace(outside, stills=outside.stills.subset(index))
        crowd = self.reference.crowd
        if crowd is not None:
            crowd = dataclasses.replace(crowd, outside=crowd.outside[index])
        return dataclasses.replace(
            self,
            rows=dataclasses.replace(self.rows, outside=few),
            reference=dataclasses.replace(self.reference, outside=self.reference.outside[index], crowd=crowd),
        )

    def _gate(self, logits: VariantLogits, recipe: CalibrationRecipe) -> GateReport:
        rows, train, kept = self.rows, self.rows.outside.stills, ~self.rows.leaked

        def paired(before: Float32, after: Float32, labels: Int64) -> PairedReport:
            return paired_report(
                softmax(before, temperature=self.reference.temperature),
                softmax(after, temperature=logits.temperature),
                labels,
            )

        choosing = {
            f"{rows.choose}, T = {window}, without leaked rows": paired(
                before[kept], logits.by_window[window][kept], rows.labels[kept]
            )
            for window, before in self.reference.by_window.items()
        }
        where = f"{len(train):,} rows of {train.name} outside the sample, T = 1"
        agreement = {where: paired(self.reference.outside, logits.outside, train.labels)}
        if self.reference.crowd is not None and logits.crowd is not None:
            windows, outside = crowd_pairs(self.reference.crowd, logits.crowd, rows)
            choosing |= {f"{rows.choose}, T = {T}, without leaked rows, crowd": each for T, each in windows.items()}
            agreement = {f"{where}, crowd": outside, **agreement}
        return check_gate(choosing, agreement, recipe.gate)


def _logits(network: Network, source: FloatParent, rows: GateRows, crowd: Session | None) -> VariantLogits:
    """Run a variant on the gate's rows, its head `crowd` on the same features.

    The choosing split also at the full window: at T = 1 no LSTM of the head reads its own output.
    """
    manifest, name = source.bundle.manifest, network.variant.name

    def run(images: Uint8, windows: list[int], what: str) -> StillOutputs:
        report = source.told(f"{name} on {what}")
        return evaluate(network, images, manifest.preprocess, windows=windows, progress=report)

    choosing = run(rows.images, sorted({1, network.window}), rows.choose)
    outside = run(rows.outside.stills.images, [1], f"{rows.outside.stills.name} outside the sample")
    by_window, people = choosing.by_window, None
    if crowd is not None and source.variant.crowd is not None:
        with crowd:
            people = crowd_logits(crowd, source.variant.crowd, rows, choosing=choosing, outside=outside)
    temperature = fit_temperature(by_window[1][~rows.leaked], rows.labels[~rows.leaked])
    accuracy = accuracy_report(
        softmax(by_window[1], temperature=temperature),
        rows.labels,
        dataset=rows.dataset,
        split=rows.choose,
        leaked=rows.leaked,
        classes=manifest.labels,
    )
    return VariantLogits(
        by_window=by_window, outside=outside.by_window[1], temperature=temperature, accuracy=accuracy, crowd=people
    )


def _how_made(graphs: Int8Graphs, recipe: CalibrationRecipe) -> dict[str, Any]:
    record = encode(dataclasses.replace(recipe, candidates=()))
    if graphs.qat is not None:
        return {**graphs.qat.how_made, "calibration_recipe": record}
    return {
        "method": "post-training quantization of the encoder; sequence weights stored as int8, computed in float",
        "nncf": NNCF_VERSION,
        "overflow_fix": recipe.overflow_fix.of(graphs.form),
        "weight_storage": STORAGE[graphs.form],
        "recipe": record,
    }


def _entry(source: FloatParent, graphs: Int8Graphs) -> Variant:
    """The form's entry for the manifest, without parent and measurements."""
    window = source.bundle.manifest.sequence.window
    return Variant(
        name=graphs.form,
        precision="int8",
        encoder=graph_file(graphs.encoder, dimensions={"N": 1}, name=f"the {graphs.form} encoder"),
        head=graph_file(graphs.head, dimensions={"B": 1, "T": window}, name=f"the {graphs.form} head"),
        crowd=_crowd_entry(source, graphs),
        unknown_threshold=source.variant.unknown_threshold,
    )


def _crowd_entry(source: FloatParent, graphs: Int8Graphs) -> CrowdHead | None:
    head, window = source.variant.crowd, source.bundle.manifest.sequence.window
    if head is None or graphs.crowd is None:
        return None
    graph = graph_file(graphs.crowd, dimensions={"B": 1, "T": window}, name=f"the {graphs.form} head crowd")
    return dataclasses.replace(head, graph=graph, metrics={})


def _measured(variant: Variant, logits: VariantLogits) -> Variant:
    metrics = {**variant.metrics, logits.accuracy.split: logits.accuracy}
    crowd = variant.crowd
    if crowd is not None and logits.crowd is not None:
        crowd = logits.crowd.measured(crowd, split=logits.accuracy.split)
    return dataclasses.replace(variant, temperature=logits.temperature, metrics=metrics, crowd=crowd)
