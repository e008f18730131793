"""Forms on trial: each in a bundle like the one that would be written, run on the gate's rows and judged."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from onnx import ModelProto

from fer_edge.calibrate.forms import FormGraphs
from fer_edge.calibrate.gate import GateReport
from fer_edge.calibrate.measure import GateRows, VariantLogits, compare, logit_difference, run_variant
from fer_edge.calibrate.ptq import NNCF_VERSION
from fer_edge.calibrate.recipe import CalibrationRecipe, LstmStorage
from fer_edge.calibrate.sample import RowSample, draw_sample
from fer_edge.core.bundle import Bundle
from fer_edge.core.json import encode
from fer_edge.core.manifest import Variant
from fer_edge.core.preprocess import prepare_stills
from fer_edge.core.types import Float32, Progress, Uint8
from fer_edge.data.stills import Dataset, StillSet
from fer_edge.graph.info import graph_file
from fer_edge.graph.int8_storage import STORAGE
from fer_edge.graph.load import load_graph
from fer_edge.runtime.evaluate import evaluate
from fer_edge.runtime.inference import Network

__all__ = ["FloatParts", "FormOutcome", "Trial", "open_parts", "sample_of", "trial_bundle"]

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
